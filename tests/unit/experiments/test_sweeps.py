"""Sweep requests to points: counted without making them, bound one by one, the same seed the same points."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.sweeps import Axis, Range, Sample, Span, SweepRequest, count, expand, expected_seconds
from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, TemplateVersion, Text

SPECS = (
    ParameterSpec("rate", ParameterType.NUMBER, 0.5, minimum=0.0, maximum=1.0),
    ParameterSpec("n", ParameterType.INTEGER, 10, minimum=1, maximum=100),
    ParameterSpec("letter", ParameterType.CHOICE, "a", choices=("a", "b", "c")),
    ParameterSpec("day", ParameterType.DATE, "2026-01-01"),
    ParameterSpec("shown", ParameterType.BOOLEAN, False),
    ParameterSpec("office", ParameterType.TEXT, "Bergen"),
)
VERSION = TemplateVersion(
    name="t",
    version="1.0.0",
    digest="sha256:0",
    title=Text(),
    summary=Text(),
    language="nb",
    kernel="python3",
    timeout_seconds=60,
    data_class="synthetic",
    data_source=Text(),
    parameters=SPECS,
    metrics=(),
    notebook=b"",
    declaration=b"",
)


def codes(request: SweepRequest, most: int = 10_000) -> set[str]:
    with pytest.raises(InvalidInput) as caught:
        expand(VERSION, request, most=most)
    return {p.code for p in caught.value.problems}


def values(request: SweepRequest, name: str, most: int = 10_000) -> list[object]:
    return [point[name] for point in expand(VERSION, request, most=most).points]


def test_a_grid_is_every_combination_in_order_with_defaults_for_the_rest() -> None:
    found = expand(VERSION, SweepRequest(grid={"rate": [0.1, 0.2], "letter": ["a", "c"]}), most=100)
    assert [(p["rate"], p["letter"]) for p in found.points] == [(0.1, "a"), (0.1, "c"), (0.2, "a"), (0.2, "c")]
    assert all(p["n"] == 10 and p["day"] == "2026-01-01" for p in found.points)
    assert (found.varied, found.duplicates) == (("rate", "letter"), 0)


@pytest.mark.parametrize(
    ("axis", "wanted"),
    [
        (Range(0, 1, 0.1), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (Range("0", "0,3", "0,1"), [0, 0.1, 0.2, 0.3]),
        (Range(0, 1, 0.4), [0, 0.4, 0.8]),
        (Range(1, 0, -0.5), [1, 0.5, 0]),
        (Range(0.5, 0.5, 1), [0.5]),
    ],
)
def test_a_range_holds_the_numbers_that_were_typed(axis: Axis, wanted: list[float]) -> None:
    assert values(SweepRequest(grid={"rate": axis}), "rate") == wanted


@pytest.mark.parametrize("axis", [Range(0, 1, -1), Range(1, 0, 1), []])
def test_an_empty_axis_is_an_empty_sweep(axis: Axis) -> None:
    assert codes(SweepRequest(grid={"rate": axis, "n": [1, 2]})) == {"empty_sweep"}


@pytest.mark.parametrize("bad", [Range(0, 1, 0), Range("x", 1, 1), Range(0, True, 1), Range(0, "1e999", 1), "abc", 7])
def test_what_is_no_range_is_refused(bad: Axis) -> None:
    assert codes(SweepRequest(grid={"rate": bad})) == {"bad_space"}


def test_a_grid_too_large_is_counted_and_never_made() -> None:
    giant = SweepRequest(grid={"n": Range(0, 10**30, 1), "rate": Range(0, 1, "0.000000001")})
    assert count(giant) == (10**30 + 1) * (10**9 + 1)
    with pytest.raises(InvalidInput) as caught:
        expand(VERSION, giant, most=10_000)
    (problem,) = caught.value.problems
    assert (problem.code, problem.value, problem.limit) == ("too_many_runs", str(count(giant)), "10000")
    assert codes(SweepRequest(sample=Sample(10**12, 0, {"rate": None}))) == {"too_many_runs"}


def test_duplicates_are_left_out_and_said() -> None:
    found = expand(VERSION, SweepRequest(points=[{"rate": 0.1}, {"rate": "0,1"}, {"rate": 0.2}, {}]), most=10)
    assert [p["rate"] for p in found.points] == [0.1, 0.2, 0.5]
    assert (found.asked, found.duplicates) == (4, 1)


def test_a_point_wins_over_what_is_fixed_and_a_grid_does_not() -> None:
    found = expand(VERSION, SweepRequest(points=[{"n": 1}, {}], fixed={"n": 7, "letter": "b"}), most=10)
    assert [(p["n"], p["letter"]) for p in found.points] == [(1, "b"), (7, "b")]
    assert codes(SweepRequest(grid={"n": [1]}, fixed={"n": 2})) == {"given_twice"}
    assert codes(SweepRequest(sample=Sample(2, 0, {"n": None}), fixed={"n": 2})) == {"given_twice"}


def test_a_bad_value_is_said_once_and_a_bad_line_by_its_number() -> None:
    with pytest.raises(InvalidInput) as caught:
        expand(VERSION, SweepRequest(grid={"rate": [0.1, 9], "n": Range(1, 100, 1)}), most=10_000)
    assert [p.code for p in caught.value.problems] == ["above_maximum"]
    with pytest.raises(InvalidInput, match="Point 2: rate=9"):
        expand(VERSION, SweepRequest(points=[{}, {"rate": 9}]), most=10)
    assert codes(SweepRequest(grid={"rtae": [0.1]})) == {"unknown_parameter"}
    assert codes(SweepRequest(fixed={"rate": 9}, grid={"n": [1, 2, 3]})) == {"above_maximum"}


@pytest.mark.parametrize(
    "request_",
    [SweepRequest(), SweepRequest(grid={"n": [1]}, points=[{}]), SweepRequest(points=[], sample=Sample(1, 1, {}))],
)
def test_exactly_one_way_is_described(request_: SweepRequest) -> None:
    assert codes(request_) == {"bad_sweep"}


def test_a_sample_is_drawn_within_its_space_and_again_the_same() -> None:
    space = {
        "rate": None,
        "n": Span(1, 100, logarithmic=True),
        "letter": None,
        "day": Span("2026-01-01", "2026-01-31"),
        "shown": None,
        "office": ["Oslo", "Tromsø"],
    }
    request = SweepRequest(sample=Sample(200, 42, space))
    first = expand(VERSION, request, most=1000)
    assert first.points == expand(VERSION, request, most=1000).points
    assert first.points != expand(VERSION, SweepRequest(sample=Sample(200, 43, space)), most=1000).points
    assert len(first.points) == 200
    assert {p["letter"] for p in first.points} == {"a", "b", "c"}
    assert {p["office"] for p in first.points} == {"Oslo", "Tromsø"}
    assert {p["shown"] for p in first.points} == {True, False}
    days = {str(p["day"]) for p in first.points}
    assert min(days) == "2026-01-01"
    assert max(days) == "2026-01-31"
    # Half of the logarithms of 1 to 100 lie below 10.
    assert 70 < sum(isinstance(p["n"], int) and p["n"] < 10 for p in first.points) < 130


def test_the_seed_of_today_gives_the_points_of_tomorrow() -> None:
    found = values(SweepRequest(sample=Sample(3, 1, {"n": None})), "n")
    assert found == [14, 85, 77]  # Random(1).random() is 0.134…, 0.847…, 0.763… in every Python


def test_a_small_space_gives_what_it_has() -> None:
    found = expand(VERSION, SweepRequest(sample=Sample(50, 0, {"letter": None, "shown": None})), most=100)
    assert (len(found.points), found.duplicates) == (6, 44)


@pytest.mark.parametrize(
    ("space", "code"),
    [
        ({}, "empty_sweep"),
        ({"office": None}, "no_range"),
        ({"day": None}, "no_range"),
        ({"letter": Span(0, 1)}, "bad_space"),
        ({"rate": Span(1, 0)}, "bad_space"),
        ({"rate": Span(0, 1, logarithmic=True)}, "bad_space"),
        ({"rate": Span(0, 9)}, "above_maximum"),
        ({"rate": []}, "bad_space"),
        ({"letter": ["z"]}, "not_a_choice"),
        ({"beta": None}, "unknown_parameter"),
    ],
)
def test_a_space_that_cannot_be_drawn_from_is_refused(space: dict[str, Span | list[object] | None], code: str) -> None:
    assert code in codes(SweepRequest(sample=Sample(5, 0, space)))


@given(
    start=st.decimals("-1000", "1000", places=3),
    steps=st.integers(0, 500),
    step=st.decimals("0.001", "10", places=3).filter(lambda d: d != 0),
)
@settings(max_examples=60)
def test_counting_and_making_agree(start: Decimal, steps: int, step: Decimal) -> None:
    axis = Range(str(start), str(start + steps * step), str(step))
    version_free = SweepRequest(grid={"x": axis, "y": [1, 2]})
    assert count(version_free) == 2 * (steps + 1)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 9))
def test_the_time_is_that_of_the_rounds(runs: int, ahead: int, concurrent: int) -> None:
    rounds = len(list(itertools.islice(range(0, runs + ahead, concurrent), 10**6)))
    assert expected_seconds(runs, ahead, 2.0, concurrent) == 2.0 * rounds
    assert expected_seconds(runs, ahead, None, concurrent) is None
    assert expected_seconds(runs, ahead, 2.0, 0) is None
