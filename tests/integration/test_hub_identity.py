"""The sign-in against a real JupyterHub: tokens, a desk's confinement, OAuth in a browser, and the end of all of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from jupyterhub.services.auth import HubOAuth

from catalog.api.app import create_api
from hub.identity import HubIdentity
from hub.tokens import mint_token, sign_in
from tests.unit.catalog.api_lab import BASE
from tests.unit.catalog.world import NAV, World, build_world

HERE = Path(__file__).parent
SERVICE = "access:services!service=catalog"

# What the Hub's own client leaves open when its event loop ends is not ours.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@dataclass
class RealHub:
    url: str
    folder: Path
    world: World
    auth: HubOAuth

    def token(self, person: str, **fields: object) -> str:
        """Return a new token of a person's, as the Hub's own page makes it."""
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
            if not fields:
                return mint_token(client, person, "p", days=1)
            sign_in(client, person, "p")
            query = {"_xsrf": client.cookies.get("_xsrf", path="/hub/")}
            made = client.post(f"/hub/api/users/{person}/tokens", json=fields, params=query)
            assert made.status_code == 201, made.text
            return str(made.json()["token"])

    def me(self, token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{self.url}{BASE}/api/v1/me", headers=headers, timeout=30, trust_env=False)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come")
        time.sleep(0.1)


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    return False


def pages(identity: HubIdentity) -> FastAPI:
    """Return the smallest pages there can be: who one is, and a form's token."""
    app = FastAPI(openapi_url=None)

    @app.get("/")
    async def home(request: Request) -> Response:
        session = await identity.session(request)
        if session is None:
            return identity.login(request, next_url=f"{BASE}/?q=æ")
        return Response(
            json.dumps({"name": session.viewer.name, "csrf": identity.csrf(session), "source": session.viewer.source})
        )

    return app


@pytest.fixture(scope="module")
def hub(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    import shutil

    folder = tmp_path_factory.mktemp("hub")
    for part in migrated_sqlite.parent.glob(f"{migrated_sqlite.name}*"):
        shutil.copy(part, folder / part.name)
    world = build_world(f"sqlite:///{folder / migrated_sqlite.name}", folder / "blobs")
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(4)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        proxy, hub_port, proxy_api, catalog = (one.getsockname()[1] for one in sockets)
        for one in sockets[:3]:
            one.close()
        auth = HubOAuth(
            api_url=f"http://127.0.0.1:{hub_port}/hub/api",
            api_token="catalog-token",
            oauth_client_id="service-catalog",
            base_url=f"{BASE}/",
            hub_prefix="/hub/",
            oauth_redirect_uri=f"{BASE}/oauth_callback",
            access_scopes={SERVICE},
            cache_max_age=1,
        )
        identity = HubIdentity(world.catalog.members, secret="s" * 64, auth=auth)
        app = create_api(world.catalog, identity=identity, web=pages(identity))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sockets[3]]}, daemon=True)
        thread.start()
        given = {"proxy": proxy, "hub": hub_port, "proxy_api": proxy_api, "catalog": catalog}
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "HUB_TEST": json.dumps({**given, "folder": str(folder), "desk": str(HERE / "hub_desk.py")}),
        }
        command = [sys.executable, "-m", "jupyterhub", "--config", str(HERE / "hub_config.py")]
        with (folder / "hub.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{proxy}"
            until(lambda: answers(f"{url}{BASE}/health") and answers(f"{url}/hub/login"), "The Hub")
            yield RealHub(url, folder, world, auth)
        finally:
            process.terminate()
            process.wait(60)
            server.should_exit = True
            thread.join(20)
            world.catalog.close()


def test_a_persons_token_has_the_persons_rights(hub: RealHub) -> None:
    me = hub.me(hub.token("both")).json()
    assert me["name"] == "both"
    assert me["actions"] == ["read", "submit"]
    assert me["confined_to"] is None
    assert len(me["memberships"]) == 2


def test_a_token_that_is_none_is_401(hub: RealHub) -> None:
    assert hub.me("nonsense").status_code == 401


def test_a_token_that_does_not_reach_the_catalog_is_403(hub: RealHub) -> None:
    assert hub.me(hub.token("both", scopes=["custom:catalog:read"])).status_code == 403


def test_a_weaker_token_is_weaker(hub: RealHub) -> None:
    token = hub.token("both", scopes=["custom:catalog:read", SERVICE])
    assert hub.me(token).json()["actions"] == ["read"]


def test_a_service_is_nobodys_namesake(hub: RealHub) -> None:
    me = hub.me("scraper-token").json()
    assert (me["name"], me["memberships"]) == ("service:scraper", [])
    headers = {"Authorization": "Bearer scraper-token"}
    assert httpx.get(f"{hub.url}{BASE}/metrics", headers=headers, timeout=30, trust_env=False).status_code == 200


def test_a_desks_own_token_is_confined_to_its_agency(hub: RealHub) -> None:
    headers = {"Authorization": f"token {hub.token('both')}"}
    started = httpx.post(f"{hub.url}/hub/api/users/both/servers/nav", headers=headers, timeout=60, trust_env=False)
    assert started.status_code in (201, 202), started.text
    left = hub.folder / "desk-nav"
    until(left.exists, "The desk")
    token = left.read_text()
    me = hub.me(token).json()
    assert me["confined_to"] == NAV
    assert [m["slug"] for m in me["memberships"]] == ["nav"]
    body = {"template": "letter", "agency": "skatteetaten"}
    bearer = {"Authorization": f"Bearer {token}"}
    api = f"{hub.url}{BASE}/api/v1/runs"
    assert httpx.post(api, json=body, headers=bearer, timeout=30, trust_env=False).status_code == 422
    assert (
        httpx.post(api, json={**body, "agency": "nav"}, headers=bearer, timeout=30, trust_env=False).status_code == 201
    )
    httpx.delete(f"{hub.url}/hub/api/users/both/servers/nav", headers=headers, timeout=60, trust_env=False)
    until(lambda: hub.me(token).status_code == 401, "The end of the desk's token")


def test_a_browser_signs_in_and_out(hub: RealHub) -> None:
    with httpx.Client(base_url=hub.url, timeout=30, trust_env=False, follow_redirects=True) as browser:
        with httpx.Client(base_url=hub.url, timeout=30, trust_env=False) as signing:
            sign_in(signing, "both", "p")
            browser.cookies.update(signing.cookies)
        home = browser.get(f"{BASE}/")
        assert home.status_code == 200, home.text
        assert home.url.path == f"{BASE}/"
        page = home.json()
        assert (page["name"], page["source"]) == ("both", "web")
        cookie = next(c for c in browser.cookies.jar if c.name == "proverom-catalog")
        assert cookie.path == f"{BASE}/"
        assert not any(c.name.startswith("proverom-sign-in") for c in browser.cookies.jar)
        assert browser.get(f"{BASE}/api/v1/me", headers={"Sec-Fetch-Mode": "cors"}).status_code == 403
        fetched = browser.get(f"{BASE}/api/v1/me", headers={"Sec-Fetch-Mode": "cors", "X-CSRF-Token": page["csrf"]})
        assert fetched.json()["name"] == "both"
        assert browser.post(f"{BASE}/logout", data={"csrf": "x"}).status_code == 403
        kept = cookie.value
        out = browser.post(f"{BASE}/logout", data={"csrf": page["csrf"]})
        assert "/hub/" in str(out.url)

        def refused() -> bool:
            answer = httpx.get(
                f"{hub.url}{BASE}/api/v1/me", cookies={"proverom-catalog": kept or ""}, timeout=30, trust_env=False
            )
            return answer.status_code == 401

        until(refused, "The end of the session")  # the Hub has ended the token, not only this browser its cookie


def test_a_sign_in_that_began_elsewhere_is_refused(hub: RealHub) -> None:
    with httpx.Client(base_url=hub.url, timeout=30, trust_env=False) as browser:
        for query in ("", "?code=x", "?code=x&state=y", "?error=denied", "?state=%00"):
            assert browser.get(f"{BASE}/oauth_callback{query}").status_code in (403, 422)
        begun = browser.get(f"{BASE}/")
        assert begun.status_code == 302
        state = httpx.URL(begun.headers["location"]).params["state"]
        assert browser.get(f"{BASE}/oauth_callback", params={"state": state, "code": "forged"}).status_code == 403
        assert browser.get(f"{BASE}/", headers={"Cookie": "proverom-catalog=forged"}).status_code == 302


@pytest.mark.parametrize(
    "url",
    [
        "//evil.example/",
        "https://evil.example/",
        "/hub/",
        "/services/catalog",
        "/services/catalog/\\evil",
        "/services/catalog/../../hub",
        "/services/catalog/\r\nX: y",
    ],
)
def test_a_sign_in_leads_nowhere_else(hub: RealHub, url: str) -> None:
    identity = HubIdentity(hub.world.catalog.members, secret="s" * 64, auth=hub.auth)
    assert identity._own(url) == f"{BASE}/"
