"""The runner protocol's server side. What comes in here comes out of a sandbox.

A run token opens nothing but these four calls, for one batch of runs; the queue checks it in the same transaction
that does the work. It is no Hub token, and a Hub token is none of these.
"""

from __future__ import annotations

import hashlib
import logging
import time
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from catalog.api.body import read_json
from catalog.api.context import Lab, Services, bearer, unauthorized
from catalog.api.models import ClaimIn, HandBackIn, HeartbeatIn, ResultIn
from catalog.api.problems import Refusal
from catalog.bell import WORK, of_run, of_sweep
from experiments.model import Assignment, Directive, Progress, Reason, Run, RunnerReport, RunResult, RunState
from experiments.queue import TokenRefused
from experiments.results import BadResult, read
from lab_templates.model import Problem

log = logging.getLogger("proverom.runner")
router = APIRouter()

MOST_ARRIVING = 8  # results that one runner may be sending at a time
MAX_TAIL = 4000  # characters of output that are kept for those who watch

Model = TypeVar("Model", bound=BaseModel)


class AssignmentOut(BaseModel):
    run: str
    attempt: int
    notebook: str
    parameters: dict[str, str | int | float | bool | None]
    kernel: str
    start: str
    timeout_seconds: int
    lease_seconds: int
    output_limit_bytes: int


class DirectiveOut(BaseModel):
    cancel: bool


class RecordedOut(BaseModel):
    state: str = Field(examples=["succeeded"])
    next: AssignmentOut | None = None


class HandedBackOut(BaseModel):
    taken: bool


@router.post("/claim")
async def claim(request: Request, lab: Lab, wait: Annotated[float, Query(ge=0, le=30)] = 0) -> Response:
    """Give the runner its next run, waiting up to ``wait`` seconds for one. No thread is held while it waits."""
    token = _token(request)
    data = await request.body()
    holding = frozenset(_model(ClaimIn, read_json(data)).holding) if data else frozenset()
    until = time.monotonic() + wait
    pause = lab.settings.widen_seconds if holding else lab.settings.claim_seconds
    while True:
        assignment = await run_in_threadpool(lab.catalog.queue.claim, token, _now(), holding)
        if assignment is not None:
            lab.bell.ring(of_run(assignment.run))
            return Response(_assignment(assignment).model_dump_json(), media_type="application/json")
        # Many runners wait most of the time, and are woken for others' work too: a claim takes the write lock.
        while True:
            left = until - time.monotonic()
            if left <= 0 or await request.is_disconnected():
                return Response(status_code=204)
            await lab.bell.wait(WORK, min(left, pause))
            if await run_in_threadpool(lab.catalog.queue.may_find, token, holding):
                break


@router.post("/runs/{run}/heartbeat")
async def heartbeat(run: str, request: Request, lab: Lab) -> DirectiveOut:
    """Keep the lease, take the progress, and say whether the run is to be cancelled."""
    token = _token(request)
    body = _model(HeartbeatIn, read_json(await request.body(), mend_text=True))
    progress = Progress(body.cells_done, body.cells_total, body.tail[-MAX_TAIL:])
    directive: Directive = await run_in_threadpool(
        lab.catalog.queue.heartbeat, token, run, body.attempt, progress, _now()
    )
    lab.bell.ring(of_run(run))
    return DirectiveOut(cancel=directive.cancel)


@router.post("/runs/{run}/result", response_model_exclude_none=True)
async def result(run: str, request: Request, lab: Lab, more: bool = False) -> RecordedOut:
    """Take the result, once. One that cannot be read ends the run as ``failed`` with ``bad_result``, and is a 422.

    With ``more``, the answer holds the runner's next assignment, if there is one.
    """
    token = _token(request)
    digest = hashlib.sha256(token.encode()).hexdigest()
    if not await run_in_threadpool(lab.catalog.queue.knows, token):  # before the body: strangers' bodies are not read
        raise TokenRefused
    # One at a time of each run, and no more of a runner than it can have runs.
    arriving: set[tuple[str, str]] = request.app.state.arriving
    place = (digest, run)
    if place in arriving or sum(sender == digest for sender, _ in arriving) >= MOST_ARRIVING:
        raise Refusal(409, "already-arriving", "This runner is already sending this result. Wait for the answer.")
    arriving.add(place)
    try:
        data = await request.body()
        ended, following = await run_in_threadpool(_finish, lab, token, run, data, more)
    finally:
        arriving.discard(place)
    lab.bell.ring(of_run(run))
    if ended.request.sweep is not None:
        lab.bell.ring(of_sweep(ended.request.sweep))
    if following is None:
        lab.bell.ring(WORK)  # a place is free
        return RecordedOut(state=ended.state.value)
    lab.bell.ring(of_run(following.run))
    return RecordedOut(state=ended.state.value, next=_assignment(following))


@router.post("/runs/{run}/hand-back")
async def hand_back(run: str, request: Request, lab: Lab) -> HandedBackOut:
    """Let a run that failed beside others, and perhaps because of them, be tried again alone.

    ``taken`` is False where its result is to be sent instead.
    """
    token = _token(request)
    body = _model(HandBackIn, read_json(await request.body()))
    given = await run_in_threadpool(lab.catalog.queue.hand_back, token, run, body.attempt, _now())
    if given is not None:
        lab.bell.ring(of_run(run))
        if given.request.sweep is not None:
            lab.bell.ring(of_sweep(given.request.sweep))
        lab.bell.ring(WORK)  # a place is free
    return HandedBackOut(taken=given is not None)


def _finish(lab: Services, token: str, run: str, data: bytes, more: bool) -> tuple[Run, Assignment | None]:
    body = _model(ResultIn, read_json(data, mend_text=True))
    report = RunnerReport(
        outcome=body.outcome,
        notebook=body.notebook.encode("utf-8"),
        reason=body.reason,
        error=body.error,
    )
    try:
        read_result = read(report)
    except BadResult as error:
        log.warning("Run %s attempt %d sent no result: %s", run, body.attempt, error)
        failed = RunResult(state=RunState.FAILED, notebook=b"", reason=Reason.BAD_RESULT)
        lab.catalog.queue.finish(token, run, body.attempt, failed, _now())
        lab.bell.ring(of_run(run))
        raise Refusal(422, "bad-result", f"This is no result ({error}). The run has ended as failed.") from None
    if more:
        return lab.catalog.queue.finish_and_claim(token, run, body.attempt, read_result, _now())
    return lab.catalog.queue.finish(token, run, body.attempt, read_result, _now()), None


def _token(request: Request) -> str:
    token = bearer(request)
    if token is None:
        raise unauthorized("Send the run token as Authorization: Bearer <token>.")
    return token


def _model(model: type[Model], value: Any) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [
            Problem(
                "wrong_type",
                ".".join(map(str, e["loc"])) or "body",
                message=f"{'.'.join(map(str, e['loc'])) or 'The body'}: {e['msg']}.",
            )
            for e in error.errors(include_input=False, include_url=False)[:20]
        ]
        raise Refusal(422, "invalid-input", " ".join(p.message for p in problems), errors=problems) from None


def _assignment(a: Assignment) -> AssignmentOut:
    return AssignmentOut(
        run=a.run,
        attempt=a.attempt,
        notebook=a.notebook,
        parameters=dict(a.parameters),
        kernel=a.kernel,
        start=a.start,
        timeout_seconds=a.timeout_seconds,
        lease_seconds=a.lease_seconds,
        output_limit_bytes=a.output_limit_bytes,
    )


def _now() -> datetime:
    return datetime.now(UTC)
