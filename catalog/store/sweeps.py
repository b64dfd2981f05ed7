"""Sweeps as people see them: planning one, asking for one, following it, ending it early, filling its gaps.

Rows are locked in the order agency, sweep, run, here and wherever many runs are changed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, not_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Action, Forbidden, NotFound, Viewer, may, visible_sweeps
from catalog.store.agencies import find_agency
from catalog.store.database import Database, changed
from catalog.store.durations import typical
from catalog.store.events import log, log_by
from catalog.store.experiments import agency_to_work_in
from catalog.store.fields import Problems, one_problem, storable
from catalog.store.ids import is_id, new_id
from catalog.store.limits import RunLimits
from catalog.store.notices import tell
from catalog.store.paging import check_limit, cursor_after, cut, read_cursor
from catalog.store.records import Page, SweepPlan, SweepRecord, SweepState, SweepSubmission
from catalog.store.submissions import CheckedSweep, check_sweep, still_published
from catalog.store.sweep_rows import (
    OPEN,
    counts_of,
    new_run,
    open_runs,
    queue_runs,
    sweep_query,
    sweep_record,
    tally,
)
from catalog.tables import Agency, RunRow, SweepRow
from experiments.model import Reason, RunRequest, RunState
from experiments.notices import NoticeKind
from experiments.sweeps import Expansion, expected_seconds
from lab_templates.text import quote

_AGAIN = (RunState.FAILED.value, RunState.TIMED_OUT.value, RunState.CANCELLED.value)


class Sweeps:
    def __init__(self, database: Database, limits: RunLimits, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    # -- asking for a sweep ----------------------------------------------------------------------------------------
    def plan(self, viewer: Viewer, submission: SweepSubmission) -> SweepPlan:
        """Return what the sweep would be; nothing is stored. Raise as ``submit``."""
        with self._database.read() as session:
            checked = check_sweep(session, viewer, submission, self._limits, self._clock())
            if checked.existing is not None:
                what = f"This submission key has made sweep {checked.existing} already. Use a new key for a new sweep."
                raise one_problem("idempotency_key_reused", "idempotency_key", submission.idempotency_key, what)
            request, expansion = _whole(checked)
            agency = session.get_one(Agency, request.agency)
            ahead = open_runs(session, agency.orgnr)
            usual = typical(session, request.template, request.version)
        runs, each = len(expansion.points), usual.median if usual else None
        return SweepPlan(
            agency=agency.orgnr,
            template=request.template,
            version=request.version,
            runs=runs,
            duplicates=expansion.duplicates,
            varied=expansion.varied,
            limit=agency.max_sweep_runs,
            concurrent=agency.max_concurrent_runs,
            ahead=ahead,
            seconds_each=each,
            seconds=expected_seconds(runs, ahead, each, agency.max_concurrent_runs),
        )

    def submit(self, viewer: Viewer, submission: SweepSubmission) -> tuple[SweepRecord, bool]:
        """Queue all runs of a sweep at once, or none of them. Return the sweep, and whether it is new.

        A used ``idempotency_key`` gives the sweep it made before. Raise Forbidden, or InvalidInput with every problem
        (see ``submissions.check_sweep``).
        """
        checked = self._check(viewer, submission)
        if checked.existing is not None:
            return self.get(viewer, checked.existing), False
        try:
            with self._database.write() as session:
                id = self._insert(session, viewer, checked)
        except IntegrityError:
            # The same key came in twice at once, and the other one was first.
            checked = self._check(viewer, submission)
            if checked.existing is None:
                raise
            return self.get(viewer, checked.existing), False
        return self.get(viewer, id), True

    def _check(self, viewer: Viewer, submission: SweepSubmission) -> CheckedSweep:
        with self._database.read() as session:
            return check_sweep(session, viewer, submission, self._limits, self._clock())

    def _insert(self, session: Session, viewer: Viewer, checked: CheckedSweep) -> str:
        request, expansion = _whole(checked)
        now = self._clock()
        problems = Problems()
        agency_to_work_in(session, problems, viewer, request.agency)
        problems.stop()
        still_published(session, request)
        row = SweepRow(
            id=new_id(),
            orgnr=request.agency,
            experiment=request.experiment,
            template=request.template,
            version=request.version,
            template_digest=request.template_digest,
            request=checked.kept or {},
            size=len(expansion.points),
            duplicates=expansion.duplicates,
            varied=list(expansion.varied),
            timeout_seconds=request.timeout_seconds,
            requested_by=request.requested_by,
            idempotency_key=request.idempotency_key,
            created_at=now,
        )
        session.add(row)
        session.flush()
        runs = [new_run(row, point, values, self._limits, now) for point, values in enumerate(expansion.points)]
        title = checked.version.title if checked.version else None
        queue_runs(session, runs, (row.template, row.requested_by, *((title.nb, title.nn, title.en) if title else ())))
        detail = {"template": f"{row.template}@{row.version}", "runs": row.size}
        log_by(session, viewer, now, "sweep.submitted", agency=row.orgnr, subject=row.id, detail=detail)
        return row.id

    # -- ending it, and going on -----------------------------------------------------------------------------------
    def cancel(self, viewer: Viewer, id: str) -> SweepRecord:
        """End the sweep's queued runs at once and ask the runners of the others to stop; what is done stays.

        A sweep that has ended is returned as it is. Raise NotFound or Forbidden.
        """
        record = self.get(viewer, id)
        self._require_submit(viewer, record.agency.orgnr)
        now = self._clock()
        with self._database.write() as session:
            row = _locked(session, id)
            if not session.scalar(select(_any_open(id))):
                return self._record(session, id)
            of_sweep = and_(col(RunRow.sweep) == id, col(RunRow.stands))
            queued, running = col(RunRow.state) == RunState.QUEUED.value, col(RunRow.state) == RunState.RUNNING.value
            ended = {"state": RunState.CANCELLED.value, "reason": Reason.CANCELLED_BY_USER.value, "ended_at": now}
            asked = session.execute(update(RunRow).where(of_sweep, running).values(cancel_requested=True))
            gone = session.execute(update(RunRow).where(of_sweep, queued).values(cancel_requested=True, **ended))
            row.cancel_requested = True
            session.flush()
            detail = {"queued": changed(gone), "running": changed(asked)}
            log_by(session, viewer, now, "sweep.cancelled", agency=row.orgnr, subject=id, detail=detail)
            self._settle(session, row, now)
            return self._record(session, id)

    def resume(self, viewer: Viewer, id: str) -> SweepRecord:
        """Queue a new run for each point whose run has ended without success; succeeded points stay as they are.

        Raise NotFound, Forbidden, or InvalidInput: nothing_to_resume, agency_closed, not_published.
        """
        record = self.get(viewer, id)
        self._require_submit(viewer, record.agency.orgnr)
        now = self._clock()
        with self._database.write() as session:
            problems = Problems()
            agency_to_work_in(session, problems, viewer, record.agency.orgnr)
            problems.stop()
            row = _locked(session, id)
            request = RunRequest(
                row.orgnr, row.template, row.version, row.template_digest, {}, row.timeout_seconds, viewer.name
            )
            still_published(session, request)
            again = and_(col(RunRow.sweep) == id, col(RunRow.stands), col(RunRow.state).in_(_AGAIN))
            columns = (col(RunRow.point), col(RunRow.parameters), col(RunRow.id))
            missing = session.execute(select(*columns).where(again).order_by(columns[0])).all()
            if not missing:
                what = f"Every point of sweep {id} has succeeded or still runs, so there is nothing to run again."
                raise one_problem("nothing_to_resume", "id", id, what)
            session.execute(update(RunRow).where(again).values(stands=False))
            row.rounds += 1
            row.cancel_requested, row.ended_at, row.tally = False, None, None
            session.flush()
            runs = [new_run(row, point, values or {}, self._limits, now, old) for point, values, old in missing]
            queue_runs(session, runs, (row.template, row.requested_by))
            detail = {"runs": len(runs), "round": row.rounds}
            log_by(session, viewer, now, "sweep.resumed", agency=row.orgnr, subject=id, detail=detail)
            return self._record(session, id)

    def settle(self) -> tuple[str, ...]:
        """Note the end of each sweep that nothing of waits or runs any more, and tell who asked for it. Return them.

        Any process may call this at any time: each end is noted and told once. Unchecked: for the dispatcher.
        """
        query = select(col(SweepRow.id)).where(col(SweepRow.ended_at).is_(None)).order_by(col(SweepRow.id))
        with self._database.read() as session:
            over = session.scalars(query.where(not_(_any_open(SweepRow.id)))).all()
        ended = []
        for id in over:
            with self._database.write() as session:
                if self._settle(session, _locked(session, id), self._clock()):
                    ended.append(id)
        return tuple(ended)

    def _settle(self, session: Session, row: SweepRow, now: datetime) -> bool:
        """Note the end of a sweep whose row is locked, if it has ended."""
        if row.ended_at is not None or session.scalar(select(_any_open(row.id))):
            return False
        row.ended_at, row.tally = now, dict(counts_of(session, [row.id]).get(row.id, {}))
        session.flush()
        state = self._record(session, row.id).state
        detail: dict[str, object] = {"state": state.value, "counts": row.tally}
        log(session, now, "system", "sweep.ended", agency=row.orgnr, subject=row.id, source="catalog", detail=detail)
        tell(
            session,
            now,
            person=row.requested_by,
            agency=row.orgnr,
            kind=NoticeKind.SWEEP,
            subject=row.id,
            occasion=row.rounds,
            state=state.value,
            succeeded=state is SweepState.SUCCEEDED,
            template=row.template,
            version=row.version,
            detail={"counts": row.tally, "size": row.size},
        )
        return True

    # -- reading ---------------------------------------------------------------------------------------------------
    def get(self, viewer: Viewer, id: str) -> SweepRecord:
        """Return a sweep as it is now. Raise NotFound."""
        with self._database.read() as session:
            seen = visible_sweeps(viewer, self._clock().date())
            known = select(col(SweepRow.id)).where(col(SweepRow.id) == id, seen)
            if not is_id(id) or session.scalar(known) is None:
                raise NotFound(f"There is no sweep {quote(id)} that you may see.")
            return self._record(session, id)

    def list(
        self,
        viewer: Viewer,
        *,
        agency: str | None = None,
        template: str | None = None,
        experiment: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[SweepRecord]:
        """Return sweeps, newest first. ``agency``: number or short name. Raise InvalidInput (bad_cursor, bad_limit)."""
        check_limit(limit)
        listing = f"sweeps {agency!r} {template!r} {experiment!r}"
        after = read_cursor(cursor, listing)
        query = sweep_query().where(visible_sweeps(viewer, self._clock().date()))
        if template is not None:
            query = query.where(col(SweepRow.template) == storable(template))
        if experiment is not None:
            query = query.where(col(SweepRow.experiment) == storable(experiment))
        if after is not None:
            query = query.where(col(SweepRow.id) < after)
        with self._database.read() as session:
            if agency is not None:
                found = find_agency(session, agency)
                query = query.where(col(SweepRow.orgnr) == (found.orgnr if found else ""))
            rows = session.execute(query.order_by(col(SweepRow.id).desc()).limit(limit + 1)).all()
            shown, more = cut(rows, limit)
            counts = counts_of(session, [row.id for row, _, _ in shown if row.tally is None])
        items = tuple(sweep_record((r, a, t), r.tally or counts.get(r.id, {})) for r, a, t in shown)
        return Page(items, cursor_after(shown[-1][0].id, listing) if more else None)

    def _record(self, session: Session, id: str) -> SweepRecord:
        row, agency, title = session.execute(sweep_query().where(col(SweepRow.id) == id)).one()
        counts = tally(session, row)
        remaining = sum(counts.get(state, 0) for state in OPEN)
        usual = typical(session, row.template, row.version) if remaining else None
        left = expected_seconds(remaining, 0, usual.median if usual else None, agency.max_concurrent_runs)
        return sweep_record((row, agency, title), counts, left if remaining else None)

    @staticmethod
    def _require_submit(viewer: Viewer, orgnr: str) -> None:
        if not may(viewer, Action.SUBMIT, orgnr):
            raise Forbidden(f"{viewer.name} may not start or end runs of agency {orgnr}. Ask one of its coordinators.")


def _whole(checked: CheckedSweep) -> tuple[RunRequest, Expansion]:
    if checked.request is None or checked.expansion is None:
        raise ValueError("Only a sweep that was checked can be stored.")
    return checked.request, checked.expansion


def _locked(session: Session, id: str) -> SweepRow:
    """Lock a sweep, and keep its agency as it is: closing an agency changes many runs too."""
    orgnr = session.scalar(select(col(SweepRow.orgnr)).where(col(SweepRow.id) == id))
    session.execute(select(col(Agency.orgnr)).where(col(Agency.orgnr) == orgnr).with_for_update(read=True))
    return session.get_one(SweepRow, id, with_for_update=True, populate_existing=True)


def _any_open(sweep: object) -> ColumnElement[bool]:
    id = sweep if isinstance(sweep, str) else col(SweepRow.id)
    return exists().where(col(RunRow.sweep) == id, col(RunRow.stands), col(RunRow.state).in_(OPEN))
