"""Sweeps, schedules and notices over HTTP, the real store below."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.catalog.api_lab import DESK, ApiLab, api_lab, codes
from tests.unit.catalog.world import DONE, T0

GRID = {"alpha": [0.01, 0.05], "office": ["Oslo", "Bergen"]}


@pytest.fixture
def lab(migrated_sqlite: Path, tmp_path: Path) -> Iterator[ApiLab]:
    with api_lab(migrated_sqlite, tmp_path) as built:
        yield built


def body(**fields: object) -> dict[str, object]:
    return {"template": "letter", "agency": "nav", **fields}


def work(lab: ApiLab, runner: str, most: int = 100) -> int:
    token = lab.world.open_runner(runner, slots=1, batch_limit=most)
    done: list[str] = []
    while len(done) < most:
        answer = lab.runner("/claim", token, {"holding": []})
        if answer.status_code != 200:
            break
        lab.world.catalog.queue.finish(token, answer.json()["run"], 1, DONE, lab.world.clock())
        done.append(answer.json()["run"])
    return len(done)


def test_plan_submit_show_list(lab: ApiLab) -> None:
    plan = lab.post("/sweeps/plan", body(grid=GRID))
    assert plan.status_code == 200
    assert (plan.json()["runs"], plan.json()["concurrent"], plan.json()["seconds"]) == (4, 4, None)
    assert lab.get("/sweeps").json() == {"items": [], "next": None}
    made = lab.post("/sweeps", body(grid=GRID), headers={"Idempotency-Key": "a"})
    assert made.status_code == 201
    sweep = made.json()
    assert made.headers["location"].endswith(f"/api/v1/sweeps/{sweep['id']}")
    assert (sweep["size"], sweep["state"], sweep["counts"], sweep["done"]) == (4, "queued", {"queued": 4}, 0)
    again = lab.post("/sweeps", body(grid=GRID), headers={"Idempotency-Key": "a"})
    assert (again.status_code, again.json()["id"]) == (200, sweep["id"])
    assert [s["id"] for s in lab.get("/sweeps").json()["items"]] == [sweep["id"]]
    assert len(lab.get(f"/runs?sweep={sweep['id']}").json()["items"]) == 4
    assert lab.get(f"/sweeps/{sweep['id']}", "siri").status_code == 404


def test_every_way_to_describe_a_sweep(lab: ApiLab) -> None:
    ranged = lab.post("/sweeps/plan", body(grid={"alpha": {"from": 0.01, "to": 0.05, "step": 0.01}}))
    assert ranged.json()["runs"] == 5
    listed = lab.post("/sweeps/plan", body(points=[{"alpha": 0.1}, {"alpha": "0,1"}, {"alpha": 0.2}]))
    assert (listed.json()["runs"], listed.json()["duplicates"]) == (2, 1)
    span = {"from": 0.001, "to": 0.2, "logarithmic": True}
    sample = {"size": 7, "seed": 3, "space": {"alpha": span, "office": ["Oslo", "Bergen"]}}
    assert lab.post("/sweeps/plan", body(sample=sample)).json()["runs"] == 7
    fixed = lab.post("/sweeps/plan", body(grid={"alpha": [0.1, 0.2]}, fixed={"office": "Tromsø"}))
    assert fixed.json()["varied"] == ["alpha"]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"grid": {"alpha": {"from": 0, "to": 1, "step": 1e-9}}}, "too_many_runs"),
        ({"sample": {"size": 10**9, "space": {"alpha": None}}}, "too_many_runs"),
        ({"grid": {}}, "empty_sweep"),
        ({"grid": {"alpha": []}}, "empty_sweep"),
        ({"points": []}, "empty_sweep"),
        ({}, "bad_sweep"),
        ({"grid": {"alpha": [0.1]}, "points": [{}]}, "bad_sweep"),
        ({"grid": {"alpha": [0.1, 9]}}, "above_maximum"),
        ({"grid": {"alpha": ["=cmd"]}}, "wrong_type"),
        ({"grid": {"alpha": {"from": 0, "to": 1, "step": 0}}}, "bad_space"),
        ({"grid": {"alpha": [[1]]}}, "wrong_type"),
        ({"points": [{"beta": 1}]}, "unknown_parameter"),
        ({"sample": {"size": 3, "space": {"office": None}}}, "no_range"),
    ],
)
def test_what_cannot_be_a_sweep_is_a_422(lab: ApiLab, wrong: dict[str, object], code: str) -> None:
    for path in ("/sweeps/plan", "/sweeps"):
        answer = lab.post(path, body(**wrong))
        assert answer.status_code == 422, answer.text
        assert code in codes(answer)
    assert lab.get("/sweeps").json()["items"] == []


def test_who_may_sweep(lab: ApiLab) -> None:
    assert lab.post("/sweeps", body(grid=GRID), "leif").status_code == 403
    assert codes(lab.post("/sweeps", body(grid=GRID), "siri")) == {"not_a_member"}
    assert lab.post("/sweeps", body(grid=GRID), DESK).status_code == 201
    assert lab.post("/sweeps", {**body(grid=GRID), "agency": "skatteetaten"}, DESK).status_code == 422
    assert lab.post("/sweeps", body(grid=GRID), None).status_code == 401


def test_points_sensitivity_cancel_and_resume(lab: ApiLab) -> None:
    id = lab.post("/sweeps", body(grid=GRID)).json()["id"]
    assert work(lab, "r1", 3) == 3
    cancelled = lab.post(f"/sweeps/{id}/cancel").json()
    assert (cancelled["state"], cancelled["counts"]) == ("cancelled", {"succeeded": 3, "cancelled": 1})
    points = lab.get(f"/sweeps/{id}/points").json()
    assert [p["state"] for p in points["items"]] == ["succeeded"] * 3 + ["cancelled"]
    assert points["items"][0]["parameters"] == {"alpha": 0.01, "office": "Oslo"}
    assert points["items"][0]["metrics"] == {"difference": 2.3}
    assert lab.get(f"/sweeps/{id}/points?limit=2").json()["next"] == 1
    found = lab.get(f"/sweeps/{id}/sensitivity").json()
    assert (found["points"], found["metrics"], found["units"]) == (3, ["difference"], {"difference": "pp"})
    assert {e["parameter"] for e in found["effects"]} == {"alpha", "office"}
    assert all(e["strength"] is None for e in found["effects"])  # the metric never changed
    resumed = lab.post(f"/sweeps/{id}/resume").json()
    assert (resumed["rounds"], resumed["counts"]) == (2, {"succeeded": 3, "queued": 1})
    assert codes(lab.post(f"/sweeps/{id}/resume")) == {"nothing_to_resume"}
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/resume"), ("GET", "/points")):
        assert lab.call(method, f"/sweeps/{id}{path}", "siri").status_code == 404


def test_the_report_of_a_sweep(lab: ApiLab) -> None:
    id = lab.post("/sweeps", body(grid=GRID)).json()["id"]
    assert lab.get(f"/sweeps/{id}/report").status_code == 409
    work(lab, "r1", 4)
    answer = lab.get(f"/sweeps/{id}/report?language=en&download=true", "leif")
    assert "What we found" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert f'filename="{id}.html"' in answer.headers["content-disposition"]
    assert lab.get(f"/sweeps/{id}/report?format=pdf", "leif").content.startswith(b"%PDF")
    assert lab.get(f"/sweeps/{id}/report?language=xx").status_code == 422
    assert lab.get(f"/sweeps/{id}/report", "siri").status_code == 404


def test_the_events_of_a_sweep_tell_of_each_change_until_its_end(lab: ApiLab) -> None:
    id = lab.post("/sweeps", body(grid={"alpha": [0.01, 0.02]})).json()["id"]

    def later() -> None:
        time.sleep(0.3)
        work(lab, "r1")

    thread = threading.Thread(target=later)
    thread.start()
    answer = lab.get(f"/sweeps/{id}/events")
    thread.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
    assert events[0]["state"] == "queued"
    assert (events[-1]["state"], events[-1]["done"], events[-1]["counts"]) == ("succeeded", 2, {"succeeded": 2})
    last = next(line[3:].strip() for line in reversed(answer.text.splitlines()) if line.startswith("id:"))
    assert lab.get(f"/sweeps/{id}/events", headers={"Last-Event-ID": last}).status_code == 204
    assert lab.get(f"/sweeps/{id}/events", "siri").status_code == 404


def test_a_running_run_says_how_long_it_still_takes(lab: ApiLab) -> None:
    first = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    lab.world.clock.advance(40)
    lab.world.catalog.queue.finish(token, first, 1, DONE, lab.world.clock())
    second = lab.submit().json()["id"]
    assert lab.get(f"/runs/{second}").json()["seconds_left"] is None
    token, _ = lab.world.claim("r2")
    lab.world.clock.advance(10)
    assert lab.get(f"/runs/{second}").json()["seconds_left"] == 30
    lab.world.catalog.queue.finish(token, second, 1, DONE, lab.world.clock())
    (event,) = [x for x in lab.get(f"/runs/{second}/events").text.splitlines() if x.startswith("data:")]
    assert json.loads(event[5:])["seconds_left"] is None


# -- quotas ----------------------------------------------------------------------------------------------------------


def test_quotas_are_an_admins_to_change(lab: ApiLab) -> None:
    quotas = {"max_sweep_runs": 3, "max_memory": 4 * 1024**3, "max_cpus": 2.5, "weight": 5}
    assert lab.call("PATCH", "/agencies/889640782", "kirsten", json=quotas).status_code == 403
    changed = lab.call("PATCH", "/agencies/889640782", "root", json=quotas)
    assert changed.status_code == 200
    assert {name: changed.json()[name] for name in quotas} == quotas
    assert codes(lab.post("/sweeps", body(grid=GRID))) == {"too_many_runs"}
    lab.submit()
    (demand,) = lab.world.catalog.queue.demand()
    assert (demand.max_memory, demand.max_cpus, demand.weight) == (4 * 1024**3, 2.5, 5)
    freed = lab.call("PATCH", "/agencies/889640782", "root", json={"max_memory": None, "max_cpus": None})
    assert (freed.json()["max_memory"], freed.json()["max_cpus"]) == (None, None)
    for wrong in ({"max_memory": 1}, {"max_cpus": 0}, {"max_sweep_runs": 0}, {"max_sweep_runs": None}):
        assert lab.call("PATCH", "/agencies/889640782", "root", json=wrong).status_code == 422


# -- schedules -------------------------------------------------------------------------------------------------------


def test_a_schedules_life(lab: ApiLab) -> None:
    made = lab.post("/schedules", body(cron="0 7 * * MON-FRI", parameters={"alpha": 0.1}, title="Hver morgen"))
    assert made.status_code == 201, made.text
    schedule = made.json()
    assert (schedule["state"], schedule["zone"], schedule["catch_up"]) == ("active", "Europe/Oslo", "once")
    assert schedule["next"][0] == "2026-03-03T06:00:00Z"
    path = f"/schedules/{schedule['id']}"
    assert [s["id"] for s in lab.get("/schedules?agency=nav").json()["items"]] == [schedule["id"]]
    assert lab.post(f"{path}/pause").json()["state"] == "paused"
    assert lab.get(path).json()["next"] == []
    assert lab.post(f"{path}/resume").json()["state"] == "active"
    fired = lab.post(f"{path}/trigger")
    assert (fired.status_code, fired.json()["by_hand"]) == (201, True)
    run = lab.get(f"/runs/{fired.json()['run']}").json()
    assert (run["schedule"], run["requested_by"], run["parameters"]["alpha"]) == (schedule["id"], "kari", 0.1)
    assert lab.get(f"{path}/firings").json()["items"] == [fired.json()]
    assert [r["id"] for r in lab.get(f"/runs?schedule={schedule['id']}").json()["items"]] == [run["id"]]
    for who, status in (("siri", 404), ("leif", 403)):
        for step in ("pause", "resume", "trigger"):
            assert lab.post(f"{path}/{step}", who=who).status_code == status
        assert lab.call("DELETE", path, who).status_code == status
    assert lab.call("DELETE", path).status_code == 204
    assert lab.get(path).status_code == 404
    assert lab.get("/schedules").json()["items"] == []


def test_a_schedule_sent_again_under_its_key_is_the_same(lab: ApiLab) -> None:
    asked, key = body(cron="0 7 * * *"), {"Idempotency-Key": "one"}
    made, again = (lab.post("/schedules", asked, headers=key) for _ in range(2))
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    assert made.headers["location"] == again.headers["location"]
    assert codes(lab.post("/schedules", body(cron="0 8 * * *"), headers=key)) == {"idempotency_key_reused"}
    assert lab.post("/schedules", asked, headers={"Idempotency-Key": "a b"}).status_code == 422
    assert lab.post("/schedules", asked).status_code == 201
    assert len(lab.get("/schedules").json()["items"]) == 2
    lab.call("DELETE", f"/schedules/{made.json()['id']}")
    assert codes(lab.post("/schedules", asked, headers=key)) == {"schedule_removed"}


def test_all_that_is_wrong_with_a_schedule_comes_at_once(lab: ApiLab) -> None:
    wrong = body(cron="61 * * * *", zone="Mars/Olympus", parameters={"alpha": 9}, time_parameter="when")
    answer = lab.post("/schedules", wrong)
    assert answer.status_code == 422
    assert codes(answer) == {"bad_cron", "bad_zone", "above_maximum", "unknown_parameter"}
    assert lab.get("/schedules").json()["items"] == []


def test_the_coming_times_can_be_looked_at_first(lab: ApiLab) -> None:
    times = lab.get("/schedules/preview", params={"cron": "30 2 * * *", "zone": "Europe/Oslo", "count": 2}).json()
    assert times == {"times": ["2026-03-03T01:30:00Z", "2026-03-04T01:30:00Z"]}
    assert codes(lab.get("/schedules/preview", params={"cron": "0 0 30 2 *"})) == {"bad_cron"}
    assert lab.get("/schedules/preview", params={"cron": "* * * * *", "count": 1000}).status_code == 422


# -- notices ---------------------------------------------------------------------------------------------------------


def test_notices_come_and_are_read(lab: ApiLab) -> None:
    run = lab.submit().json()["id"]
    token, _ = lab.world.claim("r1")
    lab.world.catalog.queue.finish(token, run, 1, DONE, lab.world.clock())
    found = lab.get("/me/notices").json()
    assert found["unread"] == 1
    (notice,) = found["items"]
    assert (notice["kind"], notice["subject"], notice["state"], notice["read_at"]) == ("run", run, "succeeded", None)
    assert lab.get("/me/notices", "kirsten").json() == {"items": [], "next": None, "unread": 0}
    assert lab.post("/me/notices/read", {"ids": [notice["id"]]}, "kirsten").json() == {"read": 0}
    assert lab.post("/me/notices/read", {"ids": [notice["id"], "x"]}).json() == {"read": 1}
    assert lab.get("/me/notices?unread=true").json() == {"items": [], "next": None, "unread": 0}
    assert lab.post("/me/notices/read", {}).json() == {"read": 0}


def test_choosing_what_comes_by_mail(lab: ApiLab) -> None:
    assert lab.get("/me/notifications").json() == {"mail": "", "wish": "batches", "language": "nb"}
    chosen = {"mail": "kari.nordmann@example.no", "wish": "failures", "language": "nn"}
    assert lab.call("PUT", "/me/notifications", json=chosen).json() == chosen
    assert lab.get("/me/notifications").json() == chosen
    assert lab.get("/me/notifications", "kirsten").json()["mail"] == ""
    for wrong in ({"mail": "a b@c.no"}, {"mail": "x@y\r\nBcc: z@z.no"}, {"wish": "some"}, {"language": "se"}, {"m": 1}):
        assert lab.call("PUT", "/me/notifications", json=wrong).status_code == 422
    assert lab.call("PUT", "/me/notifications", DESK, json=chosen).status_code == 403
    assert lab.get("/me/notifications").json() == chosen


def test_times_are_points_in_time(lab: ApiLab) -> None:
    assert datetime.fromisoformat(lab.post("/schedules", body(cron="0 * * * *")).json()["next"][0]) - T0 == timedelta(
        hours=1
    )
