"""The durable queue over the catalog's database. See ``experiments.queue.RunQueue`` for what each method promises.

Rows are locked in one order everywhere (runner, agency, run), so no two transactions wait for each other. What is
decided here is decided by conditional updates that name the attempt; the locks only spare retries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, not_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.blobs import Blobs
from catalog.store.database import Database, changed
from catalog.store.events import log
from catalog.store.limits import RunLimits
from catalog.store.run_rows import add_results, ending, queue_run, reported
from catalog.store.templates import find_version, version_of
from catalog.tables import Agency, RunnerRow, RunRow
from experiments.model import (
    Assignment,
    Directive,
    Progress,
    Reason,
    Run,
    RunnerTicket,
    RunResult,
    RunState,
)
from experiments.queue import AgencyDemand, LeaseLost, NotYourRun, TokenRefused
from lab_templates.model import InvalidInput, TemplateVersion

_QUEUED, _RUNNING = RunState.QUEUED.value, RunState.RUNNING.value
_OPEN = col(RunnerRow.closed_at).is_(None)


class SqlRunQueue:
    """An ``experiments.queue.RunQueue``. Safe to share between threads."""

    def __init__(self, database: Database, blobs: Blobs, limits: RunLimits, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._blobs = blobs
        self._limits = limits
        self._clock = clock

    # -- the dispatcher's side -------------------------------------------------------------------------------------
    def demand(self) -> Sequence[AgencyDemand]:
        orgnr, state = col(RunRow.orgnr), col(RunRow.state)
        counts = (
            select(orgnr, state, func.count(), func.min(col(RunRow.id)))
            .where(state.in_((_QUEUED, _RUNNING)))
            .group_by(orgnr, state)
        )
        with self._database.read() as session:
            found: dict[str, dict[str, tuple[int, str]]] = {}
            for of, word, count, first in session.execute(counts):
                found.setdefault(of, {})[word] = (count, first)
            firsts = [states[_QUEUED][1] for states in found.values() if _QUEUED in states]
            when = select(orgnr, col(RunRow.created_at)).where(col(RunRow.id).in_(firsts))
            oldest = {row[0]: row[1] for row in session.execute(when)} if firsts else {}
            agencies = session.scalars(select(Agency).where(col(Agency.orgnr).in_(found)).order_by(col(Agency.orgnr)))
            return [
                AgencyDemand(
                    agency=agency.orgnr,
                    slug=agency.slug,
                    queued=found[agency.orgnr].get(_QUEUED, (0, ""))[0],
                    running=found[agency.orgnr].get(_RUNNING, (0, ""))[0],
                    max_concurrent=agency.max_concurrent_runs,
                    weight=agency.weight,
                    oldest=oldest.get(agency.orgnr),
                )
                for agency in agencies
            ]

    def open_runner(self, ticket: RunnerTicket) -> None:
        """Record a runner. Raise ValueError if its id or its token was used before."""
        row = RunnerRow(
            id=ticket.id,
            orgnr=ticket.agency,
            token_sha256=ticket.token_sha256,
            sandbox=ticket.sandbox,
            engine=ticket.engine,
            image_digest=ticket.image_digest,
            created_at=ticket.created_at,
        )
        try:
            with self._database.write() as session:
                session.add(row)
                session.flush()
                self._log(session, ticket.created_at, "runner.opened", ticket.agency, ticket.id, "dispatcher")
        except IntegrityError as error:
            raise ValueError(f"Runner {ticket.id} or its token was used before. Make new ones.") from error

    def runners(self) -> Sequence[RunnerTicket]:
        return self._tickets(select(RunnerRow).where(_OPEN))

    def idle_runners(self) -> Sequence[RunnerTicket]:
        return self._tickets(select(RunnerRow).where(_OPEN, col(RunnerRow.run).is_(None)))

    def finished_runners(self) -> Sequence[RunnerTicket]:
        owns = and_(col(RunRow.state) == _RUNNING, col(RunRow.attempt) == col(RunnerRow.attempt))
        bound = select(RunnerRow).join(RunRow, col(RunRow.id) == col(RunnerRow.run))
        return self._tickets(bound.where(_OPEN, not_(owns)))

    def close_runner(self, runner: str) -> None:
        now = self._clock()
        close = update(RunnerRow).where(col(RunnerRow.id) == runner, _OPEN).values(closed_at=now)
        with self._database.write() as session:
            if changed(session.execute(close)):
                orgnr = session.scalar(select(col(RunnerRow.orgnr)).where(col(RunnerRow.id) == runner))
                self._log(session, now, "runner.closed", orgnr, runner, "dispatcher")

    def active(self) -> Sequence[Run]:
        return self._runs(col(RunRow.state) == _RUNNING)

    def expired(self, now: datetime) -> Sequence[Run]:
        return self._runs(and_(col(RunRow.state) == _RUNNING, col(RunRow.lease_until) < now))

    def oldest_queued(self, agency: str) -> Run | None:
        with self._database.read() as session:
            row = session.scalars(_waiting(agency)).one_or_none()
            return None if row is None else queue_run(row)

    def give_back(self, run: str, attempt: int, now: datetime) -> Run:
        """End a lost attempt. Raise KeyError if there is no such run."""
        with self._database.write() as session:
            row = _locked(session, run)
            if not _owns(row, attempt):
                return queue_run(row)
            if row.cancel_requested:
                result = RunResult(RunState.CANCELLED, b"", Reason.CANCELLED_BY_USER)
            elif attempt >= row.max_attempts:
                result = RunResult(RunState.FAILED, b"", Reason.RUNNER_LOST)
            else:
                return self._requeue(session, row, attempt, now)
            return self._end(session, row, attempt, result, now, _Files(), "dispatcher")

    def end(self, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record an ending that the server decided on. Raise LeaseLost, or KeyError if there is no such run."""
        files = self._keep(result)
        with self._database.write() as session:
            row = _locked(session, run)
            if row.attempt != attempt or RunState(row.state).ended:
                raise _lost(run, attempt)
            return self._end(session, row, attempt, result, now, files, "dispatcher")

    # -- the runner's side -----------------------------------------------------------------------------------------
    def claim(self, token: str, now: datetime) -> Assignment | None:
        with self._database.write() as session:
            runner = _runner(session, token, lock=True)
            row = self._bound(session, runner, now) if runner.run else self._take(session, runner, now)
            if row is None:
                return None
            version = self._version(session, row)
            if version is not None:
                return self._assignment(row, version)
            result = RunResult(RunState.FAILED, b"", Reason.START_FAILED)
            self._end(session, row, row.attempt, result, now, _Files(), "catalog")
        # The runner is spent with the run it was bound to; the next one gets the next run.
        raise TokenRefused("The run's template is not what was published, so the run has failed.")

    def heartbeat(self, token: str, run: str, attempt: int, progress: Progress, now: datetime) -> Directive:
        with self._database.write() as session:
            runner = _runner(session, token)
            _own_run(runner, run)
            lease = now + timedelta(seconds=self._limits.lease_seconds)
            this = and_(_attempt(run, attempt), col(RunRow.runner) == runner.id)
            beat = update(RunRow).where(this).values(lease_until=lease, **reported(progress))
            if runner.attempt != attempt or changed(session.execute(beat)) != 1:
                raise _lost(run, attempt)
            return Directive(bool(session.scalar(select(col(RunRow.cancel_requested)).where(col(RunRow.id) == run))))

    def finish(self, token: str, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        with self._database.read() as session:
            self._may_finish(session, token, run, attempt)
        files = self._keep(result)
        with self._database.write() as session:
            if (recorded := self._may_finish(session, token, run, attempt, lock=True)) is not None:
                return queue_run(recorded)
            return self._end(session, _locked(session, run), attempt, result, now, files, "runner")

    # -- inside ----------------------------------------------------------------------------------------------------
    def _tickets(self, query: Select[RunnerRow]) -> Sequence[RunnerTicket]:
        with self._database.read() as session:
            rows = session.scalars(query.order_by(col(RunnerRow.created_at), col(RunnerRow.id)))
            return [
                RunnerTicket(r.id, r.orgnr, r.token_sha256, r.sandbox, r.engine, r.image_digest, r.created_at)
                for r in rows
            ]

    def _runs(self, where: ColumnElement[bool]) -> Sequence[Run]:
        with self._database.read() as session:
            return [queue_run(row) for row in session.scalars(select(RunRow).where(where).order_by(col(RunRow.id)))]

    def _bound(self, session: Session, runner: RunnerRow, now: datetime) -> RunRow:
        """Return the run that this runner has claimed before, its lease renewed."""
        lease = now + timedelta(seconds=self._limits.lease_seconds)
        this = _attempt(runner.run or "", runner.attempt or 0)
        if changed(session.execute(update(RunRow).where(this).values(lease_until=lease))) != 1:
            raise TokenRefused("The runner's run has ended, or its attempt was given back.")
        return _locked(session, runner.run or "")

    def _take(self, session: Session, runner: RunnerRow, now: datetime) -> RunRow | None:
        """Bind the runner to its agency's oldest queued run, if one waits and the agency's quota leaves room."""
        agency = session.scalars(select(Agency).where(col(Agency.orgnr) == runner.orgnr).with_for_update()).one()
        of_agency = (col(RunRow.state) == _RUNNING, col(RunRow.orgnr) == agency.orgnr)
        running = session.scalar(select(func.count()).select_from(RunRow).where(*of_agency)) or 0
        if running >= agency.max_concurrent_runs:
            return None
        row = session.scalars(_waiting(agency.orgnr).with_for_update(skip_locked=True)).one_or_none()
        if row is None:
            return None
        attempt = row.attempt + 1
        take = update(RunRow).where(
            col(RunRow.id) == row.id, col(RunRow.state) == _QUEUED, col(RunRow.attempt) == row.attempt
        )
        values: dict[str, Any] = {
            "state": _RUNNING,
            "attempt": attempt,
            "runner": runner.id,
            "engine": runner.engine,
            "image_digest": runner.image_digest,
            "started_at": now,
            "deadline_at": now + timedelta(seconds=row.timeout_seconds),
            "lease_until": now + timedelta(seconds=self._limits.lease_seconds),
        }
        if changed(session.execute(take.values(**values))) != 1:
            return None
        session.execute(update(RunnerRow).where(col(RunnerRow.id) == runner.id).values(run=row.id, attempt=attempt))
        detail = {"attempt": attempt, "runner": runner.id}
        self._log(session, now, "run.started", row.orgnr, row.id, "runner", detail)
        session.refresh(row)
        return row

    def _version(self, session: Session, row: RunRow) -> TemplateVersion | None:
        stored = find_version(session, row.template, row.version)
        if stored is None or stored.digest != row.template_digest:
            return None
        try:
            return version_of(stored)
        except InvalidInput:
            return None

    def _assignment(self, row: RunRow, version: TemplateVersion) -> Assignment:
        return Assignment(
            run=row.id,
            attempt=row.attempt,
            notebook=version.notebook.decode(),
            parameters=row.parameters or {},
            kernel=version.kernel,
            timeout_seconds=row.timeout_seconds,
            lease_seconds=self._limits.lease_seconds,
            output_limit_bytes=self._limits.output_limit_bytes,
        )

    def _may_finish(self, session: Session, token: str, run: str, attempt: int, *, lock: bool = False) -> RunRow | None:
        """Return None if this attempt owns the run, the run as recorded if it did when it ended; raise otherwise."""
        runner = _runner(session, token)
        _own_run(runner, run)
        row = _locked(session, run) if lock else session.scalars(select(RunRow).where(col(RunRow.id) == run)).one()
        # The runner's own attempt counts, not the number it sends: an old runner could send the new one's.
        if runner.attempt != attempt or row.attempt != attempt:
            raise _lost(run, attempt)
        if _owns(row, attempt):
            return None
        if RunState(row.state).ended:
            return row
        raise _lost(run, attempt)

    def _keep(self, result: RunResult) -> _Files:
        """Write the result's files, named by their content: the loser of a race leaves nothing wrong behind."""
        notebook = self._blobs.put(result.notebook) if result.notebook else None
        return _Files(notebook, {figure.name: self._blobs.put(figure.data) for figure in result.figures})

    def _end(
        self, session: Session, row: RunRow, attempt: int, result: RunResult, now: datetime, files: _Files, source: str
    ) -> Run:
        """Record the ending of a run whose row is locked and that has not ended."""
        this = and_(
            col(RunRow.id) == row.id, col(RunRow.attempt) == attempt, col(RunRow.state).in_((_QUEUED, _RUNNING))
        )
        values = ending(result, now, files.notebook)
        if result.state is RunState.CANCELLED:
            values["cancel_requested"] = True
        if changed(session.execute(update(RunRow).where(this).values(**values))) != 1:
            raise _lost(row.id, attempt)
        add_results(session, row.id, result, files.figures)
        detail = {"state": result.state.value, "reason": values["reason"], "attempt": attempt}
        self._log(session, now, "run.ended", row.orgnr, row.id, source, detail)
        session.refresh(row)
        return queue_run(row)

    def _requeue(self, session: Session, row: RunRow, attempt: int, now: datetime) -> Run:
        values: dict[str, Any] = {
            "state": _QUEUED,
            "runner": None,
            "lease_until": None,
            "started_at": None,
            "deadline_at": None,
            **reported(Progress(0, 0)),
        }
        if changed(session.execute(update(RunRow).where(_attempt(row.id, attempt)).values(**values))) != 1:
            raise _lost(row.id, attempt)
        self._log(session, now, "run.given_back", row.orgnr, row.id, "dispatcher", {"attempt": attempt})
        session.refresh(row)
        return queue_run(row)

    @staticmethod
    def _log(
        session: Session,
        now: datetime,
        action: str,
        agency: str | None,
        subject: str,
        source: str,
        detail: dict[str, Any] | None = None,
    ) -> None:
        log(session, now, "system", action, agency=agency, subject=subject, source=source, detail=detail)


class _Files:
    """Where a result's files are: SHA-256s."""

    def __init__(self, notebook: str | None = None, figures: dict[str, str] | None = None) -> None:
        self.notebook = notebook
        self.figures = figures or {}


def _waiting(agency: str) -> Select[RunRow]:
    """Return the query for an agency's oldest queued run: the first entry of one index, however big the catalog is."""
    this = (col(RunRow.state) == _QUEUED, col(RunRow.orgnr) == agency)
    return select(RunRow).where(*this).order_by(col(RunRow.id)).limit(1)


def _attempt(run: str, attempt: int) -> ColumnElement[bool]:
    return and_(col(RunRow.id) == run, col(RunRow.state) == _RUNNING, col(RunRow.attempt) == attempt)


def _owns(row: RunRow, attempt: int) -> bool:
    return row.state == _RUNNING and row.attempt == attempt


def _locked(session: Session, run: str) -> RunRow:
    query = select(RunRow).where(col(RunRow.id) == run).with_for_update().execution_options(populate_existing=True)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise KeyError(run)
    return row


def _runner(session: Session, token: str, *, lock: bool = False) -> RunnerRow:
    hashed = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    query = select(RunnerRow).where(col(RunnerRow.token_sha256) == hashed, _OPEN)
    runner = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if runner is None:
        raise TokenRefused("The runner's token is unknown or has been closed.")
    return runner


def _own_run(runner: RunnerRow, run: str) -> None:
    if runner.run is None or runner.run != run:
        raise NotYourRun(f"That run does not belong to runner {runner.id}.")


def _lost(run: str, attempt: int) -> LeaseLost:
    return LeaseLost(f"Attempt {attempt} of run {run} no longer owns it.")
