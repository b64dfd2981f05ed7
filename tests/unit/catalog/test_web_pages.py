"""Every page, for everybody it is for: there, in order, in three languages, and closed to all others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.web.app import FORM_BYTES
from experiments.model import NO_CELL, CellError, Progress, Reason, RunResult, RunState
from tests.unit.catalog.web_lab import BASE, Page, WebLab, web_lab
from tests.unit.catalog.world import NAV, NOTEBOOK, template

FORM = "/templates/letter"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[WebLab]:
    with web_lab(tmp_path) as built:
        yield built


@pytest.fixture
def full(lab: WebLab) -> dict[str, str]:
    """One of each: ids of a finished, a failed, a running and a waiting run and of an experiment."""
    world = lab.world
    experiment = world.experiment(summary="Hvorfor?\n\nDerfor.")
    done = world.finished(world.submit(experiment=experiment.id))
    failed = world.submit()
    error = CellError(2, "KeyError", "<b>'svar'</b>", "Traceback ...", "frame['svar']")
    world.finished(failed, RunResult(RunState.FAILED, NOTEBOOK, Reason.CELL_FAILED, error))
    running = world.submit()
    token, assignment = world.claim("runner-of-running")
    world.catalog.queue.heartbeat(token, running.id, assignment.attempt, Progress(1, 3, "en linje\n<i>"), world.clock())
    waiting = world.submit()
    world.catalog.templates.submit(world.viewer("kirsten"), template("letter", "2.0.0"))
    return {
        "done": done.id,
        "failed": failed.id,
        "running": running.id,
        "waiting": waiting.id,
        "experiment": experiment.id,
    }


PAGES = [
    ("kari", "/"),
    ("leif", "/"),
    ("kirsten", "/"),
    ("root", "/"),
    ("nobody", "/"),
    ("kari", "/about"),
    (None, "/about"),
    ("kari", "/templates"),
    ("kirsten", "/templates?old=1"),
    ("kari", FORM),
    ("leif", FORM),
    ("kari", FORM + "?run={done}"),
    ("sara", "/templates/waiting"),
    ("kirsten", "/templates/new"),
    ("sara", "/templates/letter/versions/2.0.0/approve"),
    ("sara", "/templates/letter/versions/1.0.0/deprecate"),
    ("kari", "/runs"),
    ("leif", "/runs?state=failed&q=brev"),
    ("kari", "/runs/{done}"),
    ("kari", "/runs/{failed}"),
    ("kari", "/runs/{running}"),
    ("leif", "/runs/{waiting}"),
    ("kari", "/runs/{running}/cancel"),
    ("leif", "/runs/{done}/report"),
    ("kari", "/experiments"),
    ("kari", "/experiments/new"),
    ("kari", "/experiments/{experiment}"),
    ("kari", "/experiments/{experiment}/edit"),
    ("kari", f"/agencies/{NAV}"),
    ("kirsten", "/members"),
    ("root", "/members?ended=1"),
]


@pytest.mark.parametrize("language", ["nb", "nn", "en"])
def test_every_page_is_whole(lab: WebLab, full: dict[str, str], language: str) -> None:
    for who, path in PAGES:
        response = lab.get(path.format(**full), who, language)
        assert response.status_code == 200, (who, path, response.text[-500:])
        page = Page(response.text)
        assert page.faults() == [], (who, path)
        assert page.all("html")[0]["lang"] == language
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert "'unsafe-inline'" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        nonce = re.search(r"'nonce-([^']+)'", response.headers["content-security-policy"])
        assert nonce
        assert {script.get("nonce") for script in page.all("script")} == {nonce[1]}


CLOSED = [
    ("siri", "/runs/{done}", 404),
    ("siri", "/runs/{done}/report", 404),
    ("siri", "/reports/{done}/document", 404),
    ("siri", "/reports/{done}/report.pdf", 404),
    ("siri", "/experiments/{experiment}", 404),
    ("siri", "/experiments/{experiment}/edit", 404),
    ("siri", "/runs/{running}/cancel", 404),
    ("siri", f"/agencies/{NAV}", 404),
    ("kari", "/templates/waiting", 403),
    ("leif", "/templates/new", 403),
    ("kari", "/members", 403),
    ("leif", "/experiments/{experiment}/edit", 403),
    ("leif", "/experiments/new", 403),
    ("kari", "/templates/letter/versions/2.0.0/approve", 403),
    ("kari", "/nope", 404),
    ("kari", "/templates/%2e%2e%2f", 404),
    ("kari", "/runs/' OR 1=1--", 404),
    ("kari", "/runs?cursor=nonsense", 422),
    ("kari", "/templates/letter?version=9.9.9", 404),
    ("kirsten", "/members/none/end", 404),
]


def test_what_is_not_for_you(lab: WebLab, full: dict[str, str]) -> None:
    for who, path, status in CLOSED:
        response = lab.get(path.format(**full), who)
        assert response.status_code == status, (who, path)
        assert Page(response.text).faults() == []


def test_nobody_signed_in_is_sent_to_sign_in_and_back(lab: WebLab) -> None:
    response = lab.get("/runs?state=failed", None)
    assert response.status_code == 302
    assert response.headers["location"] == f"/hub/login?next={BASE}/runs?state=failed"
    sent = lab.http.post(f"{BASE}{FORM}", data={"agency": NAV}, follow_redirects=False)
    assert sent.headers["location"] == f"/hub/login?next={BASE}/"


def test_a_hub_that_is_away(lab: WebLab) -> None:
    lab.identity.away = True
    assert lab.get("/").status_code == 503


def test_scripts_get_no_page(lab: WebLab) -> None:
    for mode in ("cors", "no-cors", "same-origin"):
        assert lab.get("/", headers={"Sec-Fetch-Mode": mode}).status_code == 403
    assert lab.get("/", headers={"Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_files_of_the_pages_are_public(lab: WebLab) -> None:
    style = next(
        link["href"] for link in Page(lab.get("/about", None).text).all("link") if "app.css" in str(link["href"])
    )
    response = lab.http.get(str(style))
    assert response.status_code == 200
    assert "immutable" in response.headers["cache-control"]
    assert lab.http.get(f"{BASE}/static/app.css").headers["cache-control"] == "public, max-age=3600"
    assert lab.http.get(f"{BASE}/static/../settings.py").status_code == 404
    assert lab.http.get(f"{BASE}/static/%2e%2e/settings.py").status_code == 404


def test_files_of_the_design_system_come_from_where_they_were_installed(tmp_path: Path) -> None:
    (tmp_path / "node" / "@digdir").mkdir(parents=True)
    (tmp_path / "node" / "@digdir" / "a.css").write_text("a {}")
    with web_lab(tmp_path, vendor_dir=tmp_path / "node", engine="local") as lab:
        assert lab.http.get(f"{BASE}/static/vendor/@digdir/a.css").text == "a {}"
        page = lab.get("/about", None)
        assert "static/vendor/@digdir/designsystemet-css" in page.text
        assert "For trying out" in page.text, "a lab without a container engine says so on every page"


def test_the_language_is_remembered(lab: WebLab) -> None:
    response = lab.get("/runs?lang=nn&state=failed")
    assert '<html lang="nn"' in response.text
    assert "proverom_lang=nn" in response.headers["set-cookie"]
    assert f'href="{BASE}/runs?state=failed&amp;lang=en"' in response.text
    assert "set-cookie" not in lab.get("/runs").headers
    assert '<html lang="nb"' in lab.get("/", lang="xx").text


def test_findings_come_first(lab: WebLab, full: dict[str, str]) -> None:
    for path in ("/", "/runs", f"/runs/{full['done']}"):
        assert "Et kortere brev ga 2,3 prosentpoeng flere svar." in lab.get(path, "leif").text
    assert lab.get("/", "leif").text.index("What was found lately") < lab.get("/", "leif").text.index("My agencies")
    assert "/hub/spawn/kari/nav" in lab.get("/").text
    assert "/hub/spawn" not in lab.get("/", "leif").text


def test_an_admin_can_run_but_has_no_desk_where_the_hub_would_refuse_one(lab: WebLab) -> None:
    page = lab.get("/", "root").text
    assert "/hub/spawn" not in page
    assert "Start an experiment" in page


def test_what_a_run_under_way_is_doing(lab: WebLab) -> None:
    def doing(run: str) -> str:
        said = re.search(r'data-live="note"[^>]*>([^<]+)<', lab.get(f"/runs/{run}").text)
        assert said
        return said[1]

    run = lab.world.submit().id
    assert doing(run) == "The lab is finding room for it."
    token, assignment = lab.world.claim("runner-1")
    assert doing(run) == "Starting the notebook …"
    lab.world.catalog.queue.heartbeat(token, run, assignment.attempt, Progress(0, 3, ""), lab.world.clock())
    assert doing(run) == "The notebook is working through its steps."
    lab.world.catalog.queue.give_back(run, assignment.attempt, lab.world.clock())
    assert doing(run) == "The run was interrupted. The lab is finding room for another try."
    lab.world.claim("runner-2")
    lab.world.catalog.runs.cancel(lab.world.viewer("kari"), run)
    assert doing(run) == "The run is being cancelled …"


def test_filters_and_pages(lab: WebLab) -> None:
    for _ in range(27):
        lab.world.submit()
    first = lab.get("/runs?state=queued").text
    assert first.count('class="pr-finding"') == 25
    more = re.search(r'href="([^"]+cursor=[^"]+)"', first)
    assert more
    second = lab.get(more[1].replace("&amp;", "&").removeprefix(BASE)).text
    assert second.count('class="pr-finding"') == 2
    assert "Nothing matches" in lab.get("/runs?state=failed").text


def test_a_running_run(lab: WebLab, full: dict[str, str]) -> None:
    page = lab.get(f"/runs/{full['running']}").text
    assert "Step 1 of 3" in page
    assert "en linje\n&lt;i&gt;" in page
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page
    events = re.search(r'data-events="([^"]+)"', page)
    assert events
    with lab.http.stream(
        "GET", events[1].replace("&amp;", "&"), headers={**lab.cookie("kari", "en"), "Sec-Fetch-Mode": "cors"}
    ) as stream:
        assert stream.status_code == 200
        lab.post(f"/runs/{full['running']}/cancel")
    assert "cancel" not in lab.get(f"/runs/{full['done']}").text.split("<main")[1].lower().replace("cancelled", "")


def test_a_failed_run_is_explained(lab: WebLab, full: dict[str, str]) -> None:
    page = lab.get(f"/runs/{full['failed']}").text
    assert "A step in the template failed while it was running." in page
    assert "Cell 3 of the executed notebook stopped with this error" in page
    assert "KeyError: &lt;b&gt;" in page
    assert "frame[&#39;svar&#39;]" in page


def test_a_failure_of_no_cell_names_none(lab: WebLab) -> None:
    run = lab.world.submit()
    error = CellError(NO_CELL, "EngineError", "no image")
    lab.world.finished(run, RunResult(RunState.FAILED, NOTEBOOK, Reason.START_FAILED, error))
    page = lab.get(f"/runs/{run.id}").text
    assert "The run stopped with this error:" in page
    assert "Cell " not in page


def test_the_document_is_served_from_an_opaque_origin(lab: WebLab, full: dict[str, str]) -> None:
    response = lab.get(f"/reports/{full['done']}/document", "leif")
    assert response.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    frame = Page(lab.get(f"/runs/{full['done']}/report", "leif").text).all("iframe")
    assert [f["sandbox"] for f in frame] == ["allow-scripts"]
    assert lab.get(f"/runs/{full['running']}/report").headers["location"] == f"{BASE}/runs/{full['running']}"
    assert lab.get(f"/reports/{full['running']}/document").status_code == 404
    download = lab.get(f"/reports/{full['done']}/report.html")
    assert download.headers["content-disposition"] == f'attachment; filename="report-{full["done"]}.html"'


def test_a_body_too_large(lab: WebLab) -> None:
    assert lab.post(FORM, {"p-office": "x" * (FORM_BYTES + 1)}).status_code == 413


@given(
    query=st.dictionaries(
        st.sampled_from(["agency", "template", "state", "experiment", "q", "cursor"]), st.text(max_size=30), max_size=4
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_filter_breaks_the_listing(lab: WebLab, query: dict[str, str]) -> None:
    assert lab.get("/runs", params=query).status_code in (200, 404, 422)
