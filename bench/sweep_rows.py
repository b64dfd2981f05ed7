"""Sweeps: from submitting sixty runs until all are recorded, against ``xargs -P2 papermill`` over the same values."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.lab import BenchLab, notebook
from bench.measure import Bound, Row, seconds
from bench.peer import Peer, recorded_metrics
from bench.run_rows import require_same

RUNS = 60
AT_A_TIME = 2  # theirs: one for each core
TURNS = 3  # ours; theirs takes over a minute, and so many runs are their own repetition


def sweep_row(
    name: str, template: str, parameter: str, lab: BenchLab, peer: Peer, *, say: Callable[[str], None]
) -> Row:
    """Return the row: runs a second on each side. Raise RuntimeError if their metrics differ in any run."""
    first = itertools.count(1)
    took: list[float] = []

    def ours() -> dict[Any, dict[str, float]]:
        start = 1 if not took else 1000 * next(first)
        lab.settle()
        sweeps: list[str] = []

        def work() -> None:
            values = {"start": start, "stop": start + RUNS - 1, "step": 1}
            sweeps.append(lab.submit_sweep(f"bench-{template}", **{parameter: values}))
            lab.wait_for_sweep(sweeps[0])

        took.append(seconds(work))
        say(f"{name}: ours {took[-1]:.2f} s")
        return lab.sweep_metrics(sweeps[0], parameter)

    found = {"ours": ours()}
    executed: dict[int, Path] = {}
    values = range(1, RUNS + 1)
    theirs = seconds(lambda: executed.update(peer.sweep(notebook(template), parameter, values, at_a_time=AT_A_TIME)))
    say(f"{name}: theirs {theirs:.2f} s")
    found["theirs"] = {value: recorded_metrics(path) for value, path in executed.items()}
    require_same(name, found)
    for _ in range(TURNS - 1):
        ours()
    return Row(name, RUNS / statistics.median(took), RUNS / theirs, "runs/s", "ours / theirs", Bound(least=10))
