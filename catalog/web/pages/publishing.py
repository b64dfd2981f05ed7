"""Publishing templates: sending in a version, and the second person's approval."""

from __future__ import annotations

import json

from fastapi import APIRouter
from starlette.responses import Response

from catalog import wording
from catalog.access import Action, Forbidden, may_anywhere
from catalog.i18n import N_
from catalog.store.records import TemplateRecord
from catalog.web.visit import CHECKED, Reader, Sent, Trouble, Visit
from lab_templates.checks import advice, read_template
from lab_templates.model import InvalidInput, Problem, TemplateState, TemplateVersion

router = APIRouter()
_FILES = {"notebook": "template.ipynb", "declaration": "template.toml", "readme": "README.md"}


def _publisher(visit: Visit) -> None:
    if not may_anywhere(visit.viewer, Action.PUBLISH):
        raise Forbidden("Publishing templates is for coordinators.")


@router.get("/templates/waiting")
def waiting(visit: Reader, done: str = "") -> Response:
    _publisher(visit)
    everything = visit.catalog.templates.list(visit.viewer, published_only=False)
    return visit.page(
        "waiting.html",
        waiting=[record for record in everything if record.state is TemplateState.SUBMITTED],
        published=[record for record in everything if record.state is TemplateState.PUBLISHED],
        me=visit.viewer.name,
        done=done if done in ("submitted", "approved", "deprecated") else "",
    )


@router.get("/templates/new")
def new(visit: Reader) -> Response:
    _publisher(visit)
    return visit.page("publish.html", troubles=(), wrong={}, files=_FILES)


@router.post("/templates/new")
def submit(visit: Reader, form: Sent) -> Response:
    _publisher(visit)
    problems = [Problem("missing_file", part, _FILES[part]) for part in _FILES if not form.files.get(part)]
    if not problems:
        try:
            version = read_template(form.files["notebook"], form.files["declaration"], form.files["readme"])
            visit.catalog.templates.submit(visit.viewer, version)
        except InvalidInput as error:
            problems.extend(error.problems)
        else:
            return visit.go("/templates/waiting", done="submitted")
    troubles = _troubles(visit, problems)
    return visit.page("publish.html", 422, troubles=troubles, wrong=_by_field(troubles), files=_FILES)


def _troubles(visit: Visit, problems: list[Problem]) -> list[Trouble]:
    labels = {part: visit.t(N_("The file %(name)s"), name=name) for part, name in _FILES.items()}
    troubles = visit.troubles(problems, labels, {part: part for part in _FILES})
    return [Trouble(trouble.field or "notebook", trouble.text) for trouble in troubles]


def _by_field(troubles: list[Trouble]) -> dict[str, str]:
    return {trouble.field: trouble.text for trouble in reversed(troubles)}


@router.get("/templates/{name}/versions/{version}/approve")
def ask_approve(name: str, version: str, visit: Reader) -> Response:
    _publisher(visit)
    record = visit.catalog.templates.get(visit.viewer, name, version)
    hints = [wording.problem(visit.t, problem) for problem in advice(record.version)]
    return visit.page("approve.html", record=record, hints=hints, cells=_code(record.version), me=visit.viewer.name)


def _code(version: TemplateVersion) -> list[str]:
    """Return the source of each code cell, for the one who approves to read."""
    cells = json.loads(version.notebook).get("cells", [])
    sources = [cell.get("source", "") for cell in cells if cell.get("cell_type") == "code"]
    return [source if isinstance(source, str) else "".join(source) for source in sources]


@router.post("/templates/{name}/versions/{version}/approve", dependencies=CHECKED)
def approve(name: str, version: str, visit: Reader) -> Response:
    visit.catalog.templates.approve(visit.viewer, name, version)
    return visit.go("/templates/waiting", done="approved")


@router.get("/templates/{name}/versions/{version}/deprecate")
def ask_deprecate(name: str, version: str, visit: Reader) -> Response:
    _publisher(visit)
    record: TemplateRecord = visit.catalog.templates.get(visit.viewer, name, version)
    t = visit.t
    return visit.page(
        "confirm.html",
        title=t("Take %(title)s %(version)s out of use?", title=t.text(record.version.title), version=version),
        text=t("Nobody can start new runs of this version. Runs and reports that exist are kept."),
        action=visit.url(f"/templates/{name}/versions/{version}/deprecate"),
        button=t("Take it out of use"),
        back=visit.url("/templates/waiting"),
        danger=True,
    )


@router.post("/templates/{name}/versions/{version}/deprecate", dependencies=CHECKED)
def deprecate(name: str, version: str, visit: Reader) -> Response:
    visit.catalog.templates.deprecate(visit.viewer, name, version)
    return visit.go("/templates/waiting", done="deprecated")
