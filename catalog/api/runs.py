"""Runs: ask for one, follow it, read what came of it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import Field
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from catalog.access import Forbidden, Viewer
from catalog.api.answers import Items, RunDetail, RunOut
from catalog.api.body import StrictRoute
from catalog.api.context import Lab, Paging, Services, Who, viewer
from catalog.api.files import file_response
from catalog.api.live import and_again
from catalog.api.models import RunIn
from catalog.api.problems import Refusal, responses
from catalog.api.report_file import report_response
from catalog.bell import WORK, of_run
from catalog.exports.runs import runs_as_csv, runs_as_json
from catalog.reports.service import Reports
from catalog.store import Unavailable
from catalog.store.records import RunFilter, RunRecord, Submission
from catalog.store.waiting import Waiting
from experiments.model import RunState

router = APIRouter(tags=["runs"], route_class=StrictRoute)

MAX_EXPORT = 5000
AGAIN_SECONDS = 4.0  # between two looks at what changes by itself: the time left, the queue
RunId = Annotated[str, Path(max_length=64)]
_KEY = re.compile(r"[!-~]{1,255}\Z")


def check_key(idempotency_key: str | None) -> None:
    """Raise Refusal (422) for an Idempotency-Key that cannot be one."""
    if idempotency_key is not None and not _KEY.match(idempotency_key):
        what = "The Idempotency-Key must be 1 to 255 visible ASCII characters. A UUID will do."
        raise Refusal(422, "invalid-input", what)


class RunWords(Paging):
    agency: str | None = Field(None, max_length=20, description="Organisation number or slug")
    template: str | None = Field(None, max_length=200)
    state: Literal["queued", "running", "succeeded", "failed", "timed_out", "cancelled"] | None = None
    experiment: str | None = Field(None, max_length=64)
    sweep: str | None = Field(None, max_length=64)
    schedule: str | None = Field(None, max_length=64)
    q: str | None = Field(
        None, max_length=200, description="Words that must all occur in title, findings, agency or requester"
    )

    def filter(self) -> RunFilter:
        return RunFilter(
            agency=self.agency,
            template=self.template,
            state=RunState(self.state) if self.state else None,
            experiment=self.experiment,
            sweep=self.sweep,
            schedule=self.schedule,
            q=self.q,
        )


@router.post(
    "/runs",
    status_code=201,
    responses={
        **responses(409, 413, 415),
        200: {"model": RunDetail, "description": "The run that this Idempotency-Key made before"},
    },
)
def submit_run(
    body: RunIn,
    who: Who,
    lab: Lab,
    response: Response,
    idempotency_key: Annotated[str | None, Header(description="Yours; sending it again gives the same run")] = None,
) -> RunDetail:
    """Ask for a run. Every problem with it comes at once (422), before anything is stored."""
    check_key(idempotency_key)
    submission = Submission(
        template=body.template,
        agency=body.agency,
        parameters=body.parameters,
        version=body.version,
        experiment=body.experiment,
        timeout_seconds=body.timeout_seconds,
        idempotency_key=idempotency_key,
    )
    run, created = lab.catalog.runs.submit(who, submission)
    if created:
        lab.bell.ring(WORK)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{lab.settings.base_path}/api/v1/runs/{run.id}"
    return RunDetail.of(run)


@router.get("/runs", responses=responses())
def list_runs(query: Annotated[RunWords, Query()], who: Who, lab: Lab) -> Items[RunOut]:
    """Runs that you may see, newest first."""
    page = lab.catalog.runs.list(who, query.filter(), cursor=query.cursor, limit=query.limit)
    return Items(items=[RunOut.of(r) for r in page.items], next=page.next)


class ExportWords(RunWords):
    format: Literal["csv", "json"] = "csv"
    excel: bool = Field(
        False, description="Semicolons and a byte order mark, as a Norwegian Excel opens them (csv only)"
    )
    limit: int = Field(MAX_EXPORT, ge=1, le=MAX_EXPORT)


@router.get(
    "/exports/runs",
    response_class=Response,
    responses={**responses(), 200: {"content": {"text/csv": {}, "application/json": {}}, "description": "The file"}},
)
def export_runs(query: Annotated[ExportWords, Query()], who: Who, lab: Lab) -> Response:
    """A listing as a file: parameters and metrics as columns, cells that a spreadsheet cannot take for formulas."""
    found: list[RunRecord] = []
    cursor = query.cursor
    while len(found) < query.limit:
        page = lab.catalog.runs.list(who, query.filter(), cursor=cursor, limit=min(200, query.limit - len(found)))
        found.extend(page.items)
        cursor = page.next
        if cursor is None:
            break
    if query.format == "json":
        return file_response(runs_as_json(found), media_type="application/json", filename="runs.json")
    return file_response(
        runs_as_csv(found, excel=query.excel), media_type="text/csv; charset=utf-8", filename="runs.csv"
    )


@router.get("/runs/{id}", responses=responses(404))
def one_run(id: RunId, who: Who, lab: Lab) -> RunDetail:
    run = lab.catalog.runs.get(who, id)
    return RunDetail.of(run, lab.catalog.durations.seconds_left(run))


@router.post("/runs/{id}/cancel", responses=responses(404, 409))
def cancel_run(id: RunId, who: Who, lab: Lab) -> RunDetail:
    """Cancel a waiting run at once, a running one within seconds. A run that has ended stays as it is."""
    run = lab.catalog.runs.cancel(who, id)
    lab.bell.ring(of_run(run.id))
    return RunDetail.of(run)


@router.post("/runs/{id}/retry", status_code=201, responses=responses(404, 409))
def retry_run(id: RunId, who: Who, lab: Lab, response: Response) -> RunDetail:
    """A new run with the same request; ``retry_of`` names the old one."""
    run = lab.catalog.runs.retry(who, id)
    lab.bell.ring(WORK)
    response.headers["Location"] = f"{lab.settings.base_path}/api/v1/runs/{run.id}"
    return RunDetail.of(run)


@router.get(
    "/runs/{id}/events",
    response_class=Response,
    responses={
        **responses(404),
        200: {"content": {"text/event-stream": {}}, "description": "Events `run`, until the run has ended"},
        204: {"description": "The run has ended and this reader (Last-Event-ID) has its last event: do not come back"},
    },
)
async def run_events(
    id: RunId,
    request: Request,
    who: Who,
    lab: Lab,
    last_event_id: Annotated[str | None, Header()] = None,
    notices: Annotated[
        bool, Query(description="Also events `notices` with `{unread}`: how many notices you have not read")
    ] = False,
    csrf: Annotated[  # noqa: ARG001 - context.viewer reads it; here it is described
        str | None, Query(max_length=200, description="A page's form token: EventSource can send no header")
    ] = None,
) -> Response:
    """Server-sent events ``run`` with ``{state, attempt, cells_done, cells_total, tail, reason, seconds_left, waits}``.

    Each is the whole of it, the first one as it is now, so a reader who lost the connection loses nothing. ``waits``
    is what a queued run waits for: ``{ahead, running, limit}`` of its agency. Comments keep the line open.
    """
    now = await run_in_threadpool(lab.catalog.runs.progress, who, id)
    if now.state.ended and last_event_id == _event_id(now):
        return Response(status_code=204)

    async def still_allowed() -> None:
        try:
            await viewer(request, None)
        except Refusal as error:
            raise Forbidden(str(error.detail)) from None
        await run_in_threadpool(lab.catalog.runs.progress, who, id)

    async def events() -> AsyncIterator[ServerSentEvent]:
        said, told = "", -1
        changes = lab.watches.follow(who, id, still_allowed)
        async with contextlib.aclosing(and_again(changes, AGAIN_SECONDS)) as looks:
            async for run in looks:
                data, unread = await run_in_threadpool(_look, lab, who, run, notices)
                if unread is not None and unread != told:
                    told = unread
                    yield ServerSentEvent(json.dumps({"unread": unread}), event="notices")
                if data != said:
                    said = data
                    yield ServerSentEvent(data, event="run", id=_event_id(run), retry=2000)

    return EventSourceResponse(events(), ping=10, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


@router.get(
    "/runs/{id}/notebook",
    response_class=Response,
    responses={
        **responses(404),
        200: {"content": {"application/x-ipynb+json": {}}, "description": "The executed notebook"},
    },
)
def run_notebook(id: RunId, who: Who, lab: Lab) -> Response:
    """The executed notebook, as a file to save."""
    data = lab.catalog.runs.notebook(who, id)
    return file_response(data, media_type="application/x-ipynb+json", filename=f"{id}.ipynb")


@router.get(
    "/runs/{id}/figures/{name:path}",
    response_class=Response,
    responses={**responses(404), 200: {"content": {"image/png": {}, "image/svg+xml": {}}, "description": "The figure"}},
)
def run_figure(id: RunId, name: Annotated[str, Path(max_length=300)], who: Who, lab: Lab) -> Response:
    """One recorded figure."""
    info, data = lab.catalog.runs.figure(who, id, name)
    suffix = ".svg" if info.mime == "image/svg+xml" else ".png"
    return file_response(data, media_type=info.mime, filename=info.name + suffix, attachment=False, etag=info.sha256)


@router.get(
    "/runs/{id}/report",
    response_class=Response,
    responses={
        **responses(404, 409),
        200: {"content": {"text/html": {}, "application/pdf": {}}, "description": "The report"},
    },
)
def run_report(
    id: RunId,
    who: Who,
    lab: Lab,
    format: Literal["html", "pdf"] = "html",
    download: bool = False,
) -> Response:
    """The report: the finding first, figures, metrics, parameters, provenance, no code."""
    reports = Reports(lab.catalog)
    make = reports.html if format == "html" else reports.pdf
    return report_response(lambda: make(who, id), id, format=format, download=download)


def _look(lab: Services, who: Viewer, run: RunRecord, notices: bool) -> tuple[str, int | None]:
    """Return a run's event, and how many notices are unread if that is asked for. A database that is away leaves out
    what only it knows: the run's own state has been read.
    """
    left: float | None = None
    waits: Waiting | None = None
    unread: int | None = None
    with contextlib.suppress(Unavailable):
        left = lab.catalog.durations.seconds_left(run)
        waits = lab.catalog.waits.of(who, run)
        unread = lab.catalog.notices.unread(who) if notices else None
    return json.dumps({**_event(run), "seconds_left": left, "waits": waits and asdict(waits)}), unread


def _event(run: RunRecord) -> dict[str, object]:
    return {
        "state": run.state.value,
        "attempt": run.attempt,
        "cells_done": run.cells_done,
        "cells_total": run.cells_total,
        "tail": run.tail,
        "reason": run.reason and run.reason.value,
        "cancel_requested": run.cancel_requested,
    }


def _event_id(run: RunRecord) -> str:
    return f"{run.attempt}.{run.cells_done}.{run.state.value}"
