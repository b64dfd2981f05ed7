"""Experiments: what an agency wants to learn, and the runs that belong to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from catalog import wording
from catalog.access import Action, Forbidden
from catalog.i18n import N_
from catalog.store.experiments import CLOSED_STATUSES
from catalog.store.records import ExperimentRecord, RunFilter
from catalog.web.fields import day
from catalog.web.visit import Form, Reader, Sent, Trouble, Visit
from lab_templates.model import LANGUAGES, InvalidInput, Problem

router = APIRouter()
PAGE_SIZE = 25
_FIELDS = ("agency", "title", "summary", "language", "visibility", "embargo_until")


@router.get("/experiments")
def listing(visit: Reader, agency: str = "", q: str = "", cursor: str = "") -> Response:
    page = visit.catalog.experiments.list(
        visit.viewer, agency=agency or None, q=q.strip()[:200] or None, cursor=cursor or None, limit=PAGE_SIZE
    )
    filters = {"agency": agency, "q": q.strip()[:200]}
    agencies = visit.catalog.agencies.list(visit.viewer)
    return visit.page(
        "experiments.html",
        experiments=page.items,
        next=visit.url("/experiments", **filters, cursor=page.next) if page.next else None,
        first=visit.url("/experiments", **filters) if cursor else None,
        filters=filters,
        filtered=any(filters.values()),
        agencies=agencies,
        agency_names=_names(visit),
        may_create=bool(visit.my_agencies(Action.SUBMIT)),
    )


@router.get("/experiments/new")
def new(visit: Reader, agency: str = "") -> Response:
    agencies = visit.my_agencies(Action.SUBMIT)
    if not agencies:
        raise Forbidden("Experiments are made by members of an agency.")
    chosen = agency or (agencies[0].orgnr if len(agencies) == 1 else "")
    return _form(visit, None, {"agency": chosen, "language": visit.t.language, "visibility": "agency"})


@router.post("/experiments/new")
def create(visit: Reader, form: Sent) -> Response:
    problems: list[Problem] = []
    values = _values(form, problems)
    if not form.get("agency"):
        problems.append(Problem("choose_agency", "agency"))
    if not problems:
        try:
            made = visit.catalog.experiments.create(visit.viewer, **values)
        except InvalidInput as error:
            problems.extend(error.problems)
        else:
            return visit.go(f"/experiments/{made.id}")
    return _form(visit, None, form.values, _troubles(visit, problems))


@router.get("/experiments/{id}")
def one(id: str, visit: Reader) -> Response:
    experiment = visit.catalog.experiments.get(visit.viewer, id)
    page = visit.catalog.runs.list(visit.viewer, RunFilter(experiment=experiment.id), limit=PAGE_SIZE)
    may_act = visit.may(Action.SUBMIT, experiment.agency)
    return visit.page(
        "experiment.html",
        experiment=experiment,
        agency=_names(visit).get(experiment.agency, experiment.agency),
        runs=page.items,
        more=visit.url("/runs", experiment=experiment.id) if page.next else None,
        may_act=may_act,
        schedules=visit.catalog.schedules.list(visit.viewer, experiment=experiment.id).items,
        closed=CLOSED_STATUSES,
        templates=visit.catalog.templates.list(visit.viewer) if may_act else (),
    )


@router.get("/experiments/{id}/edit")
def edit(id: str, visit: Reader) -> Response:
    experiment = visit.catalog.experiments.get(visit.viewer, id)
    if not visit.may(Action.SUBMIT, experiment.agency):
        raise Forbidden("Only members of its agency change an experiment.")
    given = {name: str(getattr(experiment, name) or "") for name in _FIELDS}
    return _form(visit, experiment, given)


@router.post("/experiments/{id}/edit")
def change(id: str, visit: Reader, form: Sent) -> Response:
    experiment = visit.catalog.experiments.get(visit.viewer, id)
    problems: list[Problem] = []
    values = _values(form, problems)
    del values["agency"]
    if not problems:
        try:
            visit.catalog.experiments.change(visit.viewer, experiment.id, **values)
        except InvalidInput as error:
            problems.extend(error.problems)
        else:
            return visit.go(f"/experiments/{experiment.id}")
    return _form(visit, experiment, form.values, _troubles(visit, problems))


def _values(form: Form, problems: list[Problem]) -> dict[str, Any]:
    values: dict[str, Any] = {name: form.get(name) for name in _FIELDS}
    values["embargo_until"] = day(problems, "embargo_until", form.get("embargo_until"))
    if not values["title"]:
        problems.append(Problem("missing_title", "title"))
    return values


def _form(
    visit: Visit, experiment: ExperimentRecord | None, given: Mapping[str, str], troubles: Sequence[Trouble] = ()
) -> Response:
    t = visit.t
    return visit.page(
        "experiment_form.html",
        422 if troubles else 200,
        experiment=experiment,
        given={name: given.get(name, "") for name in _FIELDS},
        agencies=visit.my_agencies(Action.SUBMIT),
        visibilities=[(word, t(text)) for word, text in wording.VISIBILITIES.items()],
        language_codes=LANGUAGES,
        troubles=troubles,
        wrong={trouble.field: trouble.text for trouble in reversed(troubles)},
    )


def _troubles(visit: Visit, problems: list[Problem]) -> list[Trouble]:
    t = visit.t
    labels = {
        "agency": t(N_("Agency")),
        "title": t(N_("Title")),
        "summary": t(N_("What do you want to find out?")),
        "language": t(N_("Language")),
        "visibility": t(N_("Who can see it")),
        "embargo_until": t(N_("Not visible to others before")),
    }
    return visit.troubles(problems, labels, {name: name for name in _FIELDS})


def _names(visit: Visit) -> dict[str, str]:
    return {a.orgnr: visit.t.text(a.name) for a in visit.catalog.agencies.list(visit.viewer, active_only=False)}
