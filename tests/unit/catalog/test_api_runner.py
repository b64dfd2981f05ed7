"""The runner protocol from outside: what a token opens, and what it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.bell import WORK
from tests.unit.catalog.api_lab import BASE, ApiLab, api_lab, codes
from tests.unit.catalog.world import NAV, NOTEBOOK, SKATT

CAP = 300_000


@pytest.fixture
def lab(migrated_sqlite: Path, tmp_path: Path) -> Iterator[ApiLab]:
    with api_lab(migrated_sqlite, tmp_path, max_result_bytes=CAP) as built:
        yield built


def result(attempt: int = 1, **fields: object) -> dict[str, object]:
    return {"attempt": attempt, "outcome": "succeeded", "notebook": NOTEBOOK.decode(), **fields}


def state(lab: ApiLab, run: str) -> tuple[str, str | None]:
    found = lab.get(f"/runs/{run}").json()
    return found["state"], found["reason"]


def test_claim_run_report(lab: ApiLab) -> None:
    run = lab.submit().json()["id"]
    token = lab.world.open_runner("r1")
    claimed = lab.runner("/claim?wait=20", token)
    assert claimed.status_code == 200
    assignment = claimed.json()
    assert assignment["run"] == run
    assert assignment["attempt"] == 1
    assert assignment["notebook"] == NOTEBOOK.decode()
    assert assignment["parameters"] == {"alpha": 0.1, "office": "Bergen"}
    assert set(assignment) == {
        "run", "attempt", "notebook", "parameters", "kernel", "start", "timeout_seconds", "lease_seconds",
        "output_limit_bytes",
    }  # fmt: skip
    assert lab.runner("/claim", token).json() == assignment  # a lost answer costs nothing
    beat = lab.runner(
        f"/runs/{run}/heartbeat", token, {"attempt": 1, "cells_done": 1, "cells_total": 2, "tail": "x\x00y"}
    )
    assert beat.json() == {"cancel": False}
    shown = lab.get(f"/runs/{run}").json()
    assert (shown["cells_done"], shown["cells_total"], shown["tail"]) == (1, 2, "x\ufffdy")
    lab.post(f"/runs/{run}/cancel")
    assert lab.runner(f"/runs/{run}/heartbeat", token, {"attempt": 1}).json() == {"cancel": True}
    assert lab.runner(f"/runs/{run}/result", token, result()).json() == {"state": "succeeded"}
    assert lab.runner(f"/runs/{run}/result", token, result()).json() == {"state": "succeeded"}  # sent twice, kept once
    assert lab.runner("/claim", token).status_code == 401


def test_a_result_that_asks_for_more_brings_the_next_run(lab: ApiLab) -> None:
    body = {"template": "letter", "agency": NAV, "grid": {"alpha": [0.1, 0.2]}, "fixed": {"office": "Bergen"}}
    assert lab.post("/sweeps", json=body).status_code == 201
    token = lab.world.open_runner("r1", NAV, batch_limit=10)
    first = lab.runner("/claim", token).json()
    answer = lab.runner(f"/runs/{first['run']}/result?more=true", token, result())
    assert answer.status_code == 200
    following = answer.json()["next"]
    assert answer.json() == {"state": "succeeded", "next": following}
    assert set(following) == set(first)
    assert (following["parameters"]["alpha"], following["attempt"]) == (0.2, 1)
    assert state(lab, following["run"]) == ("running", None)
    assert lab.runner("/claim", token).json() == following
    last = lab.runner(f"/runs/{following['run']}/result?more=true", token, result())
    assert last.json() == {"state": "succeeded"}


def test_a_result_that_cannot_be_read_brings_no_further_run(lab: ApiLab) -> None:
    body = {"template": "letter", "agency": NAV, "grid": {"alpha": [0.1, 0.2]}, "fixed": {"office": "Bergen"}}
    lab.post("/sweeps", json=body)
    token = lab.world.open_runner("r1", NAV, batch_limit=10)
    first = lab.runner("/claim", token).json()["run"]
    assert lab.runner(f"/runs/{first}/result?more=true", token, result(notebook="{}")).status_code == 422
    assert state(lab, first) == ("failed", "bad_result")
    assert lab.runner("/claim", token).json()["parameters"]["alpha"] == 0.2


def test_nothing_to_do_is_204(lab: ApiLab) -> None:
    assert lab.runner("/claim", lab.world.open_runner("r1")).status_code == 204
    assert lab.runner("/claim?wait=31", lab.world.open_runner("r2")).status_code == 422
    assert lab.runner("/claim?wait=nan", lab.world.open_runner("r3")).status_code == 422


def test_a_waiting_runner_gets_a_run_that_comes_later(lab: ApiLab) -> None:
    token = lab.world.open_runner("r1")
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(lab.runner("/claim?wait=30", token).status_code))
    waiting.start()
    lab.submit()
    waiting.join(30)
    assert got == [200]


def test_many_waiting_runners_hold_no_threads(lab: ApiLab) -> None:
    # More than the threads there are for requests (40): if each held one, the last calls would never be served.
    tokens = [lab.world.open_runner(f"w{n}", SKATT) for n in range(60)]
    waiting = [threading.Thread(target=lab.runner, args=("/claim?wait=2", token)) for token in tokens]
    for thread in waiting:
        thread.start()
    assert lab.get("/me").status_code == 200
    assert lab.submit().status_code == 201
    lab.bell.ring(WORK)
    for thread in waiting:
        thread.join(60)
    assert not any(thread.is_alive() for thread in waiting)


@pytest.mark.parametrize("path", ["/claim", "/runs/x/heartbeat", "/runs/x/result", "/runs/x/hand-back"])
def test_a_hub_token_opens_nothing_here(lab: ApiLab, path: str) -> None:
    for token in ("token-root", "unknown"):
        answer = lab.runner(path, token, {"attempt": 1, "outcome": "succeeded", "notebook": "{}"})
        assert answer.status_code == 401
        codes(answer)
    assert lab.http.post(f"{BASE}/runner/v1{path}").status_code == 401


@pytest.mark.parametrize("path", ["/me", "/runs", "/templates", "/agencies", "/members", "/experiments"])
def test_a_run_token_opens_nothing_of_the_api(lab: ApiLab, path: str) -> None:
    lab.submit()
    token, _ = lab.world.claim("r1")
    assert lab.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert lab.get("~/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_another_run_is_403_and_a_lost_attempt_409(lab: ApiLab) -> None:
    mine, other = lab.submit().json()["id"], lab.submit().json()["id"]
    token, assignment = lab.world.claim("r1")
    assert assignment.run == mine
    for path in ("heartbeat", "result", "hand-back"):
        assert lab.runner(f"/runs/{other}/{path}", token, result()).status_code == 403
        assert lab.runner(f"/runs/{mine}/{path}", token, result(attempt=7)).status_code == 409
    assert state(lab, mine) == ("running", None)
    assert state(lab, other) == ("queued", None)
    lab.world.catalog.queue.close_runner("r1")
    assert lab.runner(f"/runs/{mine}/result", token, result()).status_code == 401


def test_a_run_that_had_its_sandbox_to_itself_is_not_handed_back(lab: ApiLab) -> None:
    run = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    assert lab.runner(f"/runs/{run}/hand-back", token, {"attempt": 1}).json() == {"taken": False}
    assert state(lab, run) == ("running", None)
    lab.runner(f"/runs/{run}/result", token, result())
    assert lab.runner(f"/runs/{run}/hand-back", token, {"attempt": 1}).status_code == 409


@pytest.mark.parametrize("fields", [{"notebook": "not json"}, {"notebook": '{"cells": 1}'}, {"outcome": "running"}])
def test_what_is_no_result_ends_the_run_as_failed(lab: ApiLab, fields: dict[str, object]) -> None:
    run = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    answer = lab.runner(f"/runs/{run}/result", token, result(**fields))
    assert answer.status_code == 422
    codes(answer)
    assert state(lab, run) == ("failed", "bad_result")


def test_a_bad_result_for_anothers_run_ends_nothing(lab: ApiLab) -> None:
    lab.submit()
    other = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    assert lab.runner(f"/runs/{other}/result", token, result(notebook="x")).status_code == 403
    assert state(lab, other) == ("queued", None)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"attempt": "1"}', b'{"attempt": 0}', b"\xff", b"[" * 5000]
)
@pytest.mark.parametrize("path", ["heartbeat", "result", "hand-back"])
def test_junk_changes_nothing(lab: ApiLab, path: str, body: bytes) -> None:
    run = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    answer = lab.http.post(
        f"{BASE}/runner/v1/runs/{run}/{path}", content=body, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code in (400, 422)
    codes(answer)
    assert state(lab, run) == ("running", None)


def test_a_result_over_the_cap_is_413(lab: ApiLab) -> None:
    run = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    assert lab.runner(f"/runs/{run}/result", token, result(notebook="x" * CAP)).status_code == 413
    assert state(lab, run) == ("running", None)


def test_a_strangers_result_is_refused_unread(lab: ApiLab) -> None:
    read = 0

    def body() -> Iterator[bytes]:
        nonlocal read
        for _ in range(200):
            read += 1
            yield b"x" * 1000

    answer = lab.http.post(
        f"{BASE}/runner/v1/runs/x/result", content=body(), headers={"Authorization": "Bearer stranger"}
    )
    assert answer.status_code == 401
