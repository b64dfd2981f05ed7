"""The runner protocol's client side: claim, heartbeat, result (docs/architecture.md)."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

# A template's notebook with its parameters is far smaller; a bigger answer is no assignment.
MAX_ANSWER = 64 * 1024 * 1024
RETRY_LATER = frozenset({408, 425, 429})


class HubAway(Exception):
    """The Hub or its database does not answer just now: try again later."""


class Refused(Exception):
    """The Hub's answer is final: 401 (token used up), 403, 409 (lease lost), 413 (too big), 422 (not a result)."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        super().__init__(f"The Hub answered {status}: {detail}")


@dataclass(frozen=True, slots=True)
class Task:
    """What the runner is to do. Times in seconds, sizes in bytes; ``notebook`` is JSON text."""

    run: str
    attempt: int
    notebook: str
    parameters: Mapping[str, Any]
    kernel: str
    timeout_seconds: float
    lease_seconds: float
    output_limit_bytes: int
    start: str = "forked"  # how a Python kernel is started: forked | ordinary


@dataclass(frozen=True, slots=True)
class Report:
    """What the runner says has happened. ``notebook`` is the executed notebook so far, as JSON text."""

    outcome: str  # succeeded | failed | timed_out | cancelled
    notebook: str
    reason: str | None = None
    error: Mapping[str, Any] | None = None


def result_body(task: Task, report: Report) -> bytes:
    """Return a result as it is sent. Lone surrogates are possible in what a kernel prints, and are no UTF-8."""
    body = {
        "attempt": task.attempt,
        "outcome": report.outcome,
        "reason": report.reason,
        "error": report.error,
        "notebook": report.notebook,
    }
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _task(answer: Mapping[str, Any]) -> Task:
    try:
        return Task(
            run=str(answer["run"]),
            attempt=int(answer["attempt"]),
            notebook=str(answer["notebook"]),
            parameters=dict(answer["parameters"]),
            kernel=str(answer["kernel"]),
            timeout_seconds=float(answer["timeout_seconds"]),
            lease_seconds=float(answer["lease_seconds"]),
            output_limit_bytes=int(answer["output_limit_bytes"]),
            start=str(answer.get("start", "forked")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HubAway(f"The Hub's assignment cannot be read: {error!r}") from error


class HubClient:
    """Speaks with the Hub at ``url`` with the runner's token. Threads may share it: each has its own connection."""

    def __init__(self, url: str, token: str, *, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"PROVEROM_RUNNER_URL={url!r} is no http address. Give one like http://hub:8000/….")
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = parts.path.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._own = threading.local()

    def claim(self, wait_seconds: int, holding: Collection[str] = ()) -> Task | None:
        """Return the next assignment, None if there was none for ``wait_seconds``; raise HubAway or Refused."""
        body = {"holding": sorted(holding)}
        status, answer = self._post(f"/claim?wait={wait_seconds}", body, self._timeout + wait_seconds)
        if status == 204:
            return None
        return _task(answer)

    def heartbeat(self, task: Task, cells_done: int, cells_total: int, tail: str) -> bool:
        """Say how far the run has come; return True if it is to be cancelled. Raise HubAway or Refused."""
        body = {"attempt": task.attempt, "cells_done": cells_done, "cells_total": cells_total, "tail": tail}
        _, answer = self._post(f"/runs/{quote(task.run, safe='')}/heartbeat", body, min(self._timeout, 10.0))
        return bool(answer.get("cancel"))

    def hand_back(self, task: Task) -> bool:
        """Ask for another attempt at the run, alone; return False if its result is wanted. Raise HubAway or Refused."""
        _, answer = self._post(f"/runs/{quote(task.run, safe='')}/hand-back", {"attempt": task.attempt}, self._timeout)
        return bool(answer.get("taken"))

    def finish(self, task: Task, body: bytes) -> tuple[str, Task | None]:
        """Send a result (``result_body``); return the state the Hub recorded, and the next assignment if there is one.

        Raise HubAway or Refused.
        """
        path = f"/runs/{quote(task.run, safe='')}/result?more=true"
        _, answer = self._post(path, body, max(self._timeout, 120.0))
        following = answer.get("next")
        return str(answer.get("state", "")), _task(following) if isinstance(following, dict) else None

    def _post(self, path: str, body: Mapping[str, Any] | bytes, timeout: float) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        while True:
            connection, used = self._connection(timeout)
            try:
                connection.request("POST", self._path + path, body=data, headers=headers)
                answer = connection.getresponse()
                text = answer.read(MAX_ANSWER + 1)
            except (OSError, http.client.HTTPException) as error:
                self._drop()
                # The Hub may close a connection that has rested. Every call may be repeated without harm.
                if used and isinstance(error, ConnectionError):
                    continue
                raise HubAway(f"{type(error).__name__}: {error}") from error
            if answer.will_close or len(text) > MAX_ANSWER:
                self._drop()
            return self._read(answer.status, text)

    def _connection(self, timeout: float) -> tuple[http.client.HTTPConnection, bool]:
        """Return this thread's connection, and whether it was used before."""
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(timeout)
            return connection, True
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        self._own.connection = kind(self._host, self._port, timeout=timeout)
        return self._own.connection, False

    def _drop(self) -> None:
        self._own.connection.close()

    @staticmethod
    def _read(status: int, text: bytes) -> tuple[int, dict[str, Any]]:
        if status == 204:
            return status, {}
        if status in RETRY_LATER or status >= 500 or 300 <= status < 400:
            raise HubAway(f"The Hub answered {status}.")
        if status == 409 and b"already-arriving" in text:
            raise HubAway("The Hub is still reading the result that was sent before.")
        if status >= 400:
            # 404 is what a proxy says while the catalog behind it is being started.
            if status == 404:
                raise HubAway("The Hub answered 404: the catalog is not there yet.")
            raise Refused(status, text[:500].decode("utf-8", "replace"))
        if len(text) > MAX_ANSWER:
            raise HubAway(f"The Hub's answer is longer than {MAX_ANSWER} bytes.")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HubAway(f"The Hub's answer is no JSON: {error}") from error
        return status, answer if isinstance(answer, dict) else {}
