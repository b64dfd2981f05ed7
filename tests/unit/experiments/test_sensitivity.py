"""The measures of sensitivity against other implementations of the same formulas (scipy, numpy)."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.sensitivity import Effect, Observation, correlation, sensitivity


def one(xs: list[object], ys: list[float], *, ordered: bool) -> Effect:
    seen = [Observation({"p": x}, {"m": y}) for x, y in zip(xs, ys, strict=True)]  # type: ignore[dict-item]
    (effect,) = sensitivity(seen, {"p": ordered}, ["m"])
    return effect


@given(st.integers(0, 10_000), st.integers(3, 60), st.integers(2, 20))
def test_rank_correlation_and_standardised_effect_are_scipys(seed: int, size: int, distinct: int) -> None:
    generator = random.Random(seed)
    xs = [float(generator.randrange(distinct)) for _ in range(size)]
    ys = [x * generator.random() + generator.gauss(0, 1) for x in xs]
    if len(set(xs)) < 2:
        return
    found = one(xs, ys, ordered=True)
    assert found.rho == pytest.approx(stats.spearmanr(xs, ys).statistic, abs=1e-9)
    line = stats.linregress(xs, ys)
    assert found.effect == pytest.approx(line.slope * np.std(xs) / np.std(ys), abs=1e-9)
    assert found.strength == pytest.approx(abs(found.rho or 0))


def test_choices_have_means_a_difference_and_the_correlation_ratio() -> None:
    groups = {"a": [1.0, 2.0, 3.0], "b": [4.0, 6.0], "c": [0.0, 0.5]}
    xs = [name for name, ys in groups.items() for _ in ys]
    ys = [y for values in groups.values() for y in values]
    found = one(list(xs), ys, ordered=False)
    assert [(level.value, level.points, level.mean) for level in found.levels] == [
        ("b", 2, 5.0),
        ("a", 3, 2.0),
        ("c", 2, 0.25),
    ]
    assert found.difference == pytest.approx(4.75)
    assert found.effect == pytest.approx(4.75 / np.std(ys, ddof=1))
    f = stats.f_oneway(*groups.values()).statistic  # eta^2 = F k / (F k + n - k - 1), k = groups - 1
    assert found.strength == pytest.approx(math.sqrt(2 * f / (2 * f + 4)))
    assert found.rho is None


def test_dates_are_ordered_and_truth_is_a_choice() -> None:
    assert one(["2026-01-01", "2026-01-03", "2026-02-01"], [1.0, 2.0, 3.0], ordered=True).rho == pytest.approx(1)
    assert one([True, False, True, False], [1.0, 0.0, 1.0, 0.0], ordered=False).strength == pytest.approx(1)


def test_what_says_nothing_is_left_out_or_none() -> None:
    assert sensitivity([Observation({"p": 1.0}, {"m": 1.0})] * 2, {"p": True}, ["m"]) == ()
    assert sensitivity([Observation({"p": 1.0}, {"m": float(i)}) for i in range(5)], {"p": True}, ["m"]) == ()
    flat = one([1.0, 2.0, 3.0], [0.1 + 0.2, 0.3, 0.3], ordered=True)
    assert (flat.strength, flat.rho, flat.effect) == (None, None, None)  # rounding is no difference
    still = one(["a", "b", "a"], [7.0, 7.0, 7.0], ordered=False)
    assert (still.strength, still.effect, still.difference) == (None, None, 0.0)


def test_points_without_the_metric_are_left_aside_and_the_strongest_comes_first() -> None:
    seen = [Observation({"weak": i % 2, "strong": i}, {"m": float(i)} if i else {"other": 1.0}) for i in range(9)]
    effects = sensitivity(seen, {"weak": True, "strong": True}, ["m"])
    assert [(e.parameter, e.points) for e in effects] == [("strong", 8), ("weak", 8)]


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_the_unit_of_a_number_changes_nothing(scale: float) -> None:
    assert correlation([scale * x for x in (1, 2, 3, 5)], [1, 3, 2, 7]) == pytest.approx(
        np.corrcoef([1, 2, 3, 5], [1, 3, 2, 7])[0, 1]
    )
    assert one(["a", "b", "b", "a"], [scale * y for y in (1, 2, 3, 1.5)], ordered=False).strength == pytest.approx(
        one(["a", "b", "b", "a"], [1, 2, 3, 1.5], ordered=False).strength
    )
