"""Sweeps: from submitting sixty runs until all are recorded, against ``xargs -P2 papermill`` over the same values."""

from __future__ import annotations

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
TURNS = 3  # of ours, with one of theirs between two of them
EACH = 3  # of our sweeps in one turn: they take a tenth of the time, and a machine changes its speed within a minute


def sweep_row(
    name: str, template: str, parameter: str, lab: BenchLab, peer: Peer, *, say: Callable[[str], None]
) -> Row:
    """Return the row: runs a second on each side. Raise RuntimeError if their metrics differ in any run."""
    ours_took: list[float] = []
    theirs_took: list[float] = []

    def ours() -> dict[Any, dict[str, float]]:
        start = 1 + 1000 * len(ours_took)
        lab.settle()
        sweeps: list[str] = []

        def work() -> None:
            values = {"start": start, "stop": start + RUNS - 1, "step": 1}
            sweeps.append(lab.submit_sweep(f"bench-{template}", **{parameter: values}))
            lab.wait_for_sweep(sweeps[0])

        ours_took.append(seconds(work))
        say(f"{name}: ours {ours_took[-1]:.2f} s")
        return lab.sweep_metrics(sweeps[0], parameter)

    def theirs() -> dict[Any, dict[str, float]]:
        executed: dict[int, Path] = {}
        book, values = notebook(template), range(1, RUNS + 1)
        theirs_took.append(seconds(lambda: executed.update(peer.sweep(book, parameter, values, at_a_time=AT_A_TIME))))
        say(f"{name}: theirs {theirs_took[-1]:.2f} s")
        return {value: recorded_metrics(path) for value, path in executed.items()}

    for turn in range(TURNS):
        metrics = [ours() for _ in range(EACH)]
        if turn == 0:  # the first sweep has the values that theirs has
            require_same(name, {"ours": metrics[0], "theirs": theirs()})
        elif turn < TURNS - 1:
            theirs()
    ours_median, theirs_median = statistics.median(ours_took), statistics.median(theirs_took)
    return Row(name, RUNS / ours_median, RUNS / theirs_median, "runs/s", "ours / theirs", Bound(least=10))
