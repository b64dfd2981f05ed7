"""What a sweep found, in words: which parameter moves a measure, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from catalog.i18n import N_, Translator
from catalog.reports.display import Row
from catalog.store.records import SensitivityRecord, SweepPoint
from experiments.model import Scalar
from experiments.sensitivity import FEWEST_POINTS, Effect
from lab_templates.model import ParameterType, TemplateVersion

STRONG, CLEAR, WEAK = 0.7, 0.4, 0.2  # of a strength from 0 to 1
MOST_LEADS = 3  # sentences that stand first, one for each of so many measures
FEW_VALUES = 12  # so many values of a parameter are named; of more, the lowest and the highest fifth are compared
_ORDERED = (ParameterType.NUMBER, ParameterType.INTEGER, ParameterType.DATE)


@dataclass(frozen=True, slots=True)
class Names:
    """What parameters, values and measures are called, in one language. ``version`` None: by their bare names."""

    t: Translator
    version: TemplateVersion | None
    units: Mapping[str, str]

    def parameter(self, name: str) -> str:
        spec = self.version.parameter(name) if self.version else None
        return (self.t.text(spec.label) if spec else "") or name

    def parameter_unit(self, name: str) -> str:
        spec = self.version.parameter(name) if self.version else None
        return self.t.unit(spec.unit) if spec else ""

    def ordered(self, name: str) -> bool:
        """Say whether the parameter's values are numbers or dates."""
        spec = self.version.parameter(name) if self.version else None
        return spec is not None and spec.type in _ORDERED

    def value(self, name: str, value: Scalar) -> str:
        """Return a parameter's value with its unit, a choice by its label."""
        spec = self.version.parameter(name) if self.version else None
        if spec is None:
            return self.t.scalar(value)
        if isinstance(value, str) and value in spec.choice_labels:
            return self.t.text(spec.choice_labels[value])
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        shown = self.t.number(number) if isinstance(number, float) else self.t.scalar(value)
        return f"{shown} {self.t.unit(spec.unit, number)}".strip()

    def metric(self, name: str) -> str:
        for spec in self.version.metrics if self.version else ():
            if spec.name == name:
                return self.t.text(spec.label) or name
        return name

    def metric_unit(self, name: str) -> str:
        return self.t.unit(self.units.get(name, ""))

    def quantity(self, metric: str, value: float) -> str:
        return self.t.quantity(value, self.units.get(metric, ""))


@dataclass(frozen=True, slots=True)
class EffectRow:
    """A line of the sensitivity table. ``share`` is the strength from 0 to 1, None where it has none."""

    parameter: str
    label: str
    share: float | None
    number: str
    word: str
    says: str


@dataclass(frozen=True, slots=True)
class MetricEffects:
    """One measure: its finding in a sentence or two, and a line for each parameter, the strongest first."""

    metric: str
    label: str
    lead: str
    rows: tuple[EffectRow, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a sweep says: the measures that differ between its runs, those that do not with the value they all have, and
    the sentences that stand first.

    Each in the template's own order. A measure that never changes says nothing about what varied, so it stands behind
    those that do, whatever the template puts first.
    """

    moved: tuple[MetricEffects, ...]
    still: tuple[Row, ...]
    leads: tuple[str, ...]


def metric_order(found: SensitivityRecord, version: TemplateVersion | None) -> tuple[str, ...]:
    """Return the measures in the order of the template's declaration, undeclared ones after them."""
    declared = [spec.name for spec in version.metrics] if version else []
    return tuple(sorted(found.metrics, key=lambda name: declared.index(name) if name in declared else len(declared)))


def findings(found: SensitivityRecord, points: Sequence[SweepPoint], names: Names) -> Findings:
    """Return what the sweep says about each measure that enough points have."""
    moved, still = [], []
    for metric in metric_order(found, names.version):
        mine = [effect for effect in found.effects if effect.metric == metric]
        if any(effect.strength is not None for effect in mine):
            rows = tuple(_row(effect, points, names) for effect in mine)
            moved.append(MetricEffects(metric, names.metric(metric), _lead(metric, rows, names), rows))
        elif mine:
            same = mean(point.metrics[metric] for point in points if metric in point.metrics)
            still.append(Row(names.metric(metric), names.quantity(metric, same)))
    leads = [item.lead for item in moved[:MOST_LEADS]]
    if still and not moved:
        leads.append(names.t(N_("No measure differs between the runs.")))
    return Findings(tuple(moved), tuple(still), tuple(leads))


def too_few(found: SensitivityRecord, t: Translator) -> str:
    """Return why there is nothing to compare, "" if there is something."""
    if found.points < FEWEST_POINTS:
        return t(N_("At least three runs must succeed before they can be compared."))
    if not found.metrics:
        return t(N_("The runs recorded no measures, so there is nothing to compare."))
    if not found.effects:
        return t(N_("The runs that succeeded do not differ enough to be compared."))
    return ""


def _lead(name: str, rows: Sequence[EffectRow], names: Names) -> str:
    t, strongest, metric = names.t, rows[0], names.metric(name)
    if (strongest.share or 0.0) < WEAK:
        return t(N_("None of the values that vary clearly moves “%(metric)s”."), metric=metric)
    if len(rows) == 1:
        said = N_("“%(parameter)s” matters for “%(metric)s”.")
    else:
        said = N_("“%(parameter)s” matters most for “%(metric)s”.")
    return f"{t(said, parameter=strongest.label, metric=metric)} {strongest.says}".strip()


def _row(effect: Effect, points: Sequence[SweepPoint], names: Names) -> EffectRow:
    share = effect.strength
    return EffectRow(
        effect.parameter,
        names.parameter(effect.parameter),
        share,
        "–" if share is None else names.t.fixed(share, 2),
        strength_word(names.t, share),
        _says(effect, points, names),
    )


def strength_word(t: Translator, share: float | None) -> str:
    if share is None or share < WEAK:
        return t(N_("Hardly any"))
    if share < CLEAR:
        return t(N_("Weak"))
    return t(N_("Marked")) if share < STRONG else t(N_("Strong"))


def _says(effect: Effect, points: Sequence[SweepPoint], names: Names) -> str:
    """Return the difference that the parameter makes, with the measure's own unit."""
    t, name, metric = names.t, effect.parameter, effect.metric
    if effect.strength is None:
        return ""
    if not effect.ordered:
        if len(effect.levels) < 2:
            return ""
        high, low = effect.levels[0], effect.levels[-1]
        return t(
            N_("On average %(high)s with “%(best)s” and %(low)s with “%(worst)s”."),
            high=names.quantity(metric, high.mean),
            best=names.value(name, high.value),
            low=names.quantity(metric, low.mean),
            worst=names.value(name, low.value),
        )
    pairs = sorted(
        ((number(p.parameters[name]), p.parameters[name], p.metrics[metric]) for p in points if metric in p.metrics),
        key=lambda pair: pair[0],
    )
    if len({x for x, _, _ in pairs}) <= FEW_VALUES:
        first, last = pairs[0], pairs[-1]
        return t(
            N_("On average %(from)s at %(low)s and %(to)s at %(high)s."),
            **{
                "from": names.quantity(metric, mean(y for x, _, y in pairs if x == first[0])),
                "to": names.quantity(metric, mean(y for x, _, y in pairs if x == last[0])),
                "low": names.value(name, first[1]),
                "high": names.value(name, last[1]),
            },
        )
    fifth = max(1, len(pairs) // 5)
    return t(
        N_("On average %(from)s in the fifth of the runs with the lowest value and %(to)s in that with the highest."),
        **{
            "from": names.quantity(metric, mean(y for _, _, y in pairs[:fifth])),
            "to": names.quantity(metric, mean(y for _, _, y in pairs[-fifth:])),
        },
    )


def mean(values: Iterable[float]) -> float:
    """Return the mean of at least one value; each is divided first, so that large ones do not overflow."""
    listed = list(values)
    return sum(value / len(listed) for value in listed)


def number(value: Scalar) -> float:
    """Return a number as it is, a date as its number of days."""
    if isinstance(value, str):
        return float(date.fromisoformat(value).toordinal())
    return float(value or 0)
