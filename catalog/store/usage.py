"""What an agency may have at a time, and how much of it is in use now."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlmodel import col

from catalog.access import Viewer
from catalog.store.agencies import Agencies
from catalog.store.database import Database
from catalog.store.limits import RunLimits
from catalog.store.queue import runner_loads
from catalog.store.records import AgencyRecord
from catalog.store.run_rows import RUNNING, WAITING
from catalog.tables import RunRow
from experiments.shares import fitting


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of a quota is ``used``, of what is ``allowed`` (None: no limit of the agency's own).

    ``more``: how many runs it lets begin before others have ended; None is any number.
    """

    used: float
    allowed: float | None
    more: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """An agency's quotas at this moment: ``runs`` at a time, ``memory`` in bytes, ``cpus`` in cores.

    Memory and CPU are counted by the dispatcher's measure: as much as one run takes (``run_memory``, ``run_cpus``) for
    each place of a sandbox, from before the sandbox has started, whether a run is in it or it stands ready for one.
    ``waiting`` counts the runs that have not begun.
    """

    agency: AgencyRecord
    waiting: int
    runs: Quota
    memory: Quota
    cpus: Quota
    run_memory: int
    run_cpus: float

    @property
    def full(self) -> bool:
        """Say whether no run can begin before another has ended, because of a quota."""
        return 0 in (self.runs.more, self.memory.more, self.cpus.more)


class Usages:
    def __init__(self, database: Database, agencies: Agencies, limits: RunLimits) -> None:
        self._database = database
        self._agencies = agencies
        self._limits = limits

    def of(self, viewer: Viewer, orgnr_or_slug: str) -> Usage:
        """Return what an agency that the viewer belongs to has in use. Raise NotFound."""
        agency, limits = self._agencies.get(viewer, orgnr_or_slug), self._limits
        here = col(RunRow.orgnr) == agency.orgnr

        def count(state: ColumnElement[bool]) -> int:
            return session.scalar(select(func.count()).select_from(RunRow).where(state, here)) or 0

        with self._database.read() as session:
            running, waiting = count(RUNNING), count(WAITING)
            places = sum(load.places for load in runner_loads(session, agency.orgnr))

        def quota(used: float, allowed: float | None, most: int | None) -> Quota:
            return Quota(used, allowed, None if most is None else max(0, most - running))

        return Usage(
            agency=agency,
            waiting=waiting,
            runs=quota(running, agency.max_concurrent_runs, agency.max_concurrent_runs),
            memory=quota(places * limits.memory, agency.max_memory, fitting(agency.max_memory, limits.memory)),
            cpus=quota(places * limits.cpus, agency.max_cpus, fitting(agency.max_cpus, limits.cpus)),
            run_memory=limits.memory,
            run_cpus=limits.cpus,
        )
