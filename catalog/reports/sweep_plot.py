"""A measure against a parameter, as data: what a plot of a sweep draws, and the same as a table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catalog.i18n import N_, decimals
from catalog.reports.sweep_words import Names, mean, number
from catalog.store.records import SweepPoint
from experiments.model import Scalar

MOST_LINES = 6  # that can be told apart
MOST_DOTS = 400  # single runs that are drawn; of more, their mean and range
MOST_VALUES = 40  # values of a parameter with a mean of their own; of more, intervals with as many runs in each
BINS = 12


@dataclass(frozen=True, slots=True)
class Choice:
    """What is drawn: ``metric`` upwards, ``parameter`` sideways, a line for each value of ``lines`` ("" for one)."""

    metric: str
    parameter: str
    lines: str = ""


@dataclass(frozen=True, slots=True)
class Spot:
    """All runs of one line at one place. ``x`` is a number, or the index of a choice; ``label`` the place in words."""

    x: float
    label: str
    runs: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Line:
    """``dots`` are single runs, empty where there are too many to be told apart."""

    label: str
    spots: tuple[Spot, ...]
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Plot:
    """``places`` names the choices along the axis; it is empty where the axis is one of numbers or dates."""

    choice: Choice
    title: str
    summary: str
    x_label: str
    y_label: str
    line_label: str
    lines: tuple[Line, ...]
    places: tuple[str, ...] = ()
    dates: bool = False
    digits: int = 0  # decimals that the measure's values are shown with
    hidden: int = 0  # lines that are not drawn, because more than MOST_LINES cannot be told apart


def choices_for_lines(points: Sequence[SweepPoint], varied: Sequence[str]) -> tuple[str, ...]:
    """Return the parameters with few enough values for a line each."""
    return tuple(name for name in varied if 2 <= len({p.parameters[name] for p in points}) <= MOST_LINES)


def plot(points: Sequence[SweepPoint], choice: Choice, names: Names) -> Plot | None:
    """Return the plot of the points that have the measure; None if fewer than two have."""
    seen = [p for p in points if choice.metric in p.metrics]
    if len(seen) < 2:
        return None
    t = names.t
    ordered = names.ordered(choice.parameter)
    places: tuple[Scalar, ...] = () if ordered else _places(seen, choice)
    groups: dict[Scalar, list[SweepPoint]] = defaultdict(list)
    for point in seen:
        groups[point.parameters[choice.lines] if choice.lines else None].append(point)
    shown = sorted(groups.items(), key=lambda item: _sortable(item[0]))
    drawn = shown[:MOST_LINES]
    dots = sum(len(group) for _, group in drawn) <= MOST_DOTS
    lines = tuple(_line(names, choice, value, group, places, dots=dots) for value, group in drawn)
    metric, parameter = names.metric(choice.metric), names.parameter(choice.parameter)
    title = t(N_("%(metric)s by %(parameter)s"), metric=metric, parameter=parameter)
    return Plot(
        choice,
        title,
        _summary(names, choice, lines),
        _with_unit(parameter, names.parameter_unit(choice.parameter)),
        _with_unit(metric, names.metric_unit(choice.metric)),
        names.parameter(choice.lines) if choice.lines else "",
        lines,
        tuple(names.value(choice.parameter, value) for value in places),
        ordered and isinstance(seen[0].parameters[choice.parameter], str),
        decimals(y for line in lines for spot in line.spots for y in (spot.low, spot.high)),
        len(shown) - len(drawn),
    )


def _line(
    names: Names, choice: Choice, value: Scalar, group: Sequence[SweepPoint], places: tuple[Scalar, ...], *, dots: bool
) -> Line:
    index: Mapping[Scalar, int] = {place: i for i, place in enumerate(places)}
    pairs: list[tuple[float, Scalar, float]] = []
    for point in group:
        x = point.parameters[choice.parameter]
        if places and x not in index:
            continue
        pairs.append((float(index[x]) if places else number(x), x, point.metrics[choice.metric]))
    pairs.sort(key=lambda pair: pair[0])
    label = names.value(choice.lines, value) if choice.lines else ""
    return Line(label, tuple(_spots(names, choice, pairs)), tuple((x, y) for x, _, y in pairs) if dots else ())


def _spots(names: Names, choice: Choice, pairs: Sequence[tuple[float, Scalar, float]]) -> list[Spot]:
    by_value: dict[float, list[tuple[float, Scalar, float]]] = defaultdict(list)
    for pair in pairs:
        by_value[pair[0]].append(pair)
    if len(by_value) <= MOST_VALUES:
        return [_spot(x, names.value(choice.parameter, group[0][1]), group) for x, group in by_value.items()]
    size = math.ceil(len(pairs) / BINS)
    found = []
    for start in range(0, len(pairs), size):
        group = list(pairs[start : start + size])
        first, last = (names.value(choice.parameter, group[end][1]) for end in (0, -1))
        label = names.t(N_("%(low)s to %(high)s"), low=first, high=last)
        found.append(_spot(mean(x for x, _, _ in group), label, group))
    return found


def _spot(x: float, label: str, group: Sequence[tuple[float, Scalar, float]]) -> Spot:
    ys = [y for _, _, y in group]
    # The mean of equal numbers may differ from them by rounding: it lies between the lowest and the highest.
    return Spot(x, label, len(ys), min(max(ys), max(min(ys), mean(ys))), min(ys), max(ys))


def _places(seen: Sequence[SweepPoint], choice: Choice) -> tuple[Scalar, ...]:
    """Return the choices along the axis, the one with the highest mean first, at most ``MOST_VALUES``."""
    by_value: dict[Scalar, list[float]] = defaultdict(list)
    for point in seen:
        by_value[point.parameters[choice.parameter]].append(point.metrics[choice.metric])
    return tuple(sorted(by_value, key=lambda value: -mean(by_value[value])))[:MOST_VALUES]


def _summary(names: Names, choice: Choice, lines: Sequence[Line]) -> str:
    """Return what a reader who cannot see the plot has to know."""
    t = names.t
    spots = [spot for line in lines for spot in line.spots]
    lowest, highest = min(spots, key=lambda s: s.mean), max(spots, key=lambda s: s.mean)
    return t(
        N_("The mean is lowest at %(low_at)s (%(low)s) and highest at %(high_at)s (%(high)s). The table has the rest."),
        low_at=lowest.label,
        low=names.quantity(choice.metric, lowest.mean),
        high_at=highest.label,
        high=names.quantity(choice.metric, highest.mean),
    )


def _with_unit(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label


def _sortable(value: Scalar) -> tuple[float, str]:
    if isinstance(value, bool | int | float):
        return float(value), ""
    return 0.0, value or ""
