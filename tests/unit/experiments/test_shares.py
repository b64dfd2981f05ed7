"""Who gets how many runners."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.queue import AgencyDemand
from experiments.shares import desired_places, fitting, split

T0 = datetime(2026, 1, 5, tzinfo=UTC)


def row(
    agency: str, queued: int, *, running: int = 0, most: int = 10, weight: int = 1, waits: float | None = 0
) -> AgencyDemand:
    oldest = None if waits is None else T0 - timedelta(seconds=waits)
    return AgencyDemand(agency, agency, queued, running, most, weight, oldest)


def test_nobody_waits() -> None:
    assert desired_places([], total=8) == {}
    assert desired_places([row("a", 0, running=1, waits=None)], total=8) == {"a": 1}


def test_an_agency_gets_what_it_may() -> None:
    assert desired_places([row("a", 100, most=3)], total=8) == {"a": 3}
    assert desired_places([row("a", 2, running=1, most=10)], total=8) == {"a": 3}


def test_a_long_queue_does_not_take_everything() -> None:
    assert desired_places([row("big", 10_000, most=100), row("small", 1)], total=4) == {"big": 3, "small": 1}


def test_a_newcomer_gets_its_share_whatever_runs_already() -> None:
    assert desired_places([row("big", 10_000, running=4, most=100, waits=99), row("small", 5)], total=4) == {
        "big": 2,
        "small": 2,
    }


def test_shares_follow_the_weights() -> None:
    shares = desired_places([row("a", 99, most=99, weight=1), row("b", 99, most=99, weight=3)], total=8)
    assert shares == {"a": 2, "b": 6}


def test_between_equals_the_one_that_has_waited_longest_goes_first() -> None:
    assert desired_places([row("a", 1, waits=1), row("b", 1, waits=9)], total=1) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("quota", "each", "places"),
    [
        (None, 1, None), (8, 0, None), (8, 2, 4), (7, 2, 3), (1, 2, 0), (-3, 2, 0),
        (2**50 - 1, 2**33, 2**17 - 1), (0.3, 0.1, 3), (4, 0.1, 40), (1.75, 0.5, 3), (0.4, 0.5, 0),
    ],
)  # fmt: skip
def test_how_many_places_a_quota_has_room_for(quota: float | None, each: float, places: int | None) -> None:
    assert fitting(quota, each) == places


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_an_agencys_places_are_split_and_none_is_wasted(places: int, singles: int, sweeps: int) -> None:
    for_singles, for_sweeps = split(places, singles=singles, sweeps=sweeps)
    assert 0 <= for_singles <= singles
    assert 0 <= for_sweeps <= sweeps
    assert for_singles + for_sweeps == min(places, singles + sweeps)
    # Neither starves the other.
    assert for_singles >= min(singles, places // 2)
    assert for_sweeps >= min(sweeps, places // 2)


rows = st.lists(
    st.builds(
        row,
        st.sampled_from("abcdefgh"),
        st.integers(0, 50),
        running=st.integers(0, 5),
        most=st.integers(-1, 20),
        weight=st.integers(0, 9),
        waits=st.floats(0, 1e6),
    ),
    unique_by=lambda r: r.agency,
)


@given(rows, st.integers(-1, 30))
def test_no_place_is_wasted_and_none_is_given_twice(demand: list[AgencyDemand], total: int) -> None:
    given = desired_places(demand, total=total)
    assert given.keys() == {r.agency for r in demand}
    for r in demand:
        assert 0 <= given[r.agency] <= max(0, min(r.queued + r.running, r.max_concurrent))
    assert sum(given.values()) <= max(total, 0)
    left = total - sum(given.values())
    hungry = [r for r in demand if given[r.agency] < min(r.queued + r.running, r.max_concurrent)]
    assert left <= 0 or not hungry
