"""What a run waits for that has not begun: the runs of its agency before it, and its agency's room."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlmodel import col

from catalog.access import Action, Viewer, may
from catalog.store.database import Database
from catalog.store.records import RunRecord
from catalog.store.run_rows import ALONE, RUNNING
from catalog.tables import RunRow
from experiments.model import RunState


@dataclass(frozen=True, slots=True)
class Waiting:
    """``ahead``: runs of the same agency that began to wait earlier, None for a run of a sweep, which has no place of
    its own in the queue. ``running`` of the agency's runs are under way now, of at most ``limit``.
    """

    ahead: int | None
    running: int
    limit: int

    @property
    def full(self) -> bool:
        """Say whether the agency has as many runs under way as it may."""
        return self.running >= self.limit


class Waits:
    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, viewer: Viewer, run: RunRecord) -> Waiting | None:
        """Return what a run waits for; None if it does not, or if its agency's queue is not the viewer's to see."""
        if run.state is not RunState.QUEUED or not may(viewer, Action.READ, run.agency.orgnr):
            return None
        here = col(RunRow.orgnr) == run.agency.orgnr
        before = select(func.count()).select_from(RunRow).where(ALONE, here, col(RunRow.id) < run.id)
        with self._database.read() as session:
            running = session.scalar(select(func.count()).select_from(RunRow).where(RUNNING, here)) or 0
            ahead = session.scalar(before) or 0
        return Waiting(ahead if run.sweep is None else None, running, run.agency.max_concurrent_runs)
