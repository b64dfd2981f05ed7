"""In a real browser: a series fills while one watches, survives what breaks, and its pages fit a phone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from catalog.store.records import SweepSubmission
from catalog.testing import COOKIE
from experiments.model import Metric, Reason, RunResult, RunState
from experiments.sweeps import SweepRequest
from tests.unit.catalog.web_lab import BASE, WebLab, web_lab
from tests.unit.catalog.world import DONE, NAV

GRID = SweepRequest(grid={"alpha": [0.01, 0.05, 0.1], "office": ["Oslo", "Bergen"]})
FAILED = RunResult(RunState.FAILED, b"{}", Reason.CELL_FAILED)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[WebLab, str]]:
    with web_lab(tmp_path) as lab:
        server = uvicorn.Server(uvicorn.Config(lab.http.app, port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield lab, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def sweep(served: tuple[WebLab, str]) -> str:
    world = served[0].world
    return world.catalog.sweeps.submit(world.viewer("kari"), SweepSubmission("letter", NAV, GRID))[0].id


class Runner:
    """A runner of a series, one run at a time."""

    def __init__(self, lab: WebLab) -> None:
        self.world = lab.world
        self.token = self.world.open_runner("r1", slots=6, batch_limit=6)
        self.done: list[str] = []

    def run(self, *, bad: bool = False) -> None:
        assignment = self.world.catalog.queue.claim(self.token, self.world.clock(), self.done)
        assert assignment is not None
        self.world.clock.advance(30)
        alpha = float(assignment.parameters["alpha"] or 0)
        good = replace(DONE, metrics=(Metric("difference", 100 * alpha, "pp"),))
        result = FAILED if bad else good
        self.world.catalog.queue.finish(self.token, assignment.run, assignment.attempt, result, self.world.clock())
        self.done.append(assignment.run)


def sign_in(page: Any, address: str, who: str) -> None:
    page.context.add_cookies([{"name": COOKIE, "value": f"token-{who}", "url": address}])


def test_a_series_fills_while_one_watches(served: tuple[WebLab, str], page: Any, sweep: str) -> None:
    lab, address = served
    sign_in(page, address, "kari")
    page.goto(f"{address}{BASE}/sweeps/{sweep}")
    assert page.inner_text("[data-live=done]") == "0"
    page.evaluate("window.same = true")
    runner = Runner(lab)
    for number in range(1, 5):
        runner.run(bad=number == 2)
        page.locator("[data-live=done]", has_text=str(number)).wait_for()
    assert page.inner_text("[data-live=succeeded]") == "3"
    assert page.inner_text("[data-live=failed]") == "1"
    assert page.inner_text("[data-live=waiting]") == "2"
    assert float(page.get_attribute("[data-bar=succeeded]", "width")) == 50
    assert "4 flere kjøringer er ferdige" in page.inner_text("[data-live=newer]")
    assert page.inner_text("[data-live=note]") == "Omtrent 1 min igjen."
    assert page.evaluate("window.same"), "the page was reloaded"
    page.context.set_offline(True)
    page.context.set_offline(False)
    page.click("text=Vis de nyeste resultatene")
    page.locator("svg.pr-plot--wide").wait_for()
    assert page.inner_text("[data-live=done]") == "4", "a reload begins with all of it"
    assert page.locator("[data-live=newer]").is_hidden()
    page.click("text=Avbryt serien")
    assert page.is_visible("dialog >> text=Avbryte denne serien?")
    page.click("text=Nei, gå tilbake")
    runner.run()
    runner.run()
    page.locator("text=Les rapporten").wait_for()
    assert page.locator(".ds-tag", has_text="Delvis ferdig").is_visible()
    assert page.is_visible("text=Kjør den ene som mangler (1)")


def test_the_form_shows_only_what_was_chosen(served: tuple[WebLab, str], page: Any) -> None:
    _, address = served
    sign_in(page, address, "kari")
    page.goto(f"{address}{BASE}/templates/letter/series")
    assert page.is_visible("#p-alpha")
    assert page.is_hidden("#l-alpha")
    assert page.is_hidden("#table")
    assert page.is_hidden("#m-alpha-any"), "a grid cannot take everything"
    page.check("#m-alpha-range")
    assert page.is_hidden("#p-alpha")
    assert page.is_visible("#step-alpha")
    page.check("#kind-sample")
    assert page.is_hidden("#step-alpha")
    assert page.is_visible("#log-alpha")
    assert page.is_visible("#m-alpha-any")
    page.check("#kind-points")
    assert page.is_visible("#table")
    assert page.is_visible("#p-alpha")
    page.check("#kind-grid")
    page.fill("#from-alpha", "0,01")
    page.fill("#to-alpha", "0,03")
    page.fill("#step-alpha", "0,01")
    page.click("text=Vis hva dette blir")
    page.locator("h1", has_text="Dette blir 3 kjøringer").wait_for()
    page.click("text=Endre verdiene")
    assert page.input_value("#to-alpha") == "0,03"
    page.click("text=Vis hva dette blir")
    page.click("text=Start 3 kjøringer")
    page.locator("[data-live=waiting]", has_text="3").wait_for()


def test_pages_fit_a_phone(served: tuple[WebLab, str], page: Any, sweep: str) -> None:
    lab, address = served
    sign_in(page, address, "kari")
    runner = Runner(lab)
    for number in range(6):
        runner.run(bad=number == 2)
    page.set_viewport_size({"width": 320, "height": 700})
    paths = ["/sweeps", "/templates/letter/series"]
    paths += [f"/sweeps/{sweep}{rest}" for rest in ("", "/runs", "/report", "/document", "?parameter=office")]
    for path in paths:
        page.goto(f"{address}{BASE}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") == 320, path
    page.goto(f"{address}{BASE}/sweeps/{sweep}")
    assert page.locator("svg.pr-plot--narrow").is_visible()
    assert page.locator("svg.pr-plot--wide").is_hidden()
