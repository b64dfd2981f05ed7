"""The store: the catalog's data behind one door.

``open_catalog`` returns a ``Catalog``; its parts take a ``Viewer`` and answer with ``records``, and raise ``NotFound``,
``Forbidden`` (``catalog.access``), ``InvalidInput`` (``lab_templates.model``) or ``Unavailable``. Every change commits
before it returns and writes its ``Event`` in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from catalog.blobs import Blobs
from catalog.store.agencies import Agencies
from catalog.store.database import Database, Unavailable
from catalog.store.durations import Durations
from catalog.store.events import Events
from catalog.store.experiments import Experiments
from catalog.store.limits import RunLimits
from catalog.store.members import Members
from catalog.store.notices import Notices
from catalog.store.outbox import OutboxQueue
from catalog.store.queue import SqlRunQueue
from catalog.store.runs import Runs
from catalog.store.schedules import Schedules
from catalog.store.schema import current, migrate
from catalog.store.sweep_results import SweepResults
from catalog.store.sweeps import Sweeps
from catalog.store.templates import Templates
from catalog.store.usage import Usages
from catalog.store.waiting import Waits

__all__ = ["Catalog", "RunLimits", "SqlRunQueue", "Unavailable", "current", "migrate", "open_catalog"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Catalog:
    """All parts of the store over one database and one place for files. Safe to share between threads."""

    def __init__(self, database: Database, blobs: Blobs, limits: RunLimits, clock: Callable[[], datetime]) -> None:
        self._database = database
        self.limits = limits
        self.clock = clock
        self.blobs = blobs
        self.agencies = Agencies(database, clock)
        self.members = Members(database, clock)
        self.templates = Templates(database, clock)
        self.experiments = Experiments(database, clock)
        self.runs = Runs(database, blobs, limits, clock)
        self.events = Events(database, clock)
        self.sweeps = Sweeps(database, limits, clock)
        self.sweep_results = SweepResults(database, self.sweeps, clock)
        self.schedules = Schedules(database, limits, clock)
        self.durations = Durations(database, clock)
        self.waits = Waits(database)
        self.usage = Usages(database, self.agencies, limits)
        self.notices = Notices(database, clock)
        self.outbox = OutboxQueue(database, clock)
        self.queue = SqlRunQueue(database, blobs, limits, clock)

    def ping(self) -> None:
        """Return if the database answers. Raise Unavailable."""
        self._database.ping()

    def close(self) -> None:
        """Give all database connections back."""
        self._database.close()


def open_catalog(
    database_url: str,
    blob_url: str,
    *,
    limits: RunLimits = RunLimits(),  # noqa: B008 - frozen
    clock: Callable[[], datetime] = _utc_now,
) -> Catalog:
    """Open the catalog; its tables must be there (``migrate``). ``clock`` returns the time in UTC.

    Dates (embargoes, memberships) turn at midnight UTC. Raise ValueError for an address that cannot be used.
    """
    return Catalog(Database(database_url), Blobs(blob_url), limits, clock)
