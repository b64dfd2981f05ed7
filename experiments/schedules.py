"""Schedules: at which times a run is due. Pure reckoning; the store keeps the schedules and makes the runs.

Expressions are the five fields of cron, read by cronsim, which treats daylight saving as Debian's cron does: a run at a
time that the clock leaps over happens at the first time after the gap, a run at a time that the clock shows twice
happens once, and what runs every hour or more often goes by elapsed time.
"""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cronsim import CronSim, CronSimError

from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, Problem, TemplateVersion
from lab_templates.text import quote

DEFAULT_ZONE = "Europe/Oslo"
DEFAULT_PARAMETER = "scheduled_at"
MOST_CAUGHT_UP = 100  # runs that one schedule makes up for after downtime
LATE = timedelta(minutes=5)  # a time this long ago was missed, and the catch-up policy says what becomes of it
_LONGEST = 100
# Looking back for what was missed, ever further, until enough is found.
_WINDOWS = tuple(timedelta(days=d) for d in (1 / 24, 1, 7, 31, 366, 366 * 5, 366 * 50))


class CatchUp(StrEnum):
    """What becomes of the times that were missed while the lab was down."""

    ONCE = "once"  # one run, for the last of them
    ALL = "all"  # a run for each, the newest MOST_CAUGHT_UP of them
    SKIP = "skip"  # none


class ScheduleState(StrEnum):
    ACTIVE = "active"
    PAUSED = "paused"  # by a person, until a person resumes it
    STOPPED = "stopped"  # by the lab, for the reason that stands beside it


class StopReason(StrEnum):
    AGENCY_CLOSED = "agency_closed"
    EXPERIMENT_CLOSED = "experiment_closed"
    REQUESTER_LEFT = "requester_left"  # whoever made it may no longer start runs there
    TEMPLATE_WITHDRAWN = "template_withdrawn"
    QUOTA_TOO_SMALL = "quota_too_small"  # the agency could not start a single run of it, ever
    INVALID_PARAMETERS = "invalid_parameters"  # the template's newest version does not take them
    NEVER_AGAIN = "never_again"  # its expression has no time left


@dataclass(frozen=True, slots=True)
class Due:
    """The times that are to be run now, oldest first, how many were missed and left out, and the next time."""

    times: tuple[datetime, ...]
    left_out: int
    next: datetime | None


def check(cron: object, zone: object) -> tuple[str, str]:
    """Return the expression and the time zone as they are kept. Raise InvalidInput: bad_cron, bad_zone."""
    problems = []
    text = " ".join(cron.split()) if isinstance(cron, str) and len(cron) <= _LONGEST else ""
    if fault := _fault(text):
        what = f"The times {quote(cron)} are no cron expression ({fault}). An example: 0 7 * * MON-FRI."
        problems.append(Problem("bad_cron", "cron", quote(cron), message=what))
    if not isinstance(zone, str) or zone not in zoneinfo.available_timezones():
        what = f"{quote(zone)} is no time zone. Give one by its IANA name, for example {DEFAULT_ZONE}."
        problems.append(Problem("bad_zone", "zone", quote(zone), message=what))
    if problems:
        raise InvalidInput(tuple(problems))
    return text, str(zone)


def _fault(cron: str) -> str:
    """Return what is wrong with an expression, "" if nothing is."""
    if len(cron.split()) != 5 or not cron.isascii():
        return "it has five fields: minute, hour, day of month, month, day of week"
    try:
        ever = next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)), None)
    except (CronSimError, ValueError, RecursionError) as error:
        return str(error)[:1].lower() + str(error)[1:]
    return "" if ever else "no day is ever like that"


def next_times(cron: str, zone: str, after: datetime, most: int) -> tuple[datetime, ...]:
    """Return the first ``most`` times after ``after``, in UTC, ascending; fewer if there are no more."""
    times: list[datetime] = []
    walk = CronSim(cron, after.astimezone(zoneinfo.ZoneInfo(zone)))
    while len(times) < most and (local := next(walk, None)) is not None:
        moment = local.astimezone(UTC)
        # Two times that the clock leaps over become the same one.
        if moment > after and (not times or moment > times[-1]):
            times.append(moment)
    return tuple(times)


def due(cron: str, zone: str, catch_up: CatchUp, expected: datetime, now: datetime) -> Due:
    """Return what is to run now of a schedule whose next time was to be ``expected``, and its new next time."""
    times, more = _between(cron, zone, expected, now, MOST_CAUGHT_UP)
    following = next_times(cron, zone, now, 1)
    upcoming = following[0] if following else None
    if catch_up is CatchUp.ALL:
        kept = times
    elif catch_up is CatchUp.ONCE:
        kept = times[-1:]
    else:
        kept = tuple(t for t in times[-1:] if now - t <= LATE)
    return Due(kept, len(times) - len(kept) + more, upcoming)


def _between(cron: str, zone: str, first: datetime, last: datetime, most: int) -> tuple[tuple[datetime, ...], int]:
    """Return the newest ``most`` times from ``first`` to ``last``, both included, and how many older ones were seen.

    However long the time between is, only so much of it is walked as ``most`` times need.
    """
    just_before = first - timedelta(microseconds=1)
    for window in _WINDOWS:
        start = max(just_before, last - window)
        times = _walk(cron, zone, start, last)
        if len(times) >= most or start == just_before:
            return tuple(times[-most:]), max(0, len(times) - most)
    return tuple(times[-most:]), max(0, len(times) - most)


def _walk(cron: str, zone: str, after: datetime, last: datetime) -> list[datetime]:
    times: list[datetime] = []
    at = after
    while found := next_times(cron, zone, at, 50):
        times += [t for t in found if t <= last]
        if found[-1] > last:
            break
        at = found[-1]
    return times


# -- the scheduled time as a parameter -------------------------------------------------------------------------------


def time_parameter(version: TemplateVersion, named: str | None) -> str | None:
    """Return the parameter that gets the scheduled time: the one named, else ``scheduled_at`` if it is declared.

    Raise InvalidInput: unknown_parameter; wrong_type if it is neither a text of 32 characters or more nor a date.
    """
    name = named or DEFAULT_PARAMETER
    spec = version.parameter(name)
    if spec is not None and _takes_time(spec):
        return name
    if not named:
        return None
    if spec is None:
        known = ", ".join(p.name for p in version.parameters)
        what = f"{version.name} {version.version} has no parameter {quote(name)} to give the time to. It has: {known}."
        raise InvalidInput((Problem("unknown_parameter", "time_parameter", quote(name), known, what),))
    what = f"{name} is of type {spec.type} and cannot hold the scheduled time. Name a text or a date."
    raise InvalidInput((Problem("wrong_type", "time_parameter", name, "text, date", what),))


def _takes_time(spec: ParameterSpec) -> bool:
    return spec.type is ParameterType.DATE or (spec.type is ParameterType.TEXT and spec.max_length >= 32)


def time_value(version: TemplateVersion, parameter: str, moment: datetime, zone: str) -> str:
    """Return the scheduled time as the parameter holds it: ISO 8601 with the zone's offset, or the day there."""
    local = moment.astimezone(zoneinfo.ZoneInfo(zone))
    spec = version.parameter(parameter)
    if spec is not None and spec.type is ParameterType.DATE:
        return local.date().isoformat()
    return local.isoformat(timespec="seconds")
