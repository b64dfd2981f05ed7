"""The main job, end to end, on a real Docker Engine and in a real browser, as the people of an agency do it.

The tests of this file are one story and run in order. ``PROVEROM_SCREENSHOTS`` names a folder for its pictures.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from catalog import wording
from catalog.web.i18n import translator
from experiments.model import RunState
from tests.e2e.conftest import Canary, host_addresses
from tests.e2e.desk import Desk
from tests.e2e.walls import NOWHERE, ask_in_kernel, assert_confined, printed, question, read_answer
from tests.lab import API, NAV, SKATTEETATEN, Lab, own_lab, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.browser]

CASES = Path(__file__).resolve().parents[1] / "cases"
TEMPLATE = "letter-ab-test"
CATALOG = "/services/catalog"
NAME = "e2e"
SCHEDULE = "Hvert minutt"
LABEL = f"no.proverom.lab={NAME}"


@pytest.fixture(scope="module")
def lab(docker_client: Any) -> Iterator[Lab]:
    """A lab on the machine's Docker Engine, with the cases' templates published beside the library's."""
    with own_lab(NAME, "docker") as started:
        for case in ("patience", "walls"):
            started.proverom("templates", "publish", str(CASES / case), "--as", "coordinator")
            started.proverom("templates", "approve", f"{case}@1.0.0", "--as", "admin")
        yield started


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("PROVEROM_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def new_context(browser: Browser, lab: Lab, **more: Any) -> BrowserContext:
    chosen = {"locale": "nb-NO", "viewport": {"width": 1280, "height": 900}} | more
    context = browser.new_context(base_url=lab.url, **chosen)
    context.set_default_timeout(30_000)
    return context


def sign_in(page: Page, lab: Lab, person: str) -> None:
    page.goto(f"{CATALOG}/")
    page.locator("input[name=username]").fill(person)
    page.locator("input[name=password]").fill(lab.login(person)["password"])
    page.locator("input[name=password]").press("Enter")
    page.wait_for_url(f"**{CATALOG}/**")


@pytest.fixture(scope="module")
def team(browser: Browser, lab: Lab) -> Iterator[Page]:
    """The team's browser window, open through the whole story."""
    context = new_context(browser, lab)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def desk(lab: Lab) -> Desk:
    return Desk(lab, "team", "nav")


def picture(page: Page, folder: Path, name: str, *, full: bool = False) -> None:
    page.evaluate("document.fonts.ready")
    page.screenshot(path=folder / f"{name}.png", full_page=full, animations="disabled")


# -- the desk ----------------------------------------------------------------------------------------------------------


def test_signing_in(lab: Lab, team: Page, screenshots: Path) -> None:
    team.goto(f"{CATALOG}/")
    expect(team.locator("input[name=password]")).to_be_visible()
    assert team.locator("html").get_attribute("lang") == "nb"
    picture(team, screenshots, "login")
    team.locator("input[name=username]").fill("team")
    team.locator("input[name=password]").fill("feil")
    team.locator("input[name=password]").press("Enter")
    expect(team.locator("input[name=password]")).to_be_visible()
    sign_in(team, lab, "team")
    expect(team.locator("main")).to_contain_text("NAV")
    expect(team.locator("main")).to_contain_text("Skatteetaten")


def test_choosing_an_agency_and_starting_its_desk(team: Page, screenshots: Path) -> None:
    team.goto(f"{CATALOG}/")
    desks = team.locator("a[href*='/hub/spawn/team/']")
    expect(desks).to_have_count(2)
    expect(team.locator("main")).not_to_contain_text("Bergen kommune")
    picture(team, screenshots, "agencies")
    team.locator("a[href$='/hub/spawn/team/nav']").click()
    progress = team.locator("[role=progressbar], progress").first
    expect(progress).to_be_visible()
    picture(team, screenshots, "desk-starting")
    team.wait_for_url("**/user/team/nav/lab**", timeout=120_000)
    expect(team.locator(".jp-Launcher").first).to_be_visible(timeout=90_000)
    picture(team, screenshots, "desk")


def test_the_desk_is_confined(lab: Lab, desk: Desk, docker_client: Any, canary: Canary) -> None:
    neighbour = Desk(lab, "team", "skatteetaten")
    neighbour.start()
    try:
        (container,) = docker_client.containers.list(filters={"name": f"^/proverom-{NAME}-desk-skatteetaten-team$"})
        address = next(iter(container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
        gateways = [
            setting["Gateway"]
            for network in docker_client.networks.list()
            for setting in network.attrs["IPAM"]["Config"] or []
            if setting.get("Gateway")
        ]
        hosts = sorted({*host_addresses(), *gateways, *first_addresses(docker_client)})
        ports = (canary.port, lab.port, 22, 53, 2375, 2376)
        asked = question(
            connect=[*((h, p) for h in hosts for p in ports), (address, 8888), *((a, 80) for a in NOWHERE)],
            scan=["hub"],
            paths=["/var/run/docker.sock", "/run/docker.sock", "/srv/lab", "/.dockerenv.sock"],
            names=[container.name, "proverom.example"],
        )
        before = canary.hits
        inside = read_answer(desk.python(ask_in_kernel(asked), seconds=240))
        alone = read_answer(neighbour.python(ask_in_kernel(question(connect=[(address, 8888)])), seconds=60))
    finally:
        neighbour.stop()
    assert alone.reached() == [(address, 8888)], "the neighbour's address is right, or its silence would prove nothing"
    assert_confined(inside)
    assert inside.reached() == []
    assert canary.hits == before
    assert inside.found["open_ports"]["hub"] == [8000, 8081]
    assert set(inside.found["names"].values()) == {None}
    assert inside.found["memory_limit"] <= 4 * 1024**3


def first_addresses(docker_client: Any) -> list[str]:
    """Return the first address of each of the engine's networks: where its gateway would be, were there one."""
    import ipaddress

    subnets = [s["Subnet"] for n in docker_client.networks.list() for s in n.attrs["IPAM"]["Config"] or []]
    return [str(next(ipaddress.ip_network(s).hosts())) for s in subnets if ":" not in s]


def test_the_engine_made_what_the_policy_says(docker_client: Any) -> None:
    (container,) = docker_client.containers.list(filters={"label": [LABEL, "no.proverom.kind=desk"]})
    made = container.attrs["HostConfig"]
    assert made["CapDrop"] == ["ALL"]
    assert not made["CapAdd"]
    assert not made["Privileged"]
    assert made["ReadonlyRootfs"] is True
    assert any("no-new-privileges" in option for option in made["SecurityOpt"])
    assert not any("seccomp=unconfined" in option for option in made["SecurityOpt"])
    assert made["Memory"] > 0
    assert made["NanoCpus"] > 0 or made["CpuQuota"] > 0
    assert made["PidsLimit"] > 0
    assert made["LogConfig"]["Config"]["max-size"]
    assert {m["Type"] for m in container.attrs["Mounts"]} == {"volume"}
    assert list(container.attrs["NetworkSettings"]["Networks"]) == [f"proverom-{NAME}-nav"]


def test_the_desks_token_works_for_its_agency_only(lab: Lab, desk: Desk) -> None:
    with lab.client("team") as client:
        body = {"template": TEMPLATE, "agency": SKATTEETATEN, "parameters": {}}
        elsewhere = client.post(f"{API}/runs", json=body).raise_for_status().json()["id"]
        assert lab.wait_for_run(client, elsewhere)["state"] == "succeeded"
    status, shown = desk.terminal(f"proverom run {TEMPLATE} -p alpha=0.01 --agency {NAV} --wait --json", seconds=180)
    assert status == 0, shown
    assert json.loads(shown[shown.index("{") :])["state"] == "succeeded"
    status, shown = desk.terminal(f"proverom run {TEMPLATE} --agency {SKATTEETATEN}")
    assert status == 2, shown
    status, shown = desk.terminal(f"proverom runs show {elsewhere}")
    assert status == 2, shown
    listed = json.loads(
        desk.python(
            "import subprocess\nprint(subprocess.run(['proverom', 'runs', 'list', '--json'],"
            " capture_output=True, text=True, check=True).stdout)"
        )
    )
    runs = listed["items"] if isinstance(listed, dict) else listed
    assert runs
    assert elsewhere not in {run["id"] for run in runs}


def test_the_desks_token_is_nobody_at_the_hub(desk: Desk) -> None:
    """A stolen desk token makes no token, no server and no user, and reads of no other person."""
    asked = (
        ("POST", "/users/team/tokens"),
        ("POST", "/users/team/servers/skatteetaten"),
        ("POST", "/users/mallory"),
        ("GET", "/users"),
        ("GET", "/users/leader"),
        ("GET", "/services"),
        ("GET", "/proxy"),
        ("POST", "/shutdown"),
    )
    code = (
        "import json, os, urllib.request, urllib.error\n"
        f"for method, path in {asked!r}:\n"
        "    headers = {'Authorization': 'token ' + os.environ['JUPYTERHUB_API_TOKEN']}\n"
        "    address, data = os.environ['JUPYTERHUB_API_URL'] + path, b'{}' if method == 'POST' else None\n"
        "    request = urllib.request.Request(address, method=method, data=data, headers=headers)\n"
        "    try:\n        print(method, path, urllib.request.urlopen(request).status)\n"
        "    except urllib.error.HTTPError as error:\n        print(method, path, error.code)\n"
    )
    answers = desk.python(code).strip().splitlines()
    assert len(answers) == len(asked)
    assert [a for a in answers if a.rpartition(" ")[2] not in ("403", "404")] == []


# -- a run -------------------------------------------------------------------------------------------------------------


def word(state: RunState) -> str:
    """Return what a page in bokmål calls a state."""
    return wording.state(translator("nb"), state)


def open_form(page: Page, template: str) -> Locator:
    page.goto(f"{CATALOG}/templates/{template}")
    form = page.locator("form.pr-form")
    expect(form.locator("button[type=submit]:not([formaction])")).to_be_visible()
    return form


def start_run(page: Page, template: str, values: dict[str, str]) -> str:
    """Fill in the form and send it; return the run's id from the page that follows."""
    form = open_form(page, template)
    form.locator("[name=agency]").select_option(NAV)
    for name, value in values.items():
        field(form, name).fill(value)
    form.locator("button[type=submit]:not([formaction])").click()
    page.wait_for_url(re.compile(r"/runs/[0-9A-Za-z]{20,}"))
    return page.url.rstrip("/").rpartition("/")[2]


def field(form: Locator, parameter: str) -> Locator:
    return form.locator(f"[name$='{parameter}']").first


def expect_live_state(page: Page, state: RunState) -> None:
    expect(page.locator("[data-live=state]")).to_have_text(word(state), timeout=60_000)


def expect_ended(page: Page, state: RunState, *, seconds: float = 120) -> None:
    """Wait for the page to show by itself that the run has ended so."""
    expect(page.locator("main .ds-tag").first).to_have_text(word(state), timeout=seconds * 1000)


def test_wrong_values_are_all_named_at_once_and_nothing_is_lost(team: Page, screenshots: Path) -> None:
    form = open_form(team, TEMPLATE)
    picture(team, screenshots, "form", full=True)
    form.locator("[name=agency]").select_option(NAV)
    field(form, "alpha").fill("9")
    field(form, "power").fill("0,1")
    form.locator("button[type=submit]:not([formaction])").click()
    expect(team.locator(".ds-error-summary li")).to_have_count(2)
    assert team.locator("[aria-invalid=true]").count() == 2
    assert field(form, "alpha").input_value() == "9"
    picture(team, screenshots, "form-errors", full=True)


def test_a_run_from_the_form_is_live_until_it_ends(team: Page, screenshots: Path) -> None:
    start_run(team, "patience", {"seconds": "3"})
    team.evaluate("window.stillHere = true")  # a reload would take it away
    expect_live_state(team, RunState.RUNNING)
    expect(team.locator("[data-live=tail]")).to_contain_text("steg 2", timeout=30_000)
    picture(team, screenshots, "run-running")
    assert team.evaluate("window.stillHere") is True
    expect_ended(team, RunState.SUCCEEDED)
    expect(team.locator("main")).to_contain_text("Tålmodighet lønner seg.")


def test_a_letter_run_by_the_form(lab: Lab, team: Page, screenshots: Path) -> None:
    run = start_run(team, TEMPLATE, {"alpha": "0,01"})
    expect_ended(team, RunState.SUCCEEDED)
    picture(team, screenshots, "run-succeeded", full=True)
    with lab.client("team") as client:
        found = client.get(f"{API}/runs/{run}").raise_for_status().json()
    assert found["parameters"]["alpha"] == 0.01
    provenance = found["provenance"]
    assert provenance["template_digest"].startswith("sha256:")
    assert provenance["image_digest"].startswith("sha256:")
    assert (provenance["engine"], found["attempt"], found["requested_by"]) == ("docker", 1, "team")
    assert found["findings"]
    assert found["figures"][0]["alt"]


def test_a_failing_run_shows_the_cell_and_the_error(lab: Lab, team: Page, screenshots: Path) -> None:
    with lab.client("team") as client:
        body = {"template": "patience", "agency": NAV, "parameters": {"fail": True}}
        run = client.post(f"{API}/runs", json=body).raise_for_status().json()["id"]
        found = lab.wait_for_run(client, run)
        executed = client.get(f"{API}/runs/{run}/notebook").raise_for_status().json()
    assert (found["state"], found["reason"]) == ("failed", "cell_failed")
    assert found["error"]["message"] == "det skulle feile"
    assert "steg 1" in printed(executed), "the executed notebook so far is kept"
    assert "steg 2" not in printed(executed)
    team.goto(f"{CATALOG}/runs/{run}")
    expect(team.locator("main")).to_contain_text("det skulle feile")
    picture(team, screenshots, "run-failed", full=True)


def test_a_run_can_be_cancelled_from_its_page(lab: Lab, team: Page) -> None:
    run = start_run(team, "patience", {"seconds": "120"})
    expect_live_state(team, RunState.RUNNING)
    team.locator("[data-opens=cancel-dialog]").click()
    team.locator("#cancel-dialog button[type=submit]").click()
    expect_ended(team, RunState.CANCELLED, seconds=60)
    with lab.client("team") as client:
        found = client.get(f"{API}/runs/{run}").raise_for_status().json()
    assert (found["state"], found["reason"]) == ("cancelled", "cancelled_by_user")


def test_a_schedule_by_the_form(lab: Lab, team: Page, screenshots: Path) -> None:
    """It fires each minute through the rest of the story; what became of it is asked after the Hub's death."""
    team.goto(f"{CATALOG}/schedules/new?template=patience")
    form = team.locator("form.pr-form")
    form.locator("[name=agency]").select_option(SKATTEETATEN)
    form.locator("[name=title]").fill(SCHEDULE)
    form.locator("#rhythm-own").check()
    form.locator("[name=cron]").fill("* * * * *")
    picture(team, screenshots, "schedule-form", full=True)
    form.locator("button[name=do][value=look]").click()
    expect(team.locator("main")).to_contain_text("Ingenting er lagret ennå")
    picture(team, screenshots, "schedule-check", full=True)
    team.locator("button[name=do][value=save]").click()
    team.wait_for_url(re.compile(r"/schedules/[0-9A-Za-z]{20,}"))
    with lab.client("team") as client:
        (found,) = schedules(client)
        assert (found["state"], found["cron"], found["catch_up"]) == ("active", "* * * * *", "once")


def schedules(client: httpx.Client) -> list[dict[str, Any]]:
    found = client.get(f"{API}/schedules", params={"agency": SKATTEETATEN}).raise_for_status().json()["items"]
    return [schedule for schedule in found if schedule["title"] == SCHEDULE]


def test_a_series_fills_while_one_watches(lab: Lab, team: Page, screenshots: Path) -> None:
    """Half of its runs fail by design: the series is partly done, and what is missing can be run again."""
    team.goto(f"{CATALOG}/templates/patience/series")
    team.locator("[name=agency]").select_option(NAV)
    team.check("#m-seconds-list")
    team.fill("#l-seconds", "0,5\n1")
    team.check("#m-fail-any")
    team.click("text=Vis hva dette blir")
    team.locator("h1", has_text="Dette blir 4 kjøringer").wait_for()
    picture(team, screenshots, "series-plan", full=True)
    team.click("text=Start 4 kjøringer")
    team.wait_for_url(re.compile(r"/sweeps/[0-9A-Za-z]{20,}"))
    team.evaluate(
        """() => {
            window.seen = [];
            const done = document.querySelector("[data-live=done]");
            const bar = document.querySelector("[data-bar=succeeded]");
            const look = () => window.seen.push([done.textContent, Number(bar.getAttribute("width"))]);
            look();
            new MutationObserver(look).observe(done, {childList: true, characterData: true, subtree: true});
            addEventListener("pagehide", () => sessionStorage.setItem("seen", JSON.stringify(window.seen)));
        }"""
    )
    picture(team, screenshots, "series-running")
    expect(team.locator("main .ds-tag", has_text="Delvis ferdig")).to_be_visible(timeout=60_000)
    seen = json.loads(team.evaluate("sessionStorage.getItem('seen')"))
    assert {"1", "2", "3"} & {number for number, _ in seen}, f"the page showed nothing between nothing and all: {seen}"
    sweep = team.url.rstrip("/").rpartition("/")[2]
    with lab.client("team") as client:
        first = client.get(f"{API}/sweeps/{sweep}").raise_for_status().json()
        kept = runs_of(client, sweep, "succeeded")
        assert (first["counts"], first["rounds"]) == ({"failed": 2, "succeeded": 2}, 1)
        team.click("text=Kjør de 2 som mangler")
        expect(team.locator("[data-live=done]")).to_have_text("2")
        expect(team.locator("main .ds-tag", has_text="Delvis ferdig")).to_be_visible(timeout=60_000)
        again = client.get(f"{API}/sweeps/{sweep}").raise_for_status().json()
        assert (again["counts"], again["rounds"]) == ({"failed": 2, "succeeded": 2}, 2)
        assert runs_of(client, sweep, "succeeded") == kept, "what had succeeded was run again"
    picture(team, screenshots, "series-partial", full=True)


def runs_of(client: httpx.Client, sweep: str, state: str) -> list[str]:
    found = client.get(f"{API}/runs", params={"sweep": sweep, "limit": 200}).raise_for_status().json()["items"]
    return sorted(run["id"] for run in found if run["state"] == state)


def test_a_leader_reads_the_report_of_a_series(browser: Browser, lab: Lab, screenshots: Path) -> None:
    with lab.client("team") as client:
        body = {"template": TEMPLATE, "agency": NAV, "grid": {"alpha": [0.01, 0.05, 0.1], "power": [0.7, 0.9]}}
        sweep = client.post(f"{API}/sweeps", json=body).raise_for_status().json()["id"]
        wait_until(
            lambda: client.get(f"{API}/sweeps/{sweep}").json()["state"] == "succeeded", seconds=60, what="the series"
        )
    context = new_context(browser, lab)
    page = context.new_page()
    try:
        sign_in(page, lab, "leader")
        page.goto(f"{CATALOG}/sweeps/{sweep}")
        expect(page.locator("svg.pr-plot--wide")).to_be_visible()
        picture(page, screenshots, "series-succeeded", full=True)
        page.locator("a[href$='/report']").first.click()
        report = page.frame_locator("iframe")
        expect(report.locator("h1")).to_be_visible()
        expect(report.locator("svg").first).to_be_visible()
        page.set_viewport_size({"width": 390, "height": 844})
        page.reload()
        expect(report.locator("h1")).to_be_visible()
        assert max(page.evaluate("document.documentElement.scrollWidth"), frame_width(page)) <= 390
        page.locator("a[href$='/document']").click()
        picture(page, screenshots, "series-report-phone", full=True)
    finally:
        context.close()


def test_a_run_ends_at_its_time_limit(lab: Lab) -> None:
    with lab.client("team") as client:
        body = {"template": "patience", "agency": NAV, "parameters": {"seconds": 300}, "timeout_seconds": 4}
        run = client.post(f"{API}/runs", json=body).raise_for_status().json()["id"]
        found = lab.wait_for_run(client, run, seconds=90)
    assert (found["state"], found["reason"]) == ("timed_out", "time_limit")


def test_a_runner_is_confined(lab: Lab, canary: Canary, docker_client: Any) -> None:
    hosts = sorted({*host_addresses(), *first_addresses(docker_client)})
    asked = question(
        connect=[*((host, canary.port) for host in hosts), *((address, 80) for address in NOWHERE)],
        scan=["hub"],
        paths=["/var/run/docker.sock", "/srv/lab"],
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
    assert inside.reached() == []
    assert canary.hits == before
    assert inside.found["open_ports"]["hub"] == [8000, 8081]
    assert not [name for name in inside.found["environment"] if "TOKEN" in name]


# -- the leader --------------------------------------------------------------------------------------------------------


def test_the_leader_finds_and_reads_the_report(browser: Browser, lab: Lab, screenshots: Path) -> None:
    context = new_context(browser, lab)
    elsewhere: list[str] = []
    context.on("request", lambda request: elsewhere.append(request.url) if not known(request.url, lab) else None)
    page = context.new_page()
    try:
        sign_in(page, lab, "leader")
        page.goto(f"{CATALOG}/runs?agency={NAV}&template={TEMPLATE}&state=succeeded")
        expect(page.locator("tbody tr").first).to_be_visible()
        expect(page.locator("tbody")).not_to_contain_text("Tålmodighetsprøve")
        picture(page, screenshots, "catalog")
        page.locator("main a[href*='/runs/']").first.click()
        page.locator("a[href$='/report']").first.click()
        page.wait_for_url("**/report")
        report = page.frame_locator("iframe")
        expect(report.locator("h1")).to_be_visible()
        expect(report.locator("img, svg").first).to_be_visible()
        assert all(image.get_attribute("alt") for image in report.locator("img").all())
        assert "record.metric" not in report.locator("body").inner_text()
        frame = next(f for f in page.frames if f.parent_frame)
        assert frame.evaluate("self.origin") == "null", "the report has no right to the reader's session"
        picture(page, screenshots, "report")
        page.set_viewport_size({"width": 390, "height": 844})
        page.reload()
        expect(report.locator("h1")).to_be_visible()
        for width in (page.evaluate("document.documentElement.scrollWidth"), frame_width(page)):
            assert width <= 390, "a phone has to scroll sideways"
        picture(page, screenshots, "report-phone")
        page.locator("a[href$='/document']").click()  # the whole report: a full picture of its frame stays blank below
        picture(page, screenshots, "report-phone-whole", full=True)
    finally:
        context.close()
    assert elsewhere == [], "a page calls no third party"


def known(url: str, lab: Lab) -> bool:
    return url.startswith((lab.url, "data:", "blob:", "about:"))


def frame_width(page: Page) -> int:
    frame = next(f for f in page.frames if f.parent_frame)
    return int(frame.evaluate("document.documentElement.scrollWidth"))


def test_somebody_elses_run_is_not_found(lab: Lab) -> None:
    with lab.client("coordinator") as coordinator, lab.client("team") as team:
        body = {"template": TEMPLATE, "agency": "991825827", "parameters": {}}
        run = coordinator.post(f"{API}/runs", json=body).raise_for_status().json()["id"]
        for path in ("", "/notebook", "/report", "/events"):
            assert team.get(f"{API}/runs/{run}{path}").status_code == 404
        assert team.post(f"{API}/runs/{run}/cancel").status_code == 404
        lab.wait_for_run(coordinator, run)


def test_pages_have_no_errors_on_their_console(browser: Browser, lab: Lab) -> None:
    context = new_context(browser, lab)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        sign_in(page, lab, "coordinator")
        said.clear()
        for path in (
            "/",
            "/runs",
            "/templates",
            f"/templates/{TEMPLATE}",
            "/experiments",
            "/members",
        ):
            page.goto(CATALOG + path)
            page.wait_for_load_state("networkidle")
    finally:
        context.close()
    assert said == []


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_killed_hub_finds_its_desks_and_its_runs(lab: Lab, desk: Desk, docker_client: Any) -> None:
    """Two runs are under way and one waits when the Hub dies; they end, once each, and the desk has lived on."""
    (container,) = docker_client.containers.list(filters={"label": [LABEL, "no.proverom.kind=desk"]})
    desk.python("open('/home/lab/kept.txt', 'w').write('here')")
    body = {"template": "patience", "agency": NAV, "parameters": {"seconds": 8}}
    with lab.client("team") as client:
        runs = [client.post(f"{API}/runs", json=body).raise_for_status().json()["id"] for _ in range(3)]

        def states() -> list[str]:
            return sorted(client.get(f"{API}/runs/{run}").json()["state"] for run in runs)

        wait_until(
            lambda: states() == ["queued", "running", "running"], seconds=60, what="two runs under way, one waiting"
        )
        docker_client.containers.get(f"proverom-{NAME}-hub").kill()
        with pytest.raises(httpx.TransportError):
            client.get("/hub/health")
        lab.up()
        found = [lab.wait_for_run(client, run, seconds=120) for run in runs]
    assert [run["state"] for run in found] == ["succeeded"] * 3, found
    assert [run["attempt"] for run in found] == [1, 1, 1], "a Hub that is away for a moment costs no attempt"
    container.reload()
    assert container.status == "running"
    assert desk.python("print(open('/home/lab/kept.txt').read())").strip() == "here"


def test_the_schedule_fired_once_for_each_of_its_times(lab: Lab, team: Page, screenshots: Path) -> None:
    """Also for those that came while there was no Hub: they are made up for once, and counted."""
    with lab.client("team") as client:
        (schedule,) = schedules(client)

        def fired() -> list[dict[str, Any]]:
            page = client.get(f"{API}/schedules/{schedule['id']}/firings", params={"limit": 200}).raise_for_status()
            found: list[dict[str, Any]] = page.json()["items"]
            return found

        wait_until(lambda: len(fired()) >= 2, seconds=130, what="two of the schedule's minutes")
        team.goto(f"{CATALOG}/schedules/{schedule['id']}")
        picture(team, screenshots, "schedule", full=True)
        client.post(f"{API}/schedules/{schedule['id']}/pause").raise_for_status()
        firings = fired()
        runs = [lab.wait_for_run(client, firing["run"]) for firing in firings]
        client.delete(f"{API}/schedules/{schedule['id']}").raise_for_status()
    times = sorted(datetime.fromisoformat(firing["scheduled_at"]) for firing in firings)
    assert len(times) >= 2
    assert len(set(times)) == len(times), "it fired twice for one time"
    first, last = min(times), max(times)
    missed = sum(firing["left_out"] for firing in firings)
    assert len(times) + missed == (last - first) / timedelta(minutes=1) + 1, firings
    assert {run["state"] for run in runs} == {"succeeded"}


def test_files_outlive_the_desk(desk: Desk, docker_client: Any) -> None:
    desk.stop()
    assert docker_client.containers.list(all=True, filters={"label": [LABEL, "no.proverom.kind=desk"]}) == []
    desk.start()
    assert desk.python("print(open('/home/lab/kept.txt').read())").strip() == "here"


def test_up_again_keeps_everything(lab: Lab) -> None:
    with lab.client("team") as client:
        before = client.get(f"{API}/runs", params={"limit": 200}).json()["items"]
        password = lab.login("team")["password"]
        lab.up()
        assert client.get(f"{API}/runs", params={"limit": 200}).json()["items"] == before
    assert lab.login("team")["password"] == password


def test_the_readmes_picture(browser: Browser, lab: Lab, screenshots: Path) -> None:
    """The picture in the README is what this test sees. ``PROVEROM_SCREENSHOTS=docs/images`` renews it."""
    context = new_context(browser, lab, device_scale_factor=1.5, viewport={"width": 1280, "height": 1240})
    page = context.new_page()
    try:
        sign_in(page, lab, "leader")
        page.goto(f"{CATALOG}/runs?agency={NAV}&template={TEMPLATE}&state=succeeded")
        page.locator("main a[href*='/runs/']").first.click()
        page.locator("a[href$='/report']").first.click()
        expect(page.frame_locator("iframe").locator("img, svg").first).to_be_visible()
        picture(page, screenshots, "lab")
    finally:
        context.close()


def test_down_leaves_nothing(lab: Lab, docker_client: Any) -> None:
    """The last test of this file: it ends the lab."""
    lab.down()
    assert docker_client.containers.list(all=True, filters={"label": LABEL}) == []
    assert docker_client.networks.list(filters={"label": LABEL}) == []
    assert [n.name for n in docker_client.networks.list() if n.name.startswith(f"proverom-{NAME}-")] == []
    assert docker_client.volumes.list(filters={"label": LABEL}), "people's files are kept"
