"""``proverom run``, ``proverom runs …`` and ``proverom report``."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from enum import StrEnum
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
    metric,
    name_of,
    number,
    seconds,
    show,
    shown,
    table,
)

if TYPE_CHECKING:
    from hub.client import Client

runs = typer.Typer(no_args_is_help=True, help="Runs: list, show, cancel, retry, compare.")

Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Agency = Annotated[str | None, typer.Option("--agency", help="Organisation number or short name.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", metavar="NAME=VALUE", help="A parameter; repeat for more. Left out: its default."),
]
ParameterFile = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", exists=True, dir_okay=False, help="Parameters from a YAML or JSON file; -p wins over it."
    ),
]
Experiment = Annotated[
    str | None, typer.Option("--experiment", metavar="ID", help="The experiment that each run belongs to.")
]
TimeLimit = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="End each run after this long: 90s, 10m, 2h.")
]


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


def run(
    template: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATE[@VERSION]", help="The template, its newest published version unless one is named."
        ),
    ],
    parameter: Parameters = None,
    file: ParameterFile = None,
    agency: Agency = None,
    experiment: Experiment = None,
    timeout: TimeLimit = None,
    wait: Annotated[
        bool,
        typer.Option("--wait/--no-wait", help="Follow the run until it has ended; status 1 if it did not succeed."),
    ] = False,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Run a template.

    Exit status: 0 done, 1 the run failed, 2 wrong use (nothing was started), 130 interrupted while waiting (the run
    goes on).
    """
    name, _, version = template.partition("@")
    request = {
        "template": name,
        "version": version or None,
        "parameters": given_parameters(parameter or [], file),
        "experiment": experiment,
        "timeout_seconds": seconds(timeout),
    }
    with lab(login) as client:
        request["agency"] = agency_meant(client, agency)
        made = client.submit(request)
        if not wait:
            show(made, as_json, lambda: _say_queued(client, made))
            return
        if not as_json:
            _say_queued(client, made)
        ended = _wait(client, made["id"])
        show(ended, as_json, lambda: _summary(client, ended))
        raise typer.Exit(DONE if ended["state"] == "succeeded" else FAILED)


def report(
    run: Run,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to: a name that ends in .html or .pdf.")
    ],
    login: As = None,
) -> None:
    """Save a run's report as one HTML page or as a PDF."""
    kind = report_kind(output)
    with lab(login) as client:
        save(output, client.download(f"runs/{run}/report", format=kind, download="true"))
        print(f"Saved {output}")


@runs.command("list")
def list_runs(
    agency: Agency = None,
    template: Annotated[str | None, typer.Option("--template", help="Runs of this template only.")] = None,
    state: Annotated[State | None, typer.Option("--state", help="Runs in this state only.")] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="ID", help="Runs of this experiment only.")
    ] = None,
    words: Annotated[
        str | None,
        typer.Option("--words", "-q", help="Words that must all occur in title, findings, agency or requester."),
    ] = None,
    sweep: Annotated[str | None, typer.Option("--sweep", metavar="ID", help="Runs of this sweep only.")] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", metavar="ID", help="Runs of this schedule only.")
    ] = None,
    limit: Limit = 50,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    filters = {"agency": agency, "template": template, "state": state, "experiment": experiment, "q": words}
    with lab(login) as client:
        found = list(client.all("runs", limit=limit, **filters, sweep=sweep, schedule=schedule))
        show(found, as_json, lambda: runs_table(found))


def runs_table(found: list[dict[str, Any]]) -> None:
    table(
        ("RUN", "WHEN", "AGENCY", "TEMPLATE", "STATE", "SECONDS", "BY"),
        (
            (
                r["id"],
                local(r["created_at"]),
                r["agency"]["slug"],
                f"{r['template']}@{r['version']}",
                r["state"],
                number(r["seconds"]),
                r["requested_by"],
            )
            for r in found
        ),
        empty="No runs.",
    )


@runs.command("show")
def show_run(run: Run, login: As = None, as_json: AsJson = False) -> None:
    """Show one run: state, parameters, metrics, findings, provenance."""
    with lab(login) as client:
        found = client.get(f"runs/{run}")
        show(found, as_json, lambda: _summary(client, found, whole=True))


def cancelled(what: str, found: Mapping[str, Any]) -> str:
    """Return in a sentence what came of the wish to cancel a run or a sweep."""
    said = "is being cancelled" if found["state"] == "running" else f"is {found['state']}"
    return f"{what} {found['id']} {said}."


@runs.command("cancel")
def cancel_run(run: Run, login: As = None, as_json: AsJson = False) -> None:
    """Cancel a run. One that has ended stays as it is."""
    with lab(login) as client:
        found = client.post(f"runs/{run}/cancel")
        show(found, as_json, lambda: print(cancelled("Run", found)))


@runs.command("retry")
def retry_run(
    run: Run,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the new run until it has ended.")] = False,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Run the same request once more, as a new run."""
    with lab(login) as client:
        made = client.post(f"runs/{run}/retry")
        if not wait:
            show(made, as_json, lambda: _say_queued(client, made))
            return
        ended = _wait(client, made["id"])
        show(ended, as_json, lambda: _summary(client, ended))
        raise typer.Exit(DONE if ended["state"] == "succeeded" else FAILED)


@runs.command("compare")
def compare_runs(
    run: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more.")],
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Set runs side by side: what differs in their parameters, and their metrics."""
    if len(run) < 2:
        fail("One run alone compares with nothing. Name two or more.", WRONG_USE)
    with lab(login) as client:
        found = [client.get(f"runs/{one}") for one in run]
        show(found, as_json, lambda: _compare(found))


def given_parameters(pairs: list[str], file: Path | None) -> dict[str, object]:
    from lab_templates.model import InvalidInput
    from lab_templates.parameters import parse_pairs, parse_yaml

    try:
        given = parse_yaml(file.read_bytes()) if file is not None else {}
        return {**given, **parse_pairs(pairs)}
    except InvalidInput as error:
        fail("\n  ".join(p.message for p in error.problems), WRONG_USE)
    except OSError as error:
        fail(f"{file} cannot be read ({error.strerror}).", WRONG_USE)


def agency_meant(client: Client, named: str | None) -> str:
    """Return the agency that is meant: the one named, the desk's own, or the only one where the person runs things."""
    if named or client.agency:
        return str(named or client.agency)
    me = client.get("me")
    if me["confined_to"]:
        return str(me["confined_to"])
    mine = {m["orgnr"]: m for m in me["memberships"] if m["orgnr"] and m["role"] in ("member", "coordinator")}
    if len(mine) == 1:
        return str(next(iter(mine)))
    choices = ", ".join(f"{m['slug']} ({m['orgnr']})" for m in mine.values()) or "none: you are a member of no agency"
    return fail(f"Which agency is the run for? Add --agency with one of: {choices}.", WRONG_USE)


def _say_queued(client: Client, made: dict[str, Any]) -> None:
    print(f"Run {made['id']} is {made['state']}: {client.page_of(made['id'])}")


def _wait(client: Client, run: str) -> dict[str, Any]:
    """Follow a run to its end and return it, showing how far it has come on stderr."""
    try:
        with _progress() as tell:
            for event in client.follow(run):
                tell(event)
        return dict(client.get(f"runs/{run}"))
    except KeyboardInterrupt:
        print(f"\nStopped waiting. The run goes on; cancel it with: proverom runs cancel {run}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    if not sys.stderr.isatty():
        last: list[str] = []

        def say(event: dict[str, Any]) -> None:
            if last != [event["state"]]:
                last[:] = [event["state"]]
                print(event["state"], file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("cells"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("queued", total=None)
        yield lambda event: bar.update(
            task, description=event["state"], completed=event["cells_done"], total=event["cells_total"] or None
        )


def _summary(client: Client, r: dict[str, Any], *, whole: bool = False) -> None:
    pairs: list[tuple[str, object]] = [
        ("Run", r["id"]),
        ("State", r["state"] + (f" ({r['reason']})" if r["reason"] else "")),
    ]
    if whole:
        pairs += [
            ("Template", f"{r['template']}@{r['version']}  {name_of(r['template_title'])}"),
            ("Agency", f"{name_of(r['agency']['name'])} ({r['agency']['orgnr']})"),
            ("Asked for", f"{local(r['created_at'])} by {r['requested_by']}"),
            ("Experiment", r["experiment"]),
            ("Retry of", r["retry_of"]),
            ("Sweep", r["sweep"]),
            ("Schedule", r["schedule"]),
            ("Attempt", f"{r['attempt']} of {r['max_attempts']}"),
            ("Time left", duration(r["seconds_left"]) if r["seconds_left"] is not None else None),
            ("Cells", f"{r['cells_done']} of {r['cells_total']}" if r["cells_total"] else None),
            ("Template digest", r["provenance"]["template_digest"]),
            ("Image digest", r["provenance"]["image_digest"]),
            ("Engine", r["provenance"]["engine"]),
        ]
    pairs += [
        ("Seconds", number(r["seconds"]) if r["seconds"] is not None else None),
        ("Page", client.page_of(r["id"])),
    ]
    facts(pairs)
    if r["error"]:
        e = r["error"]
        print(f"\nCell {e['cell'] + 1} failed: {shown(e['name'])}: {shown(e['message'])}")
    for finding in r["findings"]:
        print(f"\n{shown(finding)}")
    if whole and r["parameters"]:
        print("\nParameters")
        facts((f"  {shown(name)}", number(value)) for name, value in r["parameters"].items())
    if r["metrics"]:
        print("\nMetrics")
        facts((f"  {shown(m['name'])}", metric(m)) for m in r["metrics"])


def _compare(found: list[dict[str, Any]]) -> None:
    rows: list[list[object]] = [
        ["template", *(f"{r['template']}@{r['version']}" for r in found)],
        ["agency", *(r["agency"]["slug"] for r in found)],
        ["state", *(r["state"] for r in found)],
        ["when", *(local(r["created_at"]) for r in found)],
    ]
    names = list(dict.fromkeys(name for r in found for name in r["parameters"]))
    for name in names:
        values = [r["parameters"].get(name) for r in found]
        if any(value != values[0] for value in values):
            rows.append([f"parameter {name}", *(number(value) for value in values)])
    measured = [{m["name"]: metric(m) for m in r["metrics"]} for r in found]
    names = list(dict.fromkeys(name for metrics in measured for name in metrics))
    rows += [[f"metric {name}", *(metrics.get(name) for metrics in measured)] for name in names]
    table(("", *(r["id"] for r in found)), rows, empty="")


def report_kind(output: Path) -> str:
    """Return html or pdf, as the file's name ends. Ends the command for any other."""
    kind = output.suffix.lower().removeprefix(".")
    if kind not in ("html", "pdf"):
        fail(f"{output} ends in neither .html nor .pdf. Name the file so.", WRONG_USE)
    return kind


def save(path: Path, data: bytes) -> None:
    """Write the file whole or not at all. Ends the command if it cannot be written."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        fail(f"{path} cannot be written ({error.strerror}). Choose another place.", WRONG_USE)
