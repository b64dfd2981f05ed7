"""Measure the rows in one run and write bench/results.json. Needs a Docker Engine; best on an idle machine, as root."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import docker
from docker.errors import DockerException
from rich.console import Console
from rich.table import Table

from bench import claim_row, desk_row, kernel_row, peer, run_rows, submit_row, sweep_rows
from bench.lab import BenchLab, bench_lab
from bench.measure import Row, machine, merged
from bench.peer import Peer
from tests.lab import LabError

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
IN_THE_LAB = (
    "run-vs-papermill",
    "desk-vs-docker-run",
    "sweep-scientific",
    "sweep-trivial",
    "warm-overhead",
    "run-vs-python",
    "submit-10000",
)
ALONE = ("kernel-pss", "claim-at-1m", "claim-at-1m-postgresql")
ROWS = (*IN_THE_LAB[:-1], "kernel-pss", "submit-10000", *ALONE[1:])
_SUBMISSIONS = 3

Say = Callable[[str], None]
Measured = Callable[[], Row | None]


def engine_version() -> str | None:
    """Return the engine's version, None if none answers."""
    try:
        client = docker.from_env()
        try:
            return str(client.version()["Version"])
        finally:
            client.close()
    except (DockerException, OSError):
        return None


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "rows",
        nargs="*",
        metavar="ROW",
        help=f"measure these alone, and leave the others in bench/results.json as they were: {', '.join(ROWS)}",
    )
    parser.add_argument("--repetitions", type=int, default=5, help="counted measurements of each side (default 5)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    chosen = parser.parse_args(words)
    if chosen.repetitions < 1:
        parser.error(f"--repetitions {chosen.repetitions} is below its minimum 1.")
    for row in chosen.rows:
        if row not in ROWS:
            parser.error(f"There is no row {row!r}. There are {', '.join(ROWS)}.")
    return chosen


def measure(wanted: Collection[str], repetitions: int, say: Say) -> Iterator[tuple[str, Row | Exception | None]]:
    """Yield each wanted row's name with what came of it; None is a row that this machine cannot measure."""
    work = HERE / "work"
    work.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        their = Peer(peer.environment(work), Path(folder))
        if any(name in wanted for name in IN_THE_LAB):
            with bench_lab("bench", "trivial", "scientific") as lab:
                rows = _rows_of_lab(lab, their, repetitions, say)
                yield from ((name, _outcome(rows[name])) for name in IN_THE_LAB if name in wanted)
        rows = {
            "kernel-pss": partial(kernel_row.kernel_pss, their, say=say),
            "claim-at-1m": partial(claim_row.claim_at_1m, "sqlite", say=say),
            "claim-at-1m-postgresql": partial(claim_row.claim_at_1m, "postgresql", say=say),
        }
        yield from ((name, _outcome(rows[name])) for name in ALONE if name in wanted)


def _rows_of_lab(lab: BenchLab, their: Peer, repetitions: int, say: Say) -> dict[str, Measured]:
    return {
        "run-vs-papermill": partial(run_rows.run_vs_papermill, lab, their, repetitions=repetitions, say=say),
        "desk-vs-docker-run": partial(desk_row.measure, lab, repetitions=repetitions, say=say),
        "sweep-scientific": partial(
            sweep_rows.sweep_row, "sweep-scientific", "scientific", "seed", lab, their, say=say
        ),
        "sweep-trivial": partial(sweep_rows.sweep_row, "sweep-trivial", "trivial", "number", lab, their, say=say),
        "warm-overhead": partial(run_rows.warm_overhead, lab, their, repetitions=repetitions, say=say),
        "run-vs-python": partial(run_rows.run_vs_python, lab, their, repetitions=repetitions, say=say),
        "submit-10000": partial(submit_row.submit_10000, lab, repetitions=min(repetitions, _SUBMISSIONS), say=say),
    }


def _outcome(row: Measured) -> Row | Exception | None:
    """Return the row, or why there is none: the others are still measured."""
    try:
        return row()
    except (RuntimeError, LabError, OSError, subprocess.CalledProcessError, DockerException) as error:
        return error


def report(rows: Sequence[Row]) -> Table:
    """Return the rows as people read them."""
    table = Table("row", "ours", "theirs", "ratio", "is", "must be", "")
    for row in rows:
        theirs = "" if row.theirs is None else f"{row.theirs:.3g} {row.unit}"
        said = "" if str(row.bound) == "" else "kept" if row.kept else "NOT KEPT"
        table.add_row(
            row.name, f"{row.ours:.3g} {row.unit}", theirs, f"{row.ratio:.3g}", row.sense, str(row.bound), said
        )
    return table


def write(path: Path, rows: Sequence[Row], described: dict[str, object]) -> dict[str, object]:
    """Write the rows among those that the file holds already, and return all that it holds now."""
    before: list[dict[str, object]] = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        before = json.loads(path.read_text(encoding="utf-8"))["results"]
    results: dict[str, object] = {
        "machine": described,
        "results": merged(before, [row.as_dict() for row in rows], ROWS),
    }
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


def main() -> int:
    chosen = arguments()
    console = Console(stderr=True)
    version = engine_version()
    if version is None:
        console.print("No Docker Engine answers, and the bench's lab needs one: start it, or name it in DOCKER_HOST.")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is ended then too

    def say(line: str) -> None:
        console.print(line, highlight=False)

    rows: list[Row] = []
    failed: list[str] = []
    for name, outcome in measure(frozenset(chosen.rows or ROWS), chosen.repetitions, say):
        if isinstance(outcome, Exception):
            failed.append(name)
            say(f"{name}: not measured. {outcome}")
        elif outcome is not None:
            rows.append(outcome)
    results = write(RESULTS, rows, machine({"docker": version, "repetitions": str(chosen.repetitions)}))
    if chosen.json:
        print(json.dumps(results, indent=2))
    else:
        Console().print(report(rows))
    for row in rows:
        if not row.kept:
            say(f"{row.name}: {row.ratio:.3g} is not {row.bound}")
    return 1 if failed or any(not row.kept for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
