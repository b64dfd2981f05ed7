"""How a row is measured: both sides in turn, the median of each, and their ratio."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """``ours`` and ``theirs`` are medians in ``unit``; ``ratio`` is theirs / ours: above 1, the lab is quicker."""

    name: str
    ours: float
    theirs: float
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours

    def as_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "ratio": round(self.ratio, 3),
            "ours": round(self.ours, 3),
            "theirs": round(self.theirs, 3),
            "unit": self.unit,
        }


def seconds(work: Callable[[], object]) -> float:
    """Return how many seconds ``work`` took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternating(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], *, repetitions: int, say: Callable[[str], None]
) -> Row:
    """Measure both sides in turn, so that a slow moment slows both; the first pair warms up and does not count."""
    pairs = []
    for turn in range(repetitions + 1):
        pair = (ours(), theirs())
        say(f"{name} {turn or 'warm-up'}: ours {pair[0]:.2f} s, theirs {pair[1]:.2f} s")
        if turn:
            pairs.append(pair)
    return Row(name, statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs))


def machine(engine: Mapping[str, str]) -> dict[str, object]:
    """Return what the numbers were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    system = next(
        (line.partition("=")[2].strip('"') for line in _lines("/etc/os-release") if "PRETTY_NAME" in line), ""
    )
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 1024**2, 1),
        "system": system,
        "kernel": platform.release(),
        "python": platform.python_version(),
        **engine,
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(errors="replace").splitlines() if file.is_file() else []
