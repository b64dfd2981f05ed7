"""Agencies, members, templates and experiments over the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.catalog.api_lab import BASE, DESK, ApiLab, api_lab, codes
from tests.unit.catalog.world import DECLARATION, GIB, NAV, NOTEBOOK

DIGDIR = "991825827"


@pytest.fixture
def lab(migrated_sqlite: Path, tmp_path: Path) -> Iterator[ApiLab]:
    with api_lab(migrated_sqlite, tmp_path, max_upload_bytes=100_000) as built:
        yield built


def parts(version: str = "1.1.0", notebook: bytes = NOTEBOOK, title: str = "Brev") -> dict[str, tuple[str, bytes]]:
    declaration = DECLARATION.format(name="letter", version=version, title=title).encode()
    return {
        "notebook": ("../../a\r\nb.ipynb", notebook),
        "declaration": ("template.toml", declaration),
        "readme": ("README.md", b"Om brev"),
    }


# -- agencies --------------------------------------------------------------------------------------------------------


def test_an_admin_adds_and_changes_an_agency(lab: ApiLab) -> None:
    body = {"orgnr": DIGDIR, "slug": "digdir", "name": {"nb": "Digitaliseringsdirektoratet"}}
    assert lab.post("/agencies", body, who="kirsten").status_code == 403
    assert lab.post("/agencies", body, who="root").status_code == 201
    assert {a["slug"] for a in lab.get("/agencies", who="root").json()["items"]} == {"nav", "skatteetaten", "digdir"}
    changed = lab.call("PATCH", f"/agencies/{DIGDIR}", "root", json={"active": False, "weight": 3})
    assert (changed.json()["active"], changed.json()["weight"]) == (False, 3)
    assert "digdir" not in {a["slug"] for a in lab.get("/agencies", who="root").json()["items"]}
    assert lab.call("PATCH", f"/agencies/{NAV}", "kirsten", json={"weight": 9}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"orgnr": "000000000", "slug": "x", "name": {"nb": "X"}},
        {"orgnr": "123456789", "slug": "x", "name": {"nb": "X"}},
        {"orgnr": DIGDIR, "slug": "../x", "name": {"nb": "X"}},
        {"orgnr": DIGDIR, "slug": "x", "name": {"nb": ""}},
        {"orgnr": DIGDIR, "slug": "x", "name": "X"},
        {"orgnr": DIGDIR, "slug": "nav", "name": {"nb": "X"}},
        {"orgnr": NAV, "slug": "x", "name": {"nb": "X"}},
        {"orgnr": DIGDIR, "slug": "x", "name": {"nb": "X"}, "weight": 0},
    ],
)
def test_a_bad_agency_is_not_added(lab: ApiLab, body: dict[str, object]) -> None:
    assert codes(lab.post("/agencies", body, who="root"))
    assert len(lab.get("/agencies", who="root").json()["items"]) == 2


@pytest.mark.parametrize("body", [{}, {"weight": None}, {"slug": "other"}, {"weight": "1"}, {"name": {"nn": "X"}}])
def test_a_bad_change_changes_nothing(lab: ApiLab, body: dict[str, object]) -> None:
    before = lab.get("/agencies", who="root").json()
    assert codes(lab.call("PATCH", f"/agencies/{NAV}", "root", json=body))
    assert lab.get("/agencies", who="root").json() == before


def test_what_an_agency_has_in_use(lab: ApiLab) -> None:
    lab.submit()
    lab.submit()
    lab.world.claim("r1")
    lab.call("PATCH", f"/agencies/{NAV}", "root", json={"max_memory": 4 * GIB})
    answer = lab.get(f"/agencies/{NAV}/usage", who="leif")
    assert answer.status_code == 200
    usage = answer.json()
    assert usage.pop("agency") == next(a for a in lab.get("/agencies").json()["items"] if a["orgnr"] == NAV)
    assert usage == {
        "waiting": 1,
        "full": False,
        "runs": {"used": 1, "allowed": 4, "more": 3},
        "memory": {"used": 2 * GIB, "allowed": 4 * GIB, "more": 1},
        "cpus": {"used": 0.5, "allowed": None, "more": None},
        "run_memory": 2 * GIB,
        "run_cpus": 0.5,
    }
    assert lab.get("/agencies/nav/usage", who=DESK).status_code == 200
    assert lab.get("/agencies/skatteetaten/usage", who=DESK).status_code == 404
    for who in ("siri", "nobody"):
        assert lab.get(f"/agencies/{NAV}/usage", who=who).status_code == 404
    assert lab.get("/agencies/no-such/usage", who="root").status_code == 404


# -- members ---------------------------------------------------------------------------------------------------------


def test_a_coordinator_gives_and_ends_a_role_in_the_own_agency(lab: ApiLab) -> None:
    made = lab.post(
        "/members", {"person": "nobody", "agency": "nav", "role": "member", "ends": "2030-01-31"}, who="kirsten"
    )
    assert made.status_code == 201
    assert made.json()["ends"] == "2030-01-31"
    assert lab.get("/runs", who="nobody").status_code == 200
    assert lab.submit(who="nobody").status_code == 201
    ended = lab.call("DELETE", f"/members/{made.json()['id']}?on=2026-03-01", "kirsten")
    assert ended.status_code == 200
    assert ended.json()["ends"] == "2026-03-01"
    assert lab.submit(who="nobody").status_code in (403, 422)


def test_a_membership_is_no_business_of_others(lab: ApiLab) -> None:
    body = {"person": "nobody", "agency": "skatteetaten", "role": "member"}
    assert lab.post("/members", body, who="kirsten").status_code in (403, 404, 422)
    assert lab.post("/members", body, who="kari").status_code in (403, 404, 422)
    assert {m["person"] for m in lab.get("/members", who="kari").json()["items"]} == {"kari"}
    theirs = next(m["id"] for m in lab.get("/members", who="sara").json()["items"])
    assert lab.call("DELETE", f"/members/{theirs}", "kirsten").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"person": "", "agency": "nav", "role": "member"},
        {"person": "a b", "agency": "nav", "role": "member"},
        {"person": "x", "agency": "nav", "role": "owner"},
        {"person": "x", "agency": "nav", "role": "member", "starts": 0},
        {"person": "x", "agency": "nav", "role": "member", "starts": "2026-02-30"},
        {"person": "x", "agency": "nav", "role": "member", "starts": "2026-01-01T00:00:00Z"},
        {"person": "x", "agency": "nav", "role": "member", "starts": "2026-05-01", "ends": "2026-04-01"},
        {"person": "x", "agency": "nav", "role": "admin"},
    ],
)
def test_a_bad_membership_is_not_added(lab: ApiLab, body: dict[str, object]) -> None:
    assert codes(lab.post("/members", body, who="root"))
    assert "x" not in {m["person"] for m in lab.get("/members", who="root").json()["items"]}


# -- templates -------------------------------------------------------------------------------------------------------


def test_a_template_is_checked_submitted_and_approved_by_another(lab: ApiLab) -> None:
    checked = lab.call("POST", "/templates/check", "kari", files=parts())
    assert checked.status_code == 200, checked.text
    assert checked.json()["version"] == "1.1.0"
    assert len(lab.get("/templates?published_only=false", who="kirsten").json()["items"]) == 1
    assert lab.call("POST", "/templates", "kari", files=parts()).status_code == 403
    made = lab.call("POST", "/templates", "kirsten", files=parts())
    assert made.status_code == 201, made.text
    assert made.json()["state"] == "submitted"
    assert lab.get("/templates/letter").json()["version"] == "1.0.0"
    assert codes(lab.submit(version="1.1.0")) == {"not_published"}
    approve = "/templates/letter/versions/1.1.0/approve"
    assert lab.post(approve, who="kirsten").status_code == 403
    assert lab.post(approve, who="kari").status_code in (403, 404)
    assert lab.post(approve, who="sara").json()["state"] == "published"
    assert lab.get("/templates/letter").json()["version"] == "1.1.0"
    assert lab.post("/templates/letter/versions/1.1.0/deprecate", who="kirsten").json()["state"] == "deprecated"
    assert lab.get("/templates/letter/versions/1.0.0").json()["parameters"][0]["name"] == "alpha"
    assert [t["version"] for t in lab.get("/templates/letter/versions", who="kirsten").json()["items"]]


@pytest.mark.parametrize(
    "notebook",
    [b"", b"{", b"\xff", b"[" * 50_000, b'{"cells": []}', NOTEBOOK.replace(b'"nbformat": 4', b'"nbformat": 99')],
)
def test_a_bad_notebook_is_refused_with_its_reason(lab: ApiLab, notebook: bytes) -> None:
    for path, who in (("/templates/check", "kari"), ("/templates", "kirsten")):
        answer = lab.call("POST", path, who, files=parts(notebook=notebook))
        assert answer.status_code == 422
        assert codes(answer)
    assert len(lab.get("/templates?published_only=false", who="kirsten").json()["items"]) == 1


def test_a_template_too_large_is_413(lab: ApiLab) -> None:
    assert lab.call("POST", "/templates/check", "kari", files=parts(notebook=b"x" * 200_000)).status_code == 413


def test_a_form_that_is_no_template_is_refused(lab: ApiLab) -> None:
    assert lab.call("POST", "/templates/check", "kari", json={}).status_code == 415
    assert codes(lab.call("POST", "/templates/check", "kari", files={"readme": b"x"})) == {"missing_value"}
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert lab.call("POST", "/templates/check", "kari", content=b"--y\r\nnonsense", headers=broken).status_code in (
        400,
        422,
    )
    assert lab.call("POST", "/templates/check", "kari", content=b"", headers=broken).status_code in (400, 422)


@pytest.mark.parametrize(
    "name", ["nothing", "..", "' OR 1=1--", "<img onerror>", "æøå", "💥", "x" * 400, "\u202ereversed"]
)
def test_an_unknown_template_is_404(lab: ApiLab, name: str) -> None:
    from urllib.parse import quote

    assert lab.get(f"/templates/{quote(name, safe='')}").status_code in (404, 422)


# -- experiments -----------------------------------------------------------------------------------------------------


def test_an_experiment_is_begun_and_changed(lab: ApiLab) -> None:
    made = lab.post("/experiments", {"agency": "nav", "title": "Kortere brev <b>", "embargo_until": "2027-01-01"})
    assert made.status_code == 201
    id = made.json()["id"]
    assert made.headers["location"] == f"{BASE}/api/v1/experiments/{id}"
    changed = lab.call("PATCH", f"/experiments/{id}", json={"summary": "Om brev", "embargo_until": None})
    assert (changed.json()["summary"], changed.json()["embargo_until"]) == ("Om brev", None)
    assert lab.submit(experiment=id).status_code == 201
    assert lab.get(f"/experiments/{id}").json()["runs"] == 1
    assert [e["id"] for e in lab.get("/experiments").json()["items"]] == [id]
    assert lab.get(f"/experiments/{id}", who="siri").status_code == 404
    assert lab.call("PATCH", f"/experiments/{id}", "siri", json={"title": "Mine"}).status_code == 404
    assert lab.call("PATCH", f"/experiments/{id}", "leif", json={"title": "Mine"}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"agency": "nav", "title": ""},
        {"agency": "nav", "title": "x" * 301},
        {"agency": "nav", "title": "x", "language": "sv"},
        {"agency": "nav", "title": "x", "visibility": "all"},
        {"agency": "nav", "title": "x", "embargo_until": "soon"},
        {"agency": "skatteetaten", "title": "x"},
        {"title": "x"},
    ],
)
def test_a_bad_experiment_is_not_begun(lab: ApiLab, body: dict[str, object]) -> None:
    assert codes(lab.post("/experiments", body))
    assert lab.get("/experiments").json()["items"] == []


@pytest.mark.parametrize("body", [{}, {"title": None}, {"status": "published"}, {"agency": "skatteetaten"}])
def test_a_bad_change_to_an_experiment_changes_nothing(lab: ApiLab, body: dict[str, object]) -> None:
    id = lab.post("/experiments", {"agency": "nav", "title": "Brev"}).json()["id"]
    before = lab.get(f"/experiments/{id}").json()
    assert codes(lab.call("PATCH", f"/experiments/{id}", json=body))
    assert lab.get(f"/experiments/{id}").json() == before


def test_a_desk_cannot_share_with_other_agencies(lab: ApiLab) -> None:
    made = lab.post("/experiments", {"agency": "skatteetaten", "title": "x"}, who=DESK)
    assert made.status_code in (403, 422)
