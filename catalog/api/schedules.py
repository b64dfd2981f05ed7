"""Schedules: make one, look ahead, pause it, fire it by hand."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from catalog.api.answers import FiringOut, Items, ScheduleOut, TimesOut
from catalog.api.body import StrictRoute
from catalog.api.context import Lab, Paging, Who
from catalog.api.models import ScheduleIn
from catalog.api.problems import responses
from catalog.api.runs import check_key
from catalog.bell import WORK
from catalog.store.records import NewSchedule
from catalog.store.schedules import MOST_PREVIEWED, PREVIEW
from experiments.schedules import DEFAULT_ZONE

router = APIRouter(tags=["schedules"], route_class=StrictRoute)

ScheduleId = Annotated[str, Path(max_length=64)]


class ScheduleWords(Paging):
    agency: str | None = Field(None, max_length=20, description="Organisation number or slug")
    experiment: str | None = Field(None, max_length=64)


@router.get("/schedules", responses=responses())
def list_schedules(query: Annotated[ScheduleWords, Query()], who: Who, lab: Lab) -> Items[ScheduleOut]:
    """Schedules of the agencies where you may read, newest first."""
    page = lab.catalog.schedules.list(
        who, agency=query.agency, experiment=query.experiment, cursor=query.cursor, limit=query.limit
    )
    return Items(items=[ScheduleOut.of(s) for s in page.items], next=page.next)


@router.post(
    "/schedules",
    status_code=201,
    responses={
        **responses(413, 415),
        200: {"model": ScheduleOut, "description": "The schedule that this Idempotency-Key made before"},
    },
)
def add_schedule(
    body: ScheduleIn,
    who: Who,
    lab: Lab,
    response: Response,
    idempotency_key: Annotated[
        str | None, Header(description="Yours; sending it again gives the same schedule")
    ] = None,
) -> ScheduleOut:
    """Make a schedule. Its request is checked as if it were submitted now; every problem comes at once (422)."""
    check_key(idempotency_key)
    fields = {name: getattr(body, name) for name in type(body).model_fields}
    made, created = lab.catalog.schedules.add(who, NewSchedule(**fields, idempotency_key=idempotency_key))
    response.status_code = 201 if created else 200
    response.headers["Location"] = f"{lab.settings.base_path}/api/v1/schedules/{made.id}"
    return ScheduleOut.of(made)


@router.get("/schedules/preview", responses=responses())
def preview_times(
    who: Who,  # noqa: ARG001 - for those who are signed in
    lab: Lab,
    cron: Annotated[str, Query(max_length=200, description="Minute, hour, day, month, weekday")],
    zone: Annotated[str, Query(max_length=100)] = DEFAULT_ZONE,
    count: Annotated[int, Query(ge=1, le=MOST_PREVIEWED)] = PREVIEW,
) -> TimesOut:
    """The coming times of an expression."""
    return TimesOut(times=list(lab.catalog.schedules.preview(cron, zone, count)))


@router.get("/schedules/{id}", responses=responses(404))
def one_schedule(id: ScheduleId, who: Who, lab: Lab) -> ScheduleOut:
    return ScheduleOut.of(lab.catalog.schedules.get(who, id))


@router.delete("/schedules/{id}", status_code=204, response_class=Response, responses=responses(404))
def remove_schedule(id: ScheduleId, who: Who, lab: Lab) -> Response:
    """End a schedule for good. Its runs stay."""
    lab.catalog.schedules.remove(who, id)
    return Response(status_code=204)


@router.post("/schedules/{id}/pause", responses=responses(404))
def pause_schedule(id: ScheduleId, who: Who, lab: Lab) -> ScheduleOut:
    return ScheduleOut.of(lab.catalog.schedules.pause(who, id))


@router.post("/schedules/{id}/resume", responses=responses(404))
def resume_schedule(id: ScheduleId, who: Who, lab: Lab) -> ScheduleOut:
    """Let a paused or stopped schedule go on from now."""
    return ScheduleOut.of(lab.catalog.schedules.resume(who, id))


@router.post("/schedules/{id}/trigger", status_code=201, responses=responses(404))
def trigger_schedule(id: ScheduleId, who: Who, lab: Lab) -> FiringOut:
    """Fire a schedule by hand, now."""
    firing = lab.catalog.schedules.trigger(who, id)
    lab.bell.ring(WORK)
    return FiringOut.of(firing)


@router.get("/schedules/{id}/firings", responses=responses(404))
def schedule_firings(
    id: ScheduleId, who: Who, lab: Lab, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Items[FiringOut]:
    """The latest times it fired, newest first, and the run of each."""
    return Items(items=[FiringOut.of(f) for f in lab.catalog.schedules.firings(who, id, limit=limit)])
