"""``proverom schedule …``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from hub.cli_output import As, AsJson, Limit, facts, lab, local, name_of, number, seconds, show, shown, table
from hub.cli_runs import (
    Agency,
    Experiment,
    ParameterFile,
    Parameters,
    TimeLimit,
    agency_meant,
    given_parameters,
)

schedule = typer.Typer(no_args_is_help=True, help="Schedules: add, list, show, pause, resume, trigger, remove.")

ScheduleId = Annotated[str, typer.Argument(metavar="SCHEDULE", help="The schedule's id.")]


class CatchUp(StrEnum):
    ONCE = "once"
    ALL = "all"
    SKIP = "skip"


@schedule.command("add")
def add_schedule(
    template: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATE[@VERSION]", help="The template; at each time its newest version unless one is named."
        ),
    ],
    cron: Annotated[
        str, typer.Option("--cron", metavar="TIMES", help='Minute, hour, day, month, weekday: "0 7 * * MON-FRI".')
    ],
    zone: Annotated[str, typer.Option("--zone", help="The time zone of the times.")] = "Europe/Oslo",
    title: Annotated[str, typer.Option("--title", help="What it is called.")] = "",
    parameter: Parameters = None,
    file: ParameterFile = None,
    time_parameter: Annotated[
        str | None,
        typer.Option(
            "--time-parameter",
            metavar="NAME",
            help="The parameter (text or date) that gets the scheduled time; scheduled_at, if the template has it.",
        ),
    ] = None,
    catch_up: Annotated[
        CatchUp,
        typer.Option("--catch-up", help="Times missed while the lab was down: one run, a run for each, or none."),
    ] = CatchUp.ONCE,
    agency: Agency = None,
    experiment: Experiment = None,
    timeout: TimeLimit = None,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """Run a template again and again."""
    name, _, version = template.partition("@")
    request = {
        "template": name,
        "version": version or None,
        "cron": cron,
        "zone": zone,
        "title": title,
        "parameters": given_parameters(parameter or [], file),
        "time_parameter": time_parameter,
        "catch_up": catch_up,
        "experiment": experiment,
        "timeout_seconds": seconds(timeout),
    }
    with lab(login) as client:
        request["agency"] = agency_meant(client, agency)
        made = client.submit(request, "schedules")
        times = ", ".join(local(t) for t in made["next"][:3])
        show(made, as_json, lambda: print(f"Schedule {made['id']} is active. Next: {times}"))


@schedule.command("list")
def list_schedules(
    agency: Agency = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", metavar="ID", help="Schedules of this experiment only.")
    ] = None,
    limit: Limit = 50,
    login: As = None,
    as_json: AsJson = False,
) -> None:
    """List schedules, newest first."""
    with lab(login) as client:
        found = list(client.all("schedules", limit=limit, agency=agency, experiment=experiment))
        rows = (
            (
                s["id"],
                s["title"] or s["template"],
                s["agency"]["slug"],
                s["cron"],
                s["zone"],
                _state(s),
                local(s["next"][0]) if s["next"] else None,
                s["requested_by"],
            )
            for s in found
        )
        columns = ("SCHEDULE", "TITLE", "AGENCY", "TIMES", "ZONE", "STATE", "NEXT", "BY")
        show(found, as_json, lambda: table(columns, rows, empty="No schedules."))


def _state(s: dict[str, Any]) -> str:
    return str(s["state"]) + (f" ({s['stop_reason']})" if s["stop_reason"] else "")


@schedule.command("show")
def show_schedule(schedule: ScheduleId, login: As = None, as_json: AsJson = False) -> None:
    """Show a schedule, its coming times, and the runs it has made."""
    with lab(login) as client:
        found = client.get(f"schedules/{schedule}")
        found["firings"] = client.get(f"schedules/{schedule}/firings", limit=10)["items"]
        show(found, as_json, lambda: _schedule(found))


def _schedule(s: dict[str, Any]) -> None:
    version = f"@{s['version']}" if s["version"] else ""
    facts(
        [
            ("Schedule", s["id"]),
            ("Title", s["title"]),
            ("State", _state(s)),
            ("Template", f"{s['template']}{version}  {name_of(s['template_title'])}"),
            ("Agency", f"{name_of(s['agency']['name'])} ({s['agency']['orgnr']})"),
            ("Times", f"{s['cron']} ({s['zone']})"),
            ("Missed times", s["catch_up"]),
            ("Time goes to", s["time_parameter"]),
            ("Made", f"{local(s['created_at'])} by {s['requested_by']}"),
            ("Next", ", ".join(local(t) for t in s["next"])),
        ]
    )
    if s["parameters"]:
        print("\nParameters")
        facts((f"  {shown(name)}", number(value)) for name, value in s["parameters"].items())
    if s["firings"]:
        print()
        rows = ((local(f["scheduled_at"]), f["run"], f["by_hand"], f["left_out"] or None) for f in s["firings"])
        table(("TIME", "RUN", "BY HAND", "MISSED BEFORE"), rows, empty="")


@schedule.command("pause")
def pause_schedule(schedule: ScheduleId, login: As = None, as_json: AsJson = False) -> None:
    """Let no time of it fire until it is resumed."""
    _move(schedule, "pause", login, as_json)


@schedule.command("resume")
def resume_schedule(schedule: ScheduleId, login: As = None, as_json: AsJson = False) -> None:
    """Let a paused or stopped schedule go on from now; what it missed is not made up for."""
    _move(schedule, "resume", login, as_json)


def _move(id: str, how: str, login: str | None, as_json: bool) -> None:
    with lab(login) as client:
        found = client.post(f"schedules/{id}/{how}")
        show(found, as_json, lambda: print(f"Schedule {found['id']} is {found['state']}."))


@schedule.command("trigger")
def trigger_schedule(schedule: ScheduleId, login: As = None, as_json: AsJson = False) -> None:
    """Fire a schedule by hand, now."""
    with lab(login) as client:
        found = client.post(f"schedules/{schedule}/trigger")
        show(found, as_json, lambda: print(f"Run {found['run']} is queued: {client.page_of(found['run'])}"))


@schedule.command("remove")
def remove_schedule(schedule: ScheduleId, login: As = None) -> None:
    """End a schedule for good. Its runs stay."""
    with lab(login) as client:
        client.remove(f"schedules/{schedule}")
        print(f"Schedule {schedule} is removed.")
