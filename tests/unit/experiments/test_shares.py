"""Who gets how many runners."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from experiments.queue import AgencyDemand
from experiments.shares import desired_runners

T0 = datetime(2026, 1, 5, tzinfo=UTC)


def row(
    agency: str, queued: int, *, running: int = 0, most: int = 10, weight: int = 1, waits: float | None = 0
) -> AgencyDemand:
    oldest = None if waits is None else T0 - timedelta(seconds=waits)
    return AgencyDemand(agency, agency, queued, running, most, weight, oldest)


def test_nobody_waits() -> None:
    assert desired_runners([], total=8) == {}
    assert desired_runners([row("a", 0, running=1, waits=None)], total=8) == {"a": 1}


def test_an_agency_gets_what_it_may() -> None:
    assert desired_runners([row("a", 100, most=3)], total=8) == {"a": 3}
    assert desired_runners([row("a", 2, running=1, most=10)], total=8) == {"a": 3}


def test_a_long_queue_does_not_take_everything() -> None:
    assert desired_runners([row("big", 10_000, most=100), row("small", 1)], total=4) == {"big": 3, "small": 1}


def test_a_newcomer_gets_the_next_free_place() -> None:
    assert desired_runners([row("big", 10_000, running=3, most=100, waits=99), row("small", 5)], total=4) == {
        "big": 3,
        "small": 1,
    }


def test_shares_follow_the_weights() -> None:
    shares = desired_runners([row("a", 99, most=99, weight=1), row("b", 99, most=99, weight=3)], total=8)
    assert shares == {"a": 2, "b": 6}


def test_between_equals_the_one_that_has_waited_longest_goes_first() -> None:
    assert desired_runners([row("a", 1, waits=1), row("b", 1, waits=9)], total=1) == {"a": 0, "b": 1}


def test_what_runs_is_not_taken_away() -> None:
    assert desired_runners([row("a", 5, running=6)], total=2) == {"a": 6}


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
    given = desired_runners(demand, total=total)
    assert given.keys() == {r.agency for r in demand}
    for r in demand:
        assert r.running <= given[r.agency] <= max(r.running, min(r.queued + r.running, r.max_concurrent))
    assert sum(given.values()) <= max(total, sum(r.running for r in demand))
    left = total - sum(given.values())
    hungry = [r for r in demand if given[r.agency] < min(r.queued + r.running, r.max_concurrent)]
    assert left <= 0 or not hungry
