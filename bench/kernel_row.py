"""kernel-pss: the memory of one more live kernel in the lab's sandboxes, against that of an ordinary kernel.

PSS is a process' own memory and its share of what it has in common with others; both sides have the libraries of
most experiments imported and twenty kernels alive.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.lab import BenchLab, bench_lab, processes, source
from bench.measure import Bound, Row
from bench.peer import Peer
from tests.lab import wait_until

KERNELS = 20
_REST_SECONDS = 3.0  # after the last one is up: freed memory has gone back by then


def kernel_pss(peer: Peer, *, say: Callable[[str], None]) -> Row:
    """Return the row. Raise RuntimeError where other users' memory cannot be read, or kernels are missing."""
    name = "kernel-pss"
    theirs = ordinary(peer)
    say(f"{name}: theirs {theirs:.1f} MiB")
    with bench_lab("benchpss", "waiting", at_a_time=KERNELS, runs__concurrent=str(KERNELS)) as lab:
        ours, workers = forked(lab)
    say(f"{name}: ours {ours:.1f} MiB, and a worker of {workers:.1f} MiB beside each")
    return Row(name, ours, theirs, "MiB", "ours / theirs", Bound(most=0.4), {"worker": workers})


def forked(lab: BenchLab) -> tuple[float, float]:
    """Return the mean PSS of a kernel in the lab, and of the worker that carries its run out, in MiB."""
    sweep = lab.submit_sweep("bench-waiting", number={"start": 1, "stop": KERNELS, "step": 1})

    def all_up() -> list[tuple[int, int]] | None:
        found = [pair for container in lab.runners() for pair in kernels(processes(container))]
        return found if len(found) == KERNELS else None

    wait_until(all_up, seconds=90, what=f"{KERNELS} live kernels in the lab")
    # A kernel is there before its cell is: the imports' memory comes with the cell.
    wait_until(lambda: _waiting(lab, sweep) == KERNELS, seconds=60, what="the kernels' imports")
    time.sleep(_REST_SECONDS)
    found = all_up()
    if found is None:
        raise RuntimeError("A kernel ended while it was to be measured.")
    measured = mean_pss(pid for pid, _ in found), mean_pss(worker for _, worker in found)
    lab.cancel_sweep(sweep)
    return measured


def _waiting(lab: BenchLab, sweep: str) -> int:
    """Return how many runs of the sweep have told that their first two cells are done."""
    page = lab.client.get("/services/catalog/api/v1/runs", params={"sweep": sweep, "limit": KERNELS})
    return sum(run["cells_done"] >= 2 for run in page.raise_for_status().json()["items"])


def kernels(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (kernel, its worker) of each run of a sandbox, from the (pid, parent's pid) of its processes.

    The tree is runner, zygote, warden, and below each warden first its worker and then the kernel.
    """
    parent = dict(pairs)

    def depth(pid: int) -> int:
        return 1 + depth(parent[pid]) if pid in parent else 0

    below: dict[int, list[int]] = {}
    for pid in sorted(parent):
        if depth(pid) == 4:
            below.setdefault(parent[pid], []).append(pid)
    return [(found[1], found[0]) for found in below.values() if len(found) == 2]


def ordinary(peer: Peer) -> float:
    """Return the mean PSS of an ordinary kernel on the bare machine, in MiB."""
    imports = source("waiting")[1]
    command = [peer.python, str(Path(__file__).with_name("ordinary_kernels.py")), str(KERNELS), imports]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=peer.folder
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        line = started.stdout.readline()
        if not line:
            raise RuntimeError("The ordinary kernels did not start.")
        time.sleep(_REST_SECONDS)
        measured = mean_pss(json.loads(line))
        started.stdin.close()
    return measured


def mean_pss(pids: Iterable[int]) -> float:
    """Return the mean PSS of processes in MiB. Raise RuntimeError if it may not be read."""
    try:
        return statistics.fmean(pss(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")) for pid in pids)
    except PermissionError as error:
        raise RuntimeError("The memory of a sandbox's processes can be read by root alone. Run it as root.") from error


def pss(smaps_rollup: str) -> float:
    """Return the PSS that a process' ``smaps_rollup`` tells, in MiB. Raise ValueError if it tells none."""
    for line in smaps_rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("There is no line Pss: in smaps_rollup.")
