"""Measure every row in one run and write ``bench/results.json``. Needs a Docker Engine; best on an idle machine."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

import docker
from docker.errors import DockerException
from rich.console import Console
from rich.table import Table

from bench import desk_row, papermill_row
from bench.measure import Row, machine
from tests.lab import own_lab

HERE = Path(__file__).resolve().parent
ROWS = ("run-vs-papermill", "desk-vs-docker-run")


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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7, help="counted measurements of each side (default 7)")
    parser.add_argument("--only", choices=ROWS, help="measure one row, and leave bench/results.json alone")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    chosen = parser.parse_args()
    if chosen.repetitions < 1:
        parser.error(f"--repetitions {chosen.repetitions} is below its minimum 1.")
    return chosen


def main() -> int:
    chosen = arguments()
    console = Console(stderr=True)
    version = engine_version()
    if version is None:
        console.print("No Docker Engine answers, and both rows need one: start it, or name it in DOCKER_HOST.")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the lab is ended then too
    work = HERE / "work"
    work.mkdir(exist_ok=True)
    rows: list[Row] = []

    def say(line: str) -> None:
        console.print(line, highlight=False)

    with own_lab("bench", "docker") as lab:
        if chosen.only in (None, ROWS[0]):
            rows.append(papermill_row.measure(lab, work, repetitions=chosen.repetitions, say=say))
        if chosen.only in (None, ROWS[1]):
            rows.append(desk_row.measure(lab, repetitions=chosen.repetitions, say=say))
    results = {
        "machine": machine({"docker": version, "repetitions": str(chosen.repetitions)}),
        "results": [row.as_dict() for row in rows],
    }
    if chosen.only is None:
        (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if chosen.json:
        print(json.dumps(results, indent=2))
        return 0
    table = Table("row", "ours", "theirs", "theirs / ours", title="Above 1 the lab is the quicker one")
    for row in rows:
        table.add_row(row.name, f"{row.ours:.2f} {row.unit}", f"{row.theirs:.2f} {row.unit}", f"{row.ratio:.2f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
