"""An identity for tests that keeps the promises of ``catalog.identity`` without a Hub."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from catalog.access import Action, Forbidden, Viewer
from catalog.identity import IdentityUnavailable, Session
from catalog.store import Catalog

COOKIE = "session"


@dataclass(frozen=True, slots=True)
class _Token:
    person: str
    actions: frozenset[Action]
    confined_to: str | None
    allowed: bool


class InMemoryIdentity:
    """Tokens are what ``add`` says. A browser's session is the cookie ``session`` with a token in it.

    ``away`` is what a Hub that doesn't answer looks like.
    """

    def __init__(self, catalog: Catalog, *, base_path: str = "/services/catalog") -> None:
        self._catalog = catalog
        self._base = base_path
        self._tokens: dict[str, _Token] = {}
        self.away = False

    def add(
        self,
        token: str,
        person: str,
        *,
        actions: Iterable[Action] = tuple(Action),
        confined_to: str | None = None,
        allowed: bool = True,
    ) -> str:
        """Let ``token`` stand for ``person``; ``confined_to`` is an agency's slug. Return the token."""
        self._tokens[token] = _Token(person, frozenset(actions), confined_to, allowed)
        return token

    def end(self, token: str) -> None:
        self._tokens.pop(token, None)

    async def viewer(self, token: str, *, source: str = "api") -> Viewer | None:
        if self.away:
            raise IdentityUnavailable("The Hub does not answer. Try again in a moment.")
        found = self._tokens.get(token)
        if found is None:
            return None
        if not found.allowed:
            raise Forbidden(f"{found.person}'s token does not reach the catalog.")
        source = f"desk:{found.confined_to}" if found.confined_to else source
        return await run_in_threadpool(
            self._catalog.members.viewer,
            found.person,
            actions=found.actions,
            confined_to=found.confined_to,
            source=source,
        )

    async def session(self, request: Request) -> Session | None:
        token = request.cookies.get(COOKIE)
        viewer = await self.viewer(token, source="web") if token else None
        return Session(viewer, hashlib.sha256(token.encode()).hexdigest()) if viewer and token else None

    def login(self, request: Request, *, next_url: str) -> Response:  # noqa: ARG002
        return RedirectResponse(f"/hub/login?next={next_url}", 302)

    async def callback(self, request: Request) -> Response:
        code = request.query_params.get("code", "")
        if code not in self._tokens:
            raise Forbidden("This sign-in was not started here.")
        response = RedirectResponse(f"{self._base}/", 303)
        response.set_cookie(COOKIE, code, path=self._base, httponly=True)
        return response

    def logout(self, request: Request) -> Response:  # noqa: ARG002
        response = RedirectResponse("/hub/logout", 303)
        response.delete_cookie(COOKIE, path=self._base)
        return response

    def csrf(self, session: Session) -> str:
        return hmac.new(b"test", session.key.encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, session: Session, value: str | None) -> bool:
        return value is not None and hmac.compare_digest(self.csrf(session).encode(), value.encode("utf-8", "replace"))
