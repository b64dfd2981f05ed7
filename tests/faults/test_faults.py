"""Every class of faults on both databases, a few kills each. ``make faults KILLS=n`` makes as many as asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Require
from tests.faults.__main__ import missing
from tests.faults.engine import PROJECT
from tests.faults.kinds import KINDS
from tests.faults.suite import shares

KILLS = 2 * len(KINDS)


@pytest.fixture(scope="module")
def report(docker_client: object, require: Require, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the suite found, run as a person runs it, without its measures."""
    if lacks := missing():
        require("root and the programs of the fault suite", "; ".join(lacks))
    path: Path = tmp_path_factory.mktemp("faults") / "report.json"
    command = [sys.executable, "-m", "tests.faults", str(KILLS), "--no-measures", "--json", str(path)]
    done = subprocess.run(command, cwd=PROJECT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert path.exists(), done.stdout[-6000:] + done.stderr[-6000:]
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content["last line"] = done.stdout.splitlines()[-1]
    content["status"] = done.returncode
    return content


@pytest.mark.postgres
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_class_hits(report: dict[str, Any], kind: str, database: str) -> None:
    assert report["kills"][database][kind] >= 1, report["broken"]


@pytest.mark.postgres
@pytest.mark.parametrize("what", ["lost", "twice", "endless", "wrong", "left"])
def test_nothing_is_found(report: dict[str, Any], what: str) -> None:
    assert report["findings"][what] == []
    assert report["findings"]["checked"] > 0


@pytest.mark.postgres
def test_the_last_line_counts(report: dict[str, Any]) -> None:
    assert report["last line"] == f"kills: {report['total']}, lost: 0, recorded twice: 0"
    assert report["status"] == 0


@pytest.mark.parametrize("kills", [0, 1, 19, 20, 60, 3000])
def test_the_shares_add_up(kills: int) -> None:
    split = shares(kills)
    assert sum(sum(classes.values()) for classes in split.values()) == kills
    if kills >= KILLS:
        assert min(count for classes in split.values() for count in classes.values()) >= 1
