"""The fields that every form shares that asks for runs of a template: its values, agency, experiment, time limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from catalog.access import Action, NotFound
from catalog.i18n import N_
from catalog.web.visit import Form, Trouble, Visit
from experiments.model import Scalar
from lab_templates.model import ParameterSpec, ParameterType, Problem, TemplateVersion


@dataclass(frozen=True, slots=True)
class Input:
    """One field of the form. ``name`` is also its id; ``kind`` chooses its widget."""

    name: str
    kind: str  # number | integer | boolean | text | long | choice | date
    label: str
    unit: str
    help: str
    allowed: str
    value: str
    choices: tuple[tuple[str, str], ...] = ()


def field_id(spec: ParameterSpec) -> str:
    """Return the name and id of a parameter's field."""
    return f"p-{spec.name}"


def inputs(visit: Visit, version: TemplateVersion, given: Mapping[str, str]) -> list[Input]:
    """Return the fields of a template's values, as ``given`` or with their defaults."""
    return [_input(visit, spec, given) for spec in version.parameters]


def values(form: Form, version: TemplateVersion) -> dict[str, object]:
    """Return the raw parameters of a form."""
    return {
        spec.name: form.get(field_id(spec)) == "true"
        if spec.type is ParameterType.BOOLEAN
        else form.get(field_id(spec))
        for spec in version.parameters
    }


def time_limit(form: Form) -> tuple[object, list[Problem]]:
    """Return the time limit in seconds (None: the template's own), and what is wrong with it (bad_timeout)."""
    minutes = form.get("minutes")
    if not minutes:
        return None, []
    try:
        return round(float(minutes.replace(",", ".")) * 60), []
    except (ValueError, OverflowError):
        return None, [Problem("bad_timeout", "timeout_seconds", minutes)]


def about(visit: Visit, version: TemplateVersion, given: Mapping[str, str]) -> dict[str, Any]:
    """Return what the fields about the run need: agencies, experiments and the time limit, with what was ``given``."""
    agencies = visit.my_agencies(Action.SUBMIT)
    mine = {agency.orgnr for agency in agencies}
    experiments = [e for e in visit.catalog.experiments.list(visit.viewer, limit=200).items if e.agency in mine]
    return {
        "agencies": agencies,
        "agency": given.get("agency") or (agencies[0].orgnr if len(agencies) == 1 else ""),
        "agency_names": {a.orgnr: visit.t.text(a.name) for a in agencies},
        "experiments": experiments,
        "experiment": given.get("experiment", ""),
        "minutes": given.get("minutes") or visit.t.number(max(1, round(version.timeout_seconds / 60))),
        "most_minutes": visit.site.settings.max_timeout_seconds // 60,
    }


def troubles(
    visit: Visit,
    version: TemplateVersion,
    problems: Iterable[Problem],
    others: Mapping[str, tuple[str, str]] | None = None,
) -> tuple[Trouble, ...]:
    """Return problems as sentences in the order of the form's fields, those that belong to none first.

    ``others`` are the form's further fields: a problem's field, and the id and label that the form has for it.
    """
    t = visit.t
    labels = {spec.name: t.text(spec.label) or spec.name for spec in version.parameters}
    labels |= {"agency": t(N_("Agency")), "experiment": t(N_("Experiment")), "timeout_seconds": t(N_("Time limit"))}
    ids = {spec.name: field_id(spec) for spec in version.parameters}
    ids |= {"agency": "agency", "experiment": "experiment", "timeout_seconds": "minutes"}
    for field, (id, label) in (others or {}).items():
        ids[field], labels[field] = id, label
    found: list[Trouble] = []
    for problem in problems:
        if problem.code == "bad_timeout":
            most = visit.site.settings.max_timeout_seconds // 60
            what = t(N_("The time limit must be a number of minutes, from 1 to %(most)s."), most=t.number(most))
            found.append(Trouble("minutes", what))
        else:
            found.extend(visit.troubles([problem], labels, ids))
    order = [field_id(spec) for spec in version.parameters] + ["agency", "experiment", "minutes"]
    order = [id for id, _ in (others or {}).values()] + order
    found.sort(key=lambda trouble: order.index(trouble.field) if trouble.field in order else -1)
    return tuple(found)


def of_run(visit: Visit, run: str, version: TemplateVersion) -> dict[str, str]:
    """Return an earlier run's values, to begin from; nothing if it is gone or was another template's."""
    try:
        record = visit.catalog.runs.get(visit.viewer, run)
    except NotFound:
        return {}
    if record.template != version.name:
        return {}
    given = {f"p-{name}": shown(visit, value) for name, value in record.parameters.items()}
    return given | {"agency": record.agency.orgnr, "experiment": record.experiment or ""}


def _input(visit: Visit, spec: ParameterSpec, given: Mapping[str, str]) -> Input:
    t = visit.t
    kind = "long" if spec.type is ParameterType.TEXT and spec.max_length > 200 else spec.type.value
    value = given.get(field_id(spec), "" if _answered(given) else shown(visit, spec.default))
    choices = tuple((c, t.text(spec.choice_labels[c]) if c in spec.choice_labels else c) for c in spec.choices)
    return Input(
        field_id(spec),
        kind,
        t.text(spec.label) or spec.name,
        t.unit(spec.unit),
        t.text(spec.help),
        _allowed(visit, spec),
        value,
        choices,
    )


def _answered(given: Mapping[str, str]) -> bool:
    """Say whether ``given`` is a form that was sent: then an absent field was left empty, and has no default."""
    return "csrf" in given


def shown(visit: Visit, value: Scalar) -> str:
    """Return a value as its field holds it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return visit.t.exact(value) if isinstance(value, int | float) else value


def _allowed(visit: Visit, spec: ParameterSpec) -> str:
    t = visit.t
    low = t.exact(spec.minimum) if spec.minimum is not None else None
    high = t.exact(spec.maximum) if spec.maximum is not None else None
    if low is not None and high is not None:
        return t(N_("From %(low)s to %(high)s."), low=low, high=high)
    if low is not None:
        return t(N_("At least %(low)s."), low=low)
    return t(N_("At most %(high)s."), high=high) if high is not None else ""
