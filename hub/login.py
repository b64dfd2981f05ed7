"""Signing in: passwords for a demonstration lab, OpenID Connect for a real one. Memberships decide in both."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jupyterhub.auth import Authenticator
from jupyterhub.handlers.login import LoginHandler
from oauthenticator.generic import GenericOAuthenticator
from stdnum.no import fodselsnummer
from tornado import web
from traitlets import Bool, Callable, Unicode

from hub.membership import Standing
from hub.passwords import Throttle

# How old a membership may be that the Hub acts on, in seconds.
REFRESH_SECONDS = 30


class SignInRefused(web.HTTPError):
    """Nobody is signed in. ``code`` is a machine word; the page has the sentence in the reader's language."""

    def __init__(self, code: str, message: str, status: int = 403) -> None:
        super().__init__(status, message)
        self.code = code


class LabLoginHandler(LoginHandler):  # type: ignore[misc]
    """JupyterHub's own sign-in page, which tells its template *why* nobody was signed in: ``login_error_code``."""

    _code = ""

    def check_xsrf_cookie(self) -> None:
        try:
            super().check_xsrf_cookie()
        except web.HTTPError:
            self._code = "expired_form"
            raise

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        self._code = self._code or getattr(error, "code", "failed")
        super().write_error(status_code, **kwargs)

    def _render(self, login_error: str | None = None, username: str | None = None, **kwargs: Any) -> Any:
        code = self._code or ("bad_login" if login_error else "")
        return super()._render(login_error=login_error, username=username, login_error_code=code, **kwargs)

    async def post(self) -> None:
        for field, longest in (("username", 255), ("password", 1000)):
            if not 0 < len(self.get_body_argument(field, "")) <= longest:
                self.set_status(403)
                name = self.get_body_argument("username", "")[:255]
                self.finish(await self._render(login_error=f"{field} is missing or too long", username=name))
                return
        await super().post()


class _ByMembership(Authenticator):  # type: ignore[misc]
    """What both ways of signing in share: groups and refusal come from the memberships in the catalog."""

    standing_of = Callable(help="person -> Standing, from the catalog's database; it may block.").tag(config=True)

    async def standing(self, person: str) -> Standing:
        """Return where a person stands now. Raise 503 if the catalog's database does not answer."""
        try:
            standing: Standing = await asyncio.to_thread(self.standing_of, person)
        except Exception:
            self.log.exception("The catalog's database does not answer; nobody's membership can be checked")
            raise SignInRefused("unavailable", "Memberships cannot be checked just now. Try again soon.", 503) from None
        return standing

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> Any:  # noqa: ARG002
        """Follow the memberships. Where none is left, end every session and token of the person for good."""
        standing = await self.standing(user.name)
        if not standing.current:
            self._end(user)
            return False
        if {group.name for group in user.orm_user.groups} == set(standing.groups):
            return True
        return {"name": user.name, "groups": list(standing.groups)}

    def _end(self, user: Any) -> None:
        """The desks themselves are stopped by the watch (``hub.watch``), which sees those without a membership."""
        self.log.warning("%s has no membership any more: ending sessions and tokens", user.name)
        user.orm_user.cookie_id = secrets.token_hex(16)
        for token in list(user.orm_user.api_tokens):
            user.db.delete(token)
        user.db.commit()


class DemoAuthenticator(_ByMembership):
    """A password for each login of a demonstration lab (``hub.passwords``)."""

    check_password = Callable(help="(login, password) -> bool; it may block.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._throttle = Throttle()
        # One at a time: however many guess, scrypt takes one core and 16 MiB, and the Hub goes on answering.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scrypt")

    def get_handlers(self, app: Any) -> list[tuple[str, type]]:  # noqa: ARG002
        return [("/login", LabLoginHandler)]

    async def authenticate(self, handler: Any, data: Mapping[str, str]) -> dict[str, Any] | None:  # noqa: ARG002
        """Return the person and their groups, None for a wrong password; raise SignInRefused for other reasons."""
        login = self.normalize_username(data.get("username", ""))
        wait = self._throttle.wait(login)
        if wait > 0:
            raise SignInRefused("throttled", f"Too many wrong passwords. Try again in {wait:.0f} seconds.", 429)
        # Counted before the check, so that many at once do not get in through the gap.
        self._throttle.failed(login)
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._thread, self.check_password, login, data.get("password", "")):
            return None
        self._throttle.succeeded(login)
        standing = await self.standing(login)
        if not standing.current:
            raise SignInRefused("no_membership", "You do not belong to any agency of this lab. Ask its coordinator.")
        return {"name": login, "groups": list(standing.groups)}


class OidcAuthenticator(_ByMembership, GenericOAuthenticator):  # type: ignore[misc]
    """OpenID Connect; with ``join``, whoever signs in on behalf of an agency of the lab becomes its member."""

    issuer = Unicode(help="The issuer that the id token must name.").tag(config=True)
    join = Bool(False, help="Make a member of whoever acts for one of the lab's agencies.").tag(config=True)
    join_agencies = Callable(
        help="(person, organisation numbers): add a membership in each that is the lab's; it may block."
    ).tag(config=True)

    async def token_to_user(self, token_info: Mapping[str, Any]) -> Any:
        """Return the id token's claims. Raise SignInRefused if another issuer made it.

        The token comes straight from the provider over TLS, so its signature says nothing more (OIDC Core 3.1.3.7).
        """
        claims = await super().token_to_user(token_info)
        if claims.get("iss") != self.issuer:
            raise SignInRefused("failed", f"The id token is from {claims.get('iss')!r}, not from {self.issuer!r}.")
        return claims

    def user_info_to_username(self, user_info: Mapping[str, Any]) -> str:
        name = str(super().user_info_to_username(user_info))
        if fodselsnummer.is_valid(name):
            raise SignInRefused(
                "not_allowed",
                "The provider names people by their national identity number. Change login.username_claim.",
            )
        return name

    async def update_auth_model(self, auth_model: dict[str, Any]) -> dict[str, Any]:
        """Add the membership that a first sign-in brings, and refuse whoever has none."""
        person = auth_model["name"]
        standing = await self.standing(person)
        if not standing.current and self.join:
            organisations = organisations_of(auth_model["auth_state"][self.user_auth_state_key])
            await asyncio.to_thread(self.join_agencies, person, organisations)
            standing = await self.standing(person)
        if not standing.current:
            raise SignInRefused("no_membership", "You do not belong to any agency of this lab. Ask its coordinator.")
        # The tokens of the provider are not needed again, so they are not kept.
        return auth_model | {"groups": list(standing.groups), "auth_state": None}

    async def _apply_managed_groups(self, auth_model: dict[str, Any]) -> dict[str, Any]:
        """Leave the groups that ``update_auth_model`` has set: they come from memberships, never from claims."""
        return auth_model


def organisations_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the organisation numbers that an id token's ``authorization_details`` name.

    Ansattporten has had three forms: ``authorized_parties[].orgno.ID``, ``orgno.ID`` and ``reportees[].ID``; numbers
    look like ``0192:991825827``. What has another form names nobody.
    """
    details = claims.get("authorization_details")
    if isinstance(details, str):
        try:
            details = json.loads(details)
        except ValueError:
            return frozenset()
    found: set[str] = set()
    for detail in details if isinstance(details, list) else [details]:
        if not isinstance(detail, Mapping):
            continue
        parties = detail.get("authorized_parties")
        candidates: list[Any] = [p.get("orgno") for p in _mappings(parties)] + [detail.get("orgno")]
        candidates += _mappings(detail.get("reportees"))
        for candidate in candidates:
            number = candidate.get("ID") if isinstance(candidate, Mapping) else candidate
            if isinstance(number, str) and (match := re.fullmatch(r"(?:0192:)?([0-9]{9})", number)):
                found.add(match[1])
    return frozenset(found)


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def ansattporten_details(resource: str) -> str:
    """Return the ``authorization_details`` that make Ansattporten show its organisation chooser."""
    return json.dumps(
        [{"type": "ansattporten:altinn:resource", "resource": resource, "organizationform": "enterprise"}]
    )
