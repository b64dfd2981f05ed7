"""What a sweep says about its parameters: how strongly each one moves each metric.

For an ordered parameter (number, integer, date) two measures: Spearman's rank correlation (C. Spearman, "The proof and
measurement of association between two things", American Journal of Psychology 15, 1904) with mean ranks for ties, and
the standardised effect, the least-squares slope times s_x / s_y (standardised regression coefficient of one factor:
A. Saltelli et al., Global Sensitivity Analysis: The Primer, 2008, section 1.2.5). For a parameter of choices (text,
choice, boolean): the mean of each choice, the difference between the largest and the smallest of them, and that
difference in standard deviations of the metric.

``strength`` puts both kinds on one scale from 0 to 1: |rho|, and the correlation ratio eta = sqrt(SS_between /
SS_total) (K. Pearson 1905; R. A. Fisher, Statistical Methods for Research Workers, 1925, chapter VIII).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from experiments.model import Scalar

FEWEST_POINTS = 3  # two points always lie on a line, so they say nothing
MOST_LEVELS = 100


@dataclass(frozen=True, slots=True)
class Level:
    """One choice of a parameter: how many points have it, and the metric's mean over them."""

    value: Scalar
    points: int
    mean: float


@dataclass(frozen=True, slots=True)
class Effect:
    """How one parameter moves one metric, over ``points`` points that have both.

    ``rho`` and ``effect`` are None for a parameter of choices where they mean nothing, and where the metric never
    changes; ``difference`` is in the metric's unit, None for an ordered parameter.
    """

    parameter: str
    metric: str
    ordered: bool
    points: int
    strength: float | None
    rho: float | None = None
    effect: float | None = None
    difference: float | None = None
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """One point that has succeeded."""

    parameters: Mapping[str, Scalar]
    metrics: Mapping[str, float]


def sensitivity(
    observations: Sequence[Observation], ordered: Mapping[str, bool], metrics: Sequence[str]
) -> tuple[Effect, ...]:
    """Return the effect of each parameter on each metric, for each metric the strongest first.

    ``ordered`` names the parameters and says which are numbers or dates. A pair with fewer than ``FEWEST_POINTS``
    points, and a parameter that has one value only, is left out.
    """
    effects: list[Effect] = []
    for metric in metrics:
        seen = [o for o in observations if metric in o.metrics]
        ys = [o.metrics[metric] for o in seen]
        ranked = _ranks(ys)
        found = []
        for name, is_ordered in ordered.items():
            values = [o.parameters[name] for o in seen]
            if len(seen) < FEWEST_POINTS or len(set(values)) < 2:
                continue
            if is_ordered:
                found.append(_of_order(name, metric, [_number(v) for v in values], ys, ranked))
            else:
                found.append(_of_choices(name, metric, values, ys))
        effects += sorted(found, key=lambda e: -(e.strength or 0.0))
    return tuple(effects)


def _of_order(name: str, metric: str, xs: list[float], ys: list[float], ranked: list[float]) -> Effect:
    # For one factor the slope times s_x / s_y is the product-moment correlation. Where it is None the metric differs by
    # rounding at most, and ranks of that would say much about nothing.
    effect = correlation(xs, ys)
    rho = None if effect is None else correlation(_ranks(xs), ranked)
    return Effect(name, metric, True, len(ys), None if rho is None else abs(rho), rho, effect)


def _of_choices(name: str, metric: str, values: list[Scalar], ys: list[float]) -> Effect:
    groups: dict[Scalar, list[float]] = {}
    for value, y in zip(values, ys, strict=True):
        groups.setdefault(value, []).append(y)
    levels = sorted((Level(v, len(g), math.fsum(g) / len(g)) for v, g in groups.items()), key=lambda level: -level.mean)
    difference = levels[0].mean - levels[-1].mean
    unit = max(abs(y) for y in ys) or 1.0  # squares stay finite, and what is divided by another loses it again
    mean = math.fsum(ys) / len(ys)
    total = math.fsum(((y - mean) / unit) ** 2 for y in ys)
    between = math.fsum(level.points * ((level.mean - mean) / unit) ** 2 for level in levels)
    flat = total <= _noise([y / unit for y in ys])
    deviation = unit * math.sqrt(total / (len(ys) - 1))
    return Effect(
        name,
        metric,
        False,
        len(ys),
        None if flat else math.sqrt(min(1.0, between / total)),
        effect=None if flat else difference / deviation,
        difference=difference,
        levels=tuple(levels[:MOST_LEVELS]),
    )


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return the product-moment correlation of two equally long sequences; None if one of them never changes."""
    xs, ys = _scaled(xs), _scaled(ys)
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    dx, dy = [x - mean_x for x in xs], [y - mean_y for y in ys]
    squares_x, squares_y = math.fsum(x * x for x in dx), math.fsum(y * y for y in dy)
    if squares_x <= _noise(xs) or squares_y <= _noise(ys):
        return None
    products = math.fsum(x * y for x, y in zip(dx, dy, strict=True))
    return max(-1.0, min(1.0, products / math.sqrt(squares_x) / math.sqrt(squares_y)))


def _scaled(values: Sequence[float]) -> list[float]:
    """Return the values divided by the largest: a correlation does not change by it, and squares stay finite."""
    largest = max((abs(v) for v in values), default=0.0)
    return [v / largest for v in values] if largest else list(values)


def _noise(values: Sequence[float]) -> float:
    """Return the sum of squares that rounding alone gives numbers of this size."""
    largest = max((abs(v) for v in values), default=0.0)
    return len(values) * (largest * 1e-14) ** 2


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in range(start, end + 1):
            ranks[order[place]] = (start + end) / 2 + 1
        start = end + 1
    return ranks


def _number(value: Scalar) -> float:
    """Return a number as it is, a date as its number of days."""
    if isinstance(value, str):
        return float(date.fromisoformat(value).toordinal())
    return float(value or 0)
