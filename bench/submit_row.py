"""submit-10000: seconds until a sweep of 10,000 runs is queued, and how soon a listing answers meanwhile."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable

from bench.lab import PERSON, BenchLab
from bench.measure import Bound, Row, seconds
from tests.lab import API

RUNS = 10_000
PAUSE = 0.05  # between two looks at the listing


def submit_10000(lab: BenchLab, *, repetitions: int, say: Callable[[str], None]) -> Row:
    """Return the row. Raise RuntimeError if the sweep does not hold what was asked for."""
    name = "submit-10000"
    took: list[float] = []
    listing: list[float] = []
    idle = _listing_seconds(lab, seconds=1.0)
    for turn in range(repetitions):
        lab.settle()
        asking = _Asking(lab)
        sweeps: list[str] = []
        values = {"start": turn * RUNS, "stop": (turn + 1) * RUNS - 1, "step": 1}
        asking.start()
        try:
            took.append(seconds(lambda: sweeps.append(lab.submit_sweep("bench-trivial", number=values))))  # noqa: B023
        finally:
            listing += asking.end()
        size = lab.client.get(f"{API}/sweeps/{sweeps[0]}").raise_for_status().json()["size"]
        lab.cancel_sweep(sweeps[0])
        if size != RUNS:
            raise RuntimeError(f"{name}: sweep {sweeps[0]} has {size} runs and not {RUNS}.")
        say(f"{name} {turn + 1}: {took[-1]:.2f} s, the listing meanwhile {max(listing):.3f} s at most")
    beside = {
        "listing_idle_s": statistics.median(idle),
        "listing_meanwhile_s": statistics.median(listing),
        "listing_slowest_s": max(listing),
    }
    return Row(name, statistics.median(took), None, "s", "ours", Bound(most=5), beside)


def _listing_seconds(lab: BenchLab, *, seconds: float) -> list[float]:
    asking = _Asking(lab)
    asking.start()
    asking.enough.wait(seconds)
    return asking.end()


class _Asking(threading.Thread):
    """Asks for the newest fifty runs again and again, as a page that somebody has open would."""

    def __init__(self, lab: BenchLab) -> None:
        super().__init__(name="listing", daemon=True)
        self._lab = lab
        self.enough = threading.Event()
        self._took: list[float] = []
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            with self._lab.lab.client(PERSON) as client:
                while not self.enough.is_set():
                    ask = client.build_request("GET", f"{API}/runs", params={"limit": 50})
                    self._took.append(seconds(lambda: client.send(ask).raise_for_status()))  # noqa: B023
                    self.enough.wait(PAUSE)
        except Exception as error:
            self._error = error

    def end(self) -> list[float]:
        """Return how long each answer took, in seconds. Raise what went wrong."""
        self.enough.set()
        self.join()
        if self._error is not None:
            raise self._error
        return self._took
