"""Schedules: those that one may see, and one with its coming times and what came of the past ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from catalog import wording
from catalog.access import Action, NotFound
from catalog.i18n import N_
from catalog.mail_texts import stop_reason
from catalog.reports.display import Row, value_rows
from catalog.store.records import FiringRecord, RunFilter, RunRecord, ScheduleRecord
from catalog.web.pages.schedules_times import in_words, moments
from catalog.web.visit import CHECKED, Reader, Visit
from experiments.schedules import LATE, CatchUp, ScheduleState, StopReason, next_times
from lab_templates.model import InvalidInput, TemplateVersion
from lab_templates.parameters import bind

router = APIRouter()
PAGE_SIZE = 25
FIRINGS = 30  # the latest times that a schedule's page shows
MOST_COUNTED = 100  # times between two firings that were not run; beyond it only "more than" is said

STATES: dict[str, str] = {
    ScheduleState.ACTIVE: N_("On"),
    ScheduleState.PAUSED: N_("Paused"),
    ScheduleState.STOPPED: N_("Stopped"),
}
STATE_COLORS = {ScheduleState.ACTIVE: "success", ScheduleState.PAUSED: "neutral", ScheduleState.STOPPED: "danger"}
CATCH_UPS: dict[str, tuple[str, str]] = {
    CatchUp.ONCE: (
        N_("Run once"),
        N_("As soon as the lab is up again there is one run, however many times were missed."),
    ),
    CatchUp.ALL: (
        N_("Run every missed time"),
        N_("There is one run for each time that was missed, at most the 100 latest. Choose this if every day counts."),
    ),
    CatchUp.SKIP: (N_("Skip them"), N_("Nothing is made up for. The next run comes at the next ordinary time.")),
}
# What one can do about a schedule that the lab has stopped.
_ADVICE: dict[str, str] = {
    StopReason.AGENCY_CLOSED: N_("It can go on when the lab's administrator has opened the agency again."),
    StopReason.EXPERIMENT_CLOSED: N_("Make a new schedule that belongs to another experiment, or to none."),
    StopReason.REQUESTER_LEFT: N_("If you resume it, its runs are started in your name."),
    StopReason.TEMPLATE_WITHDRAWN: N_(
        "Resume it when a new version has been approved, or make a new schedule with another template."
    ),
    StopReason.QUOTA_TOO_SMALL: N_("Resume it when the lab's administrators have raised the agency's quota."),
    StopReason.INVALID_PARAMETERS: N_("Make a new schedule with values that the template takes now."),
    StopReason.NEVER_AGAIN: N_("Make a new schedule with times that are to come."),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a schedule's history: a time with its run, or times that were not run (``missed``)."""

    when: str
    iso: str
    by_hand: bool = False
    id: str = ""
    run: RunRecord | None = None
    made_up_for: int = 0
    missed: int = 0
    more: bool = False


@router.get("/schedules")
def listing(visit: Reader, agency: str = "", experiment: str = "", cursor: str = "", removed: str = "") -> Response:
    viewer, t = visit.viewer, visit.t
    page = visit.catalog.schedules.list(
        viewer, agency=agency or None, experiment=experiment or None, cursor=cursor or None, limit=PAGE_SIZE
    )
    filters = {"agency": agency, "experiment": experiment}
    return visit.page(
        "schedules.html",
        schedules=[
            (s, title(s, visit), in_words(s.cron, t), next_time(s, visit), last_run(visit, s)) for s in page.items
        ],
        next=visit.url("/schedules", **filters, cursor=page.next) if page.next else None,
        first=visit.url("/schedules", **filters) if cursor else None,
        filters=filters,
        filtered=any(filters.values()),
        agencies=visit.catalog.agencies.list(viewer),
        states=STATES,
        state_colors=STATE_COLORS,
        may_make=bool(visit.my_agencies(Action.SUBMIT)),
        removed=bool(removed),
    )


@router.get("/schedules/{id}")
def one(id: str, visit: Reader, done: str = "") -> Response:
    schedule = visit.catalog.schedules.get(visit.viewer, id)
    visit.seen(schedule.id)
    return _page(visit, schedule, done=done)


@router.post("/schedules/{id}/trigger", dependencies=CHECKED)
def trigger(id: str, visit: Reader) -> Response:
    schedule = visit.catalog.schedules.get(visit.viewer, id)
    try:
        firing = visit.catalog.schedules.trigger(visit.viewer, id)
    except InvalidInput as error:
        return _page(visit, schedule, refused=error)
    return visit.go(f"/runs/{firing.run}" if firing.run else f"/schedules/{schedule.id}")


@router.post("/schedules/{id}/pause", dependencies=CHECKED)
def pause(id: str, visit: Reader) -> Response:
    return _changed(visit, id, visit.catalog.schedules.pause, "paused")


@router.post("/schedules/{id}/resume", dependencies=CHECKED)
def resume(id: str, visit: Reader) -> Response:
    return _changed(visit, id, visit.catalog.schedules.resume, "resumed")


@router.get("/schedules/{id}/remove")
def ask_remove(id: str, visit: Reader) -> Response:
    schedule = visit.catalog.schedules.get(visit.viewer, id)
    t = visit.t
    return visit.page(
        "confirm.html",
        title=t("Remove this schedule?"),
        text=t("It starts no more runs. The runs that it has started stay where they are."),
        action=visit.url(f"/schedules/{schedule.id}/remove"),
        button=t("Remove the schedule"),
        back=visit.url(f"/schedules/{schedule.id}"),
        danger=True,
    )


@router.post("/schedules/{id}/remove", dependencies=CHECKED)
def remove(id: str, visit: Reader) -> Response:
    visit.catalog.schedules.remove(visit.viewer, id)
    return visit.go("/schedules", removed=1)


def title(schedule: ScheduleRecord, visit: Visit) -> str:
    return schedule.title or visit.t.text(schedule.template_title) or schedule.template


def next_time(schedule: ScheduleRecord, visit: Visit) -> str:
    """Return a schedule's next time on its own clock, "" if none comes."""
    times = moments(schedule.next[:1], schedule.zone, visit.catalog.clock(), visit.t)
    return times[0].text if times else ""


def last_run(visit: Visit, schedule: ScheduleRecord) -> RunRecord | None:
    newest = visit.catalog.runs.list(visit.viewer, RunFilter(schedule=schedule.id), limit=1).items
    return newest[0] if newest else None


def _changed(visit: Visit, id: str, change: Callable[..., ScheduleRecord], done: str) -> Response:
    schedule = visit.catalog.schedules.get(visit.viewer, id)
    try:
        change(visit.viewer, id)
    except InvalidInput as error:
        return _page(visit, schedule, refused=error)
    return visit.go(f"/schedules/{schedule.id}", done=done)


def _page(visit: Visit, schedule: ScheduleRecord, *, done: str = "", refused: InvalidInput | None = None) -> Response:
    t = visit.t
    version = _version(visit, schedule)
    experiment = None
    if schedule.experiment:
        try:
            experiment = visit.catalog.experiments.get(visit.viewer, schedule.experiment)
        except NotFound:
            experiment = None
    firings = visit.catalog.schedules.firings(visit.viewer, schedule.id, limit=FIRINGS + 1)
    reason = schedule.stop_reason
    return visit.page(
        "schedule.html",
        422 if refused else 200,
        schedule=schedule,
        title=title(schedule, visit),
        words=in_words(schedule.cron, t),
        times=moments(schedule.next, schedule.zone, visit.catalog.clock(), t),
        history=_history(visit, schedule, firings[:FIRINGS], whole=len(firings) <= FIRINGS),
        more=visit.url("/runs", schedule=schedule.id) if len(firings) > FIRINGS else None,
        values=_values(visit, schedule, version),
        time_label=_label(visit, version, schedule.time_parameter),
        experiment=experiment,
        state=t(STATES[schedule.state]),
        color=STATE_COLORS[schedule.state],
        catch_up=[t(text) for text in CATCH_UPS[schedule.catch_up]],
        stopped=(stop_reason(reason, t), t(_ADVICE[reason])) if reason else None,
        may_act=visit.may(Action.SUBMIT, schedule.agency.orgnr),
        done=done if done in ("made", "paused", "resumed") else "",
        refused=[wording.problem(t, problem) for problem in refused.problems] if refused else [],
    )


def _history(visit: Visit, schedule: ScheduleRecord, firings: Sequence[FiringRecord], *, whole: bool) -> list[Line]:
    """Return what has happened, newest first: each time with its run, and in between how many times were not run.

    ``whole``: the firings are all there are, so the time before the oldest of them counts too.
    """
    runs = {
        run.id: run
        for run in visit.catalog.runs.list(visit.viewer, RunFilter(schedule=schedule.id), limit=FIRINGS + 1).items
    }
    lines: list[Line] = []
    until = visit.catalog.clock() - LATE  # a later one may yet be run
    for firing in firings:
        if not firing.by_hand:
            lines += _between(visit, schedule, firing.scheduled_at, until)
            until = firing.scheduled_at
        when = moments([firing.scheduled_at], schedule.zone, firing.scheduled_at, visit.t)[0]
        id = firing.run or ""
        lines.append(Line(when.text, when.iso, firing.by_hand, id, runs.get(id), firing.left_out))
    return lines + (_between(visit, schedule, schedule.created_at, until) if whole else [])


def _between(visit: Visit, schedule: ScheduleRecord, after: datetime, before: datetime) -> list[Line]:
    """Return a line for the times between two moments that were not run, none if there are none."""
    times = [t for t in next_times(schedule.cron, schedule.zone, after, MOST_COUNTED + 1) if t < before]
    if not times:
        return []
    when = moments(times[:1], schedule.zone, times[0], visit.t)[0]
    return [Line(when.text, when.iso, missed=min(len(times), MOST_COUNTED), more=len(times) > MOST_COUNTED)]


def _version(visit: Visit, schedule: ScheduleRecord) -> TemplateVersion | None:
    try:
        return visit.catalog.templates.get(visit.viewer, schedule.template, schedule.version).version
    except NotFound:
        return None


def _values(visit: Visit, schedule: ScheduleRecord, version: TemplateVersion | None) -> list[Row]:
    given = dict(schedule.parameters)
    typed: Mapping[str, Any] = given
    if version is not None:
        with contextlib.suppress(InvalidInput):  # the newest version may not take them: then they stand as given
            bound = bind(version, given)
            typed = {name: bound.values[name] for name in given}
    return value_rows(typed, version, visit.t)


def _label(visit: Visit, version: TemplateVersion | None, parameter: str | None) -> str:
    spec = version.parameter(parameter) if version and parameter else None
    return (visit.t.text(spec.label) if spec else "") or parameter or ""
