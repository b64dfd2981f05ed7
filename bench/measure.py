"""How a row is measured: both sides in turn, the median of each, and their ratio against the bound it must keep."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Sense = Literal["theirs / ours", "ours / theirs", "ours"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What a ratio must be: ``least`` or ``most``, both inclusive; None is no bound."""

    least: float | None = None
    most: float | None = None

    def kept(self, ratio: float) -> bool:
        return (self.least is None or ratio >= self.least) and (self.most is None or ratio <= self.most)

    def __str__(self) -> str:
        if self.least is not None:
            return f">= {self.least:g}"
        return f"<= {self.most:g}" if self.most is not None else ""


@dataclass(frozen=True, slots=True)
class Row:
    """``ours`` and ``theirs`` are medians in ``unit``; ``sense`` says which way round ``ratio`` is.

    ``theirs`` is None where there is nothing to compare with: then ``sense`` is "ours", and so is the ratio.
    ``beside`` are further figures that were measured on the way, by name.
    """

    name: str
    ours: float
    theirs: float | None
    unit: str = "s"
    sense: Sense = "theirs / ours"
    bound: Bound = field(default_factory=Bound)
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        if self.theirs is None:
            return self.ours
        return self.theirs / self.ours if self.sense == "theirs / ours" else self.ours / self.theirs

    @property
    def kept(self) -> bool:
        """Whether the ratio, as it is written down, is within its bound."""
        return self.bound.kept(round(self.ratio, 3))

    def as_dict(self) -> dict[str, object]:
        return {
            "name": self.name,
            "ratio": round(self.ratio, 3),
            "ours": round(self.ours, 3),
            "theirs": None if self.theirs is None else round(self.theirs, 3),
            "unit": self.unit,
            **({"beside": {name: round(value, 3) for name, value in self.beside.items()}} if self.beside else {}),
        }


def seconds(work: Callable[[], object]) -> float:
    """Return how many seconds ``work`` took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternating(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], *, repetitions: int, say: Callable[[str], None]
) -> tuple[float, float]:
    """Measure both sides in turn, so that a slow moment slows both; the first pair warms up and does not count.

    Return the median of each side.
    """
    pairs = []
    for turn in range(repetitions + 1):
        pair = (ours(), theirs())
        say(f"{name} {turn or 'warm-up'}: ours {pair[0]:.3f} s, theirs {pair[1]:.3f} s")
        if turn:
            pairs.append(pair)
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def merged(
    before: Sequence[Mapping[str, object]], new: Sequence[Mapping[str, object]], order: Sequence[str]
) -> list[Mapping[str, object]]:
    """Return the rows of ``new``, and of ``before`` those that were not measured anew, in ``order``.

    A row of a name that ``order`` does not hold is measured no more, and goes.
    """
    by_name = {str(row["name"]): row for row in (*before, *new)}
    return [by_name[name] for name in order if name in by_name]


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
