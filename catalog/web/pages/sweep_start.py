"""Asking for a series: the form, the plan that is shown before anything starts, and the start itself."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import Response

from catalog.access import NotFound
from catalog.i18n import N_
from catalog.reports.sweep_words import Names
from catalog.store.records import SweepPlan, SweepSubmission, TemplateRecord
from catalog.web import run_form, sweep_form
from catalog.web.run_form import Input
from catalog.web.visit import Form, Reader, Sent, Trouble, Visit
from experiments.model import Scalar
from experiments.sweeps import SweepRequest, expand
from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, Problem, TemplateState, TemplateVersion

router = APIRouter()
SHOWN_POINTS = 5


@dataclass(frozen=True, slots=True)
class Vary:
    """A parameter's part of the form: its field for one value, the ways in which it can vary, and what they hold."""

    input: Input
    name: str
    modes: tuple[tuple[str, str, str], ...]  # the way, its wording, the kinds that have it
    mode: str
    listed: str
    ticked: tuple[bool, ...]
    low: str
    high: str
    step: str
    spread: bool


@router.get("/templates/{name}/series")
def ask(
    name: str, visit: Reader, version: str = "", sweep: str = "", agency: str = "", experiment: str = ""
) -> Response:
    """The empty form, or with ``sweep`` what an earlier series of the template asked for."""
    record = visit.catalog.templates.get(visit.viewer, name, version or None)
    given = _of_sweep(visit, sweep, record.version) if sweep else {}
    given |= {"agency": agency or given.get("agency", ""), "experiment": experiment or given.get("experiment", "")}
    return _form(visit, record, given)


@router.post("/templates/{name}/series")
def sent(name: str, visit: Reader, form: Sent) -> Response:
    """Back to the form (``do=edit``), on to the plan (``plan``), or the start of what the plan showed (``start``)."""
    record = visit.catalog.templates.get(visit.viewer, name, form.get("version") or None)
    do = form.get("do")
    if do not in ("plan", "start"):
        return _form(visit, record, form.values)
    asked = sweep_form.parse(record.version, form.values, visit.t)
    timeout, problems = run_form.time_limit(form)
    if not form.get("agency"):
        problems.insert(0, Problem("choose_agency", "agency"))
    if asked.request is not None and not problems:
        submission = SweepSubmission(
            template=record.version.name,
            version=record.version.version,
            agency=form.get("agency"),
            sweep=asked.request,
            experiment=form.get("experiment") or None,
            timeout_seconds=timeout,
            idempotency_key=form.get("key")[:100] or None if do == "start" else None,
        )
        try:
            if do == "start":
                return visit.go(f"/sweeps/{visit.catalog.sweeps.submit(visit.viewer, submission)[0].id}")
            plan = visit.catalog.sweeps.plan(visit.viewer, submission)
            return _plan(visit, record, form, plan, asked.request)
        except InvalidInput as error:
            problems.extend(error.problems)
    return _form(visit, record, form.values, _troubles(visit, record.version, form, asked.troubles, problems), 422)


def _plan(visit: Visit, record: TemplateRecord, form: Form, plan: SweepPlan, request: SweepRequest) -> Response:
    version, names = record.version, Names(visit.t, record.version, {})
    points = expand(version, request, most=plan.limit).points
    fixed = [n.name for n in version.parameters if n.name not in plan.varied]
    return visit.page(
        "sweep_plan.html",
        version=version,
        plan=plan,
        agency=next((a for a in visit.catalog.agencies.list(visit.viewer) if a.orgnr == plan.agency), None),
        sent=[(name, value) for name, value in form.values.items() if name not in ("csrf", "key", "do")],
        key=str(uuid.uuid4()),
        columns=[names.parameter(name) for name in plan.varied],
        points=[[names.value(name, point[name]) for name in plan.varied] for point in points[:SHOWN_POINTS]],
        fixed=[(names.parameter(name), names.value(name, points[0][name])) for name in fixed],
        names=names,
    )


def _form(
    visit: Visit,
    record: TemplateRecord,
    given: Mapping[str, str],
    troubles: tuple[Trouble, ...] = (),
    status: int = 200,
) -> Response:
    version = record.version
    inputs = run_form.inputs(visit, version, given)
    return visit.page(
        "sweep_form.html",
        http_status=status,
        record=record,
        version=version,
        fields=[_vary(visit, spec, box, given) for spec, box in zip(version.parameters, inputs, strict=True)],
        kind=sweep_form.kind_of(given),
        table=given.get("table", ""),
        example=_example(visit, version),
        size=given.get("size") or "50",
        seed=given.get("seed") or str(secrets.randbelow(1_000_000)),
        **run_form.about(visit, version, given),
        troubles=troubles,
        wrong={trouble.field: trouble.text for trouble in reversed(troubles)},
        usable=record.state is TemplateState.PUBLISHED,
    )


def _vary(visit: Visit, spec: ParameterSpec, box: Input, given: Mapping[str, str]) -> Vary:
    name, mode = spec.name, given.get(f"m-{spec.name}", "one")
    modes = sweep_form.modes(spec)
    worded = []
    for word in modes:
        kinds = [kind for kind in ("grid", "sample") if sweep_form.allowed(kind, spec, word)]
        worded.append((word, _mode_label(visit, spec, word), " ".join(kinds)))
    return Vary(
        box,
        name,
        tuple(worded),
        mode if mode in modes else "one",
        given.get(f"l-{name}", ""),
        tuple(bool(given.get(f"l-{name}-{i}")) for i in range(len(spec.choices))),
        given.get(f"from-{name}", ""),
        given.get(f"to-{name}", ""),
        given.get(f"step-{name}", ""),
        bool(given.get(f"log-{name}")),
    )


def _mode_label(visit: Visit, spec: ParameterSpec, mode: str) -> str:
    if mode == "list":
        return visit.t(N_("Several values"))
    if mode == "range":
        return visit.t(N_("From – to"))
    if spec.type is ParameterType.BOOLEAN:
        return visit.t(N_("Both yes and no"))
    return visit.t(N_("All the choices")) if spec.choices else visit.t(N_("Everything it can be"))


def _example(visit: Visit, version: TemplateVersion) -> str:
    """Return two lines that show how a table is written: the fields' names, and their default values."""
    specs = version.parameters[:3]
    values = [run_form.shown(visit, spec.default) for spec in specs]
    return ";".join(spec.name for spec in specs) + "\n" + ";".join(values)


def _troubles(
    visit: Visit, version: TemplateVersion, form: Form, found: Sequence[Trouble], problems: Sequence[Problem]
) -> tuple[Trouble, ...]:
    """Return what is wrong with the values, in the form's order, and then with the rest of it."""
    rest: list[Trouble] = []
    for problem in problems:
        place = sweep_form.place_of(version, form.values, problem)
        if problem.code == "too_many_runs" and problem.value.isdigit():
            # Readable, and not one digit after another for as long as somebody pleases.
            many = visit.t.number(int(problem.value)) if len(problem.value) <= 15 else f"{problem.value[:1]}…"
            if len(problem.value) > 15:
                many = visit.t(N_("more than 10 to the power of %(power)s"), power=len(problem.value) - 1)
            problem = Problem(problem.code, problem.field, many, problem.limit)
        said = run_form.troubles(visit, version, [problem])
        rest.extend(Trouble(place or trouble.field, trouble.text) for trouble in said)
    first = [trouble for trouble in rest if not trouble.field]
    return (*first, *found, *(trouble for trouble in rest if trouble.field))


def _of_sweep(visit: Visit, sweep: str, version: TemplateVersion) -> dict[str, str]:
    """Return what an earlier series asked for as the form's fields; nothing if it is gone or was another template's."""
    try:
        record = visit.catalog.sweeps.get(visit.viewer, sweep)
    except NotFound:
        return {}
    if record.template != version.name:
        return {}
    given = {"agency": record.agency.orgnr, "experiment": record.experiment or ""}
    request = record.request
    sample = request.get("sample")
    axes = request.get("grid") or (sample.get("space") if isinstance(sample, dict) else None)
    given["kind"] = "sample" if sample else "grid" if axes else "points"
    if isinstance(sample, dict):
        given |= {"size": str(sample.get("size", "")), "seed": str(sample.get("seed", ""))}
    fixed = request.get("fixed")
    for name, value in (fixed if isinstance(fixed, dict) else {}).items():
        given[f"p-{name}"] = run_form.shown(visit, value)
    for name, axis in (axes if isinstance(axes, dict) else {}).items():
        given |= _of_axis(visit, version.parameter(name), axis)
    return given


def _of_axis(visit: Visit, spec: ParameterSpec | None, axis: object) -> dict[str, str]:
    if spec is None:
        return {}
    name = spec.name
    if isinstance(axis, list):
        if spec.type is ParameterType.BOOLEAN or axis == list(spec.choices):
            return {f"m-{name}": "any"}
        given = {f"m-{name}": "list", f"l-{name}": "\n".join(_typed(visit, value) for value in axis)}
        return given | {f"l-{name}-{i}": "on" for i, choice in enumerate(spec.choices) if choice in axis}
    if isinstance(axis, dict) and "start" in axis:
        keys = {"from": "start", "to": "stop", "step": "step"}
    elif isinstance(axis, dict):
        keys = {"from": "low", "to": "high"}
    else:
        return {f"m-{name}": "any"}
    given = {f"{field}-{name}": _typed(visit, axis.get(key)) for field, key in keys.items()}
    return given | {f"m-{name}": "range"} | ({f"log-{name}": "on"} if axis.get("logarithmic") else {})


def _typed(visit: Visit, value: Scalar) -> str:
    return run_form.shown(visit, value)
