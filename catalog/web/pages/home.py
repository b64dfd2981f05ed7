"""The front page: my agencies and their desks, ways to begin, and what happened last."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from catalog.access import Action, Role, may_anywhere, may_have_desk
from catalog.store.records import RunFilter
from catalog.web.visit import Reader
from experiments.model import RunState
from lab_templates.model import TemplateState

router = APIRouter()


@router.get("/")
def home(visit: Reader) -> Response:
    viewer = visit.viewer
    roles = {grant.role for grant in viewer.grants}
    mine = visit.my_agencies(Action.READ) if Role.ADMIN not in roles else visit.my_agencies(Action.SUBMIT)
    desks = {agency.orgnr for agency in mine if may_have_desk(viewer.grants, agency.orgnr) and not viewer.confined_to}
    can_run = any(visit.may(Action.SUBMIT, agency.orgnr) for agency in mine)
    newest = visit.catalog.runs.list(viewer, RunFilter(), limit=8).items
    # Leaders come for what was learned, not for what is under way.
    leads = Role.LEADER in roles
    findings = visit.catalog.runs.list(viewer, RunFilter(state=RunState.SUCCEEDED), limit=30).items if leads else ()
    templates = visit.catalog.templates.list(viewer)
    waiting = 0
    if may_anywhere(viewer, Action.PUBLISH):
        waiting = sum(
            r.state is TemplateState.SUBMITTED for r in visit.catalog.templates.list(viewer, published_only=False)
        )
    return visit.page(
        "home.html",
        agencies=mine,
        roles={agency.orgnr: [g.role for g in viewer.grants if g.agency == agency.orgnr] for agency in mine},
        desks=desks,
        runs=newest,
        findings=[run for run in findings if run.findings][:5],
        leads=leads,
        can_run=can_run,
        templates=templates[:4] if can_run else (),
        waiting=waiting,
    )
