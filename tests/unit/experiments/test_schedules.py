"""Times of schedules: daylight saving, what is due, what was missed."""

from __future__ import annotations

import itertools
import zoneinfo
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.schedules import CatchUp, check, due, next_times
from lab_templates.model import InvalidInput

OSLO = "Europe/Oslo"
ZONE = zoneinfo.ZoneInfo(OSLO)


def local(times: tuple[datetime, ...]) -> list[str]:
    return [t.astimezone(ZONE).strftime("%d %H:%M %z") for t in times]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def test_a_time_that_the_clock_leaps_over_comes_right_after_the_gap() -> None:
    # On 29 March 2026 the clock goes from 02:00 straight to 03:00.
    times = next_times("30 2 * * *", OSLO, utc(2026, 3, 27, 12), 3)
    assert local(times) == ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]


def test_two_times_in_the_gap_are_one() -> None:
    times = next_times("0,30 2,3 * * *", OSLO, utc(2026, 3, 28, 22), 3)
    assert local(times) == ["29 03:00 +0200", "29 03:30 +0200", "30 02:00 +0200"]


def test_a_time_that_the_clock_shows_twice_comes_once() -> None:
    # On 25 October 2026 the hour from 02:00 comes twice.
    times = next_times("30 2 * * *", OSLO, utc(2026, 10, 24, 12), 2)
    assert local(times) == ["25 02:30 +0200", "26 02:30 +0100"]


def test_what_runs_every_hour_goes_by_elapsed_time() -> None:
    spring = next_times("0 * * * *", OSLO, utc(2026, 3, 28, 23, 30), 4)
    autumn = next_times("0 * * * *", OSLO, utc(2026, 10, 24, 23, 30), 4)
    for times in (spring, autumn):
        assert {b - a for a, b in itertools.pairwise(times)} == {timedelta(hours=1)}
    assert local(autumn) == ["25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100", "25 04:00 +0100"]


def test_weekdays_and_the_last_day_of_a_month() -> None:
    assert local(next_times("0 7 * * MON-FRI", OSLO, utc(2026, 3, 6, 12), 2)) == ["09 07:00 +0100", "10 07:00 +0100"]
    assert [t.day for t in next_times("0 7 L * *", OSLO, utc(2026, 1, 1), 3)] == [31, 28, 31]


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "* * * * * *", "60 * * * *", "0 0 30 2 *", "@daily", "a b c d e", "0 0 1 1 æ", "*/0 * * * *"],
)
def test_what_is_no_expression_is_refused(cron: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(cron, OSLO)
    assert [p.code for p in caught.value.problems] == ["bad_cron"]


@pytest.mark.parametrize("zone", ["", "Oslo", "Europe/Olso", "../etc/passwd", "/etc/localtime", None, 1])
def test_what_is_no_zone_is_refused(zone: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        check("* * * * *", zone)
    assert [p.code for p in caught.value.problems] == ["bad_zone"]


@given(st.text(alphabet="0123456789*/,-L# MONWEDFRI", max_size=120))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        cron, _ = check(text, OSLO)
    except InvalidInput:
        return
    assert next_times(cron, OSLO, utc(2026, 3, 1), 2)


def test_what_is_due_follows_the_policy() -> None:
    expected, now = utc(2026, 3, 2, 10), utc(2026, 3, 2, 13, 30)
    every = [utc(2026, 3, 2, hour) for hour in (10, 11, 12, 13)]
    assert list(due("0 * * * *", OSLO, CatchUp.ALL, expected, now).times) == every
    assert list(due("0 * * * *", OSLO, CatchUp.ONCE, expected, now).times) == every[-1:]
    assert due("0 * * * *", OSLO, CatchUp.SKIP, expected, now).times == ()
    assert due("0 * * * *", OSLO, CatchUp.SKIP, expected, utc(2026, 3, 2, 10, 4)).times == (expected,)
    assert {due("0 * * * *", OSLO, policy, expected, now).next for policy in CatchUp} == {utc(2026, 3, 2, 14)}


def test_nothing_is_due_of_what_never_came() -> None:
    assert due("0 0 1 1 *", OSLO, CatchUp.ALL, utc(2027, 1, 1), utc(2026, 6, 1)).times == ()


@given(
    cron=st.sampled_from(["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "0 7 * * MON", "0 0 1 * *"]),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 - made aware below
    hours=st.floats(0, 24 * 40),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_downtime_the_newest_times_are_found_and_none_twice(
    cron: str, start: datetime, hours: float
) -> None:
    (expected,) = next_times(cron, OSLO, start.replace(tzinfo=UTC), 1)
    now = expected + timedelta(hours=hours)
    every: list[datetime] = []
    at = expected - timedelta(microseconds=1)
    while (found := next_times(cron, OSLO, at, 1)[0]) <= now:
        every.append(found)
        at = found
        if len(every) > 5000:
            return
    made = due(cron, OSLO, CatchUp.ALL, expected, now)
    assert list(made.times) == every[-100:]
    assert made.next is not None
    assert made.next > now
