"""The e-mails that wait to be sent. Queued exactly once, sent at least once: the last step is not ours alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlmodel import col

from catalog.store.database import Database, changed
from catalog.store.fields import storable
from catalog.store.notices import notice_record
from catalog.store.records import NoticeRecord
from catalog.tables import NoticeRow, Outbox

# How long after each failed attempt the next one comes; after the last one the e-mail is given up.
RETRY_SECONDS = (60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
STALE = timedelta(days=3)  # not sent by then, because no sender ran: news no longer
SENDING_SECONDS = 300  # a sender that has not reported by then is taken for dead


@dataclass(frozen=True, slots=True)
class Mail:
    """One e-mail in a sender's hands: it alone has attempt ``attempt``, for ``SENDING_SECONDS``."""

    notice: NoticeRecord
    address: str
    language: str
    attempt: int


class OutboxQueue:
    """Unchecked: for the sender, never for a request."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def take(self) -> Mail | None:
        """Return the e-mail that is due first and lease it to the caller, None if none is due."""
        now = self._clock()
        waits = (col(Outbox.sent_at).is_(None), col(Outbox.given_up_at).is_(None), col(Outbox.next_at) <= now)
        query = select(Outbox).where(*waits).order_by(col(Outbox.next_at)).limit(1)
        with self._database.read() as session:  # most looks find nothing, and need no write lock
            if session.scalars(query).one_or_none() is None:
                return None
        with self._database.write() as session:
            stale = update(Outbox).where(*waits, col(Outbox.created_at) < now - STALE, col(Outbox.attempts) == 0)
            session.execute(stale.values(given_up_at=now, fault="too old"))
            row = session.scalars(query.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            row.attempts += 1
            row.next_at = now + timedelta(seconds=SENDING_SECONDS)
            session.flush()
            notice = session.get_one(NoticeRow, row.notice)
            return Mail(notice_record(notice), row.address, row.language, row.attempts)

    def sent(self, mail: Mail) -> None:
        """Record that the mail server has taken it."""
        self._settle(mail, sent_at=self._clock(), fault="")

    def failed(self, mail: Mail, fault: str, *, for_good: bool) -> bool:
        """Record a failed attempt; return whether another comes. ``for_good``: the server will never take it."""
        now = self._clock()
        again = not for_good and mail.attempt <= len(RETRY_SECONDS)
        values: dict[str, object] = {"fault": storable(fault, 500)}
        if again:
            values["next_at"] = now + timedelta(seconds=RETRY_SECONDS[mail.attempt - 1])
        else:
            values["given_up_at"] = now
        self._settle(mail, **values)
        return again

    def _settle(self, mail: Mail, **values: object) -> None:
        this = (col(Outbox.notice) == mail.notice.id, col(Outbox.attempts) == mail.attempt)
        with self._database.write() as session:
            changed(session.execute(update(Outbox).where(*this, col(Outbox.sent_at).is_(None)).values(**values)))
