"""The templates, and the form that starts a run of one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import Response

from catalog.access import Action, NotFound, may_anywhere
from catalog.i18n import N_
from catalog.store.records import Submission, TemplateRecord
from catalog.web.visit import Form, Reader, Sent, Trouble, Visit
from experiments.model import Scalar
from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, Problem, TemplateState, TemplateVersion
from lab_templates.parameters import bind

router = APIRouter()


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


@router.get("/templates")
def listing(visit: Reader, old: str = "") -> Response:
    viewer = visit.viewer
    publishes = may_anywhere(viewer, Action.PUBLISH)
    waiting = 0
    deprecated: list[TemplateRecord] = []
    if publishes:
        everything = visit.catalog.templates.list(viewer, published_only=False)
        waiting = sum(record.state is TemplateState.SUBMITTED for record in everything)
        deprecated = [record for record in everything if record.state is TemplateState.DEPRECATED]
    return visit.page(
        "templates.html",
        templates=visit.catalog.templates.list(viewer),
        publishes=publishes,
        waiting=waiting,
        deprecated=deprecated if old else [],
        old=len(deprecated),
        can_run=bool(visit.my_agencies(Action.SUBMIT)),
    )


@router.get("/templates/{name}")
def one(name: str, visit: Reader, version: str = "", run: str = "", agency: str = "", experiment: str = "") -> Response:
    record = visit.catalog.templates.get(visit.viewer, name, version or None)
    given = _from_run(visit, run, record.version) if run else {}
    given |= {"agency": agency or given.get("agency", ""), "experiment": experiment or given.get("experiment", "")}
    return _form(visit, record, given)


@router.post("/templates/{name}")
def start(name: str, visit: Reader, form: Sent) -> Response:
    record = visit.catalog.templates.get(visit.viewer, name, form.get("version") or None)
    raw, timeout, problems = _read(form, record.version)
    # The store checks all of it again; here too, so that every fault of the form is said at once.
    try:
        bind(record.version, raw)
    except InvalidInput as error:
        problems = [*error.problems, *problems]
    if not form.get("agency"):
        problems.append(Problem("choose_agency", "agency"))
    if not problems:
        try:
            run, _ = visit.catalog.runs.submit(
                visit.viewer,
                Submission(
                    template=record.version.name,
                    version=record.version.version,
                    agency=form.get("agency"),
                    parameters=raw,
                    experiment=form.get("experiment") or None,
                    timeout_seconds=timeout,
                    idempotency_key=form.get("key")[:100] or None,
                ),
            )
        except InvalidInput as error:
            problems.extend(error.problems)
        else:
            return visit.go(f"/runs/{run.id}")
    return _form(visit, record, form.values, _troubles(visit, record.version, problems), status=422)


def _read(form: Form, version: TemplateVersion) -> tuple[dict[str, object], object, list[Problem]]:
    """Return the raw parameters, the time limit in seconds, and what is wrong with the form itself."""
    raw: dict[str, object] = {}
    for spec in version.parameters:
        if spec.type is ParameterType.BOOLEAN:
            raw[spec.name] = form.get(_id(spec)) == "true"
        else:
            raw[spec.name] = form.get(_id(spec))
    minutes = form.get("minutes")
    if not minutes:
        return raw, None, []
    try:
        seconds = round(float(minutes.replace(",", ".")) * 60)
    except (ValueError, OverflowError):
        return raw, None, [Problem("bad_timeout", "timeout_seconds", minutes)]
    return raw, seconds, []


def _form(
    visit: Visit,
    record: TemplateRecord,
    given: Mapping[str, str],
    troubles: tuple[Trouble, ...] = (),
    status: int = 200,
) -> Response:
    # The cleaner comes with nbconvert, which takes half a second to import: not before it is needed.
    from catalog.reports.cleaning import clean_markdown

    version = record.version
    agencies = visit.my_agencies(Action.SUBMIT)
    chosen = given.get("agency") or (agencies[0].orgnr if len(agencies) == 1 else "")
    mine = {agency.orgnr for agency in agencies}
    experiments = [e for e in visit.catalog.experiments.list(visit.viewer, limit=200).items if e.agency in mine]
    return visit.page(
        "template.html",
        http_status=status,
        record=record,
        version=version,
        readme=clean_markdown(version.readme),
        inputs=[_input(visit, spec, given) for spec in version.parameters],
        agencies=agencies,
        agency=chosen,
        agency_names={a.orgnr: visit.t.text(a.name) for a in agencies},
        experiments=experiments,
        experiment=given.get("experiment", ""),
        minutes=given.get("minutes") or visit.t.number(max(1, round(version.timeout_seconds / 60))),
        most_minutes=visit.site.settings.max_timeout_seconds // 60,
        troubles=troubles,
        wrong={trouble.field: trouble.text for trouble in reversed(troubles)},
        key=given.get("key") or str(uuid.uuid4()),
        usable=record.state is TemplateState.PUBLISHED,
    )


def _troubles(visit: Visit, version: TemplateVersion, problems: list[Problem]) -> tuple[Trouble, ...]:
    t = visit.t
    labels = {spec.name: t.text(spec.label) or spec.name for spec in version.parameters}
    labels |= {"agency": t(N_("Agency")), "experiment": t(N_("Experiment")), "timeout_seconds": t(N_("Time limit"))}
    ids = {spec.name: _id(spec) for spec in version.parameters}
    ids |= {"agency": "agency", "experiment": "experiment", "timeout_seconds": "minutes"}
    found: list[Trouble] = []
    for problem in problems:
        if problem.code == "bad_timeout":
            most = visit.site.settings.max_timeout_seconds // 60
            what = t(N_("The time limit must be a number of minutes, from 1 to %(most)s."), most=t.number(most))
            found.append(Trouble("minutes", what))
        else:
            found.extend(visit.troubles([problem], labels, ids))
    order = [_id(spec) for spec in version.parameters] + ["agency", "experiment", "minutes"]
    found.sort(key=lambda trouble: order.index(trouble.field) if trouble.field in order else -1)
    return tuple(found)


def _id(spec: ParameterSpec) -> str:
    return f"p-{spec.name}"


def _input(visit: Visit, spec: ParameterSpec, given: Mapping[str, str]) -> Input:
    t = visit.t
    kind = "long" if spec.type is ParameterType.TEXT and spec.max_length > 200 else spec.type.value
    value = given.get(_id(spec), "" if _answered(given) else _shown(visit, spec.default))
    choices = tuple((c, t.text(spec.choice_labels[c]) if c in spec.choice_labels else c) for c in spec.choices)
    return Input(
        _id(spec),
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


def _shown(visit: Visit, value: Scalar) -> str:
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


def _from_run(visit: Visit, run: str, version: TemplateVersion) -> dict[str, str]:
    """Return an earlier run's values, to begin from; nothing if it is gone or was another template's."""
    try:
        record = visit.catalog.runs.get(visit.viewer, run)
    except NotFound:
        return {}
    if record.template != version.name:
        return {}
    given = {f"p-{name}": _shown(visit, value) for name, value in record.parameters.items()}
    return given | {"agency": record.agency.orgnr, "experiment": record.experiment or ""}
