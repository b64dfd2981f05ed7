"""A run's values, results and origin as labelled lines: what the report and the run's page both show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from catalog.i18n import N_, Translator, decimals
from catalog.store.records import RunRecord
from experiments.model import Metric, Scalar
from lab_templates.model import TemplateVersion


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a two-column list: a label, a value, and what the value means."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class MetricRow:
    label: str
    value: str
    interval: str
    better: str


_TINY = 0.0001  # below it a number says nothing to a reader but that it is very small


def metric_value(metric: Metric, t: Translator) -> str:
    """Return a metric's value with its unit; in words where the notebook recorded no number."""
    if metric.value is None:
        return t(N_("infinitely large")) if metric.flag in ("inf", "-inf") else t(N_("could not be computed"))
    if 0 < metric.value < _TINY:
        small = t(N_("less than %(limit)s"), limit=t.exact(_TINY))
        return f"{small} {t.unit(metric.unit)}".strip()
    return f"{t.fixed(metric.value, _digits(metric))} {t.unit(metric.unit, metric.value)}".strip()


def _digits(metric: Metric) -> int:
    return decimals((metric.value, metric.ci_low, metric.ci_high))


def metric_interval(metric: Metric, t: Translator) -> str:
    """Return a metric's interval in words, "" where it has none."""
    if metric.ci_low is None or metric.ci_high is None:
        return ""
    digits = _digits(metric)
    return t(N_("from %(low)s to %(high)s"), low=t.fixed(metric.ci_low, digits), high=t.fixed(metric.ci_high, digits))


def metric_rows(record: RunRecord, template: TemplateVersion | None, t: Translator) -> list[MetricRow]:
    """Return the metrics, each by its declared label where the template has one."""
    labels = {metric.name: t.text(metric.label) for metric in template.metrics} if template else {}
    better = {"higher": t(N_("Higher is better")), "lower": t(N_("Lower is better"))}
    return [
        MetricRow(
            labels.get(m.name) or m.name, metric_value(m, t), metric_interval(m, t), better.get(m.better or "", "")
        )
        for m in record.metrics
    ]


def parameter_rows(record: RunRecord, template: TemplateVersion | None, t: Translator) -> list[Row]:
    """Return the parameters, each with its declared label, unit and help."""
    return value_rows(record.parameters, template, t)


def value_rows(values: Mapping[str, Scalar], template: TemplateVersion | None, t: Translator) -> list[Row]:
    """Return values of a template's parameters, each with its declared label, unit and help."""
    rows = []
    for name, value in values.items():
        spec = template.parameter(name) if template else None
        if spec is None:
            rows.append(Row(name, t.scalar(value)))
            continue
        shown = (
            t.text(spec.choice_labels[value])
            if isinstance(value, str) and value in spec.choice_labels
            else t.scalar(value)
        )
        number = float(value) if isinstance(value, int | float) else None
        rows.append(Row(t.text(spec.label) or name, f"{shown} {t.unit(spec.unit, number)}".strip(), t.text(spec.help)))
    return rows


def provenance_rows(record: RunRecord, t: Translator) -> list[Row]:
    """Return where the result comes from, by the server's own record: a notebook has no say in it."""
    rows = [
        Row(t(N_("Run")), record.id),
        Row(t(N_("Template")), f"{record.template} {record.version}"),
        Row(t(N_("Template digest")), record.template_digest),
        Row(t(N_("Sandbox image")), record.image_digest or "–"),
        Row(t(N_("Engine")), record.engine or "–"),
        Row(t(N_("Executed notebook (SHA-256)")), record.notebook_sha256 or "–"),
        Row(t(N_("Requested by")), record.requested_by),
        Row(t(N_("Requested")), t.moment(record.created_at)),
        Row(t(N_("Attempt")), t(N_("%(attempt)s of %(most)s"), attempt=record.attempt, most=record.max_attempts)),
    ]
    if record.started_at:
        rows.append(Row(t(N_("Started")), t.moment(record.started_at)))
    if record.ended_at:
        rows.append(Row(t(N_("Ended")), t.moment(record.ended_at)))
    if record.seconds is not None:
        rows.append(Row(t(N_("Took")), t.duration(record.seconds)))
    return rows
