"""The Hub's own pages are whole in three languages, with what JupyterHub gives them and with what hub.wiring adds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from catalog.access import Role
from hub.membership import Desk
from hub.pages import environment_options
from lab_templates.model import Text
from tests.unit.catalog.web_lab import Page

FOLDER = Path(__file__).parents[3] / "hub" / "templates"


@dataclass
class Spawner:
    name: str
    active: bool = True
    ready: bool = True


@dataclass
class User:
    name: str = "kari <b>"
    escaped_name: str = "kari%20%3Cb%3E"
    json_escaped_name: str = "kari"

    def all_spawners(self, include_default: bool) -> list[Spawner]:
        return [Spawner("nav")]


class Connection:
    context = None


class Handler:
    """Stands where tornado's handler does: ``static_url`` is its method."""

    def __init__(self, language: str) -> None:
        line = RequestStartLine("GET", f"/hub/x?lang={language}", "HTTP/1.1")
        self.request = HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": "lab"}), connection=Connection())

    def static_url(self, path: str) -> str:
        return f"/hub/static/{path}"


def environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(FOLDER)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.Undefined, **environment_options())


def desks(user: Any) -> tuple[Desk, ...]:
    nav = Desk("889640782", "nav", Text(nb="NAV"), (Role.MEMBER,), 10)
    return (nav, Desk("974761076", "skatteetaten", Text(nb="Skatteetaten"), (Role.MEMBER,), 10))


NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)
TOKEN = {"api_id": "a1", "note": "<i>cli</i>", "last_activity": None, "created": NOW, "expires_at": NOW}
CLIENT = {"token_id": "b2", "description": "Server at /user/kari/nav", "last_activity": NOW, "created": None}
PAGES: dict[str, dict[str, Any]] = {
    "login.html": {"user": None, "authenticator_login_url": "/hub/login?next=", "xsrf": "x"},
    "logout.html": {"user": None},
    "error.html": {"status_code": 403, "status_message": "Forbidden", "message": "<b>no</b>"},
    "404.html": {"status_code": 404, "status_message": "Not Found"},
    "home.html": {},
    "not_running.html": {"spawn_url": "/hub/spawn/kari/nav", "implicit_spawn_seconds": 3, "failed": False},
    "spawn.html": {
        "for_user": User("other"),
        "error_message": "no room",
        "url": "/hub/spawn",
        "spawner_options_form": "",
    },
    "spawn_pending.html": {"progress_url": "/hub/api/users/kari/servers/nav/progress"},
    "stop_pending.html": {},
    "token.html": {
        "api_tokens": [TOKEN],
        "oauth_clients": [CLIENT],
        "token_expires_in_max_seconds": 90 * 86_400,
    },
    "oauth.html": {"oauth_client": CLIENT | {"redirect_uri": "/x"}, "allowed_scopes": ["a"], "scope_descriptions": []},
    "admin.html": {"admin_access": True, "api_page_limit": 50},
}


def render(name: str, language: str = "nb", **more: Any) -> str:
    given = {
        "base_url": "/hub/",
        "catalog_url": "/services/catalog/",
        "logout_url": "/hub/logout",
        "lab_notice": "",
        "user": User(),
        "xsrf_token": "x",
        "parsed_scopes": {"admin-ui": {}},
        "desks": desks(None),
        "static_url": Handler(language).static_url,
        **PAGES[name],
        **more,
    }
    return environment().get_template(name).render(given)


def test_every_page_of_jupyterhub_that_a_person_sees_is_ours() -> None:
    ours = {path.name for path in FOLDER.glob("*.html")}
    assert ours == {*PAGES, "page.html"}


@pytest.mark.parametrize("language", ["nb", "nn", "en"])
@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_is_whole(name: str, language: str) -> None:
    text = render(name, language)
    page = Page(text)
    assert page.all("html")[0]["lang"] == language
    faults = [fault for fault in page.faults() if name != "admin.html" or fault not in ("an inline script", "0 h1")]
    assert faults == []
    assert "kari <b>" not in text
    assert "<b>no</b>" not in text
    assert "<i>cli</i>" not in text
    assert "/services/catalog/static/app.css" in text
    assert "{{" not in text
    assert "%(" not in text


@pytest.mark.parametrize("code", ["bad_login", "throttled", "no_membership", "unavailable", "expired_form", "failed"])
def test_why_nobody_was_signed_in_is_said(code: str) -> None:
    text = render("login.html", login_error="Upstream text", login_error_code=code)
    said = re.search(r'login_error">([^<]+)<', text)
    assert said
    assert said[1] not in ("", "Upstream text")
    assert "Upstream text" not in text


def test_signing_in() -> None:
    fields = {i.get("name"): i for i in Page(render("login.html", username='"><b>')).all("input")}
    assert fields["_xsrf"]["value"] == "x"
    assert fields["username"]["value"] == '"><b>'
    assert fields["password"]["autocomplete"] == "current-password"
    assert "Logg inn med Ansattporten" in render("login.html", login_service="Ansattporten")


def test_a_lab_for_trying_out_says_so() -> None:
    assert "For utprøving" in render("login.html", lab_notice="local")
    assert "For utprøving" not in render("login.html")


@pytest.mark.parametrize(
    ("language", "longest", "time"),
    [("nb", "90 dager", "5. jan. 2026 kl. 09.00"), ("nn", "90 dagar", "5. jan. 2026 kl. 09.00"),
     ("en", "90 days", "5 Jan 2026 at 09:00")],
)  # fmt: skip
def test_access_tokens(language: str, longest: str, time: str) -> None:
    naive = {**TOKEN, "created": NOW.replace(tzinfo=None)}  # as JupyterHub keeps it
    text = render("token.html", language, api_tokens=[naive])
    assert f'<option value="" selected>{longest}</option>' in text
    assert [option["value"] for option in Page(text).all("option")] == ["3600", "86400", "604800", "2592000", ""]
    assert text.count(f">{time}<") == 3
    assert "UTC" not in text
    assert "/user/kari/nav" in text
    assert "Server at" not in text


def test_a_token_without_a_limit() -> None:
    text = render("token.html", "en", token_expires_in_max_seconds=None)
    assert '<option value="31536000">1 year</option><option value="" selected>Never ends</option>' in text
    assert "2 hours" in render("token.html", "en", token_expires_in_max_seconds=7200)


def test_my_desks() -> None:
    text = render("home.html")
    assert 'href="/hub/spawn/kari%20%3Cb%3E/skatteetaten"' in text
    assert text.count("data-stop=") == 1
    assert "Du har ikke noe skrivebord" in render("home.html", desks=())


def test_a_desk_that_did_not_start_says_why() -> None:
    text = render("not_running.html", failed=True, failed_message="<no memory>")
    assert "&lt;no memory&gt;" in text
    assert "Prøv igjen" in text
