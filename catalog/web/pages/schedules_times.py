"""Between the choices of a form and a cron expression: every day, on certain weekdays, once a month, or one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from catalog.i18n import N_, Translator
from lab_templates.model import Problem
from lab_templates.text import quote

# How often: the machine word of the form, and what it says.
RHYTHMS: dict[str, str] = {
    "daily": N_("Every day"),
    "weekdays": N_("Every weekday, Monday to Friday"),
    "weekly": N_("On certain days of the week"),
    "monthly": N_("Once a month"),
    "own": N_("Own expression, for those who know cron"),
}
# As cron counts them.
WEEKDAYS: dict[int, str] = {
    1: N_("Monday"),
    2: N_("Tuesday"),
    3: N_("Wednesday"),
    4: N_("Thursday"),
    5: N_("Friday"),
    6: N_("Saturday"),
    0: N_("Sunday"),
}
LAST_DAY = "L"
DAYS = (*(str(day) for day in range(1, 32)), LAST_DAY)
_CLOCK = re.compile(r"(\d{1,2})[:.](\d{2})\Z")
_PLAIN = re.compile(r"(\d{1,2}) (\d{1,2}) (\*|\d{1,2}|L) \* (\*|1-5|[0-6](?:,[0-6])*)\Z")


@dataclass(frozen=True, slots=True)
class Moment:
    """One coming time as a page shows it. ``change`` is "summer" or "winter" where the clock was changed before it."""

    text: str
    iso: str
    change: str = ""


def cron_of(given: Mapping[str, str]) -> tuple[str, list[Problem]]:
    """Return the expression of a form, and what is wrong with the choices (their fields' ids are the form's own)."""
    rhythm = given.get("rhythm", "")
    if rhythm == "own":
        return given.get("cron", "").strip(), []
    problems: list[Problem] = []
    if rhythm not in RHYTHMS:
        problems.append(Problem("choose_rhythm", "rhythm"))
    clock = _CLOCK.match(given.get("clock", "").strip())
    hour, minute = (int(clock[1]), int(clock[2])) if clock else (99, 99)
    if hour > 23 or minute > 59:
        problems.append(Problem("bad_clock", "clock", quote(given.get("clock", ""))))
    days = [day for day in WEEKDAYS if given.get(f"day-{day}")]
    if rhythm == "weekly" and not days:
        problems.append(Problem("choose_weekday", "weekdays"))
    monthday = given.get("monthday", "")
    if rhythm == "monthly" and monthday not in DAYS:
        problems.append(Problem("choose_monthday", "monthday"))
    if problems:
        return "", problems
    of_week = {"weekdays": "1-5", "weekly": ",".join(map(str, sorted(days)))}.get(rhythm, "*")
    return f"{minute} {hour} {monthday if rhythm == 'monthly' else '*'} * {of_week}", []


def form_of(cron: str) -> dict[str, str]:
    """Return the form's choices for an expression: the inverse of ``cron_of``."""
    found = _PLAIN.match(cron)
    if found is None or int(found[1]) > 59 or int(found[2]) > 23 or (found[3] != "*" and found[4] != "*"):
        return {"rhythm": "own", "cron": cron}
    choices = {"clock": f"{int(found[2]):02}:{int(found[1]):02}"}
    if found[3] != "*":
        return {"rhythm": "monthly", "monthday": found[3], **choices}
    if found[4] in ("*", "1-5"):
        return {"rhythm": "daily" if found[4] == "*" else "weekdays", **choices}
    return {"rhythm": "weekly", **{f"day-{day}": "true" for day in found[4].split(",")}, **choices}


def in_words(cron: str, t: Translator) -> str:
    """Return when an expression fires: "Every day at 07.00", or the expression itself where it is one's own."""
    choices = form_of(cron)
    rhythm = choices["rhythm"]
    if rhythm == "own":
        return t(N_("At the times %(cron)s"), cron=cron)
    clock = choices["clock"] if t.language == "en" else choices["clock"].replace(":", ".")
    if rhythm == "weekly":
        days = [t(name).lower() if t.language != "en" else t(name) for day, name in WEEKDAYS.items()
                if f"day-{day}" in choices]  # fmt: skip
        return t(N_("Every %(days)s at %(clock)s"), days=_joined(days, t), clock=clock)
    if rhythm == "monthly":
        if choices["monthday"] == LAST_DAY:
            return t(N_("On the last day of every month at %(clock)s"), clock=clock)
        return t(N_("On day %(day)s of every month at %(clock)s"), day=choices["monthday"], clock=clock)
    if rhythm == "weekdays":
        return t(N_("Every weekday at %(clock)s"), clock=clock)
    return t(N_("Every day at %(clock)s"), clock=clock)


def moments(times: Sequence[datetime], zone: str, now: datetime, t: Translator) -> list[Moment]:
    """Return coming times on the clock of a zone, each with the change of the clock that comes before it."""
    local = ZoneInfo(zone)
    shown: list[Moment] = []
    summer = bool(now.astimezone(local).dst())
    for time in times:
        then = bool(time.astimezone(local).dst())
        change = "" if then == summer else "summer" if then else "winter"
        shown.append(Moment(t.occasion(time, local), t.iso(time), change))
        summer = then
    return shown


@cache
def zones() -> tuple[str, ...]:
    """Return the time zones that a form offers: those named after a place, and UTC."""
    return (*sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith("Etc/")), "UTC")


def _joined(words: Sequence[str], t: Translator) -> str:
    if len(words) < 2:
        return "".join(words)
    return t(N_("%(some)s and %(last)s"), some=", ".join(words[:-1]), last=words[-1])
