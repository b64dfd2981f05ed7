"""Sweeps, schedules and notices from the command line, against the real API."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hub.cli import app
from hub.cli_output import duration
from tests.unit.catalog.api_lab import ApiLab
from tests.unit.catalog.world import DONE, GIB, NAV, SYSTEM
from tests.unit.hub.served import served


@pytest.fixture
def lab(migrated_sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiLab]:
    state = tmp_path / "state"
    state.mkdir()
    with served(migrated_sqlite, tmp_path) as (built, url):
        logins = {name: {"password": "", "token": f"token-{name}"} for name in ("kari", "leif", "root")}
        (state / "logins.json").write_text(json.dumps({"url": url, "logins": logins}))
        for name in ("PROVEROM_URL", "PROVEROM_TOKEN", "PROVEROM_AGENCY", "JUPYTERHUB_API_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PROVEROM_LAB__STATE", str(state))
        yield built


def call(*arguments: str, status: int = 0) -> str:
    """Run the command and return what it printed (both streams), after checking its exit status."""
    done = CliRunner().invoke(app, [*arguments, "--as", "kari"])
    assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
    return done.output


def data(*arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--as", "kari", "--json"])
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


def work(lab: ApiLab, runner: str, most: int = 100) -> None:
    token = lab.world.open_runner(runner, batch_limit=most)
    for _ in range(most):
        answer = lab.runner("/claim", token, {"holding": []})
        if answer.status_code != 200:
            return
        lab.world.catalog.queue.finish(token, answer.json()["run"], 1, DONE, lab.world.clock())


def planned(*arguments: str) -> int:
    return int(data("sweep", "letter", "--plan", *arguments)["runs"])


def test_every_way_to_describe_a_sweep(lab: ApiLab, tmp_path: Path) -> None:
    assert planned("-p", "alpha=0.01,0.05", "-p", "office=Oslo,Bergen,Bodø") == 6
    assert planned("-p", "alpha=0,01;0,05") == 2
    assert planned("--grid", "alpha=0.01:0.1:0.01", "-p", "office=Oslo") == 10
    assert planned("--sample", "7", "--seed", "3", "--vary", "alpha", "-p", "office=Oslo,Bergen") == 7
    assert planned("--sample", "7", "--vary", "alpha=0.001:0.2:log", "--set", "office=Oslo, Bergen") == 7
    file = tmp_path / "points.csv"
    file.write_text("\ufeffalpha;office\n0,01;Oslo\n0,05;\n;Bodø\n\n", encoding="utf-8")
    assert planned("--file", str(file)) == 3
    file.write_text("alpha,office\n0.01,Oslo\n0.01,Oslo\n", encoding="utf-8")
    assert data("sweep", "letter", "--plan", "--file", str(file))["duplicates"] == 1
    assert data("sweeps", "list") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no points"),
        (["-p", "alpha=9,0.1"], "above its maximum"),
        (["-p", "alpha"], "no equals sign"),
        (["--grid", "alpha=0:1"], "FROM:TO:STEP"),
        (["--grid", "alpha=0:1:0.000000001"], "1000000001 runs"),
        (["-p", "alpha=0.1,0.2", "--grid", "alpha=0:1:0.5"], "given twice"),
        (["--vary", "alpha"], "--sample"),
        (["--sample", "3", "--grid", "alpha=0:1:0.5"], "--vary"),
        (["--sample", "3", "--vary", "alpha=1"], "FROM:TO"),
    ],
)
def test_what_is_no_sweep_starts_nothing(lab: ApiLab, arguments: list[str], said: str) -> None:
    assert said in call("sweep", "letter", *arguments, status=2)
    assert data("sweeps", "list") == []


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("alpha,alpha\n1,2\n", "once"), ("alpha,office\n0.1\n", "row 2")]
)
def test_what_is_no_list_of_points_is_said(lab: ApiLab, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "points.csv"
    file.write_text(text)
    assert said in call("sweep", "letter", "--file", str(file), status=2)


def test_a_sweep_says_what_it_is_and_starts(lab: ApiLab) -> None:
    said = call("sweep", "letter", "-p", "alpha=0.01,0.05")
    assert "2 runs of letter@1.0.0, 4 at a time" in said
    assert "not known" in said
    (sweep,) = data("sweeps", "list")
    assert (sweep["state"], sweep["size"]) == ("queued", 2)
    assert len(data("runs", "list", "--sweep", sweep["id"])) == 2
    assert "letter@1.0.0" in call("sweeps", "list")
    assert "cancelled" in call("sweeps", "cancel", sweep["id"])
    assert "2 runs wait" in call("sweeps", "resume", sweep["id"])
    assert "no sweep" in call("sweeps", "show", "nope", status=2)


def test_a_sweeps_report_is_saved(lab: ApiLab, tmp_path: Path) -> None:
    made = data("sweep", "letter", "-p", "alpha=0.01,0.05", "--agency", "nav", "--yes", "--as", "kari", "--json")
    work(lab, "r1")
    call("sweeps", "report", made["id"], "-o", str(tmp_path / "s.html"), "--language", "en", "--as", "kari")
    assert "What we found" in (tmp_path / "s.html").read_text()
    assert ".pdf" in call("sweeps", "report", made["id"], "-o", str(tmp_path / "s.doc"), "--as", "kari", status=2)


def test_waiting_for_a_sweep_ends_with_it(lab: ApiLab) -> None:
    def later() -> None:
        while not lab.world.catalog.sweeps.list(lab.world.viewer("kari")).items:
            time.sleep(0.05)
        work(lab, "r1")

    thread = threading.Thread(target=later)
    thread.start()
    said = call("sweep", "letter", "-p", "alpha=0.01,0.05,0.1", "--wait")
    thread.join()
    assert "3 succeeded" in said
    (sweep,) = data("sweeps", "list")
    shown = data("sweeps", "show", sweep["id"])
    assert shown["sensitivity"]["points"] == 3
    assert "difference" in call("sweeps", "show", sweep["id"])


def test_a_schedule_from_the_command_line(lab: ApiLab) -> None:
    made = data("schedule", "add", "letter", "--cron", "0 7 * * MON-FRI", "-p", "alpha=0,1", "--title", "Hver morgen")
    id = made["id"]
    assert (made["state"], made["parameters"]) == ("active", {"alpha": "0,1"})
    assert "Hver morgen" in call("schedule", "list")
    assert "paused" in call("schedule", "pause", id)
    assert "active" in call("schedule", "resume", id)
    run = data("schedule", "trigger", id)["run"]
    assert [r["id"] for r in data("runs", "list", "--schedule", id)] == [run]
    assert run in call("schedule", "show", id)
    assert "removed" in call("schedule", "remove", id)
    assert data("schedule", "list") == []
    assert "five fields" in call("schedule", "add", "letter", "--cron", "hourly", status=2)


def test_notices_and_mail(lab: ApiLab) -> None:
    run = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    lab.world.catalog.queue.finish(token, run, 1, DONE, lab.world.clock())
    assert run in call("notices", "list", "--unread")
    assert "1 read" in call("notices", "read")
    assert data("notices", "list", "--unread") == []
    assert data("notices", "mail")["mail"] == ""
    assert data("notices", "mail", "--address", "kari@example.no", "--wish", "all")["wish"] == "all"
    assert data("notices", "mail", "--language", "nn") == {"mail": "kari@example.no", "wish": "all", "language": "nn"}
    assert "e-mail address" in call("notices", "mail", "--address", "kari", status=2)


def test_caps_of_an_agency(lab: ApiLab) -> None:
    def change(*arguments: str, status: int = 0) -> Any:
        done = CliRunner().invoke(app, ["agencies", "change", "nav", *arguments, "--as", "root", "--json"])
        assert done.exit_code == status, done.output
        return json.loads(done.stdout) if status == 0 else done.output

    changed = change("--max-memory", "8G", "--max-cpus", "2,5", "--max-sweep-runs", "500")
    assert (changed["max_memory"], changed["max_cpus"], changed["max_sweep_runs"]) == (8 * 1024**3, 2.5, 500)
    lifted = change("--max-memory", "none", "--max-cpus", "none")
    assert (lifted["max_memory"], lifted["max_cpus"]) == (None, None)
    assert "no size" in change("--max-memory", "lots", status=2)
    assert "cores" in change("--max-cpus", "many", status=2)


def test_what_an_agency_has_in_use(lab: ApiLab) -> None:
    lab.world.catalog.agencies.change(SYSTEM, NAV, max_memory=5 * GIB)
    for _ in range(2):
        lab.submit()
    lab.world.claim("r1")
    said = call("agencies", "show", "nav")
    lines = [re.split(r"  +", line) for line in said.splitlines()]
    assert ["Agency", f"nav ({NAV})"] in lines
    assert ["Waiting runs", "1"] in lines
    assert ["runs at once", "1", "4", "3"] in lines
    assert ["memory", "2 GiB", "5 GiB", "1"] in lines
    assert ["cores", "0.5", "no limit", "any number"] in lines
    assert data("agencies", "show", NAV)["memory"] == {"used": 2 * GIB, "allowed": 5 * GIB, "more": 1}
    assert "no agency" in call("agencies", "show", "skatteetaten", status=2)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (0, "0 s"), (40.4, "40 s"), (120, "2 min"), (5400, "1 h 30 min"), (3 * 86400, "3 days")],
)
def test_a_duration_is_said_as_people_say_it(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said
