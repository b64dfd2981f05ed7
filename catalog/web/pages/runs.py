"""The catalog of runs, and one run while it works and after."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from catalog import wording
from catalog.access import Action, NotFound
from catalog.i18n import Translator
from catalog.reports.display import metric_rows, parameter_rows, provenance_rows
from catalog.store.records import RunFilter, RunRecord, ScheduleRecord
from catalog.web.visit import CHECKED, Reader, Visit
from experiments.model import RunState
from lab_templates.model import TemplateVersion

router = APIRouter()
PAGE_SIZE = 25


@router.get("/runs")
def listing(
    visit: Reader,
    agency: str = "",
    template: str = "",
    state: str = "",
    experiment: str = "",
    sweep: str = "",
    schedule: str = "",
    q: str = "",
    cursor: str = "",
) -> Response:
    wanted = RunState(state) if state in tuple(RunState) else None
    chosen = RunFilter(
        agency=agency or None,
        template=template or None,
        state=wanted,
        experiment=experiment or None,
        sweep=sweep or None,
        schedule=schedule or None,
        q=q.strip()[:200] or None,
    )
    page = visit.catalog.runs.list(visit.viewer, chosen, cursor=cursor or None, limit=PAGE_SIZE)
    filters = {
        "agency": agency,
        "template": template,
        "state": wanted or "",
        "experiment": experiment,
        "sweep": sweep,
        "schedule": schedule,
        "q": q.strip()[:200],
    }
    return visit.page(
        "runs.html",
        runs=page.items,
        next=visit.url("/runs", **filters, cursor=page.next) if page.next else None,
        first=visit.url("/runs", **filters) if cursor else None,
        filters=filters,
        filtered=any(filters.values()),
        agencies=visit.catalog.agencies.list(visit.viewer),
        templates=visit.catalog.templates.list(visit.viewer),
        states=[(word, wording.state(visit.t, word)) for word in RunState],
        can_run=bool(visit.my_agencies(Action.SUBMIT)),
    )


@router.get("/runs/{run}")
def one(run: str, visit: Reader, problem: str = "") -> Response:
    record = visit.catalog.runs.get(visit.viewer, run)
    if record.state.ended:
        visit.seen(record.id)
    # The cleaner comes with nbconvert, which takes half a second to import: not before it is needed.
    from catalog.reports.pictures import pictures

    version = _version(visit, record)
    files = {info.name: visit.catalog.runs.figure(visit.viewer, record.id, info.name)[1] for info in record.figures}
    may_act = visit.may(Action.SUBMIT, record.agency.orgnr)
    experiment = None
    if record.experiment:
        try:
            experiment = visit.catalog.experiments.get(visit.viewer, record.experiment)
        except NotFound:
            experiment = None
    return visit.page(
        "run.html",
        run=record,
        title=title(record, visit.t),
        experiment=experiment,
        parameters=parameter_rows(record, version, visit.t),
        metrics=metric_rows(record, version, visit.t),
        # Inside the page and not at addresses of their own: a script in a desk could read those.
        figures=list(pictures(record.figures, files)),
        provenance=provenance_rows(record, visit.t),
        reason=wording.reason(visit.t, record.reason),
        schedule=_schedule(visit, record),
        waited=max(0.0, (visit.catalog.clock() - record.created_at).total_seconds()),
        left=wording.left(visit.t, visit.catalog.durations.seconds_left(record)),
        waits=_waits(visit, record),
        quotas=visit.url(f"/agencies/{record.agency.orgnr}") if visit.may(Action.READ, record.agency.orgnr) else "",
        lefts={word: visit.t(text) for word, text in wording.LEFT.items()},
        waits_words={word: visit.t(text) for word, text in wording.WAITS.items()},
        notices=[wording.notice(visit.t, word) for word in record.notices],
        may_act=may_act,
        problem=problem == "ended",
        words={word.value: wording.state(visit.t, word) for word in RunState},
        notes={stage: visit.t(text) for stage, text in wording.STAGES.items()},
        stage=wording.stage(record.state, record.cells_total, again=record.attempt > 0, stop=record.cancel_requested),
    )


@router.get("/runs/{run}/cancel")
def ask_cancel(run: str, visit: Reader) -> Response:
    record = visit.catalog.runs.get(visit.viewer, run)
    if record.state.ended:
        return visit.go(f"/runs/{record.id}")
    t = visit.t
    return visit.page(
        "confirm.html",
        title=t("Cancel this run?"),
        text=t("What it has done so far is lost. You can start it again later."),
        action=visit.url(f"/runs/{record.id}/cancel"),
        button=t("Cancel the run"),
        back=visit.url(f"/runs/{record.id}"),
        danger=True,
    )


@router.post("/runs/{run}/cancel", dependencies=CHECKED)
def cancel(run: str, visit: Reader) -> Response:
    record = visit.catalog.runs.get(visit.viewer, run)
    if record.state.ended:
        return visit.go(f"/runs/{record.id}", problem="ended")
    visit.catalog.runs.cancel(visit.viewer, run)
    return visit.go(f"/runs/{record.id}")


@router.post("/runs/{run}/retry", dependencies=CHECKED)
def retry(run: str, visit: Reader) -> Response:
    return visit.go(f"/runs/{visit.catalog.runs.retry(visit.viewer, run).id}")


def _schedule(visit: Visit, record: RunRecord) -> ScheduleRecord | None:
    """Return the schedule that started a run, if it is still there and the visitor may see it."""
    try:
        return visit.catalog.schedules.get(visit.viewer, record.schedule) if record.schedule else None
    except NotFound:
        return None


def _waits(visit: Visit, record: RunRecord) -> str:
    """Return what a run has waited for that has waited long, "" for any other."""
    waiting = visit.catalog.waits.of(visit.viewer, record)
    if waiting is None or (visit.catalog.clock() - record.created_at).total_seconds() < wording.LONG_WAIT:
        return ""
    return wording.waits(visit.t, waiting.ahead, waiting.running, waiting.limit)


def title(record: RunRecord, t: Translator) -> str:
    return t.text(record.template_title) or record.template


def _version(visit: Visit, record: RunRecord) -> TemplateVersion | None:
    try:
        return visit.catalog.templates.get(visit.viewer, record.template, record.version).version
    except NotFound:
        return None
