"""A real Hub on this machine's loopback: who gets in, what the page says to whom it does not, and when it ends."""

import json
import os
import random
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from catalog.store import open_catalog
from hub import lab, login
from hub.deployment import Deployment
from hub.lab_local import LocalBackend
from hub.membership import SYSTEM
from hub.settings import HubSettings, LabSettings, Settings
from hub.tokens import TokenRefused, mint_token, sign_in

DEPLOYED = Deployment("local", "local")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("front-door")
    given = Settings(lab=LabSettings(name="door", state=folder), hub=HubSettings(port=_free_port()))
    return given.with_engine("local")


@pytest.fixture(scope="module")
def hub(settings: Settings) -> Iterator[LocalBackend]:
    """Start a Hub without the sandboxes' environments: nobody opens a desk here."""
    lab._write_state(settings, DEPLOYED)
    backend = LocalBackend(settings)
    backend.start(DEPLOYED)
    try:
        lab._wait_until_healthy(settings, backend)
        yield backend
    finally:
        backend.stop(lambda _: None)


@pytest.fixture
def browser(settings: Settings, hub: LocalBackend) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=settings.url, timeout=30, trust_env=False) as client:
        yield client


def password(settings: Settings, person: str) -> str:
    return str(json.loads((settings.state / "logins.json").read_text())["logins"][person]["password"])


def submit(browser: httpx.Client, **fields: str) -> tuple[int, str]:
    """Send the form as a browser does; return the status and what the page says went wrong."""
    browser.get("/hub/login")
    fields.setdefault("_xsrf", browser.cookies.get("_xsrf", path="/hub/") or "")
    answer = browser.post("/hub/login", data=fields, headers={"Accept-Language": "en"})
    said = re.search(r'login_error">([^<]*)', answer.text)
    return answer.status_code, said[1] if said else ""


def test_the_right_password_opens_the_catalog(settings: Settings, browser: httpx.Client) -> None:
    sign_in(browser, "leader", password(settings, "leader"))
    page = browser.get("/", follow_redirects=True)
    assert page.status_code == 200
    assert page.url.path == "/services/catalog/"
    assert "leader" in page.text


def test_each_way_of_not_getting_in_has_its_own_sentence(settings: Settings, browser: httpx.Client) -> None:
    assert submit(browser, username="leader", password="wrong") == (
        403, "The user name or the password is wrong. Check both and try again.")  # fmt: skip
    assert submit(browser)[0] == 403
    assert submit(browser, username="x" * 300, password="y")[0] == 403
    assert submit(browser, username="../\u202e<b>", password="y")[0] == 403
    assert submit(browser, username="leader", password=password(settings, "leader"), _xsrf="forged") == (
        403, "The page had been open for too long. Try again now.")  # fmt: skip


def test_guessing_is_slowed_for_that_login_alone(settings: Settings, browser: httpx.Client) -> None:
    answers = [submit(browser, username="coordinator", password=str(n))[0] for n in range(8)]
    assert answers[:5] == [403] * 5
    assert 429 in answers[5:]
    sign_in(browser, "leader", password(settings, "leader"))


def test_nobody_is_administrator_of_the_hub(settings: Settings, browser: httpx.Client) -> None:
    token = mint_token(browser, "admin", password(settings, "admin"), days=1)
    asked = {"Authorization": f"token {token}"}
    mine = browser.get("/hub/api/user", headers=asked).json()
    assert mine["admin"] is False
    assert "custom:catalog:administer" in mine["scopes"]
    for path in ("users", "services", "groups", "proxy", "info"):
        assert browser.get(f"/hub/api/{path}", headers=asked).status_code == 403, path


def test_a_desk_elsewhere_is_refused_at_once(settings: Settings, browser: httpx.Client) -> None:
    token = mint_token(browser, "leader", password(settings, "leader"), days=1)
    for server in ("servers/nav", "servers/nosuch", "server"):
        answer = browser.post(f"/hub/api/users/leader/{server}", headers={"Authorization": f"token {token}"})
        assert answer.status_code == 403, server
        assert answer.json()["message"]


def test_only_the_proxy_and_the_hub_answer_and_only_on_loopback(settings: Settings, hub: LocalBackend) -> None:
    listening = _listening()
    for port in (settings.hub.port, settings.hub.port + 81, settings.hub.port + 99, settings.hub.port + 2101):
        assert listening.get(port) == {"127.0.0.1"}, port


def test_an_ended_membership_ends_sessions_and_tokens(
    settings: Settings, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = mint_token(browser, "team", password(settings, "team"), days=1)
    asked = {"Authorization": f"token {token}"}
    sign_in(browser, "team", password(settings, "team"))
    assert browser.get("/hub/home").status_code == 200
    catalog = open_catalog(settings.database_url, settings.blob_url)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    for member in catalog.members.list(SYSTEM):
        if member.person == "team":
            catalog.members.end(SYSTEM, member.id, yesterday)

    with httpx.Client(base_url=settings.url, timeout=30, trust_env=False) as other:
        refused = _within(
            login.REFRESH_SECONDS + 15, lambda: other.get("/hub/api/user", headers=asked).status_code == 403
        )
    assert refused
    assert browser.get("/hub/home").status_code == 302
    assert submit(browser, username="team", password=password(settings, "team")) == (
        403, "You do not belong to any agency of this lab. Ask a coordinator in your agency to add you.")  # fmt: skip
    with pytest.raises(TokenRefused):
        sign_in(browser, "team", password(settings, "team"))

    for agency in ("nav", "skatteetaten"):
        catalog.members.add(SYSTEM, person="team", agency=agency, role="member")
    catalog.close()
    sign_in(browser, "team", password(settings, "team"))
    again = httpx.get(f"{settings.url}/hub/api/user", headers=asked, trust_env=False)
    assert again.status_code == 403, "a token that has ended stays ended"


def test_a_hub_killed_outright_leaves_nothing_behind_and_starts_again(
    settings: Settings, hub: LocalBackend, browser: httpx.Client
) -> None:
    assert hub.start(DEPLOYED) is False
    first = json.loads((settings.state / "hub" / "hub.pid").read_text())["pid"]
    token = mint_token(browser, "leader", password(settings, "leader"), days=1)
    descriptor = os.pidfd_open(first)
    os.kill(first, signal.SIGKILL)
    assert select.select([descriptor], [], [], 10)[0]  # on a busy machine dying takes a moment
    os.close(descriptor)
    assert hub.start(DEPLOYED) is True
    lab._wait_until_healthy(settings, hub)
    assert browser.get("/hub/api/user", headers={"Authorization": f"token {token}"}).status_code == 200


def test_when_it_stops_nothing_listens_any_more(settings: Settings, hub: LocalBackend) -> None:
    hub.stop(lambda _: None)
    assert not hub.alive()
    ports = {settings.hub.port, settings.hub.port + 81, settings.hub.port + 99, settings.hub.port + 2101}
    assert _within(10, lambda: not ports & set(_listening()))


def _within(seconds: float, happened: Callable[[], bool]) -> bool:
    """Wait for something that must come; the limit is the product's promise, with room for a slow machine."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happened():
            return True
        time.sleep(0.5)
    return happened()


def _listening() -> dict[int, set[str]]:
    """Return the TCP ports that listen on this machine and the addresses they do it on."""
    found: dict[int, set[str]] = {}
    for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            if fields[3] == "0A":
                packed = b"".join(bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8))
                found.setdefault(int(port, 16), set()).add(socket.inet_ntop(family, packed))
    return found


def _free_port() -> int:
    """Return a port that is free together with those that the lab takes above it."""
    for _ in range(100):
        port = random.randrange(20000, 28000)
        if not {port, port + 81, port + 99, port + 2101} & set(_listening()):
            return port
    raise RuntimeError("No free ports on this machine.")
