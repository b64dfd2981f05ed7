"""The small lab behind its real pages: the store on SQLite, people signed in by the in-memory identity."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from httpx import Response
from starlette.testclient import TestClient

from catalog.api.app import create_api
from catalog.store import migrate
from catalog.testing import COOKIE, InMemoryIdentity
from catalog.web.app import create_web
from catalog.web.settings import WebSettings
from tests.unit.catalog.world import World, build_world

BASE = "/services/catalog"
PEOPLE = ("kari", "kirsten", "leif", "siri", "sara", "both", "root", "nobody")


@dataclass
class WebLab:
    world: World
    identity: InMemoryIdentity
    http: TestClient

    def get(self, path: str, who: str | None = "kari", lang: str = "en", **how: Any) -> Response:
        headers = {**self.cookie(who, lang), **how.pop("headers", {})}
        return self.http.get(BASE + path, headers=headers, follow_redirects=False, **how)

    def csrf(self, who: str) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/about", who).text)
        assert found
        return found[1]

    def post(self, path: str, data: dict[str, str] | None = None, who: str = "kari", **how: Any) -> Response:
        values = {"csrf": self.csrf(who), **(data or {})}
        return self.http.post(BASE + path, data=values, headers=self.cookie(who, "en"), follow_redirects=False, **how)

    @staticmethod
    def cookie(who: str | None, lang: str) -> dict[str, str]:
        return {"Cookie": f"proverom_lang={lang}" + (f"; {COOKIE}=token-{who}" if who else "")}


@contextmanager
def web_lab(folder: Path, **settings: Any) -> Iterator[WebLab]:
    url = f"sqlite:///{folder / 'catalog.sqlite'}"
    migrate(url)
    world = build_world(url, folder / "blobs")
    identity = InMemoryIdentity(world.catalog, base_path=BASE)
    for person in PEOPLE:
        identity.add(f"token-{person}", person)
    web = create_web(world.catalog, identity, WebSettings(**{"max_timeout_seconds": 3600, **settings}))
    with TestClient(create_api(world.catalog, identity=identity, web=web), raise_server_exceptions=False) as http:
        yield WebLab(world, identity, http)
    world.catalog.close()


@dataclass
class Page(HTMLParser):
    """What a test asks of a page's markup."""

    html: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]

    def ids(self) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get("id"))]

    def faults(self) -> list[str]:
        """Return what breaks the rules that every page of ours keeps: accessible, and nothing inline."""
        found = []
        for tag, attributes in self.tags:
            found += [f"{tag} has {name}" for name in attributes if name == "style" or name.startswith("on")]
        found += ["an inline script" for script in self.all("script") if not script.get("src")]
        found += ["an inline style" for _ in self.all("style")]
        found += [f"{len(self.all('h1'))} h1"] if len(self.all("h1")) != 1 else []
        found += [f"two elements #{id}" for id in set(self.ids()) if self.ids().count(id) > 1]
        labelled = {label.get("for") for label in self.all("label")}
        for control in self.all("input", "select", "textarea"):
            # A checkbox stands inside its label.
            known = control.get("type") in ("hidden", "submit", "checkbox")
            if not known and control.get("id") not in labelled:
                found.append(f"no label for {control}")
        for _, attributes in self.tags:
            for id in (attributes.get("aria-describedby") or "").split():
                found += [f"aria-describedby names {id}, which is not there"] if id not in self.ids() else []
        found += [f"img without alt: {image}" for image in self.all("img") if "alt" not in image]
        found += [f"from elsewhere: {value}" for _, attributes in self.tags for name, value in attributes.items()
                  if name in ("src", "href") and (value or "").startswith(("http:", "https:", "//"))]  # fmt: skip
        return found
