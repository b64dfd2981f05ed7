"""What a series found, in words: a measure that differs comes before one that does not, and none is left out."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from catalog.i18n import translator
from catalog.reports.sweep_words import MOST_LEADS, Findings, Names, findings
from catalog.store.records import SensitivityRecord, SweepPoint
from experiments.model import RunState
from experiments.sensitivity import Observation, sensitivity
from lab_templates.model import MetricSpec, ParameterSpec, ParameterType
from tests.unit.catalog.world import template

DECLARED = ("first", "second", "third", "fourth", "fifth")
VERSION = replace(
    template(),
    parameters=(ParameterSpec("rate", ParameterType.NUMBER, 0.5),),
    metrics=tuple(MetricSpec(name) for name in DECLARED),
)
NAMES = Names(translator("en"), VERSION, {"second": "pp"})


def found(*runs: dict[str, float]) -> Findings:
    """Return what runs say whose measures are given and whose rate is 1, 2, 3 and so on."""
    points = [SweepPoint(i, f"r{i}", RunState.SUCCEEDED, {"rate": i + 1.0}, run) for i, run in enumerate(runs)]
    metrics = sorted({name for run in runs for name in run})
    effects = sensitivity([Observation(p.parameters, p.metrics) for p in points], {"rate": True}, metrics)
    return findings(SensitivityRecord(len(points), tuple(metrics), {}, effects), points, NAMES)


def test_a_measure_that_never_changes_does_not_come_first() -> None:
    said = found(*({"first": 9.0, "second": 2.0, "third": 3.0 * n, "extra": 1.0 / n} for n in range(1, 5)))
    assert [item.metric for item in said.moved] == ["third", "extra"], "the template's order, undeclared ones after"
    assert [(row.label, row.value) for row in said.still] == [("first", "9"), ("second", "2 percentage points")]
    assert said.leads[0] == "“rate” matters for “third”. On average 3 at 1 and 12 at 4."
    assert len(said.leads) == 2


def test_where_nothing_differs_that_is_what_is_said() -> None:
    said = found(*({"first": 9.0} for _ in range(4)))
    assert said.moved == ()
    assert said.leads == ("No measure differs between the runs.",)
    assert found({"first": 1.0}, {"first": 2.0}) == Findings((), (), ()), "two runs are too few to say anything"


values = st.sampled_from([0.0, 1.0, -2.5, 1e308, 5e-324])


@given(st.lists(st.dictionaries(st.sampled_from([*DECLARED, "x", "y"]), values), max_size=8))
def test_each_measure_is_said_once(runs: list[dict[str, float]]) -> None:
    said = found(*runs)
    told = [item.label for item in said.moved] + [row.label for row in said.still]
    enough = {name for run in runs for name in run if sum(name in other for other in runs) >= 3}
    assert sorted(told) == sorted(enough)
    assert len(said.leads) == (min(MOST_LEADS, len(said.moved)) or bool(said.still))
