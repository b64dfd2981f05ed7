"""What people do on the pages: each change asks for the session's form, says every fault at once, and is done once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.store.records import RunFilter
from experiments.model import Reason, RunResult, RunState
from lab_templates.model import TemplateState
from tests.unit.catalog.web_lab import BASE, Page, WebLab, web_lab
from tests.unit.catalog.world import DECLARATION, NAV, NOTEBOOK, SKATT, SYSTEM, template

FORM = "/templates/letter"
GOOD = {"agency": NAV, "p-alpha": "0,1", "p-office": "Bergen", "minutes": "2", "key": "k1"}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[WebLab]:
    with web_lab(tmp_path) as built:
        yield built


def runs(lab: WebLab) -> int:
    return len(lab.world.catalog.runs.list(SYSTEM, RunFilter()).items)


def test_starting_a_run(lab: WebLab) -> None:
    response = lab.post(FORM, GOOD)
    assert response.status_code == 303
    run = lab.world.catalog.runs.get(SYSTEM, response.headers["location"].rsplit("/", 1)[1])
    assert dict(run.parameters) == {"alpha": 0.1, "office": "Bergen"}
    assert (run.agency.orgnr, run.timeout_seconds, run.requested_by) == (NAV, 120, "kari")
    again = lab.post(FORM, GOOD)
    assert again.headers["location"] == response.headers["location"], "the same form sent twice is one run"
    assert runs(lab) == 1


def test_every_fault_at_once_and_nothing_lost(lab: WebLab) -> None:
    checked = lab.post(FORM, {**GOOD, "agency": "", "p-alpha": "9", "p-office": "x" * 30, "minutes": "many"}, "both")
    assert checked.status_code == 422
    page = Page(checked.text)
    assert page.faults() == []
    summary = checked.text.split("<ds-error-summary")[1].split("</ds-error-summary>")[0]
    places = [summary.index(f'href="#{field}"') for field in ("p-alpha", "p-office", "agency", "minutes")]
    assert places == sorted(places), "in the form's own order"
    assert {"p-alpha", "p-office", "agency", "minutes"} <= set(page.ids())
    assert "Alpha is 9. It must be at most 0.2." in summary
    assert 'value="9"' in checked.text
    assert f'value="{"x" * 30}"' in checked.text
    wrong = [control for control in page.all("input", "select") if control.get("aria-invalid") == "true"]
    assert len(wrong) == 4
    assert runs(lab) == 0


@pytest.mark.parametrize("minutes", ["", "0,5", "2"])
def test_time_limits(lab: WebLab, minutes: str) -> None:
    run = lab.world.catalog.runs.get(
        SYSTEM, lab.post(FORM, {**GOOD, "minutes": minutes}).headers["location"].rsplit("/", 1)[1]
    )
    assert run.timeout_seconds == {"": 600, "0,5": 30, "2": 120}[minutes]


@pytest.mark.parametrize("minutes", ["nan", "inf", "1e400", "9999999", "-1", "0", "æ"])
def test_time_limits_that_are_none(lab: WebLab, minutes: str) -> None:
    response = lab.post(FORM, {**GOOD, "minutes": minutes})
    assert response.status_code == 422
    assert "from 1 to 60" in response.text
    assert runs(lab) == 0


@pytest.mark.parametrize(
    "change",
    [{"agency": SKATT}, {"agency": "nowhere"}, {"experiment": "none"}, {"p-alpha": "nan"}, {"version": "9.9.9"}],
)
def test_runs_that_may_not_be(lab: WebLab, change: dict[str, str]) -> None:
    assert lab.post(FORM, {**GOOD, **change}).status_code in (403, 404, 422)
    assert runs(lab) == 0


def test_what_was_typed_stays_text(lab: WebLab) -> None:
    response = lab.post(FORM, {**GOOD, "p-alpha": '"><script>alert(1)</script>', "p-office": "<img src=x>"})
    assert response.status_code == 422
    assert Page(response.text).faults() == []
    assert "<img src=x>" not in response.text


CHANGES = [
    FORM, "/templates/new", "/templates/letter/versions/1.0.0/approve", "/templates/letter/versions/1.0.0/deprecate",
    "/runs/{run}/cancel", "/runs/{run}/retry", "/experiments/new", "/experiments/{experiment}/edit", "/members",
    "/members/x/end",
]  # fmt: skip


def test_no_change_without_the_sessions_form(lab: WebLab) -> None:
    ids = {"run": lab.world.submit().id, "experiment": lab.world.experiment().id}
    before = len(lab.world.catalog.events.list(SYSTEM, limit=200).items)
    for path in CHANGES:
        for token in ("", "wrong", lab.csrf("siri")):
            response = lab.post(path.format(**ids), {"csrf": token, **GOOD}, "kirsten")
            assert response.status_code == 403, path
    assert len(lab.world.catalog.events.list(SYSTEM, limit=200).items) == before


def test_cancel_and_retry(lab: WebLab) -> None:
    run = lab.world.submit()
    assert lab.post(f"/runs/{run.id}/cancel", who="leif").status_code == 403
    assert lab.post(f"/runs/{run.id}/cancel", who="siri").status_code == 404
    assert lab.post(f"/runs/{run.id}/cancel").headers["location"] == f"{BASE}/runs/{run.id}"
    assert lab.world.catalog.runs.get(SYSTEM, run.id).state is RunState.CANCELLED
    late = lab.post(f"/runs/{run.id}/cancel").headers["location"]
    assert "had already ended" in lab.get(late.removeprefix(BASE)).text
    again = lab.post(f"/runs/{run.id}/retry").headers["location"].rsplit("/", 1)[1]
    assert lab.world.catalog.runs.get(SYSTEM, again).retry_of == run.id


def test_an_earlier_runs_values_begin_the_form(lab: WebLab) -> None:
    run = lab.world.finished(
        lab.world.submit(parameters={"alpha": 0.02, "office": "Vadsø"}),
        RunResult(RunState.FAILED, NOTEBOOK, Reason.KERNEL_DIED),
    )
    page = lab.get(f"{FORM}?run={run.id}").text
    assert 'value="0.02"' in page
    assert 'value="Vadsø"' in page
    assert 'value="Vadsø"' not in lab.get(f"{FORM}?run={run.id}", "siri").text


def test_publishing(lab: WebLab) -> None:
    files = {
        "notebook": ("template.ipynb", NOTEBOOK),
        "declaration": ("template.toml", DECLARATION.format(name="letter", version="2.0.0", title="Ny").encode()),
        "readme": ("README.md", b"# Om malen"),
    }
    assert lab.post("/templates/new", files=files, who="kari").status_code == 403
    sent = lab.post("/templates/new", files=files, who="kirsten")
    assert sent.headers["location"].endswith("/templates/waiting?done=submitted")
    own = lab.get("/templates/waiting", "kirsten").text
    assert "another coordinator must approve it" in own
    assert lab.post("/templates/letter/versions/2.0.0/approve", who="kirsten").status_code == 403
    assert "alpha = 0.05" in lab.get("/templates/letter/versions/2.0.0/approve", "sara").text
    assert lab.post("/templates/letter/versions/2.0.0/approve", who="sara").status_code == 303
    assert lab.world.catalog.templates.get(SYSTEM, "letter").version.version == "2.0.0"
    assert lab.post("/templates/letter/versions/1.0.0/deprecate", who="sara").status_code == 303
    assert lab.world.catalog.templates.get(SYSTEM, "letter", "1.0.0").state is TemplateState.DEPRECATED
    assert "not published" in lab.get(f"{FORM}?version=1.0.0").text


def test_the_gate_says_everything(lab: WebLab) -> None:
    files = {"notebook": ("a.ipynb", b"{"), "declaration": ("t.toml", b"name = 3"), "readme": ("r.md", b"\xff\xfe")}
    response = lab.post("/templates/new", files=files, who="kirsten")
    assert response.status_code == 422
    page = Page(response.text)
    assert page.faults() == []
    assert response.text.count("<li>") - response.text.split("<main")[0].count("<li>") >= 3
    empty = lab.post("/templates/new", files={"notebook": ("a.ipynb", b"")}, who="kirsten")
    assert "The file template.toml is missing" in empty.text
    assert len(lab.world.catalog.templates.versions(SYSTEM, "letter")) == 1


def test_the_same_version_twice(lab: WebLab) -> None:
    version = template()
    files = {"notebook": ("a", NOTEBOOK), "declaration": ("b", version.declaration + b"\n"), "readme": ("c", b"x")}
    response = lab.post("/templates/new", files=files, who="kirsten")
    assert response.status_code == 422
    assert "Version 1.0.0 exists already." in response.text


def test_experiments(lab: WebLab) -> None:
    empty = lab.post(
        "/experiments/new",
        {"title": "", "agency": "", "embargo_until": "soon", "visibility": "agency", "language": "nb"},
    )
    assert empty.status_code == 422
    for text in ("Give the experiment a title.", "Choose an agency.", "must be a date"):
        assert text in empty.text
    made = lab.post(
        "/experiments/new",
        {"title": "Brev <b>", "summary": "A\n\nB", "agency": NAV, "visibility": "agency", "language": "nn"},
    )
    path = made.headers["location"].removeprefix(BASE)
    assert "Brev &lt;b&gt;" in lab.get(path).text
    assert 'lang="nn"' in lab.get(path).text
    changed = lab.post(
        f"{path}/edit", {"title": "Nytt", "visibility": "lab", "language": "nb", "embargo_until": "2027-01-31"}
    )
    assert changed.status_code == 303
    assert "not before 31 January 2027" in lab.get(path).text
    assert lab.post(f"{path}/edit", {"title": "Mitt", "visibility": "lab", "language": "nb"}, "siri").status_code == 404


def test_members(lab: WebLab) -> None:
    wrong = lab.post("/members", {"person": "", "agency": "", "role": "member", "starts": "x"}, "kirsten")
    assert wrong.status_code == 422
    assert Page(wrong.text).faults() == []
    assert lab.post("/members", {"person": "ny", "agency": NAV, "role": "member"}, "kari").status_code == 403
    assert lab.post("/members", {"person": "ny", "agency": SKATT, "role": "member"}, "kirsten").status_code in (
        403,
        404,
    )
    assert (
        lab.post("/members", {"person": "13097248022", "agency": NAV, "role": "member"}, "kirsten").status_code == 422
    )
    added = lab.post(
        "/members",
        {"person": "ny", "agency": NAV, "role": "leader", "kind": "seconded", "ends": "2026-12-31"},
        "kirsten",
    )
    assert added.status_code == 303
    mine = next(m for m in lab.world.catalog.members.list(SYSTEM) if m.person == "ny")
    assert (mine.role, mine.kind, str(mine.ends)) == ("leader", "seconded", "2026-12-31")
    assert f"/members/{mine.id}/end" in lab.get("/members", "kirsten").text
    assert "End the membership of ny?" in lab.get(f"/members/{mine.id}/end", "kirsten").text
    assert lab.get(f"/members/{mine.id}/end", "sara").status_code == 404
    lab.post("/members", {"person": "sjef", "agency": NAV, "role": "admin"}, "root")
    assert any(m.person == "sjef" and m.agency == "" for m in lab.world.catalog.members.list(SYSTEM))


def test_signing_out(lab: WebLab) -> None:
    assert lab.post("/logout").headers["location"] == "/hub/logout"
