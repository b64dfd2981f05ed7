"""``proverom sweep`` and ``proverom sweeps …``."""

from __future__ import annotations

import contextlib
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli_output import (
    DONE,
    FAILED,
    INTERRUPTED,
    WRONG_USE,
    As,
    AsJson,
    Limit,
    duration,
    facts,
    fail,
    lab,
    local,
    name_of,
    number,
    seconds,
    show,
    shown,
    table,
)
from hub.cli_runs import Agency, Experiment, TimeLimit, agency_meant, cancelled, report_kind, save

if TYPE_CHECKING:
    from hub.client import Client

sweeps = typer.Typer(no_args_is_help=True, help="Sweeps: list, show, report, cancel, resume.")

SweepId = Annotated[str, typer.Argument(metavar="SWEEP", help="The sweep's id.")]


def sweep(
    template: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATE[@VERSION]", help="The template, its newest published version unless one is named."
        ),
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=A,B,C",
            help="Values of a parameter, with commas between (or semicolons, where a value has a comma). One alone "
            "holds for every run.",
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid", metavar="NAME=FROM:TO:STEP", help="A range of a number, its end included: alpha=0.01:0.1:0.01."
        ),
    ] = None,
    sample: Annotated[int | None, typer.Option("--sample", min=1, help="Draw so many points at random.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Where the drawing starts: the same seed, the same points.")] = 0,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="NAME[=FROM:TO[:log]]",
            help="With --sample: a parameter to draw, from all that it may be or between two numbers.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", exists=True, dir_okay=False, help="A CSV file: the parameters' names, then a line a run."
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of every run, its value taken as it is."),
    ] = None,
    agency: Agency = None,
    experiment: Experiment = None,
    timeout: TimeLimit = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Start without asking.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how many runs it is and how long it takes, no more.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Follow the sweep until it has ended; status 1 if a run did not succeed."
        ),
    ] = False,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Run a template over many values: every combination of them, a random sample, or the lines of a file.

    Says how many runs that is and how long it takes, and asks, before anything starts. Exit status: 0 done, 1 not every
    run succeeded, 2 wrong use (nothing was started), 130 interrupted while waiting (the sweep goes on).
    """
    name, _, version = template.partition("@")
    request: dict[str, Any] = {
        "template": name,
        "version": version or None,
        "experiment": experiment,
        "timeout_seconds": seconds(timeout),
        **_described(parameter or [], grid or [], sample, seed, vary or [], file, fix or []),
    }
    with lab(login) as client:
        request["agency"] = agency_meant(client, agency)
        planned = client.post("sweeps/plan", request)
        if plan:
            show(planned, as_json, lambda: _say_plan(planned))
            return
        print(_plan(planned), file=sys.stderr)
        if not yes and sys.stdin.isatty() and not typer.confirm("Start?", default=True, err=True):
            fail("Nothing was started.", WRONG_USE)
        made = client.submit(request, "sweeps")
        if not wait:
            show(made, as_json, lambda: print(f"Sweep {made['id']} waits: {client.page_of(made['id'], 'sweeps')}"))
            return
        ended = _wait(client, made)
        show(ended, as_json, lambda: _summary(client, ended))
        raise typer.Exit(DONE if ended["state"] == "succeeded" else FAILED)


def _described(
    parameters: list[str],
    grid: list[str],
    sample: int | None,
    seed: int,
    vary: list[str],
    file: Path | None,
    fix: list[str],
) -> dict[str, Any]:
    """Return the sweep as the API takes it. Ends the command for what is none."""
    fixed: dict[str, object] = dict(_pairs(fix))
    axes: dict[str, object] = {}
    for name, text in _pairs(parameters):
        values = [value.strip() for value in text.split(";" if ";" in text else ",")]
        if name in fixed or name in axes:
            fail(f"{name} is given twice. Leave one of them out.", WRONG_USE)
        if len(values) == 1:
            fixed[name] = text
        else:
            axes[name] = values
    for name, text in _pairs(grid):
        if name in fixed or name in axes:
            fail(f"{name} is given twice. Leave one of them out.", WRONG_USE)
        axes[name] = _range(name, text)
    if sum((file is not None, sample is not None)) > 1 or (file is not None and axes):
        fail("A file, a sample and a grid do not go together. Use one of them.", WRONG_USE)
    if file is not None:
        return {"points": _points(file), "fixed": fixed}
    if sample is None:
        if vary:
            fail("--vary goes with --sample. Say how many points to draw.", WRONG_USE)
        return {"grid": axes, "fixed": fixed}
    if grid:
        fail("--grid makes every step of a range. With --sample, name the range by --vary.", WRONG_USE)
    space: dict[str, object] = dict(axes)
    for text in vary:
        name, separator, span = text.partition("=")
        space[name.strip()] = _span(name, span) if separator else None
    return {"sample": {"size": sample, "seed": seed, "space": space}, "fixed": fixed}


def _pairs(texts: list[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            fail(f"{text!r} has no equals sign. Write it as name=value.", WRONG_USE)
        yield name.strip(), value


def _range(name: str, text: str) -> dict[str, str]:
    parts = [part.strip() for part in text.split(":")]
    if len(parts) != 3:
        fail(f"{name}={text} is no range. Write it as {name}=FROM:TO:STEP, for example {name}=0:1:0.1.", WRONG_USE)
    return dict(zip(("from", "to", "step"), parts, strict=True))


def _span(name: str, text: str) -> dict[str, object]:
    parts = [part.strip() for part in text.split(":")]
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] != "log"):
        fail(f"{name}={text} is no range to draw from. Write it as {name}=FROM:TO or {name}=FROM:TO:log.", WRONG_USE)
    return {"from": parts[0], "to": parts[1], "logarithmic": len(parts) == 3}


def _points(file: Path) -> list[dict[str, str]]:
    """Return the lines of a CSV file as points; an empty cell leaves its parameter at its default."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{file} cannot be read as UTF-8 text ({error}).", WRONG_USE)
    first = text.partition("\n")[0]
    separator = next((sign for sign in (";", "\t") if sign in first), ",")
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(cell.strip() for cell in row)]
    if not rows:
        fail(f"{file} is empty. Its first line names the parameters.", WRONG_USE)
    names = [name.strip() for name in rows[0]]
    if len(set(names)) != len(names) or "" in names:
        fail(f"{file}: the first line must name each parameter once.", WRONG_USE)
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            fail(
                f"{file}: row {line} has {len(row)} cells, and the first has {len(names)}. Make them equal.", WRONG_USE
            )
    return [{n: cell.strip() for n, cell in zip(names, row, strict=True) if cell.strip()} for row in rows[1:]]


def _plan(p: dict[str, Any]) -> str:
    said = f"{p['runs']} runs of {p['template']}@{p['version']}, {p['concurrent']} at a time"
    if p["duplicates"]:
        said += f" ({p['duplicates']} duplicates left out)"
    if p["seconds"] is None:
        return f"{said}. How long it takes is not known: no run of this version has succeeded yet."
    waits = f", behind {p['ahead']} that wait or run already" if p["ahead"] else ""
    return f"{said}: about {duration(p['seconds'])}{waits}."


def _say_plan(p: dict[str, Any]) -> None:
    print(_plan(p))


def _wait(client: Client, made: dict[str, Any]) -> dict[str, Any]:
    try:
        with _progress(made["size"]) as tell:
            for event in client.follow(made["id"], "sweeps"):
                tell(event)
        return dict(client.get(f"sweeps/{made['id']}"))
    except KeyboardInterrupt:
        print(
            f"\nStopped waiting. The sweep goes on; cancel it with: proverom sweeps cancel {made['id']}",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _progress(size: int) -> Iterator[Any]:
    if not sys.stderr.isatty():
        last: list[object] = []

        def say(event: dict[str, Any]) -> None:
            tenth = event["done"] * 10 // max(1, size)
            if last != [event["state"], tenth]:
                last[:] = [event["state"], tenth]
                print(f"{event['state']}: {event['done']} of {size}", file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("queued", total=size, left="")

        def draw(event: dict[str, Any]) -> None:
            left = event["seconds_left"]
            said = f"about {duration(left)} left" if left else ""
            failed = sum(event["counts"].get(state, 0) for state in ("failed", "timed_out"))
            state = event["state"] + (f", {failed} failed" if failed else "")
            bar.update(task, description=state, completed=event["done"], left=said)

        yield draw


@sweeps.command("list")
def list_sweeps(
    agency: Agency = None,
    template: Annotated[str | None, typer.Option("--template", help="Sweeps of this template only.")] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="ID", help="Sweeps of this experiment only.")
    ] = None,
    limit: Limit = 50,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List sweeps, newest first."""
    with lab(login) as client:
        found = list(client.all("sweeps", limit=limit, agency=agency, template=template, experiment=experiment))
        rows = (
            (
                s["id"],
                local(s["created_at"]),
                s["agency"]["slug"],
                f"{s['template']}@{s['version']}",
                s["state"],
                f"{s['counts'].get('succeeded', 0)} of {s['size']}",
                s["requested_by"],
            )
            for s in found
        )
        columns = ("SWEEP", "WHEN", "AGENCY", "TEMPLATE", "STATE", "SUCCEEDED", "BY")
        show(found, as_json, lambda: table(columns, rows, empty="No sweeps."))


@sweeps.command("show")
def show_sweep(sweep: SweepId, login: As = None, as_json: AsJson = False) -> None:
    """Show a sweep: how far it is, and how strongly each parameter moves each metric."""
    with lab(login) as client:
        found = client.get(f"sweeps/{sweep}")
        found["sensitivity"] = client.get(f"sweeps/{sweep}/sensitivity")
        show(found, as_json, lambda: _summary(client, found, whole=True))


@sweeps.command("report")
def report_sweep(
    sweep: SweepId,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to: a name that ends in .html or .pdf.")
    ],
    language: Annotated[str, typer.Option("--language", help="The report's language: nb, nn or en.")] = "nb",
    login: As = None,
) -> None:
    """Save a sweep's report as one HTML page or as a PDF: what matters most, plots, provenance."""
    kind = report_kind(output)
    with lab(login) as client:
        save(output, client.download(f"sweeps/{sweep}/report", format=kind, language=language, download="true"))
        print(f"Saved {output}")


@sweeps.command("cancel")
def cancel_sweep(sweep: SweepId, login: As = None, as_json: AsJson = False) -> None:
    """Cancel a sweep: what waits ends at once, what runs within seconds, what is done stays."""
    with lab(login) as client:
        found = client.post(f"sweeps/{sweep}/cancel")
        show(found, as_json, lambda: print(cancelled("Sweep", found)))


@sweeps.command("resume")
def resume_sweep(
    sweep: SweepId,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the sweep until it has ended.")] = False,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Run again what has not succeeded."""
    with lab(login) as client:
        found = client.post(f"sweeps/{sweep}/resume")
        if not wait:
            waiting = found["counts"].get("queued", 0)
            show(found, as_json, lambda: print(f"Sweep {found['id']} goes on: {waiting} runs wait."))
            return
        ended = _wait(client, found)
        show(ended, as_json, lambda: _summary(client, ended))
        raise typer.Exit(DONE if ended["state"] == "succeeded" else FAILED)


def _summary(client: Client, s: dict[str, Any], *, whole: bool = False) -> None:
    pairs: list[tuple[str, object]] = [("Sweep", s["id"]), ("State", s["state"])]
    if whole:
        pairs += [
            ("Template", f"{s['template']}@{s['version']}  {name_of(s['template_title'])}"),
            ("Agency", f"{name_of(s['agency']['name'])} ({s['agency']['orgnr']})"),
            ("Asked for", f"{local(s['created_at'])} by {s['requested_by']}"),
            ("Experiment", s["experiment"]),
            ("Varies", ", ".join(s["varied"])),
            ("Time left", duration(s["seconds_left"]) if s["seconds_left"] is not None else None),
        ]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(s["counts"].items()))
    facts([*pairs, ("Runs", f"{s['size']}: {counts}"), ("Page", client.page_of(s["id"], "sweeps"))])
    effects = s.get("sensitivity", {}).get("effects", [])
    if effects:
        print()
        rows = (
            (e["metric"], shown(e["parameter"]), number(e["strength"]), number(e["rho"]), number(e["difference"]))
            for e in effects
        )
        table(("METRIC", "PARAMETER", "STRENGTH", "RANK CORRELATION", "DIFFERENCE OF MEANS"), rows, empty="")
