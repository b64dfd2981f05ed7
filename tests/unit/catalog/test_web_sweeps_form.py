"""Whatever is typed into a series' form: a request that means what was typed, or sentences, never an error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.i18n import translator
from catalog.web.sweep_form import KINDS, MOST_TROUBLES, parse, place_of
from experiments.sweeps import Range, Sample, Span, count, expand
from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, Problem, Text
from tests.unit.catalog.world import template

VERSION = replace(
    template(),
    parameters=(
        ParameterSpec("rate", ParameterType.NUMBER, 0.5, minimum=0.0, maximum=1000.0, label=Text("Rente", "", "Rate")),
        ParameterSpec("many", ParameterType.INTEGER, 5),
        ParameterSpec("on", ParameterType.BOOLEAN, False),
        ParameterSpec("word", ParameterType.TEXT, "a", max_length=20),
        ParameterSpec(
            "pick", ParameterType.CHOICE, "x", choices=("x", "y", "z"), choice_labels={"y": Text("Ypsilon", "", "Why")}
        ),
        ParameterSpec("day", ParameterType.DATE, "2026-01-01"),
    ),
)
NAMES = [spec.name for spec in VERSION.parameters]
PLAIN = {"p-rate": "1", "p-many": "5", "p-word": "a", "p-pick": "x", "p-day": "2026-01-01"}
FIELDS = ["kind", "size", "seed", "table", "p-{}", "m-{}", "l-{}", "l-{}-0", "from-{}", "to-{}", "step-{}", "log-{}"]
EN = translator("en")

fields = st.builds(str.format, st.sampled_from(FIELDS), st.sampled_from(NAMES))
typed = st.one_of(
    st.sampled_from(
        [*KINDS, "one", "list", "range", "any", "on", "true", "0,5", "1 000", "-1e400", "nan", "2026-02-30"]
    ),
    st.text(max_size=40),
    st.lists(st.floats(0, 1000).map(str), max_size=4).map("\n".join),
    st.lists(st.sampled_from(["rate;many", "1;2", '"', "\t", "pick,word", "y,æ", "=1+1"]), max_size=5).map("\n".join),
)


@given(st.dictionaries(fields, typed, max_size=12))
def test_no_form_breaks_the_parser(values: dict[str, str]) -> None:
    asked = parse(VERSION, {**PLAIN, **values}, EN)
    assert (asked.request is None) == bool(asked.troubles)
    if asked.request is not None and count(asked.request) <= 1000:
        try:
            expand(VERSION, asked.request, most=1000)
        except InvalidInput as error:
            for problem in error.problems:
                assert isinstance(place_of(VERSION, values, problem), str)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=20), st.sampled_from(["nb", "nn", "en"]))
def test_a_list_means_what_was_typed(numbers: list[float], language: str) -> None:
    t = translator(language)
    for between in ("\n", "; ", ", ", "\r\n"):
        listed = between.join(t.exact(number) for number in numbers)
        asked = parse(VERSION, {**PLAIN, "m-rate": "list", "l-rate": listed}, t)
        assert asked.request is not None
        points = expand(VERSION, asked.request, most=100).points
        assert [point["rate"] for point in points] == list(dict.fromkeys(number + 0.0 for number in numbers))


def test_what_each_kind_makes_of_the_same_form() -> None:
    form = {**PLAIN, "m-rate": "range", "from-rate": "1 0", "to-rate": "1 000", "step-rate": "0,5", "log-rate": "on"}
    wrong = parse(VERSION, form, EN)
    assert wrong.request is None, "1 0 is no number"
    form["from-rate"] = "10"
    grid = parse(VERSION, form, EN).request
    assert grid is not None
    assert grid.grid == {"rate": Range("10", "1000", "0.5")}
    assert count(grid) == 1981
    sample = parse(VERSION, {**form, "kind": "sample", "size": "1 000", "seed": "-3", "m-on": "any"}, EN).request
    assert sample is not None
    assert sample.sample == Sample(1000, -3, {"rate": Span("10", "1000", True), "on": [False, True]})
    ticked = parse(VERSION, {**PLAIN, "m-pick": "list", "l-pick-0": "on", "l-pick-2": "on"}, EN).request
    assert ticked is not None
    assert ticked.grid == {"pick": ["x", "z"]}
    dates = parse(VERSION, {**PLAIN, "m-day": "list", "l-day": "2026-01-01\n2026-02-01"}, EN).request
    assert dates is not None
    assert dates.grid == {"day": ["2026-01-01", "2026-02-01"]}


def test_a_table_by_labels_and_with_gaps() -> None:
    table = "Rente;PICK;on\n0,5;ypsilon;ja\n;z;nei"
    asked = parse(VERSION, {**PLAIN, "kind": "points", "table": table, "m-rate": "list"}, EN)
    assert asked.request is not None
    points = expand(VERSION, asked.request, most=10).points
    assert [(p["rate"], p["pick"], p["on"]) for p in points] == [(0.5, "y", True), (1.0, "z", False)]


def test_a_hopeless_table_is_not_read_to_its_end() -> None:
    table = "rate\n" + "\n".join(f"x{n}" for n in range(100_000))
    asked = parse(VERSION, {**PLAIN, "kind": "points", "table": table}, EN)
    assert len(asked.troubles) == MOST_TROUBLES + 1
    assert asked.troubles[-1].text == "There may be more. Correct these first."


@pytest.mark.parametrize(
    ("values", "field", "place"),
    [
        ({"m-rate": "range"}, "rate.start", "from-rate"),
        ({"m-rate": "list"}, "rate", "l-rate"),
        ({"m-pick": "list"}, "pick", "l-pick-0"),
        ({"m-pick": "any"}, "pick", "m-pick-any"),
        ({}, "rate", "p-rate"),
        ({"kind": "points"}, "rate", "table"),
        ({}, "sample.size", "size"),
        ({}, "timeout_seconds", "minutes"),
        ({}, "sweep", ""),
    ],
)
def test_where_a_problem_of_the_whole_belongs(values: dict[str, str], field: str, place: str) -> None:
    assert place_of(VERSION, values, Problem("bad_space", field)) == place
