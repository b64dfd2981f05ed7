"""In a real browser: a run is followed without a reload, and a report can do nothing even if cleaning had failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from catalog.reports.page import policy
from catalog.reports.service import Reports
from catalog.testing import COOKIE
from experiments.model import Progress, Table
from tests.unit.catalog.web_lab import BASE, WebLab, web_lab
from tests.unit.catalog.world import DONE

HOSTILE = b"""<!DOCTYPE html><html><body><h1>Report</h1>
<script>document.title = 'taken'; fetch('/services/catalog/?leak'); new Image().src = '/services/leak'</script>
<img src="/services/catalog/static/mark.svg?leak" onerror="document.title='taken'">
<style>body { background: url(/services/catalog/static/mark.svg?leak2) }</style>
<svg onload="document.title='taken'"></svg><iframe src="/services/catalog/about"></iframe>
<a id="top" href="/services/catalog/about" target="_top">out</a>
<a id="up" href="javascript:parent.document.title='taken'">js</a>
<form id="form" action="/services/catalog/logout" method="post"><button>send</button></form></body></html>"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[WebLab, str]]:
    with web_lab(tmp_path) as lab:
        server = uvicorn.Server(uvicorn.Config(lab.http.app, port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield lab, f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(10)


def sign_in(page: Any, address: str, who: str) -> None:
    page.context.add_cookies([{"name": COOKIE, "value": f"token-{who}", "url": address}])


def test_a_run_is_followed_to_its_end(served: tuple[WebLab, str], page: Any) -> None:
    lab, address = served
    sign_in(page, address, "kari")
    run = lab.world.submit()
    page.goto(f"{address}{BASE}/runs/{run.id}")
    assert page.inner_text("[data-live=state]") == "Venter"
    page.evaluate("window.same = true")
    token, assignment = lab.world.claim("runner-1")
    page.locator("[data-live=note]", has_text="Starter notatboken").wait_for()
    assert page.inner_text("[data-live=step]") == ""
    lab.world.catalog.queue.heartbeat(
        token, run.id, assignment.attempt, Progress(1, 3, "en <b>linje"), lab.world.clock()
    )
    page.locator("[data-live=step]", has_text="Steg 1 av 3").wait_for()
    assert page.inner_text("[data-live=state]") == "Kjører"
    assert page.inner_text("[data-live=note]") == "Notatboken arbeider seg gjennom stegene."
    assert page.inner_text("[data-live=tail]") == "en <b>linje"
    assert page.evaluate("window.same"), "the page was reloaded"
    page.click("text=Avbryt kjøringen")
    assert page.is_visible("dialog >> text=Avbryte denne kjøringen?")
    page.click("text=Nei, gå tilbake")
    lab.world.catalog.queue.finish(token, run.id, assignment.attempt, DONE, lab.world.clock())
    page.wait_for_selector("text=Et kortere brev ga 2,3 prosentpoeng flere svar.")


def test_a_report_is_as_tall_as_its_frame(served: tuple[WebLab, str], page: Any) -> None:
    lab, address = served
    sign_in(page, address, "leif")
    run = lab.world.finished(lab.world.submit())
    page.goto(f"{address}{BASE}/runs/{run.id}/report")
    inside = page.frames[1]
    inside.wait_for_selector("h1")
    assert inside.evaluate("window.origin") == "null"
    page.locator("#report[style*=height]").wait_for()
    frame = page.evaluate("document.getElementById('report').offsetHeight")
    assert abs(frame - inside.evaluate("document.body.getBoundingClientRect().height")) < 10


def test_a_report_on_a_phone(served: tuple[WebLab, str], page: Any) -> None:
    lab, address = served
    sign_in(page, address, "leif")
    table = Table("svar", tuple(f"kolonne nummer {i}" for i in range(9)), (tuple(range(9)),), "Bred tabell")
    narrow = Table("smal", ("a", "b"), ((1, 2),))
    run = lab.world.finished(lab.world.submit(), replace(DONE, tables=(table, narrow)))
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}{BASE}/reports/{run.id}/document")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    hints = page.locator(".hint")
    hints.first.wait_for()
    assert [hints.nth(i).is_visible() for i in range(hints.count())] == [True, False]
    page.keyboard.press("Tab")
    assert page.locator("[role=region]:focus").get_attribute("aria-labelledby") == "table-1"
    measure = page.locator(".metrics tbody th").bounding_box()
    value = page.locator(".metrics tbody td").first.bounding_box()
    assert value["y"] >= measure["y"] + measure["height"]


@pytest.mark.parametrize("alone", [False, True])
def test_a_hostile_report_can_do_nothing(
    served: tuple[WebLab, str], page: Any, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    lab, address = served
    sign_in(page, address, "leif")
    run = lab.world.finished(lab.world.submit())
    monkeypatch.setattr(Reports, "html", lambda *_: HOSTILE)
    path = f"/reports/{run.id}/document" if alone else f"/runs/{run.id}/report"
    leaks: list[str] = []
    page.on("requestfinished", lambda request: leaks.append(request.url) if "leak" in request.url else None)
    page.goto(f"{address}{BASE}{path}")
    inside = page if alone else page.frames[1]
    inside.wait_for_selector("h1")
    title, url = page.title(), page.url
    inside.click("#up")
    inside.click("#form button")
    if not alone:
        inside.click("#top")
    page.wait_for_load_state("networkidle")
    assert page.title() == title
    assert page.url == url
    assert leaks == []
    assert inside.evaluate("window.origin") == "null"
    assert "allow-same-origin" not in policy()
