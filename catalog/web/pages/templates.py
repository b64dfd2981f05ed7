"""The templates, and the form that starts a run of one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from fastapi import APIRouter
from starlette.responses import Response

from catalog.access import Action, may_anywhere
from catalog.store.records import Submission, TemplateRecord
from catalog.web import run_form
from catalog.web.visit import Reader, Sent, Trouble, Visit
from lab_templates.model import InvalidInput, Problem, TemplateState
from lab_templates.parameters import bind

router = APIRouter()


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
    given = run_form.of_run(visit, run, record.version) if run else {}
    given |= {"agency": agency or given.get("agency", ""), "experiment": experiment or given.get("experiment", "")}
    return _form(visit, record, given)


@router.post("/templates/{name}")
def start(name: str, visit: Reader, form: Sent) -> Response:
    record = visit.catalog.templates.get(visit.viewer, name, form.get("version") or None)
    raw = run_form.values(form, record.version)
    timeout, problems = run_form.time_limit(form)
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
    return _form(visit, record, form.values, run_form.troubles(visit, record.version, problems), status=422)


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
    return visit.page(
        "template.html",
        http_status=status,
        record=record,
        version=version,
        readme=clean_markdown(version.readme),
        inputs=run_form.inputs(visit, version, given),
        **run_form.about(visit, version, given),
        troubles=troubles,
        wrong={trouble.field: trouble.text for trouble in reversed(troubles)},
        key=given.get("key") or str(uuid.uuid4()),
        usable=record.state is TemplateState.PUBLISHED,
    )
