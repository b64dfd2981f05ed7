"""Schedules: runs that the lab asks for by itself, in the name of whoever made the schedule.

A time of a schedule is fired in one transaction: its firing (whose key is the schedule and the time), its run, and the
schedule's next time. So nothing is fired twice, however many dispatchers tick. Rows are locked in the order agency,
schedule, run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Action, Forbidden, NotFound, Viewer, may, visible_schedules
from catalog.store import fields
from catalog.store.agencies import agency_record, find_agency
from catalog.store.database import Database
from catalog.store.events import log, log_by
from catalog.store.experiments import CLOSED_STATUSES, agency_to_work_in
from catalog.store.fields import Problems, one_problem, storable
from catalog.store.ids import is_id, new_id
from catalog.store.limits import RunLimits
from catalog.store.members import current_grants
from catalog.store.paging import check_limit, cursor_after, cut, read_cursor
from catalog.store.records import FiringRecord, NewSchedule, Page, ScheduleRecord, Submission
from catalog.store.run_rows import add_run
from catalog.store.stopping import stop_schedules
from catalog.store.submissions import check, still_published, submission_key
from catalog.store.templates import find_version, newest_published, text_of, version_of
from catalog.tables import Agency, Experiment, Firing, ScheduleRow, TemplateVersionRow
from experiments.schedules import (
    DEFAULT_PARAMETER,
    CatchUp,
    ScheduleState,
    StopReason,
    due,
    next_times,
    time_parameter,
    time_value,
)
from experiments.schedules import check as check_times
from lab_templates.model import InvalidInput, TemplateVersion, Text
from lab_templates.parameters import bind_timeout
from lab_templates.text import quote

_log = logging.getLogger("proverom.schedules")

TITLE_LENGTH = 200
PREVIEW = 5
MOST_PREVIEWED = 50
_REMOVED = "removed"
_ACTIVE = col(ScheduleRow.state) == literal(ScheduleState.ACTIVE.value, literal_execute=True)
_AT_ONCE = 100  # schedules of one tick
# What is wrong with a schedule's request when its time has come, and so why it stops.
_REASONS = {
    "not_a_member": StopReason.REQUESTER_LEFT,
    "agency_closed": StopReason.AGENCY_CLOSED,
    "unknown_experiment": StopReason.EXPERIMENT_CLOSED,
    "unknown_template": StopReason.TEMPLATE_WITHDRAWN,
    "not_published": StopReason.TEMPLATE_WITHDRAWN,
    "quota_too_small": StopReason.QUOTA_TOO_SMALL,
}


class Schedules:
    def __init__(self, database: Database, limits: RunLimits, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    # -- making and changing them ----------------------------------------------------------------------------------
    def add(self, viewer: Viewer, new: NewSchedule) -> tuple[ScheduleRecord, bool]:
        """Make a schedule, active, and return it, and whether it is new. Its request is checked as if submitted now.

        A used ``idempotency_key`` gives the schedule it made before. Raise Forbidden, or InvalidInput with every
        problem: those of ``submissions.check``, bad_cron, bad_zone, not_a_choice (catch_up), too_long, bad_text
        (title), unknown_parameter or wrong_type (time_parameter), experiment_closed; idempotency_key_reused or
        schedule_removed alone, if the key belongs to another request, or to one whose schedule is gone.
        """
        try:
            with self._database.write() as session:
                return self._add(session, viewer, new)
        except IntegrityError:
            # The same key came in twice at once, and the other one was first.
            with self._database.read() as session:
                made = self._made_before(session, viewer, new)
                if made is None:
                    raise
                return self._record(session, made), False

    def _add(self, session: Session, viewer: Viewer, new: NewSchedule) -> tuple[ScheduleRecord, bool]:
        made = self._made_before(session, viewer, new)
        if made is not None:
            return self._record(session, made), False
        now = self._clock()
        row = self._checked(session, viewer, new, now)
        session.add(row)
        session.flush()
        detail = {"template": row.template, "cron": row.cron, "zone": row.zone}
        log_by(session, viewer, now, "schedule.added", agency=row.orgnr, subject=row.id, detail=detail)
        return self._record(session, row.id), True

    def _made_before(self, session: Session, viewer: Viewer, new: NewSchedule) -> str | None:
        """Return the schedule that this very request made, None if there is none. Raise as ``add``."""
        key = submission_key(Problems(), new.idempotency_key)
        agency = agency_to_work_in(session, Problems(), viewer, new.agency) if key is not None else ""
        if not agency:
            return None  # what is wrong with them is said with all the rest
        this = and_(col(ScheduleRow.requested_by) == viewer.name, col(ScheduleRow.idempotency_key) == key)
        row = session.scalars(select(ScheduleRow).where(this)).one_or_none()
        if row is None:
            return None
        if row.orgnr != agency or not _asks_for(row, new, self._limits):
            what = f"This submission key belongs to schedule {row.id}, which is another request. Use a new key."
            raise one_problem("idempotency_key_reused", "idempotency_key", key, what)
        if row.state == _REMOVED:
            what = f"This submission key has made schedule {row.id}, which was removed. Use a new key for a new one."
            raise one_problem("schedule_removed", "idempotency_key", key, what)
        return row.id

    def plan(self, viewer: Viewer, new: NewSchedule) -> tuple[datetime, ...]:
        """Return the first times of a schedule that is not made yet, in UTC; nothing is stored. Raise as ``add``."""
        now = self._clock()
        with self._database.read() as session:
            row = self._checked(session, viewer, new, now)
        return next_times(row.cron, row.zone, now, PREVIEW)

    def _checked(self, session: Session, viewer: Viewer, new: NewSchedule, now: datetime) -> ScheduleRow:
        """Return the row of a new schedule. Raise as ``add``."""
        problems = Problems()
        key = submission_key(problems, new.idempotency_key)
        title = fields.text(problems, "title", new.title, TITLE_LENGTH, required=False)
        catch_up = fields.choice(problems, "catch_up", new.catch_up, tuple(CatchUp))
        cron, zone = new.cron, new.zone
        try:
            cron, zone = check_times(new.cron, new.zone)
        except InvalidInput as error:
            problems.extend(error)
        submission, parameter = self._submission(session, problems, new, zone, now)
        try:
            request = check(session, viewer, submission, self._limits, now).request
        except InvalidInput as error:
            problems.extend(error)
            request = None
        if request is not None and request.experiment is not None:
            _refuse_closed(session, problems, request.experiment)
        problems.stop()
        if request is None:
            raise InvalidInput(())
        return ScheduleRow(
            id=new_id(),
            orgnr=request.agency,
            experiment=request.experiment,
            title=title,
            template=request.template,
            version=new.version or None,
            parameters={name: value for name, value in submission.parameters.items() if name != parameter},
            time_parameter=parameter,
            timeout_seconds=request.timeout_seconds if new.timeout_seconds is not None else None,
            cron=cron,
            zone=zone,
            catch_up=catch_up,
            state=ScheduleState.ACTIVE.value,
            requested_by=viewer.name,
            idempotency_key=key,
            created_at=now,
            next_at=next(iter(next_times(cron, zone, now, 1)), None),
        )

    def _submission(
        self, session: Session, problems: Problems, new: NewSchedule, zone: str, now: datetime
    ) -> tuple[Submission, str | None]:
        """Return what the schedule asks for at a time like now, and the parameter that holds the time."""
        version = _version(session, new.template, new.version)
        parameter = None
        values = dict(new.parameters)
        if version is not None:
            try:
                parameter = time_parameter(version, new.time_parameter)
            except InvalidInput as error:
                problems.extend(error)
        if version is not None and parameter is not None:
            if parameter in values and new.time_parameter:
                what = f"{parameter} gets the scheduled time, so it cannot be given a value. Leave it out."
                problems.add("given_twice", parameter, values[parameter], what)
            if parameter not in values:
                values[parameter] = time_value(version, parameter, now, zone if not problems else "UTC")
            elif not new.time_parameter:
                parameter = None  # it was given a value of its own
        submission = Submission(
            template=new.template,
            agency=new.agency,
            parameters=values,
            version=new.version,
            experiment=new.experiment,
            timeout_seconds=new.timeout_seconds,
        )
        return submission, parameter

    def pause(self, viewer: Viewer, id: str) -> ScheduleRecord:
        """Let no time of an active schedule fire until it is resumed. Raise NotFound, Forbidden, InvalidInput."""
        return self._move(viewer, id, ScheduleState.PAUSED, (ScheduleState.ACTIVE, ScheduleState.PAUSED))

    def resume(self, viewer: Viewer, id: str) -> ScheduleRecord:
        """Let a paused or stopped schedule go on from now; what it missed is not made up for.

        It then runs in the name of ``viewer`` if whoever made it has left. Raise NotFound, Forbidden, or InvalidInput:
        those of ``submissions.check``, experiment_closed, never_again.
        """
        return self._move(viewer, id, ScheduleState.ACTIVE, tuple(ScheduleState))

    def remove(self, viewer: Viewer, id: str) -> None:
        """End a schedule for good; its runs stay. Raise NotFound, Forbidden."""
        with self._database.write() as session:
            row = self._locked_for(session, viewer, id)
            row.state, row.next_at = _REMOVED, None
            session.flush()
            log_by(session, viewer, self._clock(), "schedule.removed", agency=row.orgnr, subject=id)

    def _move(self, viewer: Viewer, id: str, to: ScheduleState, allowed: tuple[ScheduleState, ...]) -> ScheduleRecord:
        now = self._clock()
        with self._database.write() as session:
            row = self._locked_for(session, viewer, id)
            if ScheduleState(row.state) not in allowed:
                what = f"Schedule {id} is {row.state}, so it cannot become {to}. Resume it first."
                raise one_problem("bad_state", "id", id, what, row.state)
            if row.state != to.value:
                if to is ScheduleState.ACTIVE:
                    self._revive(session, viewer, row, now)
                row.state = to.value
                times = next_times(row.cron, row.zone, now, 1) if to is ScheduleState.ACTIVE else ()
                row.next_at = times[0] if times else None
                session.flush()
                word = "schedule.resumed" if to is ScheduleState.ACTIVE else "schedule.paused"
                log_by(session, viewer, now, word, agency=row.orgnr, subject=id)
            return self._record(session, id)

    def _revive(self, session: Session, viewer: Viewer, row: ScheduleRow, now: datetime) -> None:
        if row.stop_reason == StopReason.REQUESTER_LEFT.value:
            # The key was another person's, and this one may have used the same for something else.
            row.requested_by, row.idempotency_key = viewer.name, None
        if not next_times(row.cron, row.zone, now, 1):
            raise one_problem(
                "never_again", "cron", row.cron, f"The times {row.cron} never come again. Make a new one."
            )
        problems = Problems()
        if row.experiment is not None:
            _refuse_closed(session, problems, row.experiment)
        problems.stop()
        check(session, _requester(session, row, now), self._request(session, row, now), self._limits, now)
        row.stop_reason = None

    def trigger(self, viewer: Viewer, id: str) -> FiringRecord:
        """Fire a schedule by hand, now, also a paused one. Twice within a second is once.

        The run is the requester's. Raise NotFound, Forbidden, or InvalidInput: bad_state (stopped), and those of
        ``submissions.check``.
        """
        now = self._clock().replace(microsecond=0)
        with self._database.write() as session:
            row = self._locked_for(session, viewer, id)
            if row.state == ScheduleState.STOPPED.value:
                what = f"Schedule {id} is stopped ({row.stop_reason}). Resume it first."
                raise one_problem("bad_state", "id", id, what, row.state)
            firing = session.get(Firing, (id, now))
            if firing is None:
                firing = self._fire(session, row, now, now, by_hand=True)
                log_by(session, viewer, now, "schedule.triggered", agency=row.orgnr, subject=id)
            return _firing_record(firing)

    # -- their times -----------------------------------------------------------------------------------------------
    def tick(self, now: datetime) -> tuple[FiringRecord, ...]:
        """Fire what is due at ``now`` and return it. For the dispatcher's loop; safe with several of them.

        A schedule whose request is no longer allowed is stopped with the reason, and its requester is told. One that
        fails for another cause is logged and tried again at the next tick; the others go on.
        """
        due_now = select(col(ScheduleRow.id)).where(_ACTIVE, col(ScheduleRow.next_at) <= now)
        with self._database.read() as session:
            ids = session.scalars(due_now.order_by(col(ScheduleRow.next_at)).limit(_AT_ONCE)).all()
        fired: list[FiringRecord] = []
        for id in ids:
            try:
                with self._database.write() as session:
                    made = self._tick_one(session, id, now)
                fired += made
            except Exception:
                _log.exception("Schedule %s could not be fired; trying again", id)
        return tuple(fired)

    def _tick_one(self, session: Session, id: str, now: datetime) -> list[FiringRecord]:
        row = _lock(session, id)
        if row is None or row.state != ScheduleState.ACTIVE.value or row.next_at is None or row.next_at > now:
            return []
        found = due(row.cron, row.zone, CatchUp(row.catch_up), row.next_at, now)
        made: list[FiringRecord] = []
        try:
            if row.experiment is not None:
                problems = Problems()
                _refuse_closed(session, problems, row.experiment)
                problems.stop()
            for moment in found.times:
                if session.get(Firing, (id, moment)) is None:
                    last = moment == found.times[-1]
                    firing = self._fire(session, row, moment, now, left_out=found.left_out if last else 0)
                    made.append(_firing_record(firing))
        except (InvalidInput, Forbidden) as error:
            reason = _reason(error)
            _log.warning("Schedule %s is stopped (%s): %s", id, reason, error)
            stop_schedules(session, col(ScheduleRow.id) == id, reason, now)
            return made
        row.next_at = found.next
        session.flush()
        if found.next is None:
            stop_schedules(session, col(ScheduleRow.id) == id, StopReason.NEVER_AGAIN, now)
        return made

    def _fire(
        self,
        session: Session,
        row: ScheduleRow,
        moment: datetime,
        now: datetime,
        *,
        by_hand: bool = False,
        left_out: int = 0,
    ) -> Firing:
        checked = check(session, _requester(session, row, now), self._request(session, row, moment), self._limits, now)
        request, version = checked.request, checked.version
        if request is None or version is None:
            raise InvalidInput(())
        still_published(session, request)
        title = version.title
        run = add_run(
            session,
            request,
            now,
            max_attempts=self._limits.max_attempts,
            schedule=row.id,
            words=(title.nb, title.nn, title.en, row.title),
        )
        firing = Firing(schedule=row.id, scheduled_at=moment, at=now, by_hand=by_hand, run=run.id, left_out=left_out)
        session.add(firing)
        row.last_at = moment
        session.flush()
        detail = {"schedule": row.id, "scheduled_at": moment.isoformat(), "template": f"{run.template}@{run.version}"}
        log(
            session,
            now,
            row.requested_by,
            "run.submitted",
            agency=row.orgnr,
            subject=run.id,
            source="schedule",
            detail=detail,
        )
        return firing

    def _request(self, session: Session, row: ScheduleRow, moment: datetime) -> Submission:
        values: dict[str, Any] = dict(row.parameters or {})
        version = _version(session, row.template, row.version) if row.time_parameter is not None else None
        if version is not None and row.time_parameter is not None:
            parameter = time_parameter(version, row.time_parameter)
            if parameter is not None:
                values[parameter] = time_value(version, parameter, moment, row.zone)
        return Submission(
            template=row.template,
            agency=row.orgnr,
            parameters=values,
            version=row.version,
            experiment=row.experiment,
            timeout_seconds=row.timeout_seconds,
        )

    # -- reading ---------------------------------------------------------------------------------------------------
    def get(self, viewer: Viewer, id: str) -> ScheduleRecord:
        """Return a schedule. Raise NotFound."""
        with self._database.read() as session:
            _require_seen(session, viewer, id)
            return self._record(session, id)

    def list(
        self,
        viewer: Viewer,
        *,
        agency: str | None = None,
        experiment: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[ScheduleRecord]:
        """Return schedules, newest first. ``agency``: number or short name. Raise InvalidInput."""
        check_limit(limit)
        listing = f"schedules {agency!r} {experiment!r}"
        after = read_cursor(cursor, listing)
        query = _query().where(visible_schedules(viewer), col(ScheduleRow.state) != _REMOVED)
        if experiment is not None:
            query = query.where(col(ScheduleRow.experiment) == storable(experiment))
        if after is not None:
            query = query.where(col(ScheduleRow.id) < after)
        with self._database.read() as session:
            if agency is not None:
                found = find_agency(session, agency)
                query = query.where(col(ScheduleRow.orgnr) == (found.orgnr if found else ""))
            rows = session.execute(query.order_by(col(ScheduleRow.id).desc()).limit(limit + 1)).all()
            shown, more = cut(rows, limit)
            items = tuple(_schedule_record(r, a, self._title(session, r), self._clock()) for r, a in shown)
        return Page(items, cursor_after(shown[-1][0].id, listing) if more else None)

    def firings(self, viewer: Viewer, id: str, *, limit: int = 50) -> tuple[FiringRecord, ...]:
        """Return the latest times that a schedule fired, newest first. Raise NotFound, InvalidInput (bad_limit)."""
        check_limit(limit)
        query = select(Firing).where(col(Firing.schedule) == id).order_by(col(Firing.scheduled_at).desc()).limit(limit)
        with self._database.read() as session:
            _require_seen(session, viewer, id)
            return tuple(_firing_record(row) for row in session.scalars(query))

    def preview(self, cron: object, zone: object, count: int = PREVIEW) -> tuple[datetime, ...]:
        """Return the coming times of an expression, in UTC. Raise InvalidInput: bad_cron, bad_zone, bad_limit."""
        if not 1 <= count <= MOST_PREVIEWED:
            what = f"count={count} is not a whole number from 1 to {MOST_PREVIEWED}. Give one."
            raise one_problem("bad_limit", "count", count, what, str(MOST_PREVIEWED))
        return next_times(*check_times(cron, zone), self._clock(), count)

    def _record(self, session: Session, id: str) -> ScheduleRecord:
        row, agency = session.execute(_query().where(col(ScheduleRow.id) == id)).one()
        return _schedule_record(row, agency, self._title(session, row), self._clock())

    @staticmethod
    def _title(session: Session, row: ScheduleRow) -> Text:
        query = select(col(TemplateVersionRow.title)).where(col(TemplateVersionRow.name) == row.template)
        if row.version is not None:
            query = query.where(col(TemplateVersionRow.version) == row.version)
        title = session.scalar(query.order_by(col(TemplateVersionRow.id).desc()).limit(1))
        return text_of(title) if title else Text(nb=row.template)

    def _locked_for(self, session: Session, viewer: Viewer, id: str) -> ScheduleRow:
        """Return a schedule that the viewer may change, locked. Raise NotFound, Forbidden."""
        _require_seen(session, viewer, id)
        row = _lock(session, id)
        if row is None or row.state == _REMOVED:
            raise _no_schedule(id)
        if not may(viewer, Action.SUBMIT, row.orgnr):
            raise Forbidden(f"{viewer.name} may not change schedules of agency {row.orgnr}. Ask one of its members.")
        return row


def _query() -> Select[ScheduleRow, Agency]:
    return select(ScheduleRow, Agency).join(Agency, col(Agency.orgnr) == col(ScheduleRow.orgnr))


def _require_seen(session: Session, viewer: Viewer, id: str) -> None:
    this = and_(col(ScheduleRow.id) == id, visible_schedules(viewer), col(ScheduleRow.state) != _REMOVED)
    if not is_id(id) or session.scalar(select(col(ScheduleRow.id)).where(this)) is None:
        raise _no_schedule(id)


def _no_schedule(id: object) -> NotFound:
    return NotFound(f"There is no schedule {quote(id)} that you may see.")


def _lock(session: Session, id: str) -> ScheduleRow | None:
    """Lock a schedule, its agency first, as closing an agency does. None if another dispatcher has it."""
    orgnr = session.scalar(select(col(ScheduleRow.orgnr)).where(col(ScheduleRow.id) == id))
    session.execute(select(col(Agency.orgnr)).where(col(Agency.orgnr) == orgnr).with_for_update(read=True))
    query = select(ScheduleRow).where(col(ScheduleRow.id) == id).with_for_update()
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def _requester(session: Session, row: ScheduleRow, now: datetime) -> Viewer:
    """Return who the schedule's runs belong to, with what that person may do there today."""
    grants = current_grants(session, row.requested_by, now.date())
    return Viewer(row.requested_by, grants, frozenset({Action.READ, Action.SUBMIT}), None, "schedule")


def _version(session: Session, name: object, version: str | None) -> TemplateVersion | None:
    if not isinstance(name, str) or not isinstance(version, str | None):
        return None
    row = newest_published(session, name) if not version else find_version(session, name, version)
    try:
        return version_of(row) if row is not None else None
    except InvalidInput:
        return None


def _refuse_closed(session: Session, problems: Problems, experiment: str) -> None:
    status = session.scalar(select(col(Experiment.status)).where(col(Experiment.id) == experiment))
    if status in CLOSED_STATUSES:
        what = f"Experiment {experiment} is {status}, so nothing is started for it by itself. Choose another one."
        problems.add("experiment_closed", "experiment", experiment, what)


def _asks_for(row: ScheduleRow, new: NewSchedule, limits: RunLimits) -> bool:
    """Say whether a schedule is what ``new`` asks for: as it is kept, whatever its template or agency is like today."""
    try:
        times = check_times(new.cron, new.zone)
        timeout = None if new.timeout_seconds is None else bind_timeout(new.timeout_seconds, limits.max_timeout_seconds)
    except InvalidInput:
        return False
    title = fields.text(Problems(), "title", new.title, TITLE_LENGTH, required=False)
    # Where none was named, the schedule has the usual one if its template had that.
    takers = (new.time_parameter,) if new.time_parameter else (None, DEFAULT_PARAMETER)
    wanted = (*times, title, new.template, new.version or None, new.experiment or None, timeout, new.catch_up)
    kept = (row.cron, row.zone, row.title, row.template, row.version, row.experiment, row.timeout_seconds, row.catch_up)
    return wanted == kept and row.time_parameter in takers and dict(new.parameters) == (row.parameters or {})


def _reason(error: InvalidInput | Forbidden) -> StopReason:
    if isinstance(error, Forbidden):
        return StopReason.REQUESTER_LEFT
    codes = [p.code for p in error.problems]
    if "experiment_closed" in codes:
        return StopReason.EXPERIMENT_CLOSED
    return next((_REASONS[code] for code in codes if code in _REASONS), StopReason.INVALID_PARAMETERS)


def _schedule_record(row: ScheduleRow, agency: Agency, title: Text, now: datetime) -> ScheduleRecord:
    active = row.state == ScheduleState.ACTIVE.value
    return ScheduleRecord(
        id=row.id,
        agency=agency_record(agency),
        title=row.title,
        template=row.template,
        template_title=title,
        version=row.version,
        experiment=row.experiment,
        parameters=row.parameters or {},
        time_parameter=row.time_parameter,
        timeout_seconds=row.timeout_seconds,
        cron=row.cron,
        zone=row.zone,
        catch_up=CatchUp(row.catch_up),
        state=ScheduleState(row.state),
        stop_reason=StopReason(row.stop_reason) if row.stop_reason else None,
        requested_by=row.requested_by,
        created_at=row.created_at,
        last_at=row.last_at,
        next=next_times(row.cron, row.zone, now, PREVIEW) if active else (),
    )


def _firing_record(row: Firing) -> FiringRecord:
    return FiringRecord(row.schedule, row.scheduled_at, row.at, row.by_hand, row.run, row.left_out)
