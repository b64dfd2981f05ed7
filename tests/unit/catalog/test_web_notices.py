"""Notices on the pages: the bell, the list, and what comes by e-mail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from catalog.access import NotFound
from catalog.store import Unavailable
from catalog.store.notices import Notices
from catalog.store.records import NewSchedule, SweepSubmission
from experiments.model import Reason, RunResult, RunState
from experiments.notices import Wish
from experiments.sweeps import SweepRequest
from tests.unit.catalog.web_lab import BASE, Page, WebLab, web_lab
from tests.unit.catalog.world import DONE, NAV, NOTEBOOK, SYSTEM

FAILED = RunResult(RunState.FAILED, NOTEBOOK, Reason.CELL_FAILED)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[WebLab]:
    with web_lab(tmp_path, sends_mail=True) as built:
        yield built


def bell(html: str) -> tuple[bool, str]:
    """Return whether the bell shows a number, and which."""
    found = re.search(r"data-bell( hidden)?><span data-bell-count>([^<]*)<", html)
    assert found
    return not found[1], found[2]


def test_the_bell_counts_what_is_not_read(lab: WebLab) -> None:
    assert bell(lab.get("/").text) == (False, "0")
    lab.world.finished(lab.world.submit())
    lab.world.finished(lab.world.submit(), FAILED)
    for path in ("/", "/runs", "/notices", "/templates/letter"):
        assert bell(lab.get(path).text) == (True, "2")
    assert bell(lab.get("/", "leif").text) == (False, "0")
    assert "data-bell" not in lab.get("/about", None).text
    assert bell(lab.get("/runs/none").text) == (True, "2")


def test_a_hundred_is_said_shortly(lab: WebLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Notices, "unread", lambda *_: 100)
    assert bell(lab.get("/").text) == (True, "99+")


def test_a_bell_that_cannot_be_read_breaks_no_page(lab: WebLab, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> int:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(Notices, "unread", away)
    assert lab.get("/about").status_code == 200
    assert lab.get("/runs/none").status_code == 404


def test_what_has_ended_is_told_and_can_be_read(lab: WebLab) -> None:
    assert "You have no notices." in lab.get("/notices").text
    run = lab.world.finished(lab.world.submit())
    lab.world.finished(lab.world.submit(), FAILED)
    page = lab.get("/notices")
    assert Page(page.text).faults() == []
    assert "The run of “Kortere brev” failed" in page.text
    assert "The run of “Kortere brev” is finished" in page.text
    assert page.text.count("data-unread") == 2
    links = re.findall(rf'href="{BASE}(/notices/[^"]+)"', page.text)
    followed = lab.get(links[1])
    assert followed.headers["location"] == f"{BASE}/runs/{run.id}"
    assert bell(lab.get("/notices").text) == (True, "1")
    assert lab.post("/notices/read").status_code == 303
    assert bell(lab.get("/notices").text) == (False, "0")
    assert "Mark all as read" not in lab.get("/notices").text


def test_whoever_has_looked_has_read(lab: WebLab, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = lab.world.finished(lab.world.submit()), lab.world.finished(lab.world.submit())
    lab.get(f"/runs/{run.id}", "leif")
    assert bell(lab.get("/").text) == (True, "2"), "another's look is not one's own"
    assert bell(lab.get(f"/runs/{run.id}").text) == (True, "1")
    assert bell(lab.get("/").text) == (True, "1")

    def away(*_: object) -> None:
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(Notices, "seen", away)
    assert lab.get(f"/runs/{other.id}").status_code == 200, "it can be read all the same"


def test_notices_of_series_and_schedules(lab: WebLab) -> None:
    world = lab.world
    request = SweepSubmission("letter", NAV, SweepRequest(grid={"alpha": [0.01, 0.05]}))
    sweep, _ = world.catalog.sweeps.submit(world.viewer("kari"), request)
    world.catalog.sweeps.cancel(world.viewer("kari"), sweep.id)
    experiment = world.experiment()
    wanted = NewSchedule("letter", NAV, "0 7 * * *", experiment=experiment.id)
    schedule = world.catalog.schedules.add(world.viewer("both"), wanted)[0]
    texts = lab.get("/notices").text
    assert "The series of “Kortere brev” was cancelled" in texts
    assert "0 of 2 runs succeeded." in texts
    link = re.search(rf'href="{BASE}(/notices/[^"]+)"', texts)
    assert link
    assert lab.get(link[1]).headers["location"] == f"{BASE}/sweeps/{sweep.id}"
    assert lab.get(f"/sweeps/{sweep.id}").status_code == 200, "what a notice and an e-mail link to is there"
    world.catalog.experiments.change(SYSTEM, experiment.id, status="stopped")
    told = lab.get("/notices", "both").text
    assert "The schedule for “Kortere brev” has been stopped" in told
    assert "The experiment it belongs to is closed." in told
    stopped = re.search(rf'href="{BASE}(/notices/[^"]+)"', told)
    assert stopped
    assert lab.get(stopped[1], "both").headers["location"] == f"{BASE}/schedules/{schedule.id}"


def test_nobody_reads_anothers(lab: WebLab) -> None:
    lab.world.finished(lab.world.submit())
    (notice,) = lab.world.catalog.notices.list(lab.world.viewer("kari")).items
    for who in ("siri", "leif", "root"):
        assert lab.get(f"/notices/{notice.id}", who).status_code == 404
        with pytest.raises(NotFound):
            lab.world.catalog.notices.get(lab.world.viewer(who), notice.id)
        lab.post("/notices/read", who=who)
    assert lab.get("/notices/none").status_code == 404
    assert lab.get("/notices/%00").status_code == 404
    assert bell(lab.get("/").text) == (True, "1")
    assert lab.post("/notices/read", {"csrf": "forged"}).status_code == 403
    assert lab.get("/notices", None).status_code == 302


def test_older_ones_are_on_the_next_page(lab: WebLab) -> None:
    for _ in range(27):
        lab.world.finished(lab.world.submit())
    first = lab.get("/notices").text
    older = re.search(r'href="([^"]+)" rel="next"', first)
    assert older
    assert lab.get(older[1].removeprefix(BASE)).text.count("data-unread") == 2


# -- one's own page ----------------------------------------------------------------------------------------------------

WISH = {"mail": "kari@nav.example", "wish": "failures", "language": "nn"}


def test_what_comes_by_mail_is_chosen_and_confirmed(lab: WebLab) -> None:
    page = lab.get("/me")
    assert Page(page.text).faults() == []
    assert "sends no e-mail" not in page.text
    saved = lab.post("/me", WISH)
    assert saved.headers["location"] == f"{BASE}/me?saved=1"
    assert "E-mail goes to kari@nav.example." in lab.get("/me?saved=1").text
    chosen = lab.world.catalog.notices.settings(lab.world.viewer("kari"))
    assert (chosen.mail, chosen.wish, chosen.language) == ("kari@nav.example", Wish.FAILURES, "nn")
    kept = Page(lab.get("/me").text)
    assert [i["value"] for i in kept.all("input") if "checked" in i] == ["failures"]
    assert "You also get e-mail." in lab.get("/notices").text
    lab.post("/me", {**WISH, "mail": ""})
    assert "You get no e-mail from the lab." in lab.get("/me?saved=1").text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mail": "kari"}, "mail"),
        ({"mail": "kari@nav.example\r\nBcc: x@y.example"}, "mail"),
        ({"wish": "most"}, "wish-all"),
        ({"language": "de"}, "language"),
    ],
)
def test_what_cannot_be_chosen(lab: WebLab, change: dict[str, str], field: str) -> None:
    lab.post("/me", WISH)
    response = lab.post("/me", {**WISH, **change})
    assert response.status_code == 422
    assert Page(response.text).faults() == []
    assert f'href="#{field}"' in response.text
    settings = lab.world.catalog.notices.settings(lab.world.viewer("kari"))
    assert (settings.mail, settings.wish) == ("kari@nav.example", Wish.FAILURES)


def test_a_lab_without_a_mail_server_says_so(tmp_path: Path) -> None:
    with web_lab(tmp_path) as lab:
        assert "This lab sends no e-mail now" in lab.get("/me").text
        assert lab.post("/me", WISH).status_code == 303
        assert "You also get e-mail." not in lab.get("/notices").text
        assert lab.post("/me", {**WISH, "csrf": "forged"}).status_code == 403


def test_it_says_who_one_is(lab: WebLab) -> None:
    ends = lab.world.clock().date() + timedelta(days=60)
    lab.world.catalog.members.add(SYSTEM, person="kari", agency=NAV, role="leader", ends=ends)
    page = lab.get("/me").text
    assert "Arbeids- og velferdsetaten" in page
    assert "Leader, until 1 May 2026" in page
    assert "The whole lab" in lab.get("/me", "root").text


def test_a_title_that_tries_to_be_markup(lab: WebLab) -> None:
    from tests.unit.catalog.world import publish, template

    publish(lab.world.catalog, template("sly", title="<script>x</script>"))
    lab.world.finished(lab.world.submit(template="sly"), replace(DONE, findings=()))
    assert "<script>x" not in lab.get("/notices").text
