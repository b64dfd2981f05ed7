"""Runs over the API: asked for, followed, cancelled, read; and nobody sees what is not theirs."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.bell import of_run
from catalog.exports.cells import cell
from experiments.model import CellError, Figure, Metric, Reason, RunResult, RunState, Table
from tests.unit.catalog.api_lab import BASE, DESK, ApiLab, api_lab, codes
from tests.unit.catalog.world import DONE, NAV, NOTEBOOK

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
FULL = RunResult(
    RunState.SUCCEEDED,
    NOTEBOOK,
    metrics=(Metric("difference", 2.3, "pp", 0.4, 4.2, "higher"), Metric("odd", None, flag="nan")),
    figures=(Figure("svar/uke X: y", "image/png", PNG, "Svar", "Søyler"), Figure("æøå", "image/svg+xml", b"<svg/>")),
    tables=(Table("by office", ("office", "n"), (("=cmd()", 3), (None, float("inf")))),),
    findings=("=HYPERLINK(1)",),
)


@pytest.fixture
def lab(migrated_sqlite: Path, tmp_path: Path) -> Iterator[ApiLab]:
    with api_lab(migrated_sqlite, tmp_path) as built:
        yield built


def finished(lab: ApiLab, result: RunResult = FULL) -> str:
    return lab.world.finished(lab.world.submit(), result).id


def test_a_run_is_asked_for_and_found(lab: ApiLab) -> None:
    answer = lab.submit(parameters={"alpha": "0,1"}, timeout_seconds=60)
    assert answer.status_code == 201
    run = answer.json()
    assert answer.headers["location"] == f"{BASE}/api/v1/runs/{run['id']}"
    assert run["state"] == "queued"
    assert run["parameters"] == {"alpha": 0.1, "office": "Bergen"}
    assert run["agency"]["slug"] == "nav"
    assert run["requested_by"] == "kari"
    assert lab.get(f"/runs/{run['id']}").json() == run
    assert [r["id"] for r in lab.get("/runs").json()["items"]] == [run["id"]]


def test_every_problem_comes_at_once_and_nothing_is_stored(lab: ApiLab) -> None:
    answer = lab.submit(parameters={"alpha": 9, "office": "x" * 30, "__class__": 1, "unknown": 2}, timeout_seconds=-1)
    assert answer.status_code == 422
    assert codes(answer) >= {"above_maximum", "too_long", "unknown_parameter", "bad_timeout", "bad_name"}
    assert lab.get("/runs").json()["items"] == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"template": "nothing"}, "unknown_template"),
        ({"template": "../letter"}, "unknown_template"),
        ({"template": "' OR 1=1--"}, "unknown_template"),
        ({"version": "9.9.9"}, "unknown_template"),
        ({"agency": "skatteetaten"}, "not_a_member"),
        ({"agency": "nobody"}, "not_a_member"),
        ({"experiment": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}, "unknown_experiment"),
        ({"timeout_seconds": 0}, "bad_timeout"),
        ({"timeout_seconds": 2**64}, "bad_timeout"),
        ({"parameters": {"alpha": 2**64}}, "above_maximum"),
        ({"parameters": {"alpha": [1]}}, "wrong_type"),
        ({"parameters": {"alpha": {"a": 1}}}, "wrong_type"),
        ({"parameters": {"alpha": None}}, "missing_value"),
        ({"parameters": {"alpha; import os": 1}}, "bad_name"),
    ],
)
def test_what_cannot_run_is_refused(lab: ApiLab, fields: dict[str, object], code: str) -> None:
    answer = lab.submit(**fields)
    assert answer.status_code == 422, answer.text
    assert code in codes(answer)
    assert lab.get("/runs").json()["items"] == []


def test_code_in_a_text_parameter_stays_text(lab: ApiLab) -> None:
    text = '"; import os #'
    assert lab.submit(parameters={"office": text}).json()["parameters"]["office"] == text


def test_a_leader_reads_and_does_not_run(lab: ApiLab) -> None:
    assert lab.submit(who="leif").status_code == 403
    assert lab.submit(who="nobody").status_code in (403, 422)
    assert lab.get("/runs", who="leif").status_code == 200


def test_the_same_key_is_the_same_run(lab: ApiLab) -> None:
    body = {"template": "letter", "agency": "nav"}
    first = lab.post("/runs", body, headers={"Idempotency-Key": "one"})
    again = lab.post("/runs", body, headers={"Idempotency-Key": "one"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    other = lab.post("/runs", {**body, "parameters": {"alpha": 0.2}}, headers={"Idempotency-Key": "one"})
    assert codes(other) == {"idempotency_key_reused"}
    assert len(lab.get("/runs").json()["items"]) == 1


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a b", "å".encode()])
def test_an_odd_key_is_422(lab: ApiLab, key: bytes) -> None:
    answer = lab.post("/runs", {"template": "letter", "agency": "nav"}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert lab.get("/runs").json()["items"] == []


def test_pages_hold_every_run_once(lab: ApiLab) -> None:
    made = [lab.submit().json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        page = lab.get("/runs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [r["id"] for r in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize("path", ["", "/notebook", "/figures/x", "/report", "/events"])
def test_another_agencys_run_is_not_there(lab: ApiLab, path: str) -> None:
    run = finished(lab)
    answer = lab.get(f"/runs/{run}{path}", who="siri")
    assert answer.status_code == 404
    assert codes(answer) == set()
    for action in ("cancel", "retry"):
        assert lab.post(f"/runs/{run}/{action}", who="siri").status_code == 404


def test_a_desk_sees_its_own_agency_only(lab: ApiLab) -> None:
    theirs = lab.submit(who="both", agency="skatteetaten").json()["id"]
    assert lab.get(f"/runs/{theirs}", who="both").status_code == 200
    assert lab.get(f"/runs/{theirs}", who=DESK).status_code == 404
    assert lab.get("/runs", who=DESK).json()["items"] == []
    refused = lab.submit(who=DESK, agency="skatteetaten")
    assert refused.status_code == 422
    assert codes(refused) == {"not_a_member"}
    assert lab.submit(who=DESK).status_code == 201
    assert lab.world.catalog.events.list(lab.world.viewer("root"), agency=NAV).items[0].source == "desk:nav"


def test_cancel_and_retry(lab: ApiLab) -> None:
    run = lab.submit().json()["id"]
    assert lab.post(f"/runs/{run}/retry").status_code == 422
    assert lab.post(f"/runs/{run}/cancel").json()["state"] == "cancelled"
    assert lab.post(f"/runs/{run}/cancel").status_code in (200, 422)
    again = lab.post(f"/runs/{run}/retry")
    assert again.status_code == 201
    assert again.json()["retry_of"] == run


def test_a_finished_run_shows_all_that_was_recorded(lab: ApiLab) -> None:
    found = lab.get(f"/runs/{finished(lab)}").json()
    assert found["state"] == "succeeded"
    assert found["metrics"][0] == {
        "name": "difference",
        "value": 2.3,
        "unit": "pp",
        "ci": [0.4, 4.2],
        "better": "higher",
        "flag": None,
    }
    assert found["metrics"][1]["value"] is None
    assert found["metrics"][1]["flag"] == "nan"
    assert found["tables"][0]["rows"] == [["=cmd()", 3], [None, None]]
    assert found["provenance"]["engine"] == "docker"
    assert found["provenance"]["template_digest"].startswith("sha256:")


def test_a_failed_run_shows_the_cell(lab: ApiLab) -> None:
    error = CellError(0, "ValueError", "no <b>data</b>", "Traceback", "x = 1")
    found = lab.get(f"/runs/{finished(lab, RunResult(RunState.FAILED, NOTEBOOK, Reason.CELL_FAILED, error))}").json()
    assert found["error"]["message"] == "no <b>data</b>"
    assert found["reason"] == "cell_failed"


def test_files_come_inert_and_with_safe_names(lab: ApiLab) -> None:
    run = finished(lab)
    notebook = lab.get(f"/runs/{run}/notebook")
    assert notebook.content == NOTEBOOK
    assert notebook.headers["content-disposition"].startswith("attachment")
    figure = lab.get(f"/runs/{run}/figures/svar%2Fuke%20X%3A%20y")
    assert figure.content == PNG
    svg = lab.get(f"/runs/{run}/figures/%C3%A6%C3%B8%C3%A5")
    for answer in (notebook, figure, svg):
        assert answer.headers["content-security-policy"].startswith("sandbox;")
        assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("..%2f..%2fetc%2fpasswd", "nothing", "%00", "x" * 400):
        assert lab.get(f"/runs/{run}/figures/{name}").status_code in (404, 422)
    assert lab.get(f"/runs/{lab.submit().json()['id']}/notebook").status_code == 404


def test_the_report_is_served_sandboxed(lab: ApiLab) -> None:
    run = finished(lab)
    report = lab.get(f"/runs/{run}/report")
    assert report.status_code == 200
    assert report.headers["content-type"].startswith("text/html")
    assert "sandbox" in report.headers["content-security-policy"]
    assert "allow-same-origin" not in report.headers["content-security-policy"]
    waiting = lab.get(f"/runs/{lab.submit().json()['id']}/report")
    assert waiting.status_code == 409
    codes(waiting)
    assert lab.get(f"/runs/{run}/report?format=docx").status_code == 422


# -- events ----------------------------------------------------------------------------------------------------------


def events_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]


def test_events_follow_a_run_to_its_end(lab: ApiLab) -> None:
    run = lab.world.submit()
    token, assignment = lab.world.claim("r1")
    read: list[str] = []

    def watch() -> None:
        read.append(lab.get(f"/runs/{run.id}/events").text)

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    body = {"attempt": assignment.attempt, "cells_done": 1, "cells_total": 3, "tail": "line"}
    assert lab.runner(f"/runs/{run.id}/heartbeat", token, body).status_code == 200
    lab.world.catalog.queue.finish(token, run.id, assignment.attempt, DONE, lab.world.clock())
    lab.bell.ring(of_run(run.id))
    for watcher in watchers:
        watcher.join(20)
    assert len(read) == 3
    for text in read:
        events = events_of(text)
        assert events[-1]["state"] == "succeeded"
        assert set(events[-1]) >= {"state", "attempt", "cells_done", "cells_total", "tail", "reason"}
    assert "proverom_http_requests" in lab.get("~/metrics", who="root").text


def test_a_reader_that_has_the_end_is_told_not_to_come_back(lab: ApiLab) -> None:
    run = finished(lab)
    first = lab.get(f"/runs/{run}/events")
    assert first.headers["content-type"].startswith("text/event-stream")
    assert [e["state"] for e in events_of(first.text)] == ["succeeded"]
    last = next(line[3:].strip() for line in first.text.splitlines() if line.startswith("id:"))
    assert lab.get(f"/runs/{run}/events", headers={"Last-Event-ID": last}).status_code == 204
    assert lab.get(f"/runs/{run}/events", headers={"Last-Event-ID": "0.0.queued"}).status_code == 200


# -- exports ---------------------------------------------------------------------------------------------------------


def test_an_export_opens_as_text(lab: ApiLab) -> None:
    finished(lab)
    lab.submit(parameters={"office": "@SUM(A1)"})
    answer = lab.get("/exports/runs?excel=true")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")), delimiter=";"))
    assert rows[1]["finding"] == "'=HYPERLINK(1)"
    assert rows[1]["metric.difference [pp]"] == "2,3"
    assert rows[1]["metric.difference [pp].low"] == "0,4"
    assert rows[0]["parameter.office"] == "'@SUM(A1)"
    plain = list(csv.DictReader(io.StringIO(lab.get("/exports/runs").text)))
    assert plain[1]["metric.difference [pp]"] == "2.3"
    assert lab.get("/exports/runs?format=json").json()[1]["metric.difference [pp]"] == 2.3
    assert lab.get("/exports/runs", who="siri").text.strip() == ""


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", " =1", "＝1", "\u200b=1", "\n=1"])
def test_a_formula_becomes_text(text: str) -> None:
    assert cell(text).startswith("'")


@pytest.mark.parametrize(
    ("value", "shown"), [(-1.5, "-1.5"), (3, "3"), (True, "true"), (None, ""), ("a=1", "a=1"), ("", "")]
)
def test_other_values_stay_as_they_are(value: object, shown: str) -> None:
    assert cell(value) == shown
