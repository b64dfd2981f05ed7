"""Notices: what a person is told when work ends. Each is written in the transaction of what it tells of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Forbidden, NotFound, Viewer, visible_notices
from catalog.store import fields
from catalog.store.database import Database, changed
from catalog.store.events import log_by
from catalog.store.fields import Problems, storable
from catalog.store.ids import is_id, new_id
from catalog.store.paging import check_limit, cursor_after, cut, read_cursor
from catalog.store.records import NoticeRecord, NotificationSettings, Page
from catalog.tables import NoticeRow, Outbox, PersonSettings, RunRow
from experiments.model import RunState
from experiments.notices import DEFAULT_WISH, NoticeKind, Wish, mailed
from lab_templates.model import LANGUAGES
from lab_templates.text import quote

MOST_AT_ONCE = 1000


def tell(
    session: Session,
    now: datetime,
    *,
    person: str,
    agency: str,
    kind: NoticeKind,
    subject: str,
    occasion: int | None,
    state: str,
    succeeded: bool,
    template: str,
    version: str,
    scheduled: bool = False,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write a notice, and its e-mail if the person wants one, in the caller's transaction.

    One notice for a subject and occasion, however often this is called; ``occasion`` None is the next one.
    """
    told = select(func.max(col(NoticeRow.occasion))).where(
        col(NoticeRow.subject) == subject, col(NoticeRow.person) == person
    )
    last = session.scalar(told) or 0
    if occasion is not None and occasion <= last:
        return
    row = NoticeRow(
        id=new_id(),
        person=person,
        orgnr=agency,
        at=now,
        kind=kind.value,
        subject=subject,
        occasion=last + 1 if occasion is None else occasion,
        state=state,
        template=template,
        version=version,
        detail=dict(detail) if detail else None,
    )
    session.add(row)
    session.flush()
    settings = session.get(PersonSettings, person)
    if settings is None or not settings.mail:
        return
    if mailed(Wish(settings.wish), kind, scheduled=scheduled, succeeded=succeeded):
        mail = Outbox(notice=row.id, address=settings.mail, language=settings.language, created_at=now, next_at=now)
        session.add(mail)
        session.flush()


def tell_of_run(session: Session, now: datetime, row: RunRow) -> None:
    """Tell the requester that a run has ended; of a sweep's runs only the sweep's end is told."""
    if row.sweep is not None:
        return
    tell(
        session,
        now,
        person=row.requested_by,
        agency=row.orgnr,
        kind=NoticeKind.RUN,
        subject=row.id,
        occasion=1,
        state=row.state,
        succeeded=row.state == RunState.SUCCEEDED.value,
        scheduled=row.schedule is not None,
        template=row.template,
        version=row.version,
        detail={"reason": row.reason} if row.reason else None,
    )


class Notices:
    """A viewer's own notices; nobody sees another's."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def list(
        self, viewer: Viewer, *, unread: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[NoticeRecord]:
        """Return notices, newest first. Raise InvalidInput (bad_cursor, bad_limit)."""
        check_limit(limit)
        listing = f"notices {viewer.name!r} {unread!r}"
        after = read_cursor(cursor, listing)
        query = select(NoticeRow).where(visible_notices(viewer))
        if unread:
            query = query.where(col(NoticeRow.read_at).is_(None))
        if after is not None:
            query = query.where(col(NoticeRow.id) < after)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(col(NoticeRow.id).desc()).limit(limit + 1)).all()
        shown, more = cut(rows, limit)
        return Page(tuple(notice_record(r) for r in shown), cursor_after(shown[-1].id, listing) if more else None)

    def get(self, viewer: Viewer, id: str) -> NoticeRecord:
        """Return one of the viewer's own notices. Raise NotFound."""
        with self._database.read() as session:
            row = session.scalar(select(NoticeRow).where(visible_notices(viewer), col(NoticeRow.id) == storable(id)))
        if row is None:
            raise NotFound(f"You have no notice {quote(id)}.")
        return notice_record(row)

    def unread(self, viewer: Viewer) -> int:
        """Return how many notices the viewer has not read."""
        query = select(func.count()).select_from(NoticeRow)
        with self._database.read() as session:
            found = session.scalar(query.where(visible_notices(viewer), col(NoticeRow.read_at).is_(None)))
        return found or 0

    def read(self, viewer: Viewer, ids: Sequence[str] | None = None) -> int:
        """Mark some notices as read, all without ``ids``. Return how many were unread. Foreign ids count as none."""
        this = [visible_notices(viewer), col(NoticeRow.read_at).is_(None)]
        if ids is not None:
            this.append(col(NoticeRow.id).in_([id for id in ids[:MOST_AT_ONCE] if is_id(id)]))
        with self._database.write() as session:
            return changed(session.execute(update(NoticeRow).where(*this).values(read_at=self._clock())))

    def seen(self, viewer: Viewer, subject: str) -> None:
        """Mark the viewer's notices of a run, sweep or schedule as read: whoever looks at it knows what they say."""
        this = [
            visible_notices(viewer),
            col(NoticeRow.subject) == storable(subject),
            col(NoticeRow.read_at).is_(None),
        ]
        with self._database.read() as session:  # most looks find nothing, and need no write lock
            if session.scalar(select(col(NoticeRow.id)).where(*this).limit(1)) is None:
                return
        with self._database.write() as session:
            session.execute(update(NoticeRow).where(*this).values(read_at=self._clock()))

    # -- what a person wants ---------------------------------------------------------------------------------------
    def settings(self, viewer: Viewer) -> NotificationSettings:
        """Return the viewer's own choices."""
        with self._database.read() as session:
            row = session.get(PersonSettings, viewer.name)
        if row is None:
            return NotificationSettings("", DEFAULT_WISH, "nb")
        return NotificationSettings(row.mail, Wish(row.wish), row.language)

    def choose(self, viewer: Viewer, *, mail: str, wish: str, language: str) -> NotificationSettings:
        """Keep the viewer's own choices; ``mail`` "" is no e-mail at all.

        Raise Forbidden from a desk, whose code need not be its owner's; InvalidInput: bad_mail, not_a_choice.
        """
        if viewer.confined_to is not None:
            raise Forbidden("A desk cannot change where your e-mail goes. Do it on the lab's pages.")
        problems = Problems()
        address = fields.mail_address(problems, "mail", mail)
        chosen = fields.choice(problems, "wish", wish, tuple(Wish))
        tongue = fields.choice(problems, "language", language, LANGUAGES)
        problems.stop()
        now = self._clock()
        with self._database.write() as session:
            row = session.get(PersonSettings, viewer.name, with_for_update=True)
            if row is None:
                row = PersonSettings(person=viewer.name, wish=chosen, changed_at=now)
            moved = (row.mail, row.wish, row.language) != (address, chosen, tongue)
            row.mail, row.wish, row.language, row.changed_at = address, chosen, tongue, now
            session.add(row)
            session.flush()
            if moved:
                log_by(session, viewer, now, "notifications.changed", subject=viewer.name, detail={"wish": chosen})
        return NotificationSettings(address, Wish(chosen), tongue)


def notice_record(row: NoticeRow) -> NoticeRecord:
    """Return a notice's row as the value that leaves the store."""
    return NoticeRecord(
        id=row.id,
        at=row.at,
        kind=NoticeKind(row.kind),
        subject=row.subject,
        agency=row.orgnr,
        state=row.state,
        template=row.template,
        version=row.version,
        detail=row.detail or {},
        read_at=row.read_at,
    )
