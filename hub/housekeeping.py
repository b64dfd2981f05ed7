"""What the lab does by itself, beside dispatching: schedules fire, ended sweeps are noted."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from catalog.store import Catalog

log = logging.getLogger("proverom.housekeeping")


LOOK_SECONDS = 1.0


class Housekeeper:
    """``tick(now)`` may be called at any time and by any number of processes; what it does is done once.

    It has a loop of its own (``run``), so that an engine that is slow or gone holds no schedule up.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def tick(self, now: datetime) -> None:
        """Fire the schedules that are due and note the sweeps that have ended. Raise what the store raises."""
        for firing in self._catalog.schedules.tick(now):
            log.info("schedule %s for %s: run %s", firing.schedule, firing.scheduled_at.isoformat(), firing.run)
        for sweep in self._catalog.sweeps.settle():
            log.info("sweep %s has ended", sweep)

    def run(self, stop: threading.Event) -> None:
        """Tick until ``stop`` is set. An error of one pass is logged, and the next pass starts afresh."""
        failures = 0
        while not stop.is_set():
            try:
                self.tick(datetime.now(UTC))
                failures = 0
            except Exception:
                failures += 1
                log.warning("A pass failed; the next one starts afresh.", exc_info=failures in (1, 10) or None)
            stop.wait(LOOK_SECONDS * min(2**failures, 8))
