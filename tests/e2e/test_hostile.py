"""Hostile notebooks in a real lab on a real Docker Engine: each ends as it should, and nobody else notices.

Every notebook of ``tests/cases/hostile`` has a parameter ``point``. At 0 it is hostile; at any other value it works and
records ``answer``. So it can be run by itself, and as a series in which one run is hostile to those beside it.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from catalog import wording
from catalog.web.i18n import translator
from tests.e2e.walls import printed
from tests.lab import API, ENDED, NAV, SKATTEETATEN, Lab, own_lab, wait_until

pytestmark = pytest.mark.engine

CASES = Path(__file__).resolve().parents[1] / "cases" / "hostile"
NAME = "hostile"
MIB = 1024 * 1024
RUN = dict[str, Any]
LIMIT = 8  # seconds: of those that would not end by themselves

DECLARATION = """
name = "{name}"
version = "1.0.0"
language = "nb"
timeout_seconds = 300
data_class = "synthetic"
title = {{ nb = "{name}", nn = "{name}", en = "{name}" }}
summary = {{ nb = "Til prøve.", nn = "Til prøve.", en = "For a test." }}
data_source = {{ nb = "Ingen data.", nn = "Ingen data.", en = "No data." }}

[[parameters]]
name = "point"
type = "integer"
default = 0
minimum = 0
maximum = 1000
label = {{ nb = "Punkt", nn = "Punkt", en = "Point" }}

[[metrics]]
name = "answer"
label = {{ nb = "Svar", nn = "Svar", en = "Answer" }}
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run has to end. ``says`` is a part of what it prints, ``notices`` are the lab's on the run."""

    state: str
    reason: str | None = None
    notices: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    seconds: int = 120

    @property
    def words(self) -> tuple[str, str | None]:
        return self.state, self.reason


GOOD = Ending("succeeded")
ENDINGS: Mapping[str, Ending] = {
    "ask_for_input": Ending("failed", "asked_for_input"),
    "bad_text": Ending("failed", "cell_failed"),
    "big_bundle": Ending("succeeded", notices=("output_cut",)),
    "change_papermill": Ending("succeeded", says=("Permission denied\nPermission denied",)),
    "clock": Ending("succeeded", says=("long ago",)),
    "closed_directories": GOOD,
    "control_flood": GOOD,
    "daemon": GOOD,
    "deep_directories": GOOD,
    "deep_record": Ending("failed", "bad_result"),
    "display_storm": GOOD,
    "endless_log": Ending("succeeded", says=("64 MiB",)),
    "endless_loop": Ending("timed_out", "time_limit", seconds=LIMIT),
    "exit_three": Ending("failed", "cell_failed"),
    "exit_zero": Ending("failed", "kernel_died"),
    "fill_home": Ending("failed", "no_space"),
    "fill_shm": Ending("failed", "no_space"),
    "fill_tmp": Ending("failed", "no_space"),
    "flood_of_output": Ending("succeeded", notices=("output_cut",)),
    "forge": Ending("succeeded", says=("read: True tokens: 0", "answer: 401\nanswer: 401\nanswer: 401")),
    "fork_bomb": Ending("timed_out", "time_limit", seconds=LIMIT),
    "ignores_signals": Ending("timed_out", "time_limit", seconds=LIMIT),
    "kill_everything": Ending("failed", "kernel_died"),
    "kill_own_group": Ending("failed", "kernel_died"),
    "kill_worker": Ending("failed", "kernel_died"),
    "kill_zygote": GOOD,
    "links": GOOD,
    "look_into_worker": Ending(
        "succeeded",
        says=("trace: -1", "memory: Permission denied", "environment: Permission denied",
              "descriptors: Permission denied", "descriptor: -1"),
    ),
    "many_files": GOOD,
    "many_open_files": Ending("failed", "too_many_files"),
    "many_processes": Ending("failed", "too_many_processes"),
    "many_records": Ending("succeeded", notices=("records_dropped",)),
    "many_threads": Ending("failed", "too_many_processes"),
    "memory_hog": Ending("failed", "out_of_memory"),
    "not_a_number": GOOD,
    "odd_files": Ending("succeeded", says=("no device: Operation not permitted",)),
    "raise_keyboard_interrupt": Ending("failed", "cell_failed"),
    "rename_home": GOOD,
    "segfault": Ending("failed", "kernel_died"),
    "stop_everything": Ending("failed", "kernel_died"),
    "write_into_descriptors": Ending("timed_out", "time_limit", seconds=20),
}  # fmt: skip

# What one run of a series can do to those that share its sandbox, and to the sandbox itself.
AMONG_OTHERS = ("fill_tmp", "fork_bomb", "kill_everything", "memory_hog", "rename_home", "stop_everything")


@pytest.fixture(scope="module")
def lab(docker_client: Any) -> Iterator[Lab]:
    limits = {"runs__memory": "2GiB", "runs__pids": "96", "runs__concurrent": "7"}
    with own_lab(NAME, "docker", **limits) as started:
        with started.client("coordinator") as author, started.client("admin") as approver:
            for path in sorted(CASES.glob("*.ipynb")):
                _publish(author, approver, path)
        database = sqlite3.connect(started.state / "catalog.sqlite", timeout=30)
        with database:
            database.execute("UPDATE agency SET max_concurrent_runs = 6")
        database.close()
        yield started


def _template(case: str) -> str:
    return f"hostile-{case.replace('_', '-')}"


def _publish(author: httpx.Client, approver: httpx.Client, path: Path) -> None:
    name = _template(path.stem)
    files = {
        "notebook": ("template.ipynb", path.read_bytes()),
        "declaration": ("template.toml", DECLARATION.format(name=name).encode()),
        "readme": ("README.md", b"For a test."),
    }
    answer = author.post(f"{API}/templates", files=files)
    assert answer.status_code == 201, answer.text
    answer = approver.post(f"{API}/templates/{name}/versions/1.0.0/approve")
    assert answer.status_code == 200, answer.text


def submit(client: httpx.Client, case: str, *, agency: str = NAV, point: int = 0, seconds: int = 120) -> str:
    body = {"template": _template(case), "agency": agency, "parameters": {"point": point}, "timeout_seconds": seconds}
    answer = client.post(f"{API}/runs", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def submit_sweep(client: httpx.Client, case: str, *, seconds: int) -> str:
    body = {"template": _template(case), "agency": NAV, "timeout_seconds": seconds}
    body |= {"points": [{"point": point} for point in (0, 1, 2)]}
    answer = client.post(f"{API}/sweeps", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ended(client: httpx.Client, runs: list[str], *, seconds: float) -> dict[str, RUN]:
    """Return the runs as they are recorded, once all have ended."""
    found: dict[str, RUN] = {}

    def ask() -> bool:
        for run in set(runs) - found.keys():
            known = client.get(f"{API}/runs/{run}").raise_for_status().json()
            if known["state"] in ENDED:
                found[run] = known
        return len(found) == len(set(runs))

    wait_until(ask, seconds=seconds, what=f"{len(runs)} runs", every=0.5)
    return found


def duration(run: RUN) -> float:
    started, stopped = (datetime.fromisoformat(run[name]) for name in ("started_at", "ended_at"))
    return (stopped - started).total_seconds()


def metrics(run: RUN) -> dict[str, Any]:
    return {metric["name"]: metric["value"] for metric in run["metrics"]}


def neighbours(lab: Lab, until: Callable[[], bool]) -> list[RUN]:
    """Carry out runs of another agency, one after the other, at least three and until told to stop."""
    done: list[RUN] = []
    with lab.client("team") as client:
        while len(done) < 3 or not until():
            run = submit(client, "neighbour", agency=SKATTEETATEN, point=len(done) + 1)
            done += ended(client, [run], seconds=180).values()
    return done


def test_every_case_says_how_it_is_to_end() -> None:
    assert {path.stem for path in CASES.glob("*.ipynb")} - {"neighbour"} == set(ENDINGS)
    assert set(AMONG_OTHERS) <= set(ENDINGS)


def test_each_ending_is_told_in_plain_words() -> None:
    for language in ("nb", "nn", "en"):
        t = translator(language)
        for case, ending in ENDINGS.items():
            told = wording.reason(t, ending.reason)
            if ending.reason is not None:
                assert told is not None
                assert all(told), (case, language)
                assert ending.reason not in told[0]
            for notice in ending.notices:
                assert notice not in wording.notice(t, notice)


@pytest.fixture(scope="module")
def alone(lab: Lab) -> dict[str, Any]:
    """Every case by itself, several at a time, while another agency works; and that agency's runs before and during."""
    before = neighbours(lab, lambda: True)
    with lab.client("team") as client:
        runs = {case: submit(client, case, seconds=ending.seconds) for case, ending in ENDINGS.items()}
        left = set(runs.values())

        def over() -> bool:
            for run in list(left):
                if client.get(f"{API}/runs/{run}").raise_for_status().json()["state"] in ENDED:
                    left.discard(run)
            return not left

        during = neighbours(lab, over)
        found = ended(client, list(runs.values()), seconds=300)
    return {"runs": {case: found[run] for case, run in runs.items()}, "before": before, "during": during}


def largest_log(client: Any) -> int:
    """Return the bytes of log that the engine keeps of that one of the lab's sandboxes that has most."""
    sizes = [0]
    for container in client.api.containers(all=True, filters={"label": f"no.proverom.lab={NAME}"}):
        try:
            path = Path(client.api.inspect_container(container["Id"])["LogPath"])
            sizes.append(sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*")))
        except Exception:  # noqa: S112 - it was removed since it was listed
            continue
    return max(sizes)


def test_each_ends_as_it_should(lab: Lab, alone: dict[str, Any]) -> None:
    wrong = {}
    for case, ending in ENDINGS.items():
        run = alone["runs"][case]
        print(f"{case:26} {run['state']:10} {run['reason'] or '-':20} {duration(run):6.1f} s")
        said = ""
        if ending.says:
            with lab.client("team") as client:
                said = printed(client.get(f"{API}/runs/{run['id']}/notebook").raise_for_status().json())
        missing = [part for part in ending.says if part not in said]
        notices = set(ending.notices) - set(run["notices"])
        if (run["state"], run["reason"]) != ending.words or missing or notices or run["attempt"] != 1:
            wrong[case] = (run["state"], run["reason"], run["attempt"], run["error"], missing, said[-300:], notices)
        assert 0 <= duration(run) < 300, case
        assert "forged" not in metrics(run)
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False, default=sorted)


def test_another_agency_does_not_notice(alone: dict[str, Any]) -> None:
    before, during = alone["before"], alone["during"]
    for label, runs in (("before", before), ("during", during)):
        times = [duration(run) for run in runs]
        print(f"the neighbour, {label}: {len(times)} runs, median {statistics.median(times):.2f} s, {max(times):.2f}")
    assert {(run["state"], run["attempt"]) for run in before + during} == {("succeeded", 1)}
    assert len({metrics(run)["total"] for run in before + during}) == 1
    # Two cores are shared by all of them: slower is expected, stuck is not.
    assert statistics.median(map(duration, during)) < 20 * statistics.median(map(duration, before)) + 10


def test_a_log_is_rotated(lab: Lab, docker_client: Any) -> None:
    sizes: list[int] = []
    with lab.client("team") as client:
        run = submit(client, "endless_log")

        def over() -> bool:
            sizes.append(largest_log(docker_client))
            return client.get(f"{API}/runs/{run}").raise_for_status().json()["state"] in ENDED

        wait_until(over, seconds=120, what="the run with the log")
    print(f"of 64 MiB the engine kept {max(sizes) / MIB:.1f}")
    assert 5 * MIB < max(sizes) < 30 * MIB


def test_what_is_shown_holds_nothing_of_the_machines(lab: Lab, alone: dict[str, Any]) -> None:
    run = alone["runs"]["links"]["id"]
    with lab.client("team") as client:
        report = client.get(f"{API}/runs/{run}/report", params={"format": "html"}).raise_for_status().text
        notebook = client.get(f"{API}/runs/{run}/notebook").raise_for_status().text
    for text in (report, notebook):
        assert "root:" not in text
        assert "PROVEROM_RUN_TOKEN" not in text


@pytest.mark.parametrize("case", ["not_a_number"])
def test_what_is_no_number_is_recorded_as_such(alone: dict[str, Any], case: str) -> None:
    found = {metric["name"]: (metric["value"], metric["flag"]) for metric in alone["runs"][case]["metrics"]}
    assert found["nan"] == (None, "nan")
    assert found["inf"] == (None, "inf")
    assert found["answer"] == (42, None)


def test_the_runs_of_a_series_do_not_notice_the_hostile_one(lab: Lab, alone: dict[str, Any]) -> None:
    """The three runs share a sandbox. Whoever suffered in it is tried again alone, and so is the hostile one."""
    with lab.client("team") as client:
        wrong, tried = {}, {}
        for case in AMONG_OTHERS:  # one after the other, so that its runs do share a sandbox
            sweep = submit_sweep(client, case, seconds=max(ENDINGS[case].seconds, 20))
            listed = client.get(f"{API}/runs", params={"sweep": sweep}).raise_for_status().json()["items"]
            runs = ended(client, [run["id"] for run in listed], seconds=400).values()
            by_point = {run["parameters"]["point"]: run for run in runs}
            tried[case] = {point: by_point[point]["attempt"] for point in sorted(by_point)}
            print(f"{case:18}", {p: (by_point[p]["state"], by_point[p]["reason"], by_point[p]["attempt"],
                                     round(duration(by_point[p]), 1)) for p in sorted(by_point)})  # fmt: skip
            hostile = by_point[0]
            if (hostile["state"], hostile["reason"]) != ENDINGS[case].words:
                wrong[case] = ("hostile", hostile["state"], hostile["reason"])
            for point in (1, 2):
                run = by_point[point]
                if run["state"] != "succeeded" or metrics(run) != {"answer": 42 + point}:
                    wrong[f"{case}, {point}"] = (run["state"], run["reason"], run["error"])
    assert not wrong, json.dumps(wrong, indent=1, ensure_ascii=False, default=sorted)
    # That nobody was ever disturbed would mean that they never shared a sandbox.
    assert any(attempt > 1 for attempts in tried.values() for attempt in attempts.values())


def test_a_run_token_reports_for_its_own_run_only(lab: Lab, docker_client: Any) -> None:
    """Not even who has a token (which no notebook finds) can use it for another run."""
    with lab.client("team") as client:
        mine = submit(client, "endless_loop", seconds=60)
        other = submit(client, "endless_loop", seconds=60)

        def running() -> bool:
            return all(client.get(f"{API}/runs/{run}").json()["state"] == "running" for run in (mine, other))

        wait_until(running, seconds=60, what="two running runs")
        database = sqlite3.connect(lab.state / "catalog.sqlite", timeout=30)
        query = "SELECT r.sandbox FROM runner r JOIN run ON run.runner = r.id WHERE run.id = ?"
        ((sandbox,),) = database.execute(query, (mine,)).fetchall()
        database.close()
        environment = docker_client.containers.get(sandbox).attrs["Config"]["Env"]
        (token,) = [pair.partition("=")[2] for pair in environment if pair.startswith("PROVEROM_RUN_TOKEN=")]
        body = {"attempt": 1, "outcome": "succeeded", "reason": None, "error": None, "notebook": "{}"}
        with lab.client(None, token=token) as thief:
            for call in ("result", "heartbeat", "hand-back"):
                progress = {"cells_done": 0, "cells_total": 0, "tail": ""}
                answer = thief.post(f"/services/catalog/runner/v1/runs/{other}/{call}", json=body | progress)
                assert answer.status_code == 403, (call, answer.text)
            assert thief.get(f"{API}/runs").status_code in (401, 403)
        assert running()
        for run in (mine, other):
            client.post(f"{API}/runs/{run}/cancel").raise_for_status()
        states = {run["state"] for run in ended(client, [mine, other], seconds=60).values()}
    assert states == {"cancelled"}


def test_nothing_is_left(lab: Lab, docker_client: Any) -> None:
    """Every sandbox that had a run is gone, with all that was in it; its token is closed."""
    database = sqlite3.connect(lab.state / "catalog.sqlite", timeout=30)
    query = "SELECT sandbox, closed_at IS NOT NULL FROM runner WHERE claimed > 0"

    def gone() -> bool:
        used = dict(database.execute(query).fetchall())
        there = {name.lstrip("/") for c in docker_client.api.containers(all=True) for name in c["Names"]}
        return len(used) >= len(ENDINGS) and all(used.values()) and not used.keys() & there

    wait_until(gone, seconds=60, what="the sandboxes' end")
    database.close()
    time.sleep(1)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").strip()
        except OSError:
            continue
        assert command != b"sleep 6543", "the daemon has outlived its sandbox"
