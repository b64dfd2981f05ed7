"""Who may come in, how errors look, and what is refused before anybody looks at it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.access import Action
from catalog.api.body import MAX_DEPTH, read_json
from catalog.api.files import disposition
from catalog.api.problems import Refusal
from catalog.testing import COOKIE
from tests.unit.catalog.api_lab import BASE, DESK, PROBLEM, ApiLab, api_lab, codes

READS = ("/me", "/agencies", "/members", "/templates", "/templates/letter", "/runs", "/experiments")


@pytest.fixture
def lab(migrated_sqlite: Path, tmp_path: Path) -> Iterator[ApiLab]:
    with api_lab(migrated_sqlite, tmp_path, max_json_bytes=20_000, max_upload_bytes=40_000) as built:
        yield built


@pytest.mark.parametrize("path", READS)
def test_nobody_reads_without_signing_in(lab: ApiLab, path: str) -> None:
    answer = lab.get(path, who=None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    codes(answer)


@pytest.mark.parametrize(
    "header", ["Basic a2FyaQ==", "Bearer", "Bearer ", "Bearer a b", "Bearer token-kåri", "x" * 600]
)
def test_an_odd_authorization_header_is_401(lab: ApiLab, header: str) -> None:
    answer = lab.get("/me", who=None, headers={"Authorization": header.encode()})
    assert answer.status_code == 401
    codes(answer)


def test_a_token_that_may_not_use_the_catalog_is_403(lab: ApiLab) -> None:
    lab.identity.add("stranger", "kari", allowed=False)
    assert lab.get("/me", headers={"Authorization": "Bearer stranger"}).status_code == 403


def test_a_hub_that_is_away_is_503(lab: ApiLab) -> None:
    lab.identity.away = True
    answer = lab.get("/me")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    codes(answer)


def test_both_words_for_a_token_are_taken(lab: ApiLab) -> None:
    assert lab.get("/me", headers={"Authorization": "token token-kari"}).json()["name"] == "kari"


def test_me_says_where_one_belongs(lab: ApiLab) -> None:
    me = lab.get("/me", who="both").json()
    assert me["confined_to"] is None
    assert not me["admin"]
    assert [(m["slug"], m["role"]) for m in me["memberships"]] == [("nav", "member"), ("skatteetaten", "member")]
    assert lab.get("/me", who="root").json()["admin"]
    confined = lab.get("/me", who=DESK).json()
    assert confined["confined_to"] == "889640782"
    assert [m["slug"] for m in confined["memberships"]] == ["nav"]


def test_a_browser_session_reads_by_navigation_and_needs_its_form_token_otherwise(lab: ApiLab) -> None:
    lab.http.cookies.set(COOKIE, "token-kari", path=BASE)
    assert lab.get("/me", who=None, headers={"Sec-Fetch-Mode": "navigate"}).status_code == 200
    fetched = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}  # a desk on the same host can do this too
    assert lab.get("/me", who=None, headers=fetched).status_code == 403
    assert lab.submit(who=None).status_code == 403  # type: ignore[arg-type]
    assert lab.world.catalog.runs.list(lab.world.viewer("kari"), _all()).items == ()
    csrf = _csrf(lab)
    assert lab.get("/me", who=None, headers={**fetched, "X-CSRF-Token": csrf}).status_code == 200
    body = {"template": "letter", "agency": "nav"}
    assert lab.post("/runs", body, who=None, headers={"X-CSRF-Token": csrf}).status_code == 201


def _csrf(lab: ApiLab) -> str:
    from starlette.requests import Request

    request = Request({"type": "http", "headers": [(b"cookie", f"{COOKIE}=token-kari".encode())]})

    async def found() -> str:
        session = await lab.identity.session(request)
        assert session is not None
        return lab.identity.csrf(session)

    return anyio.run(found)


def _all() -> Any:
    from catalog.store.records import RunFilter

    return RunFilter()


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/runs/", "/runs/x/y", "/templates-evil", "/runs/%2e%2e%2fx", "/runs/%00", "/experiments/%00", "/%ff"],
)
def test_an_address_that_is_none_is_404(lab: ApiLab, path: str) -> None:
    answer = lab.get(path)
    assert answer.status_code == 404
    codes(answer)


@pytest.mark.parametrize("path", ["/../../../etc/passwd", "/runs/../../secrets", "/templates/%2e%2e/versions/%2e%2e"])
def test_dots_lead_nowhere(lab: ApiLab, path: str) -> None:
    # Straight into the app: a client would take the dots out by itself.
    async def ask() -> int:
        sent: list[Any] = []
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"{BASE}/api/v1{path}".replace("%2e", "."),
            "raw_path": f"{BASE}/api/v1{path}".encode(),
            "query_string": b"",
            "headers": [(b"authorization", b"Bearer token-kari"), (b"host", b"lab")],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("lab", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await lab.app(scope, receive, send)
        return int(sent[0]["status"])

    assert anyio.run(ask) == 404


def test_a_wrong_method_says_which_are_taken(lab: ApiLab) -> None:
    answer = lab.call("PUT", "/runs")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    codes(answer)


def test_nul_in_the_query_is_422(lab: ApiLab) -> None:
    answer = lab.get("/runs?q=%00")
    assert answer.status_code == 422
    assert lab.get("/runs?agency=%00x").status_code == 422


def test_a_misspelt_filter_is_refused_by_name(lab: ApiLab) -> None:
    answer = lab.get("/runs?agancy=nav")
    assert answer.status_code == 422
    assert codes(answer) == {"unknown_field"}
    assert "agancy" in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=-1", "limit=1e9", "limit=x", "cursor=zzz", "cursor=%F0", "state=done"]
)
def test_a_bad_page_is_422(lab: ApiLab, query: str) -> None:
    assert lab.get(f"/runs?{query}").status_code == 422


# -- bodies ----------------------------------------------------------------------------------------------------------


def test_a_long_body_is_413_before_it_is_read(lab: ApiLab) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 1000
            yield b" " * 1000

    answer = lab.http.post(
        f"{BASE}/api/v1/runs",
        content=endless(),
        headers={"Authorization": "Bearer token-kari", "Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    codes(answer)
    announced = lab.http.post(
        f"{BASE}/api/v1/runs",
        content=b"",
        headers={
            "Authorization": "Bearer token-kari",
            "Content-Type": "application/json",
            "Content-Length": "9" * 5000,
        },
    )
    assert announced.status_code == 413


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_another_type_than_json_is_415(lab: ApiLab, content_type: str) -> None:
    answer = lab.call("POST", "/runs", content=b"{}", headers={"Content-Type": content_type})
    assert answer.status_code == 415
    codes(answer)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"template": "\xff"}', 400),
        (b"null", 422),
        (b"[]", 422),
        (b"1", 422),
        (b"[" * 9_000, 422),
        (b'{"a":' * 1_500, 422),
        (b"9" * 5_000, 400),
        (b'{"template": NaN}', 422),
        (b'{"template": "letter", "agency": "nav", "parameters": {"alpha": 1e400}}', 422),
        (b'{"template": "letter", "agency": "nav", "parameters": {"alpha": -Infinity}}', 422),
        (b'{"template": "letter", "agency": "nav", "parameters": {"office": "\\u0000"}}', 422),
        (b'{"template": "letter", "agency": "nav", "parameters": {"office": "\\ud800"}}', 422),
        (b'{"template": "letter", "agency": "nav", "parameters": {"\\ud800": 1}}', 422),
        (b'{"template": 1, "agency": "nav"}', 422),
        (b'{"template": "letter", "agency": "nav", "timeout_seconds": "600"}', 422),
        (b'{"template": "letter", "agency": "nav", "timeout_seconds": true}', 422),
        (b'{"template": "letter", "agency": "nav", "priority": 1}', 422),
    ],
)
def test_a_body_that_is_no_request_makes_no_run(lab: ApiLab, body: bytes, status: int) -> None:
    answer = lab.call("POST", "/runs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    codes(answer)
    assert lab.get("/runs").json()["items"] == []


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_reading_json_gives_a_value_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(Refusal):
        read_json(data)


def test_json_may_be_nested_as_deep_as_said_and_no_deeper() -> None:
    assert read_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(Refusal):
        read_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_a_runners_broken_text_is_mended() -> None:
    assert read_json(b'{"tail": "a\\u0000b\\ud800c"}', mend_text=True) == {"tail": "a\ufffdb?c"}


# -- answers ---------------------------------------------------------------------------------------------------------


def test_every_answer_is_inert_and_uncached(lab: ApiLab) -> None:
    for answer in (lab.get("/me"), lab.get("/nothing"), lab.get("~/health", who=None)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_an_unforeseen_error_shows_a_reference_and_nothing_else(
    lab: ApiLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(lab.world.catalog.runs, "list", broken)
    answer = lab.get("/runs")
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert answer.json()["reference"] in caplog.text
    assert "hunter2" in caplog.text


@given(st.text(max_size=400))
def test_a_file_name_cannot_break_out_of_its_header(name: str) -> None:
    value = disposition(name)
    value.encode("latin-1")
    assert not set("\r\n\x00") & set(value)
    quoted = value.partition('filename="')[2].partition('"')[0]
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in quoted)
    assert value.count('"') == 2


def test_a_file_name_keeps_its_letters() -> None:
    assert (
        disposition("Søknad 2026.png")
        == "attachment; filename=\"Sknad-2026.png\"; filename*=UTF-8''S%C3%B8knad%202026.png"
    )
    assert ".." not in disposition("../../etc/passwd")


# -- beside the API --------------------------------------------------------------------------------------------------


def test_health_needs_no_sign_in(lab: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab.get("~/health", who=None).json() == {"status": "ok", "version": "1.2.3", "engine": "docker"}

    def away() -> None:
        raise OSError("gone")

    monkeypatch.setattr(lab.world.catalog, "ping", away)
    assert lab.get("~/health", who=None).status_code == 503


def test_metrics_are_for_administrators_and_count(lab: ApiLab) -> None:
    lab.submit()
    lab.identity.add("reader", "root", actions=(Action.READ,))
    assert lab.get("~/metrics", headers={"Authorization": "Bearer reader"}).status_code == 403
    assert lab.get("~/metrics", who=None).status_code == 401
    text = lab.get("~/metrics", who="root").text
    assert 'proverom_runs_queued{agency="889640782"} 1.0' in text
    assert 'proverom_http_requests_total{method="POST",part="api",route="/runs",status="201"} 1.0' in text


def test_signing_in_and_out(lab: ApiLab) -> None:
    assert lab.get("~/oauth_callback?code=forged", who=None).status_code == 403
    back = lab.get("~/oauth_callback?code=token-kari", who=None)
    assert back.status_code == 303
    lab.http.cookies.set(COOKIE, "token-kari", path=BASE)
    assert lab.call("POST", "~/logout", who=None, data={"csrf": "forged"}).status_code == 403
    out = lab.call("POST", "~/logout", who=None, data={"csrf": _csrf(lab)})
    assert out.status_code == 303
    assert out.headers["location"] == "/hub/logout"


def test_outside_the_base_path_there_is_nothing(lab: ApiLab) -> None:
    assert lab.http.get("/").status_code == 404
    assert lab.http.get("/").headers["content-type"] == PROBLEM


# -- any input at all ------------------------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {"template": st.just("letter") | _JSON, "agency": st.just("nav") | _JSON},
        optional={
            "parameters": st.dictionaries(st.sampled_from(["alpha", "office", "__class__", "æ"]), _JSON, max_size=4)
            | _JSON,
            "timeout_seconds": _JSON,
            "version": _JSON,
            "experiment": _JSON,
        },
    )
)
def test_no_submission_is_an_error_of_ours(lab: ApiLab, body: Any) -> None:
    import json

    data = json.dumps(body).encode("utf-8", "surrogatepass")
    answer = lab.call("POST", "/runs", content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code in (201, 400, 413, 422), answer.text
    if answer.status_code != 201:
        codes(answer)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["q", "agency", "template", "experiment", "cursor"]), st.text(max_size=60))
def test_no_filter_is_an_error_of_ours(lab: ApiLab, name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return
    assert lab.get("/runs", params={name: value}).status_code in (200, 404, 422)
