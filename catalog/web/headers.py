"""What every answer to a browser carries, and what is refused before a page is made.

Desks live on the lab's own host unless it has a subdomain for each, so a page in a desk is of the same origin as ours.
Three things keep it from reading or steering our pages with its owner's cookies: only navigations get a page, no page
may be framed, and each change needs the session's form token.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def page_policy(nonce: str) -> str:
    """Return the Content-Security-Policy of our own pages."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def is_navigation(headers: Headers) -> bool:
    """Say whether a browser asked for this to show it (and not a script to read it). Browsers that don't tell are
    believed.
    """
    return headers.get("sec-fetch-mode", "navigate") == "navigate"


class TooLarge(Exception):
    """The body is longer than the cap (HTTP 413)."""


class Shell:
    """ASGI middleware: common headers on every answer, and bodies cut off at ``cap(path)`` bytes."""

    def __init__(self, app: ASGIApp, cap: Callable[[str], int]) -> None:
        self._app = app
        self._cap = cap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        cap = self._cap(scope["path"])

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in COMMON.items():
                    headers.setdefault(name, value)
            await send(message)

        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdigit() or int(length) > cap:
            answer = PlainTextResponse(
                f"This is too large: at most {cap // 1024 // 1024} MB are taken.", status_code=413
            )
            await answer(scope, receive, sending)
            return
        await self._app(scope, _capped(receive, cap), sending)


def _capped(receive: Receive, cap: int) -> Receive:
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > cap:
            raise TooLarge
        return message

    return receiving
