"""The plot of a series: what it says, for any numbers, and that nothing a sandbox named becomes markup."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from catalog.i18n import translator
from catalog.reports.sweep_plot import BINS, MOST_DOTS, MOST_LINES, Choice, plot
from catalog.reports.sweep_svg import NARROW, WIDE, draw
from catalog.reports.sweep_words import Names
from catalog.store.records import SweepPoint
from experiments.model import RunState, Scalar
from lab_templates.model import ParameterSpec, ParameterType
from tests.unit.catalog.world import template

VERSION = replace(
    template(),
    parameters=(
        ParameterSpec("rate", ParameterType.NUMBER, 0.5, unit="NOK"),
        ParameterSpec("day", ParameterType.DATE, "2026-01-01"),
        ParameterSpec("word", ParameterType.TEXT, "a"),
    ),
)
NB = translator("nb")
NAMES = Names(NB, VERSION, {"<m>": "pp"})


def points(*pairs: tuple[dict[str, Scalar], float]) -> list[SweepPoint]:
    return [SweepPoint(i, f"r{i}", RunState.SUCCEEDED, p, {"<m>": y}) for i, (p, y) in enumerate(pairs)]


def at(rate: float, y: float, word: str = "a") -> tuple[dict[str, Scalar], float]:
    return {"rate": rate, "word": word, "day": "2026-01-01"}, y


def test_means_and_ranges_by_value_and_line() -> None:
    some = points(at(1, 2), at(1, 4), at(2, 10), at(1, 9, "b"), at(2, 8, "b"))
    whole = plot(some, Choice("<m>", "rate"), NAMES)
    assert whole is not None
    assert [(s.label, s.runs, s.mean, s.low, s.high) for s in whole.lines[0].spots] == [
        ("1 kroner", 3, 5, 2, 9),
        ("2 kroner", 2, 9, 8, 10),
    ]
    assert "lavest ved 1 kroner" in whole.summary
    split = plot(some, Choice("<m>", "rate", "word"), NAMES)
    assert split is not None
    assert [(line.label, [s.mean for s in line.spots]) for line in split.lines] == [("a", [3, 10]), ("b", [9, 8])]
    choices = plot(some, Choice("<m>", "word"), NAMES)
    assert choices is not None
    assert choices.places == ("b", "a"), "the highest first"


def test_many_runs_are_drawn_by_their_means() -> None:
    many = plot(points(*(at(i / 7, i) for i in range(MOST_DOTS + 1))), Choice("<m>", "rate"), NAMES)
    assert many is not None
    assert many.lines[0].dots == ()
    assert len(many.lines[0].spots) == BINS
    assert sum(spot.runs for spot in many.lines[0].spots) == MOST_DOTS + 1
    words = plot(points(*(at(1, i, f"w{i}") for i in range(9))), Choice("<m>", "rate", "word"), NAMES)
    assert words is not None
    assert (len(words.lines), words.hidden) == (MOST_LINES, 9 - MOST_LINES)
    assert plot(points(at(1, 1)), Choice("<m>", "rate"), NAMES) is None


number = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.0, 5e-324, 1.7e308, -1.7e308])
)
one_point = st.builds(
    lambda rate, y, word, day: ({"rate": rate, "word": word, "day": day}, y),
    number,
    number,
    st.one_of(st.sampled_from(["a", "<b>", "&amp;", "</svg><script>"]), st.text(max_size=20).filter(str.isprintable)),
    st.dates().map(str),
)


@given(st.lists(one_point, min_size=2, max_size=12), st.sampled_from(["rate", "day", "word"]), st.booleans())
def test_any_numbers_make_a_whole_drawing(
    pairs: list[tuple[dict[str, Scalar], float]], parameter: str, split: bool
) -> None:
    drawn = plot(points(*pairs), Choice("<m>", parameter, "word" if split and parameter != "word" else ""), NAMES)
    assert drawn is not None
    for frame, kind in ((WIDE, "wide"), (NARROW, "narrow")):
        root = ElementTree.fromstring(draw(drawn, NB, frame, kind))  # noqa: S314 (our own)
        assert [child.tag for child in root][:2] == ["title", "desc"]
        assert (root[0].text or "").startswith("<m> etter ")
        assert not list(root.iter("script"))
        for element in root.iter():
            for name in ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy"):
                assert math.isfinite(float(element.get(name, "0")))
