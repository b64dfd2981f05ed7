"""How long runs of a template version usually take, and so how long one that runs now still has."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.store.database import Database
from catalog.store.records import RunRecord
from catalog.tables import RunRow
from experiments.model import RunState

LATEST = 100  # earlier runs that are looked at
FRESH_SECONDS = 30.0  # of real time, for which an answer is used again: watchers ask often
_MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Typical:
    """Seconds: the median of earlier runs, and what nine of ten stayed below."""

    median: float
    ninth: float


def typical(session: Session, template: str, version: str) -> Typical | None:
    """Return how long the latest runs of a template version took that succeeded; None if there are none."""
    this = (
        col(RunRow.template) == template,
        col(RunRow.version) == version,
        col(RunRow.state) == RunState.SUCCEEDED.value,
    )
    query = select(col(RunRow.started_at), col(RunRow.ended_at)).where(*this).order_by(col(RunRow.id).desc())
    times = [
        max(0.0, (ended - started).total_seconds())
        for started, ended in session.execute(query.limit(LATEST))
        if started is not None and ended is not None
    ]
    if not times:
        return None
    ninth = statistics.quantiles(times, n=10, method="inclusive")[-1] if len(times) > 1 else times[0]
    return Typical(statistics.median(times), ninth)


class Durations:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, str], tuple[float, Typical | None]] = {}

    def typical(self, template: str, version: str) -> Typical | None:
        """Return how long runs of a template version usually take, as it was at most ``FRESH_SECONDS`` ago."""
        key = (template, version)
        with self._lock:
            kept = self._kept.get(key)
        if kept is not None and time.monotonic() - kept[0] < FRESH_SECONDS:
            return kept[1]
        with self._database.read() as session:
            found = typical(session, template, version)
        with self._lock:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[key] = (time.monotonic(), found)
        return found

    def seconds_left(self, run: RunRecord) -> float | None:
        """Return how long a running run probably still takes.

        None if it does not run, if no earlier run says anything, or if it has outlasted nine of ten of them.
        """
        if run.state is not RunState.RUNNING or run.started_at is None:
            return None
        usual = self.typical(run.template, run.version)
        if usual is None:
            return None
        elapsed = (self._clock() - run.started_at).total_seconds()
        for expected in (usual.median, usual.ninth):
            if elapsed < expected:
                return round(expected - max(0.0, elapsed), 1)
        return None
