"""Who is asking: what the API and the pages need to know of the sign-in, and no more.

``hub.identity`` implements it over JupyterHub (bearer tokens and the OAuth flow for browsers); ``catalog.testing``
holds a twin for tests. Every method may be called on the event loop: what blocks goes to a thread inside.

How a page uses it::

    session = await identity.session(request)
    if session is None:
        return identity.login(request, next_url=str(request.url.path))
    ...
    <input type="hidden" name="csrf" value="{{ identity.csrf(session) }}">      # in each form
    if not identity.check_csrf(session, form.get("csrf")): ...                   # before each change

``catalog.api`` registers ``GET <base>/oauth_callback`` and ``POST <base>/logout`` (a form with its ``csrf``) for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from catalog.access import Viewer


class IdentityUnavailable(Exception):
    """The Hub does not answer, so nobody can be told from anybody (HTTP 503)."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody signed in with a browser. ``key`` names the session and opens nothing (a hash of its token)."""

    viewer: Viewer
    key: str


class Identity(Protocol):
    async def viewer(self, token: str, *, source: str = "api") -> Viewer | None:
        """Return who a bearer token stands for, None if it stands for nobody.

        Raise ``access.Forbidden`` if the person is known but may not use the catalog, IdentityUnavailable if the Hub
        is away. A desk's token gives a viewer confined to its agency, with the source ``desk:<slug>``.
        """

    async def session(self, request: Request) -> Session | None:
        """Return the browser session of a request (its cookie), None if there is none or it has ended.

        Raises as ``viewer`` does. The viewer's source is ``web``.
        """

    def login(self, request: Request, *, next_url: str) -> Response:
        """Return the redirect that starts the sign-in and comes back to ``next_url``, a path of the service's own."""

    async def callback(self, request: Request) -> Response:
        """Finish the sign-in and redirect to its ``next_url``.

        Raise ``access.Forbidden`` if the answer is not one to a sign-in that this browser started.
        """

    def logout(self, request: Request) -> Response:
        """Return the redirect that ends the session here and at the Hub."""

    def csrf(self, session: Session) -> str:
        """Return the token that each form of this session carries."""

    def check_csrf(self, session: Session, value: str | None) -> bool:
        """Say whether ``value`` is this session's token."""
