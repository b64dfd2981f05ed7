"""One visit to one page: who, in which language, and how its answer is made."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import Depends, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.datastructures import UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from catalog import wording
from catalog.access import Action, Forbidden, Viewer, agencies_for, is_admin, may, may_anywhere
from catalog.i18n import LANGUAGE_NAMES, Translator
from catalog.identity import Identity, Session
from catalog.reports.service import Reports
from catalog.store import Catalog, Unavailable
from catalog.store.records import AgencyRecord
from catalog.web.headers import is_navigation, page_policy
from catalog.web.i18n import COOKIE, LANGUAGES, choose, translator
from catalog.web.settings import WebSettings
from experiments.model import RunState
from lab_templates.model import Problem

STATIC = Path(__file__).parent / "static"
_YEAR = 365 * 24 * 3600


class SignIn(Exception):
    """Nobody is signed in: the visitor is sent to do so and comes back."""


@dataclass(frozen=True, slots=True)
class Site:
    """What ``create_web`` was given: the same for every visit."""

    catalog: Catalog
    identity: Identity
    settings: WebSettings
    reports: Reports


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem as a form shows it: the id of the field it belongs to ("" for the form as a whole), and a sentence."""

    field: str
    text: str


@dataclass(slots=True)
class Visit:
    request: Request
    site: Site
    session: Session | None
    t: Translator
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    @property
    def viewer(self) -> Viewer:
        if self.session is None:
            raise SignIn
        return self.session.viewer

    @property
    def catalog(self) -> Catalog:
        return self.site.catalog

    def url(self, path: str = "/", **query: object) -> str:
        """Return the address of one of our own pages; empty query values are left out."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return self.site.settings.base_path + path + (f"?{urlencode(given)}" if given else "")

    def page(self, template: str, http_status: int = 200, **context: Any) -> Response:
        """Return a rendered page."""
        body = _environment().get_template(template).render({**self._common(), "unread": self._unread(), **context})
        response = HTMLResponse(body, http_status)
        response.headers["Content-Security-Policy"] = page_policy(self.nonce)
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Language"] = self.t.language
        return self._remember_language(response)

    def go(self, path: str, **query: object) -> Response:
        """Return the redirect after a change: a reload then repeats nothing."""
        return RedirectResponse(self.url(path, **query), status_code=303)

    def troubles(self, problems: Iterable[Problem], labels: Mapping[str, str], ids: Mapping[str, str]) -> list[Trouble]:
        """Return problems as sentences, each with the id of its field."""
        return [Trouble(ids.get(p.field, ""), wording.problem(self.t, p, labels.get(p.field, ""))) for p in problems]

    def my_agencies(self, action: Action) -> list[AgencyRecord]:
        """Return the active agencies where the visitor may do ``action``, by name."""
        allowed = agencies_for(self.viewer, action)
        agencies = [a for a in self.catalog.agencies.list(self.viewer) if allowed is None or a.orgnr in allowed]
        return sorted(agencies, key=lambda agency: self.t.text(agency.name).casefold())

    def may(self, action: Action, agency: str) -> bool:
        return may(self.viewer, action, agency)

    def seen(self, subject: str) -> None:
        """Note that the visitor has seen what a notice may tell of. A page can be read when that cannot be noted."""
        with contextlib.suppress(Unavailable):
            self.catalog.notices.seen(self.viewer, subject)

    def _common(self) -> dict[str, Any]:
        settings, t = self.site.settings, self.t
        viewer = self.session.viewer if self.session else None
        path = self.request.url.path
        return {
            "_": t,
            "t": t,
            "plural": t.plural,
            "wording": wording,
            "url": self.url,
            "static": lambda name: static_url(settings.base_path, name),
            "vendor": settings.vendor_dir is not None,
            "nonce": self.nonce,
            "viewer": viewer,
            "csrf": self.site.identity.csrf(self.session) if self.session else "",
            "coordinates": viewer is not None and (may_anywhere(viewer, Action.PUBLISH) or is_admin(viewer)),
            "engine": settings.engine,
            "hub": settings.hub_path,
            "here": path.removeprefix(settings.base_path) or "/",
            "languages": [(code, name, self._in_language(code)) for code, name in LANGUAGE_NAMES.items()],
            "RunState": RunState,
        }

    def _unread(self) -> int:
        """Return how many notices the bell tells of; a database that is away keeps no page from being made."""
        if self.session is None:
            return 0
        try:
            return self.catalog.notices.unread(self.session.viewer)
        except Unavailable:
            return 0

    def _in_language(self, code: str) -> str:
        query = [(name, value) for name, value in self.request.query_params.multi_items() if name != "lang"]
        # A page that answers a form has no address of its own in another language; its form has.
        return f"{self.request.url.path}?{urlencode([*query, ('lang', code)])}"

    def _remember_language(self, response: Response) -> Response:
        if self.request.query_params.get("lang") in LANGUAGES:
            # The path is the host's root: the Hub's own pages read it too.
            response.set_cookie(COOKIE, self.t.language, max_age=_YEAR, path="/", samesite="lax", httponly=True)
        return response


def visit_without_session(request: Request, session: Session | None = None) -> Visit:
    """Return a visit by nobody in particular: for errors, and for pages that need no sign-in."""
    site: Site = request.app.state.site
    language = choose(
        request.query_params, request.cookies, request.headers.get("accept-language"), site.settings.language
    )
    return Visit(request, site, session, translator(language))


async def anybody(request: Request) -> Visit:
    """Return the visit, signed in or not."""
    site: Site = request.app.state.site
    request.state.session = await site.identity.session(request)
    return visit_without_session(request, request.state.session)


async def signed_in(request: Request) -> Visit:
    """Return the visit of somebody signed in; raise SignIn, or Forbidden if a script and not a reader asks."""
    if not is_navigation(request.headers):
        raise Forbidden("A page is for reading, not for scripts. Scripts use the API, with a token.")
    visit = await anybody(request)
    if visit.session is None:
        raise SignIn
    return visit


class BadForm(Exception):
    """The form came from no page of this session (HTTP 403): nothing was changed."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form as it was sent: its text fields (the last of each name counts) and the files that were chosen."""

    values: Mapping[str, str]
    files: Mapping[str, bytes]

    def get(self, name: str) -> str:
        return self.values.get(name, "").strip()


async def checked_form(request: Request, visit: Annotated[Visit, Depends(signed_in)]) -> Form:
    """Return the form of this session. Raise BadForm without its token."""
    async with request.form(max_fields=500, max_files=5, max_part_size=1024 * 1024) as sent:
        values = {name: value for name, value in sent.multi_items() if isinstance(value, str)}
        chosen = [(name, value) for name, value in sent.multi_items() if isinstance(value, UploadFile)]
        files = {name: await value.read() for name, value in chosen if value.filename}
    if visit.session is None or not visit.site.identity.check_csrf(visit.session, values.get("csrf")):
        raise BadForm
    return Form(values, files)


Reader = Annotated[Visit, Depends(signed_in)]
Sent = Annotated[Form, Depends(checked_form)]
# For a form that holds nothing but its token.
CHECKED = (Depends(checked_form),)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["path"] = lambda value: quote(str(value), safe="@~")
    environment.filters["paragraphs"] = _paragraphs
    return environment


def _paragraphs(text: str) -> Markup:
    pieces = [piece.strip() for piece in text.split("\n\n") if piece.strip()]
    return Markup("").join(Markup('<p class="ds-paragraph">{}</p>').format(piece) for piece in pieces)


@cache
def _fingerprint(name: str) -> str:
    file = STATIC / name
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else ""


def static_url(base_path: str, name: str) -> str:
    """Return the address of a file of ours or of ``vendor/``; one of ours is new whenever its content is."""
    mark = _fingerprint(name)
    return f"{base_path}/static/{name}" + (f"?v={mark}" if mark else "")
