"""Sweeps: plan one, ask for one, follow it, end it early, fill its gaps, read what it found."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import Field
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from catalog.access import Forbidden
from catalog.api.answers import Items, PlanOut, PointOut, PointsOut, SensitivityOut, SweepDetail, SweepOut
from catalog.api.body import StrictRoute
from catalog.api.context import Lab, Paging, Who, viewer
from catalog.api.models import SweepIn
from catalog.api.problems import Refusal, responses
from catalog.api.report_file import report_response
from catalog.api.runs import check_key
from catalog.bell import WORK, of_sweep
from catalog.reports.sweep_report import SweepReports
from catalog.store.records import SweepRecord
from catalog.store.sweep_results import MOST_POINTS

router = APIRouter(tags=["sweeps"], route_class=StrictRoute)

SweepId = Annotated[str, Path(max_length=64)]


class SweepWords(Paging):
    agency: str | None = Field(None, max_length=20, description="Organisation number or slug")
    template: str | None = Field(None, max_length=200)
    experiment: str | None = Field(None, max_length=64)


@router.post("/sweeps/plan", responses=responses(413, 415))
def plan_sweep(body: SweepIn, who: Who, lab: Lab) -> PlanOut:
    """How many runs a sweep would be, and how long it would take. Nothing is stored; what is wrong is a 422."""
    return PlanOut.of(lab.catalog.sweeps.plan(who, body.submission()))


@router.post(
    "/sweeps",
    status_code=201,
    responses={
        **responses(409, 413, 415),
        200: {"model": SweepDetail, "description": "The sweep that this Idempotency-Key made before"},
    },
)
def submit_sweep(
    body: SweepIn,
    who: Who,
    lab: Lab,
    response: Response,
    idempotency_key: Annotated[str | None, Header(description="Yours; sending it again gives the same sweep")] = None,
) -> SweepDetail:
    """Ask for all runs of a sweep at once: every one of them is queued, or none."""
    check_key(idempotency_key)
    sweep, created = lab.catalog.sweeps.submit(who, body.submission(idempotency_key))
    if created:
        lab.bell.ring(WORK)
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{lab.settings.base_path}/api/v1/sweeps/{sweep.id}"
    return SweepDetail.of(sweep)


@router.get("/sweeps", responses=responses())
def list_sweeps(query: Annotated[SweepWords, Query()], who: Who, lab: Lab) -> Items[SweepOut]:
    """Sweeps that you may see, newest first."""
    page = lab.catalog.sweeps.list(
        who,
        agency=query.agency,
        template=query.template,
        experiment=query.experiment,
        cursor=query.cursor,
        limit=query.limit,
    )
    return Items(items=[SweepOut.of(s) for s in page.items], next=page.next)


@router.get("/sweeps/{id}", responses=responses(404))
def one_sweep(id: SweepId, who: Who, lab: Lab) -> SweepDetail:
    return SweepDetail.of(lab.catalog.sweeps.get(who, id))


@router.post("/sweeps/{id}/cancel", responses=responses(404, 409))
def cancel_sweep(id: SweepId, who: Who, lab: Lab) -> SweepDetail:
    """End what waits at once and what runs within seconds; what is done stays."""
    sweep = lab.catalog.sweeps.cancel(who, id)
    lab.bell.ring(of_sweep(id))
    return SweepDetail.of(sweep)


@router.post("/sweeps/{id}/resume", responses=responses(404, 409))
def resume_sweep(id: SweepId, who: Who, lab: Lab) -> SweepDetail:
    """A new run for each point whose run has ended without success. What has succeeded is not run again."""
    sweep = lab.catalog.sweeps.resume(who, id)
    lab.bell.ring(WORK)
    lab.bell.ring(of_sweep(id))
    return SweepDetail.of(sweep)


@router.get("/sweeps/{id}/points", responses=responses(404))
def sweep_points(
    id: SweepId,
    who: Who,
    lab: Lab,
    after: Annotated[int, Query(ge=-1, le=2**31, description="The next of the page before")] = -1,
    limit: Annotated[int, Query(ge=1, le=MOST_POINTS)] = 1000,
) -> PointsOut:
    """The points in their order, with what varies and what was measured: the data of a plot."""
    points, more = lab.catalog.sweep_results.points(who, id, after=after, limit=limit)
    return PointsOut(items=[PointOut.of(p) for p in points], next=more)


@router.get("/sweeps/{id}/sensitivity", responses=responses(404))
def sweep_sensitivity(id: SweepId, who: Who, lab: Lab) -> SensitivityOut:
    """How strongly each parameter moves each metric, over the points that have succeeded."""
    return SensitivityOut.of(lab.catalog.sweep_results.sensitivity(who, id))


@router.get(
    "/sweeps/{id}/report",
    response_class=Response,
    responses={
        **responses(404, 409),
        200: {"content": {"text/html": {}, "application/pdf": {}}, "description": "The report"},
    },
)
def sweep_report(
    id: SweepId,
    who: Who,
    lab: Lab,
    format: Literal["html", "pdf"] = "html",
    language: Literal["nb", "nn", "en"] = "nb",
    download: bool = False,
) -> Response:
    """The report: what matters most and by how much, plots, how strong each connection is, provenance."""
    reports = SweepReports(lab.catalog)
    make = reports.html if format == "html" else reports.pdf
    return report_response(lambda: make(who, id, language), id, format=format, download=download)


@router.get(
    "/sweeps/{id}/events",
    response_class=Response,
    responses={
        **responses(404),
        200: {"content": {"text/event-stream": {}}, "description": "Events `sweep`, until the sweep has ended"},
        204: {
            "description": "The sweep has ended and this reader (Last-Event-ID) has its last event: do not come back"
        },
    },
)
async def sweep_events(
    id: SweepId,
    request: Request,
    who: Who,
    lab: Lab,
    last_event_id: Annotated[str | None, Header()] = None,
    csrf: Annotated[  # noqa: ARG001 - context.viewer reads it; here it is described
        str | None, Query(max_length=200, description="A page's form token: EventSource can send no header")
    ] = None,
) -> Response:
    """Server-sent events ``sweep`` with ``{state, size, done, counts, seconds_left, rounds}``.

    The first one is the sweep as it is now, so a reader who lost the connection loses nothing.
    """
    now = await run_in_threadpool(lab.catalog.sweeps.get, who, id)
    if now.state.ended and last_event_id == _event_id(now):
        return Response(status_code=204)

    async def still_allowed() -> None:
        try:
            await viewer(request, None)
        except Refusal as error:
            raise Forbidden(str(error.detail)) from None
        await run_in_threadpool(lab.catalog.sweeps.get, who, id)

    async def events() -> AsyncIterator[ServerSentEvent]:
        async for sweep in lab.sweep_watches.follow(who, id, still_allowed):
            yield ServerSentEvent(json.dumps(_event(sweep)), event="sweep", id=_event_id(sweep), retry=2000)

    return EventSourceResponse(events(), ping=10, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


def _event(sweep: SweepRecord) -> dict[str, object]:
    return {
        "state": sweep.state.value,
        "size": sweep.size,
        "done": sweep.done,
        "counts": dict(sweep.counts),
        "seconds_left": sweep.seconds_left,
        "rounds": sweep.rounds,
        "cancel_requested": sweep.cancel_requested,
    }


def _event_id(sweep: SweepRecord) -> str:
    return f"{sweep.rounds}.{sweep.done}.{sweep.state.value}"
