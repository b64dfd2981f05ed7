"""What stands in front of every request: size caps, headers that every answer has, the last catch, the counters."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catalog.api.problems import Refusal, problem, unforeseen

_DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Counters:
    """Requests by route, method and status, and how long they took (Prometheus)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("part", "route", "method", "status")
        self.requests = Counter("proverom_http_requests", "Requests answered", labels, registry=registry)
        self.seconds = Histogram(
            "proverom_http_request_seconds", "Time to the first byte", labels[:3], registry=registry
        )


class Guard:
    """ASGI middleware for one part of the service.

    ``cap(method, path)`` is the largest body in bytes; a longer one is refused before it has been read (413). An
    exception that nobody handled becomes a 500 with a reference, and the log has the rest.
    """

    def __init__(self, app: ASGIApp, *, part: str, cap: Callable[[str, str], int], counters: Counters) -> None:
        self._app = app
        self._part = part
        self._cap = cap
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        started = ended = False

        async def sending(message: Message) -> None:
            nonlocal started, ended
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
                self._count(scope, message["status"], time.perf_counter() - began)
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            self._refuse_at_once(scope)
            await self._app(scope, self._capped(scope, receive), sending)
        except Refusal as error:
            if started:
                raise
            answer = problem(
                error.status_code, error.word, error.detail, errors=error.errors, headers={"Connection": "close"}
            )
            await answer(scope, receive, sending)
        except Exception as error:
            if started and not ended:
                raise  # a stream broke: the server cuts the connection, so that nobody takes it for whole
            if not ended:  # else the app has answered already, and its error handling raised it again
                await unforeseen(Request(scope), error)(scope, receive, sending)

    def _refuse_at_once(self, scope: Scope) -> None:
        if "\x00" in scope["path"]:
            raise Refusal(404, "not-found", "There is nothing at this address.")
        if b"\x00" in unquote_to_bytes(scope.get("query_string", b"")):
            raise Refusal(422, "invalid-input", "The address holds NUL. Leave it out.")
        length = Headers(scope=scope).get("content-length")
        if length is not None and length.isascii() and length.isdigit():
            digits = length.lstrip("0")
            if len(digits) > 15 or int(digits or "0") > self._limit(scope):
                raise self._too_large(scope)

    def _capped(self, scope: Scope, receive: Receive) -> Receive:
        limit, read = self._limit(scope), 0

        async def receiving() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                if read > limit:
                    raise self._too_large(scope)
            return message

        return receiving

    def _limit(self, scope: Scope) -> int:
        return self._cap(scope["method"], scope["path"])

    def _too_large(self, scope: Scope) -> Refusal:
        return Refusal(
            413,
            "too-large",
            f"The body is larger than {self._limit(scope)} bytes, the most that is taken here. Send less.",
        )

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")  # the pattern and never the address: addresses are endless
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._counters.requests.labels(self._part, route, method, str(status)).inc()
        self._counters.seconds.labels(self._part, route, method).observe(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
