"""A run while it works: how far it is, how long is left, what it waits for; through a reload and a cut connection."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from catalog import wording
from catalog.i18n import translator
from catalog.store.records import NewSchedule, RunFilter
from catalog.testing import COOKIE
from experiments.model import Progress
from tests.unit.catalog.web_lab import BASE, Page, WebLab, web_lab
from tests.unit.catalog.world import DONE, NAV, SYSTEM

EVENTS = "/api/v1/runs/{}/events?notices=true"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[WebLab]:
    with web_lab(tmp_path) as built:
        yield built


class Wire:
    """A listener in front of the lab that can cut every connection and refuse new ones."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self.whole = True
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.whole = False
        for end in self._open:
            with closing(end):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it was closed already
        self._open = []

    def mend(self) -> None:
        self.whole = True

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self.whole:
                self.refused += 1
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(a, b), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, to: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                to.sendall(data)
        except OSError:
            pass
        for end in (source, to):
            end.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[WebLab, Wire]]:
    with web_lab(tmp_path) as lab:
        server = uvicorn.Server(uvicorn.Config(lab.http.app, port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        wire = Wire(server.servers[0].sockets[0].getsockname()[1])
        yield lab, wire
        wire.close()
        server.should_exit = True
        thread.join(10)


def beat(lab: WebLab, token: str, run: str, attempt: int, done: int, tail: str = "") -> None:
    lab.world.catalog.queue.heartbeat(token, run, attempt, Progress(done, 4, tail), lab.world.clock())


def usual(lab: WebLab, seconds: float) -> None:
    """Let an earlier run have taken so long."""
    run = lab.world.submit()
    token, assignment = lab.world.claim(f"r-{run.id[-8:].lower()}")
    lab.world.clock.advance(seconds)
    lab.world.catalog.queue.finish(token, run.id, assignment.attempt, DONE, lab.world.clock())


# -- without JavaScript ------------------------------------------------------------------------------------------------


def begun(lab: WebLab, **fields: object) -> tuple[str, str, int]:
    """Submit a run and let it begin; return its id, its runner's token and its attempt."""
    run = lab.world.submit(**fields)
    token, assignment = lab.world.claim(f"r-{run.id[-8:].lower()}")
    return run.id, token, assignment.attempt


def left(html: str) -> str:
    found = re.search(r'data-live="left">([^<]*)<', html)
    assert found
    return found[1]


def waits(html: str) -> str:
    found = re.search(r'data-live="waits">([^<]*)<', html)
    assert found
    return found[1].replace("&#39;", "'")


def test_how_long_is_left_by_earlier_runs(lab: WebLab) -> None:
    for _ in range(2):
        usual(lab, 120)
    run, token, attempt = begun(lab)
    beat(lab, token, run, attempt, 1)
    text = lab.get(f"/runs/{run}").text
    assert left(text) == "About 2 minutes left"
    assert "Step 1 of 4" in text
    assert Page(text).faults() == []
    lab.world.clock.advance(100)
    assert left(lab.get(f"/runs/{run}").text) == "Less than a minute left"
    lab.world.clock.advance(100)
    assert left(lab.get(f"/runs/{run}").text) == "", "it has outlasted them all"


def test_nothing_is_said_where_nobody_knows(lab: WebLab) -> None:
    run, token, attempt = begun(lab)
    beat(lab, token, run, attempt, 1)
    assert left(lab.get(f"/runs/{run}").text) == ""


def test_what_a_run_waits_for_that_waits_long(lab: WebLab) -> None:
    for _ in range(4):
        begun(lab)
    first, second = lab.world.submit(), lab.world.submit()
    assert waits(lab.get(f"/runs/{second.id}").text) == "", "it has only just come"
    lab.world.clock.advance(60)
    full = "The agency has 4 runs under way, as many as it may have at a time."
    assert waits(lab.get(f"/runs/{first.id}").text) == f"{full} This is the agency's next run."
    assert waits(lab.get(f"/runs/{second.id}").text) == f"{full} One of the agency's runs comes before this one."
    assert waits(lab.get(f"/runs/{second.id}", "leif").text)
    experiment = lab.world.experiment(visibility="lab")
    shared = lab.world.submit(experiment=experiment.id)
    lab.world.clock.advance(60)
    assert waits(lab.get(f"/runs/{shared.id}").text)
    assert waits(lab.get(f"/runs/{shared.id}", "siri").text) == "", "another agency's queue is its own affair"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, ""), (-3, ""), (0.2, "Under et minutt igjen"), (49, "Under et minutt igjen"),
        (50, "Omtrent 1 minutt igjen"), (89, "Omtrent 1 minutt igjen"), (150, "Omtrent 2 minutter igjen"),
        (3599, "Omtrent 1 time igjen"), (2.4 * 3600, "Omtrent 2 timer igjen"),
    ],
)  # fmt: skip
def test_left_in_words(seconds: float | None, said: str) -> None:
    assert wording.left(translator("nb"), seconds) == said


def test_the_last_lines_steer_nobody(lab: WebLab) -> None:
    run, token, attempt = begun(lab)
    beat(lab, token, run, attempt, 1, "\x1b[31mrød\x1b[0m <script>x</script>\x07\x1b]0;tittel\x07\u202eabc")
    text = lab.get(f"/runs/{run}").text
    assert "rød &lt;script&gt;x&lt;/script&gt;\\u202eabc" in text
    assert "\x1b" not in text
    tail = lab.world.catalog.runs.get(SYSTEM, run).tail
    assert tail == "rød <script>x</script>\\u202eabc"


def test_a_run_can_be_tried_again_from_its_page(lab: WebLab) -> None:
    run = lab.world.submit()
    lab.post(f"/runs/{run.id}/cancel")
    assert "/retry" in lab.get(f"/runs/{run.id}").text
    again = lab.post(f"/runs/{run.id}/retry").headers["location"].rsplit("/", 1)[1]
    assert "A new try of an earlier run" in lab.get(f"/runs/{again}").text
    assert lab.post(f"/runs/{run.id}/retry", who="siri").status_code == 404
    assert lab.post(f"/runs/{run.id}/retry", who="leif").status_code == 403


# -- the events ----------------------------------------------------------------------------------------------------


def parsed(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":")
        if "data" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_events_hold_the_whole_state_and_the_bell(lab: WebLab) -> None:
    run = lab.world.finished(lab.world.submit())
    address = EVENTS.format(run.id)
    told = parsed(lab.get(address).text)
    assert [name for name, _ in told] == ["notices", "run"]
    assert told[0][1] == {"unread": 1}
    assert told[1][1] == {
        "state": "succeeded", "attempt": 1, "cells_done": 0, "cells_total": 0, "tail": "", "reason": None,
        "cancel_requested": False, "seconds_left": None, "waits": None,
    }  # fmt: skip
    assert [name for name, _ in parsed(lab.get(address.partition("?")[0]).text)] == ["run"], "clients ask for runs only"


# -- in a browser --------------------------------------------------------------------------------------------------


def opened(page: Any, wire: Wire, path: str, who: str = "kari") -> None:
    address = f"http://127.0.0.1:{wire.port}"
    page.context.add_cookies([{"name": COOKIE, "value": f"token-{who}", "url": address}])
    page.goto(f"{address}{BASE}{path}")


def test_progress_goes_on_after_a_reload_and_a_cut(served: tuple[WebLab, Wire], page: Any) -> None:
    lab, wire = served
    for _ in range(2):
        usual(lab, 150)
    run, token, attempt = begun(lab)
    opened(page, wire, f"/runs/{run}")
    beat(lab, token, run, attempt, 1, "linje <b>en</b>")
    page.locator("[data-live=step]", has_text="Steg 1 av 4").wait_for()
    assert page.inner_text("[data-live=left]") == "Omtrent 2 minutter igjen"
    page.reload()
    assert page.inner_text("[data-live=step]") == "Steg 1 av 4", "the page itself knows, before any event"
    beat(lab, token, run, attempt, 2, "linje to")
    page.locator("[data-live=step]", has_text="Steg 2 av 4").wait_for()
    page.evaluate("window.same = true")

    wire.cut()
    page.locator("[data-live=note]", has_text="Kontakten med laben er brutt").wait_for()
    beat(lab, token, run, attempt, 3, "linje tre")
    while not wire.refused:
        page.wait_for_timeout(50)
    wire.mend()
    page.locator("[data-live=step]", has_text="Steg 3 av 4").wait_for()
    assert page.inner_text("[data-live=tail]") == "linje tre"
    assert page.inner_text("[data-live=note]") == "Notatboken arbeider seg gjennom stegene."
    assert page.evaluate("window.same"), "the page was reloaded"

    lab.world.catalog.queue.finish(token, run, attempt, DONE, lab.world.clock())
    page.wait_for_selector("text=Et kortere brev ga 2,3 prosentpoeng flere svar.")


def test_a_lab_that_refuses_for_a_while_is_waited_for(served: tuple[WebLab, Wire], page: Any) -> None:
    lab, wire = served
    run, token, attempt = begun(lab)
    opened(page, wire, f"/runs/{run}")
    beat(lab, token, run, attempt, 1)
    page.locator("[data-live=step]", has_text="Steg 1 av 4").wait_for()
    page.evaluate("window.same = true")
    away = [True]
    refused: list[str] = []

    def answer(route: Any) -> None:
        if away[0]:
            refused.append(route.request.url)
            route.fulfill(status=503, body="")
        else:
            route.continue_()

    page.route("**/events?*", answer)
    page.route("**/health", answer)
    wire.cut()
    wire.mend()
    page.locator("[data-live=note]", has_text="Kontakten med laben er brutt").wait_for()
    while not any("health" in url for url in refused):
        page.wait_for_timeout(50)
    away[0] = False
    beat(lab, token, run, attempt, 2)
    page.locator("[data-live=step]", has_text="Steg 2 av 4").wait_for()
    assert page.evaluate("window.same"), "a refusal by a lab that is away is no reason to lose the page"


def test_the_bell_rings_while_the_page_is_open(served: tuple[WebLab, Wire], page: Any) -> None:
    lab, wire = served
    run, token, attempt = begun(lab)
    opened(page, wire, f"/runs/{run}")
    assert not page.is_visible("[data-bell]")
    lab.world.finished(lab.world.submit())
    beat(lab, token, run, attempt, 1)
    page.locator("[data-bell-count]", has_text="1").wait_for()
    page.click("#bell")
    assert page.inner_text("h1") == "Varsler"


def test_a_waiting_run_says_why_without_a_reload(served: tuple[WebLab, Wire], page: Any) -> None:
    lab, wire = served
    lab.world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=1)
    begun(lab)
    run = lab.world.submit()
    lab.world.clock.advance(60)
    opened(page, wire, f"/runs/{run.id}")
    full = "Virksomheten har en kjøring i gang, og kan bare ha én om gangen."
    assert page.inner_text("[data-live=waits]") == f"{full} Denne er virksomhetens neste kjøring."
    first = next(r for r in lab.world.catalog.queue.active())
    lab.world.catalog.runs.cancel(lab.world.viewer("kari"), first.id)
    lab.world.catalog.queue.give_back(first.id, first.attempt, lab.world.clock())
    page.locator("[data-live=waits]", has_text=re.compile(r"^Denne er virksomhetens neste kjøring.$")).wait_for()
    assert page.is_visible("text=Se virksomhetens kvoter")
    lab.world.claim("r2")
    page.locator("[data-live=quotas]").wait_for(state="hidden")


def test_a_phone_scrolls_one_way_only(served: tuple[WebLab, Wire], page: Any) -> None:
    lab, wire = served
    wanted = NewSchedule("letter", NAV, "0 7 * * 1-5", title="Etlangtnavnutenmellomrom" * 4)
    schedule = lab.world.catalog.schedules.add(lab.world.viewer("kari"), wanted)[0]
    lab.world.catalog.schedules.trigger(lab.world.viewer("kari"), schedule.id)
    lab.world.finished(next(iter(lab.world.catalog.runs.list(SYSTEM, RunFilter(schedule=schedule.id)).items)))
    run, token, attempt = begun(lab)
    beat(lab, token, run, attempt, 1, "x" * 300)
    page.set_viewport_size({"width": 320, "height": 640})
    for path in (
        "/", "/schedules", "/schedules/new", "/schedules/new?template=letter", f"/schedules/{schedule.id}", "/notices",
        "/me", f"/runs/{run}", f"/agencies/{NAV}",
    ):  # fmt: skip
        opened(page, wire, path, "kari")
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path


def test_the_form_shows_what_belongs_to_the_choice(served: tuple[WebLab, Wire], page: Any) -> None:
    _, wire = served
    opened(page, wire, "/schedules/new?template=letter")
    assert not page.is_visible("#monthday")
    page.check("#rhythm-monthly")
    assert page.is_visible("#monthday")
    assert not page.is_visible("#cron")
    page.check("#rhythm-own")
    assert page.is_visible("#cron")
    assert not page.is_visible("#clock")
    page.fill("#cron", "0 6 * * 1")
    page.click("text=Gå videre og se tidspunktene")
    assert page.inner_text("h1") == "Stemmer dette?"
    assert "Mandag 9. mars 2026 kl. 06.00" in page.inner_text("main")
    page.click("text=Lagre tidsplanen")
    page.wait_for_selector("text=Tidsplanen er lagret og slått på.")
    page.click("text=Fjern")
    page.click("dialog >> text=Fjern tidsplanen")
    page.wait_for_selector("text=Tidsplanen er fjernet.")
