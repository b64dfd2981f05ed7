"""An agency's page: its quotas and what is in use of them, for its own people, in three languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.catalog.web_lab import BASE, Page, WebLab, web_lab
from tests.unit.catalog.world import GIB, NAV, SKATT, SYSTEM

PATH = f"/agencies/{NAV}"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[WebLab]:
    with web_lab(tmp_path) as built:
        yield built


def words(html: str) -> str:
    """Return what the page's main part says, as one line."""
    main = re.sub(r"</?a\b[^>]*>", "", html.split("<main")[1].split("</main>")[0])
    main = re.sub(r"<[^>]+>", " ", main)
    return " ".join(main.replace("&#39;", "'").split())


def rows(html: str) -> list[list[str]]:
    table = html.split("<tbody>")[1].split("</tbody>")[0]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("</tr>")[:-1]]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in cells]


@pytest.mark.parametrize("language", ["nb", "nn", "en"])
def test_what_is_allowed_and_what_is_in_use(lab: WebLab, language: str) -> None:
    lab.world.catalog.agencies.change(SYSTEM, NAV, max_memory=5 * GIB)
    for _ in range(3):
        lab.world.submit()
    lab.world.claim("r1")
    response = lab.get(PATH, "kari", language)
    assert response.status_code == 200
    page = Page(response.text)
    assert page.faults() == []
    half = {"nb": "0,5", "nn": "0,5", "en": "0.5"}[language]
    none = {"nb": "Ingen grense", "nn": "Inga grense", "en": "No limit"}[language]
    found = rows(response.text)
    assert [row[1:4] for row in found] == [["1", "4", "1"], ["2 GiB", "5 GiB", "2 GiB"], [half, none, half]]
    more = {"nb": "1 kjøring til", "nn": "1 køyring til", "en": "1 more run"}[language]
    assert found[1][4] == more
    assert [meter["value"] for meter in page.all("meter")] == ["0.25", "0.4"], "no meter where there is no limit"
    says = {
        "nb": "1 kjøring er i gang. 2 kjøringer venter.",
        "nn": "1 køyring er i gang. 2 køyringar ventar.",
        "en": "1 run is under way. 2 runs wait.",
    }[language]
    assert says in words(response.text)
    links = {str(a["href"]) for a in page.all("a")}
    assert {f"{BASE}/runs?agency={NAV}&state=running", f"{BASE}/runs?agency={NAV}&state=queued"} <= links


def test_an_idle_agency_says_so(lab: WebLab) -> None:
    said = words(lab.get(PATH).text)
    assert "No run is under way, and none waits." in said
    assert "begins" not in said
    assert rows(lab.get(PATH).text)[0][1:] == ["0", "4", "1", "4 more runs"]
    assert "The lab's administrators set the quotas." in said
    assert "proverom agencies change" not in said
    assert "proverom agencies change nav" in words(lab.get(PATH, "root").text)


def test_what_those_that_wait_wait_for(lab: WebLab) -> None:
    lab.world.submit()
    assert "as soon as the lab has room" in words(lab.get(PATH).text)
    lab.world.submit()
    lab.world.claim("r1")
    lab.world.catalog.agencies.change(SYSTEM, NAV, max_memory=2 * GIB)
    said = words(lab.get(PATH).text)
    assert "what waits begins as other runs end." in said
    assert rows(lab.get(PATH).text)[1][4] == "No more now"
    assert "smaller than a single run needs" not in said


def test_a_quota_below_a_single_run(lab: WebLab) -> None:
    lab.world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=0, max_memory=GIB)
    response = lab.get(PATH)
    assert Page(response.text).faults() == []
    assert "The agency's quota is smaller than a single run needs." in words(response.text)
    assert rows(response.text)[0][1:] == ["0", "0", "1", "No more now"]


def test_more_in_use_than_is_allowed(lab: WebLab) -> None:
    for number in range(2):
        lab.world.submit()
        lab.world.claim(f"r{number}")
    lab.world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=1)
    response = lab.get(PATH)
    assert rows(response.text)[0][1:] == ["2", "1", "1", "No more now"]
    assert Page(response.text).all("meter")[0]["value"] == "1.0"


def test_only_its_own_people_see_it(lab: WebLab) -> None:
    for who in ("siri", "sara", "nobody"):
        assert lab.get(PATH, who).status_code == 404
        assert lab.get("/agencies/nav", who).status_code == 404
    assert lab.get("/agencies/991825827", "root").status_code == 404
    assert lab.get("/agencies/%2e%2e%2f", "root").status_code == 404
    assert lab.get(PATH, None).status_code == 302
    for who in ("leif", "kirsten", "both", "root"):
        assert lab.get("/agencies/nav", who).status_code == 200


def test_a_closed_agency_is_the_administrators_to_see(lab: WebLab) -> None:
    lab.world.catalog.agencies.change(SYSTEM, NAV, active=False)
    assert lab.get(PATH).status_code == 404
    assert "The agency is closed." in words(lab.get(PATH, "root").text)


def test_the_ways_to_it(lab: WebLab) -> None:
    assert f'href="{BASE}{PATH}"' in lab.get("/").text
    assert f'href="{BASE}{PATH}"' in lab.get("/", "leif").text
    assert f"/agencies/{SKATT}" not in lab.get("/").text
    series = {
        "p-office": "Bergen",
        "kind": "grid",
        "m-alpha": "list",
        "l-alpha": "0.1\n0.2",
        "agency": NAV,
        "do": "plan",
    }
    assert f'href="{BASE}{PATH}"' in lab.post("/templates/letter/series", series).text


def test_a_run_that_waits_long_points_to_it(lab: WebLab) -> None:
    def link(run: str, who: str = "kari") -> list[str]:
        return re.findall(
            rf'data-live="quotas"([^>]*)><a class="ds-link" href="{BASE}{PATH}">', lab.get(f"/runs/{run}", who).text
        )

    run = lab.world.submit().id
    assert link(run) == [" hidden"]
    lab.world.clock.advance(60)
    assert link(run) == [""]
    shared = lab.world.experiment(visibility="lab")
    assert link(lab.world.submit(experiment=shared.id).id, "siri") == []
