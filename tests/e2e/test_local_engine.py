"""The main job on the ``local`` engine, without a browser: sign in, desk, run, report, and the walls around both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Canary, host_addresses
from tests.e2e.desk import Desk
from tests.e2e.walls import NOWHERE, ask_in_kernel, assert_confined, printed, question, read_answer
from tests.lab import API, NAV, SKATTEETATEN, Lab, own_lab

CASES = Path(__file__).resolve().parents[1] / "cases"
TEMPLATE = "letter-ab-test"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with own_lab("e2elocal", "local") as started:
        yield started


@pytest.fixture(scope="module")
def desk(lab: Lab) -> Desk:
    made = Desk(lab, "team", "nav")
    events = made.start()
    assert events
    assert events[-1].get("ready") is True
    return made


def test_it_says_that_it_is_for_trying_out(lab: Lab) -> None:
    again = lab.up()
    assert lab.url in again
    assert "local" in again
    with lab.client(None) as client:
        page = client.get("/", follow_redirects=True)
    assert page.status_code == 200
    assert 'class="pr-engine"' in page.text, "every page says that this engine is for trying out"


def test_signing_in_as_a_person_does(lab: Lab) -> None:
    with lab.client(None) as client:
        form = client.get("/hub/login", follow_redirects=True)
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', form.text)
        assert xsrf
        answer = client.post(
            "/hub/login",
            data={"_xsrf": xsrf[1], "username": "team", "password": lab.login("team")["password"]},
        )
        assert answer.status_code == 302, answer.text
        home = client.get("/services/catalog/", follow_redirects=True)
    assert home.status_code == 200
    assert "NAV" in home.text


def test_a_wrong_password_opens_nothing(lab: Lab) -> None:
    with lab.client(None) as client:
        form = client.get("/hub/login", follow_redirects=True)
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', form.text)
        assert xsrf
        answer = client.post("/hub/login", data={"_xsrf": xsrf[1], "username": "team", "password": "1234"})
        assert answer.status_code == 403
        assert client.get("/hub/api/user").status_code == 403


def test_a_desk_is_confined(lab: Lab, desk: Desk, canary: Canary) -> None:
    before = canary.hits
    hosts = ["127.0.0.1", *host_addresses()]
    targets = [(host, port) for host in hosts for port in (canary.port, lab.port, 22, 2375)]
    asked = question(
        connect=[*targets, *((address, 80) for address in NOWHERE)],
        scan=["hub"],
        paths=["/var/run/docker.sock", "/run/docker.sock", str(lab.state / "secrets.json"), "/etc/shadow-"],
        names=["proverom.example"],
    )
    inside = read_answer(desk.python(ask_in_kernel(asked), seconds=180))
    assert_confined(inside)
    assert inside.found["default_routes"] == []
    assert inside.reached() == []
    assert canary.hits == before
    assert inside.found["names"] == {"proverom.example": None}
    # ``hub`` is the sandbox's own loopback, where the relay answers for the Hub's two ports and the desk for its own.
    own = {8888}
    assert set(inside.found["open_ports"]["hub"]) - own >= {8000, 8081}
    assert inside.found["interfaces"] == ["lo"]
    assert inside.found["pids"] < 50, "it sees the machine's processes"


def test_the_desks_terminal_runs_experiments_for_its_agency_only(lab: Lab, desk: Desk) -> None:
    status, shown = desk.terminal(f"proverom run {TEMPLATE} -p alpha=0.01 --agency {NAV} --wait --json", seconds=180)
    assert status == 0, shown
    run = json.loads(shown[shown.index("{") :])
    assert run["state"] == "succeeded"
    status, shown = desk.terminal(f"proverom run {TEMPLATE} --agency {SKATTEETATEN}")
    assert status == 2, shown
    with lab.client("team") as client:
        listed = client.get(f"{API}/runs", params={"agency": SKATTEETATEN}).raise_for_status().json()
    assert listed["items"] == []


def test_a_run_from_submission_to_report(lab: Lab) -> None:
    with lab.client("team") as client:
        body = {"template": TEMPLATE, "agency": NAV, "parameters": {"alpha": 0.1}}
        submitted = client.post(f"{API}/runs", json=body, headers={"Idempotency-Key": "e2e-1"})
        assert submitted.status_code == 201, submitted.text
        again = client.post(f"{API}/runs", json=body, headers={"Idempotency-Key": "e2e-1"})
        assert (again.status_code, again.json()["id"]) == (200, submitted.json()["id"])
        run = lab.wait_for_run(client, submitted.json()["id"])
    assert run["state"] == "succeeded", run
    metrics = {metric["name"]: metric for metric in run["metrics"]}
    assert metrics["difference"]["unit"] == "pp"
    low, high = metrics["difference"]["ci"]
    assert low < metrics["difference"]["value"] < high
    assert run["findings"]
    with lab.client("leader") as client:
        page = client.get(f"{API}/runs/{run['id']}/report", params={"format": "html"}).raise_for_status()
        document = client.get(f"{API}/runs/{run['id']}/report", params={"format": "pdf"}).raise_for_status()
    assert run["findings"][0] in page.text
    assert "record.metric" not in page.text, "a report shows no code"
    assert document.content.startswith(b"%PDF-")


def test_bad_input_leaves_no_row(lab: Lab) -> None:
    def count(client: httpx.Client) -> int:
        return len(client.get(f"{API}/runs", params={"limit": 200}).raise_for_status().json()["items"])

    with lab.client("team") as client:
        before = count(client)
        for body in (
            {"template": "no-such-template", "agency": NAV, "parameters": {}},
            {"template": TEMPLATE, "agency": "991825827", "parameters": {}},
            {"template": TEMPLATE, "agency": NAV, "parameters": {"alpha": 9, "beta": 1, "power": "nan"}},
            {"template": TEMPLATE, "agency": NAV, "parameters": {}, "timeout_seconds": -1},
        ):
            answer = client.post(f"{API}/runs", json=body)
            assert answer.status_code in (403, 404, 422), answer.text
            assert answer.headers["content-type"].startswith("application/problem+json")
            assert answer.json()["detail"]
        assert count(client) == before


def test_a_run_is_confined(lab: Lab, canary: Canary) -> None:
    """A runner is told by its own notebook's output what it is: the case asks the same questions as in a desk."""
    lab.proverom("templates", "publish", str(CASES / "walls"), "--as", "coordinator")
    lab.proverom("templates", "approve", "walls@1.0.0", "--as", "admin")
    asked = question(
        connect=[*((host, canary.port) for host in ["127.0.0.1", *host_addresses()]), *((a, 80) for a in NOWHERE)],
        paths=["/var/run/docker.sock", str(lab.state / "secrets.json")],
    )
    before = canary.hits
    with lab.client("team") as client:
        body = {"template": "walls", "agency": NAV, "parameters": {"script": asked}}
        submitted = client.post(f"{API}/runs", json=body)
        assert submitted.status_code == 201, submitted.text
        run = lab.wait_for_run(client, submitted.json()["id"])
        assert run["state"] == "succeeded", run
        notebook = client.get(f"{API}/runs/{run['id']}/notebook").raise_for_status().json()
    inside = read_answer(printed(notebook))
    assert_confined(inside)
    assert inside.found["default_routes"] == []
    assert inside.reached() == []
    assert canary.hits == before
    assert "PROVEROM_RUN_TOKEN" not in inside.found["environment"]


def test_down_leaves_nothing_running(lab: Lab) -> None:
    """The last test of this file: it ends the lab."""
    lab.down()
    with pytest.raises(httpx.ConnectError), lab.client(None) as client:
        client.get("/")
    assert processes_of(lab) == []


def processes_of(lab: Lab) -> list[str]:
    """Return the command line of each process that has this lab's state folder in it or in its environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            said = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue  # it has just ended
        if any(str(lab.state).encode() in words for words in said):
            found.append(said[0].replace(b"\0", b" ").decode(errors="replace"))
    return found
