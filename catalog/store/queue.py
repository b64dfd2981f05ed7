"""The durable queue over the catalog's database. See ``experiments.queue.RunQueue`` for what each method promises.

Rows are locked in one order everywhere (runner, agency, run), so no two transactions wait for each other. What is
decided here is decided by conditional updates that name the attempt; the locks only spare retries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, Update, and_, exists, func, not_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import col

from catalog.blobs import Blobs
from catalog.store.database import Database, changed
from catalog.store.events import log
from catalog.store.limits import RunLimits
from catalog.store.notices import tell_of_run
from catalog.store.run_rows import ALONE, OF_SWEEP, RUNNING, WAITING, add_results, ending, queue_run, reported
from catalog.store.templates import find_version, version_of
from catalog.tables import Agency, RunnerClaim, RunnerRow, RunRow
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
from experiments.queue import AgencyDemand, LeaseLost, NotYourRun, RunnerLoad, TokenRefused
from lab_templates.model import InvalidInput, TemplateVersion

_QUEUED, _RUNNING = RunState.QUEUED.value, RunState.RUNNING.value
_OPEN = col(RunnerRow.closed_at).is_(None)
# Asked for several times a second, so it is made once, and of the table, which needs no mapping of rows.
_NEWEST = select(func.max(RunRow.__table__.c.id))  # type: ignore[attr-defined]
_NONE = (0, "")


class SqlRunQueue:
    """An ``experiments.queue.RunQueue``. Safe to share between threads."""

    def __init__(self, database: Database, blobs: Blobs, limits: RunLimits, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._blobs = blobs
        self._limits = limits
        self._clock = clock

    # -- the dispatcher's side -------------------------------------------------------------------------------------
    def demand(self, recent: datetime | None = None) -> Sequence[AgencyDemand]:
        orgnr, first = col(RunRow.orgnr), func.min(col(RunRow.id))
        with self._database.read() as session:
            alone = {o: (n, id) for o, n, id in session.execute(_count(ALONE, orgnr, func.count(), first))}
            swept = {o: (n, id) for o, n, id in session.execute(_count(OF_SWEEP, orgnr, func.count(), first))}
            running: dict[str, int] = dict(session.execute(_count(RUNNING, orgnr, func.count())).all())
            firsts = [id for _, id in (*alone.values(), *swept.values())]
            when = select(orgnr, func.min(col(RunRow.created_at))).where(col(RunRow.id).in_(firsts)).group_by(orgnr)
            oldest: dict[str, datetime] = dict(session.execute(when).all()) if firsts else {}
            busy = alone.keys() | swept.keys() | running.keys()
            if recent is not None:
                busy |= _submitted_since(session, recent)
            agencies = session.scalars(select(Agency).where(col(Agency.orgnr).in_(busy)).order_by(col(Agency.orgnr)))
            return [
                AgencyDemand(
                    agency=agency.orgnr,
                    slug=agency.slug,
                    queued=alone.get(agency.orgnr, _NONE)[0] + swept.get(agency.orgnr, _NONE)[0],
                    running=running.get(agency.orgnr, 0),
                    max_concurrent=agency.max_concurrent_runs,
                    weight=agency.weight,
                    oldest=oldest.get(agency.orgnr),
                    queued_of_sweeps=swept.get(agency.orgnr, _NONE)[0],
                    max_memory=agency.max_memory,
                    max_cpus=agency.max_cpus,
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
            slots=ticket.slots,
            batch_limit=ticket.batch_limit,
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
        return [load.ticket for load in self.loads()]

    def loads(self) -> Sequence[RunnerLoad]:
        with self._database.read() as session:
            return runner_loads(session)

    def resize_runner(self, runner: str, slots: int) -> None:
        this = and_(col(RunnerRow.id) == runner, _OPEN, not_(col(RunnerRow.spent)))
        with self._database.write() as session:
            session.execute(update(RunnerRow).where(this).values(slots=max(1, slots)))

    def retire_runner(self, runner: str) -> None:
        now = self._clock()
        with self._database.write() as session:
            if _spend(session, runner):
                orgnr = session.scalar(select(col(RunnerRow.orgnr)).where(col(RunnerRow.id) == runner))
                self._log(session, now, "runner.retired", orgnr, runner, "dispatcher")

    def close_runner(self, runner: str) -> None:
        now = self._clock()
        close = update(RunnerRow).where(col(RunnerRow.id) == runner, _OPEN).values(closed_at=now)
        with self._database.write() as session:
            if changed(session.execute(close)):
                orgnr = session.scalar(select(col(RunnerRow.orgnr)).where(col(RunnerRow.id) == runner))
                self._log(session, now, "runner.closed", orgnr, runner, "dispatcher")

    def active(self) -> Sequence[Run]:
        return self._runs(RUNNING)

    def expired(self, now: datetime) -> Sequence[Run]:
        return self._runs(and_(RUNNING, col(RunRow.lease_until) < now))

    def newest(self) -> str | None:
        with self._database.read() as session:
            newest: str | None = session.scalar(_NEWEST)
            return newest

    def oldest_queued(self, agency: str) -> Run | None:
        with self._database.read() as session:
            row = session.scalars(_oldest(WAITING, col(RunRow.orgnr) == agency)).one_or_none()
            return None if row is None else queue_run(row)

    def give_back(self, run: str, attempt: int, now: datetime) -> Run:
        """End a lost attempt. Raise KeyError if there is no such run."""
        with self._database.write() as session:
            row, runner = _locked_with_runner(session, run)
            if not _owns(row, attempt):
                return queue_run(row)
            if runner is not None:
                runner.spent = True
            if row.cancel_requested:
                result = RunResult(RunState.CANCELLED, b"", Reason.CANCELLED_BY_USER)
            elif attempt >= row.max_attempts:
                result = RunResult(RunState.FAILED, b"", Reason.RUNNER_LOST)
            else:
                return self._requeue(session, row, attempt, now, "dispatcher")
            return self._end(session, row, attempt, result, now, _Files(), "dispatcher")

    def end(self, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record an ending that the server decided on. Raise LeaseLost, or KeyError if there is no such run."""
        files = self._keep(result)
        with self._database.write() as session:
            row, runner = _locked_with_runner(session, run)
            if row.attempt != attempt or RunState(row.state).ended:
                raise _lost(run, attempt)
            if runner is not None:
                runner.spent = True
            return self._end(session, row, attempt, result, now, files, "dispatcher")

    # -- the runner's side -----------------------------------------------------------------------------------------
    def claim(self, token: str, now: datetime, holding: Collection[str] = ()) -> Assignment | None:
        with self._database.write() as session:
            runner = _runner(session, token, lock=True)
            row = self._unheard(session, runner, holding, now)
            if row is None and not runner.spent:
                row = self._take(session, runner, _locked_agency(session, runner.orgnr), now)
                if row is None and not runner.spent:
                    return None
            if row is not None and (assignment := self._assignment(session, runner, row, now)) is not None:
                return assignment
        # Committed: a runner that is spent stays so, and the run that could not start has failed.
        raise TokenRefused("The runner's batch is done.")

    def heartbeat(self, token: str, run: str, attempt: int, progress: Progress, now: datetime) -> Directive:
        with self._database.write() as session:
            runner, claimed = _claim_of(session, token, run)
            lease = now + timedelta(seconds=self._limits.lease_seconds)
            this = and_(_attempt(run, attempt), col(RunRow.runner) == runner.id)
            beat = _update().where(this).values(lease_until=lease, **reported(progress))
            cancel = session.execute(beat.returning(col(RunRow.cancel_requested))).scalar_one_or_none()
            if claimed != attempt or cancel is None:
                raise _lost(run, attempt)
            return Directive(bool(cancel))

    def finish(self, token: str, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        return self._finish(token, run, attempt, result, now, claims=False)[0]

    def finish_and_claim(
        self, token: str, run: str, attempt: int, result: RunResult, now: datetime
    ) -> tuple[Run, Assignment | None]:
        return self._finish(token, run, attempt, result, now, claims=True)

    def _finish(
        self, token: str, run: str, attempt: int, result: RunResult, now: datetime, *, claims: bool
    ) -> tuple[Run, Assignment | None]:
        with self._database.read() as session:
            _, claimed = _claim_of(session, token, run)
            row = session.scalars(select(RunRow).where(col(RunRow.id) == run)).one()
            _check_owner(row, attempt, claimed)
        files = self._keep(result)
        with self._database.write() as session:
            runner, claimed = _claim_of(session, token, run, lock=claims)
            agency = _locked_agency(session, runner.orgnr) if claims and not runner.spent else None
            row = _locked(session, run)
            _check_owner(row, attempt, claimed)
            if not _owns(row, attempt):
                return queue_run(row), None
            ended = self._end(session, row, attempt, result, now, files, "runner")
            following = self._take(session, runner, agency, now) if agency is not None else None
            if following is None:
                return ended, None
            return ended, self._assignment(session, runner, following, now)

    def knows(self, token: str) -> bool:
        """Say whether an open runner has this token. For a look before a body is read; every call checks it anew."""
        with self._database.read() as session:
            return session.scalar(select(col(RunnerRow.id)).where(_has(token))) is not None

    def may_find(self, token: str, holding: Collection[str] = ()) -> bool:
        """Say whether a claim would find something, or be refused, as far as a look without any lock can tell.

        For a runner that waits and claimed in vain: one question, where a claim takes the database's write lock. It
        may say True in vain (the agency's quota is used up), never False where a claim would give a run.
        """
        unheard = exists().where(
            RUNNING, col(RunRow.orgnr) == col(RunnerRow.orgnr), col(RunRow.runner) == col(RunnerRow.id)
        )
        if holding:
            unheard = unheard.where(col(RunRow.id).not_in(sorted(holding)))
        waits = exists().where(WAITING, col(RunRow.orgnr) == col(RunnerRow.orgnr))
        bound = col(RunnerRow.sweep).is_not(None)  # it is spent as soon as nothing of its sweep waits
        query = select(or_(col(RunnerRow.spent), bound, waits, unheard)).where(_has(token))
        with self._database.read() as session:
            return session.scalar(query) is not False

    def hand_back(self, token: str, run: str, attempt: int, now: datetime) -> Run | None:
        with self._database.write() as session:
            runner, claimed = _claim_of(session, token, run, lock=True)
            row = _locked(session, run)
            if claimed != attempt or row.attempt != attempt or RunState(row.state).ended:
                raise _lost(run, attempt)
            if row.state == _QUEUED:
                return queue_run(row)
            if runner.claimed == 1 or attempt >= row.max_attempts or row.cancel_requested:
                return None
            runner.spent = True
            return self._requeue(session, row, attempt, now, "runner")

    # -- inside ----------------------------------------------------------------------------------------------------
    def _runs(self, where: ColumnElement[bool]) -> Sequence[Run]:
        with self._database.read() as session:
            return [queue_run(row) for row in session.scalars(select(RunRow).where(where).order_by(col(RunRow.id)))]

    def _unheard(self, session: Session, runner: RunnerRow, holding: Collection[str], now: datetime) -> RunRow | None:
        """Return the oldest run that this runner owns without knowing it, its lease renewed: its answer was lost."""
        claims = select(RunRow).join(RunnerClaim, col(RunnerClaim.run) == col(RunRow.id))
        owned = claims.where(RUNNING, col(RunRow.runner) == runner.id, col(RunnerClaim.runner) == runner.id)
        for row in session.scalars(owned.order_by(col(RunnerClaim.number))) if runner.claimed else ():
            if row.id in holding:
                continue
            lease = now + timedelta(seconds=self._limits.lease_seconds)
            renew = _update().where(_attempt(row.id, row.attempt)).values(lease_until=lease)
            if changed(session.execute(renew)) == 1:
                return _locked(session, row.id)
        return None

    def _take(self, session: Session, runner: RunnerRow, agency: Agency, now: datetime) -> RunRow | None:
        """Bind the runner to the run that is next for it, if its slots and its (locked) agency's quota leave room."""
        of_agency = col(RunRow.orgnr) == agency.orgnr
        query = select(col(RunRow.runner), func.count()).where(RUNNING, of_agency).group_by(col(RunRow.runner))
        held: dict[str | None, int] = dict(session.execute(query).all())
        if held.get(runner.id, 0) >= runner.slots or sum(held.values()) >= agency.max_concurrent_runs:
            return None
        row = self._next(session, runner, of_agency)
        if row is None:
            # What another claim has locked at this moment still waits, as far as this one can know.
            if runner.sweep is not None and not session.scalar(select(_any_of_sweep(runner.sweep))):
                runner.spent = True
            return None
        return self._bind(session, runner, row, now)

    def _next(self, session: Session, runner: RunnerRow, of_agency: ColumnElement[bool]) -> RunRow | None:
        if runner.sweep is not None:
            lanes = [(OF_SWEEP, and_(col(RunRow.sweep) == runner.sweep, col(RunRow.stands)))]
        else:
            meant, others = (OF_SWEEP, ALONE) if runner.batch_limit > 1 else (ALONE, OF_SWEEP)
            lanes = [(meant, of_agency), (others, of_agency)]
        for lane in lanes:
            row = session.scalars(_oldest(*lane).with_for_update(skip_locked=True)).one_or_none()
            if row is not None:
                return row
        return None

    def _bind(self, session: Session, runner: RunnerRow, row: RunRow, now: datetime) -> RunRow | None:
        attempt, alone = row.attempt + 1, row.sweep is None or row.attempt > 0
        take = _update().where(
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
        runner.claimed += 1
        runner.sweep = row.sweep
        if not alone and runner.batch_limit == 1:
            runner.batch_limit = self._limits.sweep_batch
        runner.spent = alone or runner.claimed >= runner.batch_limit
        session.add(RunnerClaim(runner=runner.id, run=row.id, attempt=attempt, number=runner.claimed))
        session.flush()
        if row.sweep is None:  # of a sweep's runs the sweep's own events tell enough
            detail = {"attempt": attempt, "runner": runner.id}
            self._log(session, now, "run.started", row.orgnr, row.id, "runner", detail)
        return _written(row, values)

    def _version(self, session: Session, row: RunRow) -> TemplateVersion | None:
        stored = find_version(session, row.template, row.version)
        if stored is None or stored.digest != row.template_digest:
            return None
        try:
            return version_of(stored)
        except InvalidInput:
            return None

    def _assignment(self, session: Session, runner: RunnerRow, row: RunRow, now: datetime) -> Assignment | None:
        """Return what the runner is told of its run; one whose template cannot be had any more ends here, as None."""
        version = self._version(session, row)
        if version is None:
            runner.spent = True
            result = RunResult(RunState.FAILED, b"", Reason.START_FAILED)
            self._end(session, row, row.attempt, result, now, _Files(), "catalog")
            return None
        return Assignment(
            run=row.id,
            attempt=row.attempt,
            notebook=version.notebook.decode(),
            parameters=row.parameters or {},
            kernel=version.kernel,
            timeout_seconds=row.timeout_seconds,
            lease_seconds=self._limits.lease_seconds,
            output_limit_bytes=self._limits.output_limit_bytes,
            start=version.start,
        )

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
        if changed(session.execute(_update().where(this).values(**values))) != 1:
            raise _lost(row.id, attempt)
        add_results(session, row.id, result, files.figures)
        detail = {"state": result.state.value, "reason": values["reason"], "attempt": attempt}
        self._log(session, now, "run.ended", row.orgnr, row.id, source, detail)
        tell_of_run(session, now, _written(row, values))
        return queue_run(row)

    def _requeue(self, session: Session, row: RunRow, attempt: int, now: datetime, source: str) -> Run:
        values: dict[str, Any] = {
            "state": _QUEUED,
            "runner": None,
            "lease_until": None,
            "started_at": None,
            "deadline_at": None,
            **reported(Progress(0, 0)),
        }
        if changed(session.execute(_update().where(_attempt(row.id, attempt)).values(**values))) != 1:
            raise _lost(row.id, attempt)
        self._log(session, now, "run.given_back", row.orgnr, row.id, source, {"attempt": attempt})
        return queue_run(_written(row, values))

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


def runner_loads(session: Session, agency: str | None = None) -> list[RunnerLoad]:
    """Return the open runners, of all agencies or of one (its organisation number), the oldest first."""
    runners: ColumnElement[bool] = _OPEN
    runs = RUNNING
    if agency is not None:
        runners, runs = and_(_OPEN, col(RunnerRow.orgnr) == agency), and_(RUNNING, col(RunRow.orgnr) == agency)
    held: dict[str, int] = dict(session.execute(_count(runs, col(RunRow.runner), func.count())).all())
    query = select(RunnerRow).where(runners).order_by(col(RunnerRow.created_at), col(RunnerRow.id))
    return [RunnerLoad(_ticket(r), r.claimed, held.get(r.id, 0), r.spent) for r in session.scalars(query)]


def _count(where: ColumnElement[bool], group: Any, *columns: Any) -> Select[Any]:
    return select(group, *columns).where(where).group_by(group)


def _submitted_since(session: Session, recent: datetime) -> set[str]:
    """Return the agencies whose newest run was created at ``recent`` or later."""
    newest = (
        select(func.max(col(RunRow.id))).where(col(RunRow.orgnr) == col(Agency.orgnr)).correlate(Agency)
    ).scalar_subquery()
    query = select(col(RunRow.orgnr)).join(Agency, col(RunRow.id) == newest).where(col(RunRow.created_at) >= recent)
    return set(session.scalars(query))


def _oldest(*this: ColumnElement[bool]) -> Select[RunRow]:
    """Return the query for the oldest of some runs: the first entry of one index, however big the catalog is."""
    return select(RunRow).where(*this).order_by(col(RunRow.id)).limit(1)


def _any_of_sweep(sweep: str) -> ColumnElement[bool]:
    return exists().where(OF_SWEEP, col(RunRow.sweep) == sweep, col(RunRow.stands))


def _ticket(r: RunnerRow) -> RunnerTicket:
    return RunnerTicket(
        r.id, r.orgnr, r.token_sha256, r.sandbox, r.engine, r.image_digest, r.created_at, r.slots, r.batch_limit
    )


def _spend(session: Session, runner: str) -> bool:
    spend = update(RunnerRow).where(col(RunnerRow.id) == runner, not_(col(RunnerRow.spent))).values(spent=True)
    return changed(session.execute(spend)) == 1


def _attempt(run: str, attempt: int) -> ColumnElement[bool]:
    return and_(col(RunRow.id) == run, col(RunRow.state) == _RUNNING, col(RunRow.attempt) == attempt)


def _owns(row: RunRow, attempt: int) -> bool:
    return row.state == _RUNNING and row.attempt == attempt


def _check_owner(row: RunRow, attempt: int, claimed: int) -> None:
    """Raise LeaseLost unless this attempt owns the run, or did when it ended.

    ``claimed`` is the runner's own attempt: an old runner could send the new one's number.
    """
    if claimed != attempt or row.attempt != attempt:
        raise _lost(row.id, attempt)
    if not _owns(row, attempt) and not RunState(row.state).ended:
        raise _lost(row.id, attempt)


def _locked_agency(session: Session, orgnr: str) -> Agency:
    return session.scalars(select(Agency).where(col(Agency.orgnr) == orgnr).with_for_update()).one()


def _locked(session: Session, run: str) -> RunRow:
    query = select(RunRow).where(col(RunRow.id) == run).with_for_update().execution_options(populate_existing=True)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise KeyError(run)
    return row


def _locked_with_runner(session: Session, run: str) -> tuple[RunRow, RunnerRow | None]:
    """Lock a run and the runner that has it, the runner first as everywhere. Raise KeyError if there is no such run."""
    id = session.scalar(select(col(RunRow.runner)).where(col(RunRow.id) == run, RUNNING))
    query = select(RunnerRow).where(col(RunnerRow.id) == id).with_for_update()
    runner = session.scalars(query).one_or_none() if id is not None else None
    row = _locked(session, run)
    # The run may have gone to another runner meanwhile; then its attempt is another one too, and the caller says so.
    return row, runner if row.runner == id and row.state == _RUNNING else None


def _has(token: str) -> ColumnElement[bool]:
    hashed = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
    return and_(col(RunnerRow.token_sha256) == hashed, _OPEN)


def _runner(session: Session, token: str, *, lock: bool = False) -> RunnerRow:
    query = select(RunnerRow).where(_has(token))
    runner = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if runner is None:
        raise _refused()
    return runner


def _claim_of(session: Session, token: str, run: str, *, lock: bool = False) -> tuple[RunnerRow, int]:
    """Return the runner that has this token, and the attempt of the run that it has claimed.

    Raise TokenRefused, or NotYourRun if it never claimed it.
    """
    this = and_(col(RunnerClaim.runner) == col(RunnerRow.id), col(RunnerClaim.run) == run)
    query = select(RunnerRow, col(RunnerClaim.attempt)).outerjoin(RunnerClaim, this).where(_has(token))
    found = session.execute(query.with_for_update(of=RunnerRow) if lock else query).one_or_none()
    if found is None:
        raise _refused()
    runner, attempt = found
    if attempt is None:
        raise NotYourRun(f"That run does not belong to runner {runner.id}.")
    return runner, attempt


def _refused() -> TokenRefused:
    return TokenRefused("The runner's token is unknown or has been closed.")


def _update() -> Update:
    """An update of runs. The session's own rows stay as they were: whoever goes on with one calls ``_written``."""
    return update(RunRow).execution_options(synchronize_session=False)


def _written(row: RunRow, values: Mapping[str, Any]) -> RunRow:
    """Let a row hold what an update has just written to it, without asking the database for what is known."""
    for name, value in values.items():
        set_committed_value(row, name, value)
    return row


def _lost(run: str, attempt: int) -> LeaseLost:
    return LeaseLost(f"Attempt {attempt} of run {run} no longer owns it.")
