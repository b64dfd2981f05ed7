"""The catalog's sign-in, over JupyterHub: Hub tokens for programs, the Hub's OAuth for browsers.

The Hub says who a token stands for and which scopes it has; the catalog's own database says, at each request anew,
where that person belongs. A desk's token carries its scopes with the filter ``!server=<user>/<slug>`` and is confined
to that agency.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from jupyterhub.services.auth import HubOAuth
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from tornado.web import HTTPError, create_signed_value, decode_signed_value

from catalog.access import Action, Forbidden, Viewer, token_power
from catalog.identity import Identity, IdentityUnavailable, Session

log = logging.getLogger("proverom.identity")

CACHE_SECONDS = 20  # how long a token that the Hub has ended may still be taken
SIGN_IN_SECONDS = 600
_SESSION_COOKIE = "proverom-catalog"
_SIGN_IN_COOKIE = "proverom-sign-in-"


class Members(Protocol):
    """What is needed of ``Catalog.members``."""

    def viewer(
        self, name: str, *, actions: frozenset[Action], confined_to: str | None = None, source: str = "api"
    ) -> Viewer: ...


class HubIdentity:
    """Implements ``catalog.identity.Identity``.

    ``secret`` signs the session cookie and the forms; ``auth`` is the Hub's own client, set up by the environment
    that the Hub gives its services. ``session_seconds`` is how long a browser keeps its session; the Hub ends it
    earlier when the person signs out there or the token expires.
    """

    def __init__(
        self,
        members: Members,
        *,
        secret: str,
        auth: HubOAuth | None = None,
        session_seconds: int = 14 * 86400,
        secure: bool = False,
    ) -> None:
        if len(secret) < 32:
            raise ValueError("The cookie secret is shorter than 32 characters. Make a new one.")
        self._members = members
        self._secret = secret
        self._auth = auth or HubOAuth(cache_max_age=CACHE_SECONDS)
        self._session_seconds = session_seconds
        self._secure = secure
        self._base = self._auth.base_url  # begins and ends with a slash

    # -- who it is ---------------------------------------------------------------------------------------------------

    async def viewer(self, token: str, *, source: str = "api") -> Viewer | None:
        try:
            model = await self._auth.user_for_token(token, sync=False)
        except HTTPError as error:
            log.warning("The Hub could not be asked who a token is: %s", error)
            raise IdentityUnavailable("The Hub does not answer. Try again in a moment.") from None
        if model is None:
            return None
        return await self._allowed(model, source)

    async def _allowed(self, model: Mapping[str, Any], source: str) -> Viewer:
        name, scopes = str(model["name"]), set(model.get("scopes", ()))
        if not self._auth.check_scopes(self._auth.access_scopes, {"scopes": scopes}):
            raise Forbidden(
                f"{name}'s token does not reach the catalog. Use one with the scope access:services!service=catalog."
            )
        allowed = token_power(name, scopes)
        if model.get("kind") != "user":
            # A service is nobody's namesake: it has its scopes and no memberships.
            return Viewer(f"service:{name}", actions=allowed.actions, source=source)
        if allowed.slug is not None:
            source = f"desk:{allowed.slug}"
        return await run_in_threadpool(
            self._members.viewer, name, actions=allowed.actions, confined_to=allowed.slug, source=source
        )

    async def session(self, request: Request) -> Session | None:
        token = self._signed(_SESSION_COOKIE, request.cookies.get(_SESSION_COOKIE), self._session_seconds)
        if token is None:
            return None
        viewer = await self.viewer(token, source="web")
        return None if viewer is None else Session(viewer, hashlib.sha256(token.encode()).hexdigest())

    # -- signing in and out ------------------------------------------------------------------------------------------

    def login(self, request: Request, *, next_url: str) -> Response:
        state = secrets.token_urlsafe(16)
        verifier, challenge, method = self._auth.generate_pkce_code_challenge()
        query = urlencode({"state": state, "code_challenge": challenge, "code_challenge_method": method})
        response = RedirectResponse(f"{self._auth.login_url}&{query}", 302, {"Cache-Control": "no-store"})
        # All that is needed to finish is with the browser that began: a service that starts anew forgets no sign-in.
        kept = json.dumps({"next": self._own(next_url), "verifier": verifier})
        name = _SIGN_IN_COOKIE + state[:8]
        self._set(request, response, name, self._sign(name + state, kept), SIGN_IN_SECONDS)
        return response

    async def callback(self, request: Request) -> Response:
        query = request.query_params
        if "error" in query:
            raise Forbidden(
                f"The Hub refused the sign-in ({query['error'][:80]!r}). Start again from the catalog's first page."
            )
        state, code = query.get("state", ""), query.get("code", "")
        name = _SIGN_IN_COOKIE + state[:8]
        kept = self._signed(name + state, request.cookies.get(name), SIGN_IN_SECONDS)
        if not code or kept is None:
            raise Forbidden(
                "This sign-in was not started here, or more than ten minutes ago. Start again from the catalog."
            )
        begun = json.loads(kept)
        try:
            token = await self._auth.token_for_code(code, code_verifier=begun["verifier"], sync=False)
        except HTTPError as error:
            if error.status_code == 502:
                raise IdentityUnavailable("The Hub does not answer. Try again in a moment.") from None
            log.warning("A sign-in was not completed: %s", error)
            raise Forbidden(
                "The Hub did not complete the sign-in. Start again from the catalog's first page."
            ) from None
        response = RedirectResponse(begun["next"], 303, {"Cache-Control": "no-store"})
        self._set(request, response, _SESSION_COOKIE, self._sign(_SESSION_COOKIE, token), self._session_seconds)
        response.delete_cookie(name, path=self._base)
        return response

    def logout(self, request: Request) -> Response:  # noqa: ARG002
        response = RedirectResponse(
            self._auth.hub_host + self._auth.hub_prefix + "logout", 303, {"Cache-Control": "no-store"}
        )
        response.delete_cookie(_SESSION_COOKIE, path=self._base)
        return response

    # -- forms -------------------------------------------------------------------------------------------------------

    def csrf(self, session: Session) -> str:
        return hmac.new(self._secret.encode(), f"csrf:{session.key}".encode(), hashlib.sha256).hexdigest()

    def check_csrf(self, session: Session, value: str | None) -> bool:
        return value is not None and hmac.compare_digest(self.csrf(session).encode(), value.encode("utf-8", "replace"))

    # -- cookies -----------------------------------------------------------------------------------------------------

    def _own(self, url: str) -> str:
        """Return ``url`` if it is a path of this service, its first page otherwise: a sign-in leads nowhere else."""
        plain = all(" " < c < "\x7f" for c in url) and "\\" not in url
        return url if plain and url.startswith(self._base) and "/../" not in url else self._base

    def _sign(self, name: str, value: str) -> str:
        signed: bytes = create_signed_value(self._secret, name, value)
        return signed.decode("ascii")

    def _signed(self, name: str, value: str | None, seconds: int) -> str | None:
        """Return what ``_sign`` was given, None if it is not ours or too old."""
        if not value or len(value) > 4096:
            return None
        found = decode_signed_value(self._secret, name, value, max_age_days=seconds / 86400, min_version=2)
        return None if found is None else found.decode("utf-8", "replace")

    def _set(self, request: Request, response: Response, name: str, value: str, seconds: int) -> None:
        secure = self._secure or request.url.scheme == "https"
        response.set_cookie(name, value, max_age=seconds, path=self._base, httponly=True, samesite="lax", secure=secure)


def _is_identity(identity: HubIdentity) -> Identity:
    """Hold mypy to it: what is here is what the catalog asks for."""
    return identity
