"""API tokens of a demonstration lab's logins: made by signing in as each person, with no more power than theirs."""

from __future__ import annotations

import httpx


class TokenRefused(Exception):
    """The Hub did not take a login, or gave no token; the message says which and why."""


def token_lives(client: httpx.Client, token: str) -> bool:
    """Say whether the Hub takes this token. ``client`` has the lab's address as its base."""
    if not token:
        return False
    return client.get("/hub/api/user", headers={"Authorization": f"token {token}"}).status_code == httpx.codes.OK


def mint_token(client: httpx.Client, login: str, password: str, *, days: int) -> str:
    """Sign in and return a new API token for ``days``. Raise TokenRefused."""
    with httpx.Client(base_url=client.base_url, timeout=client.timeout, trust_env=False) as browser:
        sign_in(browser, login, password)
        answer = browser.post(
            f"/hub/api/users/{login}/tokens",
            json={"note": "proverom", "expires_in": days * 86400},
            params={"_xsrf": browser.cookies.get("_xsrf", path="/hub/")},
        )
        if answer.status_code != httpx.codes.CREATED:
            raise TokenRefused(f"The Hub gave {login} no token ({answer.status_code}): {answer.text[:300]}")
        return str(answer.json()["token"])


def sign_in(browser: httpx.Client, login: str, password: str) -> None:
    """Sign ``browser`` in through the Hub's own form. Raise TokenRefused if the Hub refuses."""
    browser.get("/hub/login")
    answer = browser.post(
        "/hub/login",
        data={"username": login, "password": password, "_xsrf": browser.cookies.get("_xsrf", path="/hub/") or ""},
    )
    if answer.status_code != httpx.codes.FOUND:
        raise TokenRefused(f"The Hub did not let {login} in ({answer.status_code}). See: proverom logs")
