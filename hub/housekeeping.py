"""What the lab does by itself, beside dispatching: schedules fire, ended sweeps are noted."""

from __future__ import annotations

import logging
from datetime import datetime

from catalog.store import Catalog

log = logging.getLogger("proverom.housekeeping")


class Housekeeper:
    """``tick(now)`` may be called at any time and by any number of processes; what it does is done once."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def tick(self, now: datetime) -> None:
        """Fire the schedules that are due and note the sweeps that have ended. Raise what the store raises."""
        for firing in self._catalog.schedules.tick(now):
            log.info("schedule %s for %s: run %s", firing.schedule, firing.scheduled_at.isoformat(), firing.run)
        for sweep in self._catalog.sweeps.settle():
            log.info("sweep %s has ended", sweep)
