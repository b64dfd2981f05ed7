"""The small lab behind its real API: the store on SQLite, everything over ASGI, an in-memory identity."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from httpx import Response
from starlette.applications import Starlette
from starlette.testclient import TestClient

from catalog.access import Action
from catalog.api.app import create_api
from catalog.api.context import ApiSettings
from catalog.bell import Bell
from catalog.testing import InMemoryIdentity
from tests.unit.catalog.world import World, build_world

BASE = "/services/catalog"
PEOPLE = ("kari", "kirsten", "leif", "siri", "sara", "both", "root", "nobody")
DESK = "desk-of-both-at-nav"
PROBLEM = "application/problem+json"


@dataclass
class ApiLab:
    """Each person's token is ``token-<name>``; ``DESK`` is the token of ``both``'s desk at NAV."""

    world: World
    identity: InMemoryIdentity
    bell: Bell
    app: Starlette
    http: TestClient

    def call(self, method: str, path: str, who: str | None = "kari", **how: Any) -> Response:
        """Call the API as ``who``; a path that begins with ``~`` is below the base path and not the API."""
        headers = dict(how.pop("headers", {}))
        if who is not None:
            headers.setdefault("Authorization", f"Bearer {who if who == DESK else f'token-{who}'}")
        url = BASE + path[1:] if path.startswith("~") else f"{BASE}/api/v1{path}"
        return self.http.request(method, url, headers=headers, **how)

    def get(self, path: str, who: str | None = "kari", **how: Any) -> Response:
        return self.call("GET", path, who, **how)

    def post(self, path: str, body: object = None, who: str | None = "kari", **how: Any) -> Response:
        return self.call("POST", path, who, **({"json": body} if body is not None else {}), **how)

    def submit(self, who: str = "kari", **fields: object) -> Response:
        body = {"template": "letter", "agency": "nav", "parameters": {"alpha": 0.1}, **fields}
        return self.post("/runs", body, who)

    def runner(self, method_path: str, token: str, body: object = None, **how: Any) -> Response:
        headers = {"Authorization": f"Bearer {token}"}
        return self.http.post(f"{BASE}/runner/v1{method_path}", headers=headers, json=body, **how)


@contextmanager
def api_lab(migrated: Path, folder: Path, **settings: Any) -> Iterator[ApiLab]:
    database = folder / "catalog.sqlite"
    for part in migrated.parent.glob(f"{migrated.name}*"):
        shutil.copy(part, folder / part.name)
    world = build_world(f"sqlite:///{database}", folder / "blobs")
    identity = InMemoryIdentity(world.catalog, base_path=BASE)
    for person in PEOPLE:
        identity.add(f"token-{person}", person)
    identity.add(DESK, "both", actions=(Action.READ, Action.SUBMIT), confined_to="nav")
    bell = Bell()
    quick = {"version": "1.2.3", "engine": "docker", "watch_seconds": 0.02, "claim_seconds": 0.02, **settings}
    app = create_api(world.catalog, identity=identity, settings=ApiSettings(**quick), bell=bell)
    with TestClient(app, follow_redirects=False) as http:
        yield ApiLab(world, identity, bell, app, http)
    world.catalog.close()


def codes(answer: Response) -> set[str]:
    """Return the machine words of what is wrong, after checking that this is a problem as every problem is."""
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"].startswith("urn:proverom:problem:")
    assert body["title"]
    assert body["detail"]
    return {error["code"] for error in body["errors"]}
