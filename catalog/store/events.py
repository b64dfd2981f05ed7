"""The audit log: every change writes its event in the transaction of the change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Action, Viewer, agencies_for, is_admin, visible_events
from catalog.store.database import Database
from catalog.store.fields import storable
from catalog.store.ids import new_id
from catalog.store.paging import check_limit, cursor_after, cut, read_cursor
from catalog.store.records import EventRecord, Page
from catalog.tables import Event


def log(
    session: Session,
    at: datetime,
    person: str,
    action: str,
    *,
    agency: str | None = None,
    subject: str = "",
    source: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write an event in the caller's transaction."""
    session.add(
        Event(
            id=new_id(),
            at=at,
            person=storable(person, 255),
            action=action,
            orgnr=agency or None,
            subject=storable(subject, 255),
            source=storable(source, 60),
            detail=dict(detail) if detail else None,
        )
    )
    session.flush()


def log_by(
    session: Session,
    viewer: Viewer,
    at: datetime,
    action: str,
    *,
    agency: str | None = None,
    subject: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write what a viewer did, in the caller's transaction."""
    log(session, at, viewer.name, action, agency=agency, subject=subject, source=viewer.source, detail=detail)


class Events:
    """Reading the audit log, and adding to it what happens outside the store (logins, started desks)."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def add(
        self,
        person: str,
        action: str,
        *,
        agency: str | None = None,
        subject: str = "",
        source: str = "",
        detail: Mapping[str, object] | None = None,
    ) -> None:
        """Add an event of its own. Unchecked: for the Hub and the dispatcher, never for a request's own words."""
        with self._database.write() as session:
            log(session, self._clock(), person, action, agency=agency, subject=subject, source=source, detail=detail)

    def list(
        self,
        viewer: Viewer,
        *,
        agency: str | None = None,
        subject: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[EventRecord]:
        """Return events, newest first: an admin's view is the whole log, a coordinator's that of the own agencies.

        Others get an empty page. Raise InvalidInput (bad_cursor, bad_limit).
        """
        check_limit(limit)
        listing = f"events {agency!r} {subject!r}"
        after = read_cursor(cursor, listing)
        if not is_admin(viewer) and agencies_for(viewer, Action.PUBLISH) == frozenset():
            return Page(())
        query = select(Event).where(visible_events(viewer))
        if agency is not None:
            query = query.where(col(Event.orgnr) == storable(agency))
        if subject is not None:
            query = query.where(col(Event.subject) == storable(subject))
        if after is not None:
            query = query.where(col(Event.id) < after)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(col(Event.id).desc()).limit(limit + 1)).all()
        shown, more = cut(rows, limit)
        return Page(tuple(_record(row) for row in shown), cursor_after(shown[-1].id, listing) if more else None)


def _record(row: Event) -> EventRecord:
    return EventRecord(row.id, row.at, row.person, row.action, row.orgnr, row.subject, row.source, row.detail or {})
