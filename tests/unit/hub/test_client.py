"""The client against the real API, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hub.client import ApiError, Client
from hub.connection import Connection, NotConnected, connect, service_url, state_folder
from tests.unit.catalog.api_lab import ApiLab
from tests.unit.hub.served import served


@pytest.fixture(scope="module")
def address(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiLab, str]]:
    with served(migrated_sqlite, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


def client(url: str, token: str = "token-kari", **more: object) -> Client:  # noqa: S107
    return Client(Connection(service_url(url), token), pause=0, **more)  # type: ignore[arg-type]


def scripted(*answers: httpx.Response | Exception) -> tuple[Client, list[httpx.Request]]:
    """Return a client whose server gives these answers in turn, and what it was asked."""
    asked: list[httpx.Request] = []
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        said = left.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    return client("http://lab.example", transport=httpx.MockTransport(answer)), asked


def test_it_speaks_to_the_real_api(address: tuple[ApiLab, str]) -> None:
    lab, url = address
    caller = client(url)
    assert caller.get("me")["name"] == "kari"
    made = [caller.submit({"template": "letter", "agency": "nav"})["id"] for _ in range(3)]
    assert [r["id"] for r in caller.all("runs", limit=2)] == made[:0:-1]
    for id in made:
        caller.post(f"runs/{id}/cancel")
    assert [e["state"] for e in caller.follow(made[0])] == ["cancelled"]
    assert caller.page_of("x") == f"{url}/services/catalog/runs/x"
    assert lab.world.catalog.events.list(lab.world.viewer("root")).items[0].source == "cli"
    caller.close()


def test_an_error_says_every_problem(address: tuple[ApiLab, str]) -> None:
    with contextlib.closing(client(address[1])) as caller, pytest.raises(ApiError) as caught:
        caller.submit({"template": "letter", "agency": "nav", "parameters": {"alpha": 9, "x": 1}})
    assert caught.value.wrong_use
    assert {p["code"] for p in caught.value.problems} == {"above_maximum", "unknown_parameter"}


def test_a_bad_token_is_wrong_use(address: tuple[ApiLab, str]) -> None:
    with contextlib.closing(client(address[1], "stranger")) as caller, pytest.raises(ApiError, match="token") as caught:
        caller.get("me")
    assert caught.value.status == 401


def test_a_lost_submission_is_sent_again_under_the_same_key() -> None:
    caller, asked = scripted(httpx.ReadError("cut"), httpx.Response(503), httpx.Response(201, json={"id": "r"}))
    assert caller.submit({"template": "letter"}) == {"id": "r"}
    assert len({request.headers["idempotency-key"] for request in asked}) == 1
    assert len(asked) == 3


def test_a_change_without_a_key_is_sent_once() -> None:
    caller, asked = scripted(httpx.ReadError("cut"), httpx.Response(200, json={}))
    with pytest.raises(ApiError, match="does not answer"):
        caller.post("runs/x/cancel")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer", [httpx.Response(502, text="<html>"), httpx.Response(404, json=[1]), httpx.Response(200, text="hi")]
)
def test_a_strangers_answer_is_an_error_in_words(answer: httpx.Response) -> None:
    with pytest.raises(ApiError, match="PROVEROM_URL"):
        scripted(*[answer] * 4)[0].get("me")


def stream(*events: dict[str, object]) -> httpx.Response:
    text = ": ping\r\n\r\n" + "".join(f"event: run\r\ndata: {json.dumps(e)}\r\n\r\n" for e in events)
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


def test_following_goes_on_after_a_dropped_connection() -> None:
    caller, asked = scripted(
        stream({"state": "queued"}),
        httpx.ConnectError("down"),
        httpx.Response(503, json={"detail": "away"}),
        stream({"state": "running"}, {"state": "succeeded"}),
    )
    assert [e["state"] for e in caller.follow("r")] == ["queued", "running", "succeeded"]
    assert len(asked) == 4


def test_following_what_is_not_there_ends_at_once() -> None:
    caller, asked = scripted(httpx.Response(404, json={"detail": "There is no such run."}))
    with pytest.raises(ApiError, match="no such run"):
        list(caller.follow("r"))
    assert len(asked) == 1


# -- where the lab is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "http://lab:8000",
        "http://lab:8000/",
        "http://lab:8000/services/catalog",
        "http://lab:8000/services/catalog/api/v1/",
    ],
)
def test_the_lab_has_one_address_however_it_is_written(given: str) -> None:
    assert service_url(given) == "http://lab:8000/services/catalog"


@pytest.mark.parametrize("given", ["lab:8000", "ftp://lab", "", "http://", "javascript:x"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(NotConnected, match="PROVEROM_URL"):
        service_url(given)


def test_the_environment_says_where_and_who() -> None:
    desk = {"PROVEROM_URL": "http://hub:8000", "JUPYTERHUB_API_TOKEN": "desk", "PROVEROM_AGENCY": "nav"}
    assert connect(environ=desk) == Connection("http://hub:8000/services/catalog", "desk", "nav")
    assert connect(environ={**desk, "PROVEROM_TOKEN": "mine"}).token == "mine"
    with pytest.raises(NotConnected, match="PROVEROM_TOKEN"):
        connect(environ={"PROVEROM_URL": "http://hub:8000"})


def test_a_login_of_this_machines_lab(tmp_path: Path) -> None:
    environ = {"PROVEROM_LAB__STATE": str(tmp_path)}
    with pytest.raises(NotConnected, match="proverom up"):
        connect("team", environ=environ)
    kept = {"url": "http://127.0.0.1:8000", "logins": {"team": {"password": "p", "token": "t"}}}
    (tmp_path / "logins.json").write_text(json.dumps(kept))
    assert connect("team", environ=environ) == Connection("http://127.0.0.1:8000/services/catalog", "t")
    with pytest.raises(NotConnected, match="Use one of: team"):
        connect("teem", environ=environ)
    (tmp_path / "logins.json").write_text("{")
    with pytest.raises(NotConnected, match="cannot be read"):
        connect("team", environ=environ)


def test_the_settings_file_moves_the_state_folder(tmp_path: Path) -> None:
    file = tmp_path / "proverom.toml"
    file.write_text('[lab]\nstate = "/srv/lab"\n')
    assert state_folder({"PROVEROM_CONFIG": str(file)}) == Path("/srv/lab")
    file.write_text("broken")
    assert state_folder({"PROVEROM_CONFIG": str(file)}).name == ".lab"
