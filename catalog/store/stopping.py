"""Stopping schedules whose ground is gone: a closed agency, a closed experiment, a requester who left."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.store.events import log
from catalog.store.notices import tell
from catalog.tables import ScheduleRow
from experiments.notices import NoticeKind
from experiments.schedules import ScheduleState, StopReason

_GOING = (ScheduleState.ACTIVE.value, ScheduleState.PAUSED.value)


def stop_schedules(session: Session, which: ColumnElement[bool], reason: StopReason, now: datetime) -> int:
    """Stop those of the schedules that go on, in the caller's transaction, and tell who made them. Return how many."""
    query = select(ScheduleRow).where(which, col(ScheduleRow.state).in_(_GOING)).order_by(col(ScheduleRow.id))
    rows = session.scalars(query.with_for_update()).all()
    for row in rows:
        row.state, row.stop_reason, row.next_at = ScheduleState.STOPPED.value, reason.value, None
        session.flush()
        detail = {"reason": reason.value}
        log(
            session,
            now,
            "system",
            "schedule.stopped",
            agency=row.orgnr,
            subject=row.id,
            source="catalog",
            detail=detail,
        )
        tell(
            session,
            now,
            person=row.requested_by,
            agency=row.orgnr,
            kind=NoticeKind.SCHEDULE,
            subject=row.id,
            occasion=None,
            state=ScheduleState.STOPPED.value,
            succeeded=False,
            scheduled=True,
            template=row.template,
            version=row.version or "",
            detail=detail,
        )
    return len(rows)
