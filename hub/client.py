"""The API's client, for the command line: one call each, plain JSON, and errors in words."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from hub.connection import Connection

ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled", "partial"})
_TRIES = 4  # of a call that may be repeated, over a connection that fails
Json = Any


class ApiError(Exception):
    """The API said no, or nothing (``status`` None). ``problems`` lists what is wrong with the input."""

    def __init__(
        self, message: str, *, status: int | None = None, problems: tuple[Mapping[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problems = problems

    @property
    def wrong_use(self) -> bool:
        """True if asking differently can help, False if the lab or the way to it is at fault."""
        return self.status is not None and self.status < 500


class Client:
    """``transport`` and ``pause`` are for tests: what carries the calls, and a factor on the waits between tries."""

    def __init__(
        self, connection: Connection, *, transport: httpx.BaseTransport | None = None, pause: float = 1.0
    ) -> None:
        self._connection = connection
        self._pause = pause
        self._http = httpx.Client(
            base_url=f"{connection.url}/api/v1/",
            headers={
                "Authorization": f"Bearer {connection.token}",
                "X-Proverom-Client": "cli",
                "Accept": "application/json",
            },
            timeout=httpx.Timeout(60, connect=10),
            transport=transport,
            # A lab on this machine, or a desk's Hub, is never behind the proxy that the environment names.
            trust_env="." in (host := urlsplit(connection.url).hostname or "") and not host.startswith("127."),
        )

    @property
    def agency(self) -> str | None:
        """The agency that is meant where none is named: a desk's own."""
        return self._connection.agency

    def close(self) -> None:
        self._http.close()

    def page_of(self, id: str, path: str = "runs") -> str:
        """Return the address of the page for people of a run (or a sweep, a schedule)."""
        return f"{self._connection.url}/{path}/{id}"

    def get(self, path: str, **query: object) -> Json:
        return self._json("GET", path, repeat=True, params=_given(query))

    def all(self, path: str, *, limit: int | None = None, **query: object) -> Iterator[dict[str, Json]]:
        """Yield the items of a listing, page by page, at most ``limit``."""
        left, cursor = limit, None
        while left is None or left > 0:
            paging = {"limit": 200 if left is None else min(200, left), "cursor": cursor}
            page = self.get(path, **query, **paging)
            yield from page["items"]
            cursor = page["next"]
            left = None if left is None else left - len(page["items"])
            if cursor is None:
                return

    def post(self, path: str, body: object = None, **more: Any) -> Json:
        return self._json("POST", path, json=body, **more) if body is not None else self._json("POST", path, **more)

    def patch(self, path: str, body: object) -> Json:
        return self._json("PATCH", path, json=body)

    def put(self, path: str, body: object) -> Json:
        return self._json("PUT", path, repeat=True, json=body)

    def delete(self, path: str, **query: object) -> Json:
        return self._json("DELETE", path, params=_given(query))

    def remove(self, path: str) -> None:
        """Delete what the API answers nothing about."""
        self._send("DELETE", path)

    def submit(self, request: Mapping[str, object], path: str = "runs") -> Json:
        """Ask for a run, a sweep or a schedule, under a key: what is tried again is made once."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return self._json("POST", path, repeat=True, json=dict(request), headers=headers, timeout=300)

    def download(self, path: str, **query: object) -> bytes:
        headers = {"Accept": "*/*"}
        return self._send("GET", path, repeat=True, params=_given(query), headers=headers, timeout=300).content

    def follow(self, id: str, path: str = "runs") -> Iterator[dict[str, Json]]:
        """Yield the events of a run (or of a sweep) until it has ended. A dropped connection is taken up again."""
        failures = 0
        while True:
            try:
                for event in self._events(f"{path}/{id}/events"):
                    failures = 0
                    yield event
                    if event.get("state") in ENDED:
                        return
            except httpx.TransportError as error:
                failures += 1
                if failures > 30:
                    raise self._unreachable(error) from None
            except ApiError as error:
                if error.wrong_use or failures > 30:
                    raise
                failures += 1
            time.sleep(min(5.0, 0.5 * (failures + 1)) * self._pause)

    def _events(self, path: str) -> Iterator[dict[str, Json]]:
        headers = {"Accept": "text/event-stream"}
        with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(60, connect=10)) as answer:
            if answer.status_code != 200:
                answer.read()
                raise _error(answer)
            data: list[str] = []
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                elif not line and data:
                    yield json.loads("\n".join(data))
                    data = []

    def _json(self, method: str, path: str, **how: Any) -> Json:
        answer = self._send(method, path, **how)
        try:
            return answer.json()
        except ValueError:
            raise ApiError(
                f"{self._connection.url} does not answer as a Prøverom lab does. Check PROVEROM_URL."
            ) from None

    def _send(self, method: str, path: str, *, repeat: bool = False, **how: Any) -> httpx.Response:
        for attempt in range(_TRIES):
            last = not repeat or attempt == _TRIES - 1
            try:
                answer = self._http.request(method, path, **how)
            except httpx.TransportError as error:
                if last:
                    raise self._unreachable(error) from None
            else:
                if answer.is_success:
                    return answer
                if answer.status_code not in (502, 503, 504) or last:
                    raise _error(answer)
            time.sleep(0.3 * 2**attempt * self._pause)
        raise AssertionError("unreachable: the last try returns or raises")

    def _unreachable(self, error: Exception) -> ApiError:
        why = str(error) or type(error).__name__
        return ApiError(
            f"{self._connection.url} does not answer ({why}). Check that the lab runs and that the address is right."
        )


def _given(query: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _error(answer: httpx.Response) -> ApiError:
    """Return a problem (RFC 9457) as an error; anything else as what a stranger answered."""
    try:
        problem = answer.json()
        detail = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
        problems = tuple(p for p in problem.get("errors", ()) if isinstance(p, dict))
    except (ValueError, AttributeError):
        said = f"{answer.status_code} {answer.reason_phrase}"
        detail = f"{answer.url.host} answered {said} and no explanation. Check PROVEROM_URL."
        problems = ()
    return ApiError(detail, status=answer.status_code, problems=problems)
