"""A small real HTTP server that speaks the runner protocol over an in-memory queue, and a runner process against it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from experiments import results
from experiments.model import Assignment, Progress, Run, RunnerReport, RunnerTicket, RunRequest, RunResult, Scalar
from experiments.queue import LeaseLost, NotYourRun, TokenRefused
from experiments.testing import InMemoryRunQueue
from lab_templates.model import TemplateVersion, Text

AGENCY = "889640782"
PROJECT = Path(__file__).resolve().parents[2]
_HEARTBEAT = re.compile(r"/runner/v1/runs/([^/]+)/heartbeat")
_HAND_BACK = re.compile(r"/runner/v1/runs/([^/]+)/hand-back")
_RESULT = re.compile(r"/runner/v1/runs/([^/]+)/result")


def notebook(*sources: str, parameters: str | None = None) -> bytes:
    """Return a notebook of code cells, the first one tagged as parameters if ``parameters`` is given."""
    cells = [new_code_cell(source) for source in sources]
    if parameters is not None:
        cells.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.writes(new_notebook(cells=cells, metadata={"kernelspec": kernelspec})).encode()


def version(data: bytes, *, kernel: str = "python3", start: str = "forked") -> TemplateVersion:
    return TemplateVersion(
        name="case",
        version="1.0.0",
        digest="sha256:" + hashlib.sha256(data).hexdigest(),
        title=Text(nb="Prøve"),
        summary=Text(),
        language="nb",
        kernel=kernel,
        timeout_seconds=60,
        data_class="synthetic",
        data_source=Text(),
        parameters=(),
        metrics=(),
        notebook=data,
        declaration=b"",
        start=start,
    )


def _as_sent(assignment: Assignment) -> dict[str, Any]:
    return {name: getattr(assignment, name) for name in assignment.__dataclass_fields__}


@dataclass
class RunnerHub:
    """The server side: ``queue`` behind HTTP. ``away`` refuses connections' requests with 503, ``cut`` drops them."""

    queue: InMemoryRunQueue
    away: bool = False
    cut: bool = False
    heartbeats: list[Progress] = field(default_factory=list)
    reports: list[RunnerReport] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    answer_result_with: int | None = None
    lost_answers: int = 0  # to so many results: they are recorded, and nothing is answered
    late_answers: float = 0.0  # seconds that a result's answer waits after it was recorded
    forgets_holding: bool = False  # as if a claim had been on its way when the runner was given what it has
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hub.handle(self)

            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.server_address[1]}/runner/v1"

    def submit(
        self,
        data: bytes,
        *,
        parameters: Mapping[str, Scalar] | None = None,
        timeout_seconds: int = 60,
        sweep: str | None = None,
        **changes: Any,
    ) -> Run:
        """Queue a run of a notebook."""
        template = version(data, **changes)
        request = RunRequest(
            AGENCY,
            "case",
            "1.0.0",
            template.digest,
            dict(parameters or {}),
            timeout_seconds,
            requested_by="team",
            sweep=sweep,
        )
        return self.queue.submit(request, template)

    def open_runner(self, *, slots: int = 1, batch_limit: int = 1) -> str:
        """Open a runner and return its token."""
        token = secrets.token_urlsafe(32)
        hashed = hashlib.sha256(token.encode()).hexdigest()
        name = secrets.token_hex(8)
        ticket = RunnerTicket(
            name, AGENCY, hashed, f"runner-{name}", "memory", "sha256:0", datetime.now(UTC), slots, batch_limit
        )
        self.queue.open_runner(ticket)
        return token

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.requests.append(request.path)
        if self.cut:
            request.close_connection = True
            return
        if self.away:
            self._answer(request, 503, {})
            return
        try:
            status, answer = self._dispatch(request, json.loads(body))
        except TokenRefused:
            status, answer = 401, {}
        except NotYourRun:
            status, answer = 403, {}
        except LeaseLost:
            status, answer = 409, {}
        except results.BadResult as bad:
            status, answer = 422, {"detail": str(bad)}
        if self.lost_answers and _RESULT.fullmatch(urlsplit(request.path).path):
            self.lost_answers -= 1
            request.close_connection = True
            return
        if self.late_answers and _RESULT.fullmatch(urlsplit(request.path).path):
            time.sleep(self.late_answers)
        self._answer(request, status, answer)

    def _dispatch(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        address = urlsplit(request.path)
        now = datetime.now(UTC)
        if address.path == "/runner/v1/claim":
            wait = float(parse_qs(address.query)["wait"][0])
            end = time.monotonic() + min(wait, 1.0)
            holding = [] if self.forgets_holding else body.get("holding", [])
            while (
                assignment := self.queue.claim(token, datetime.now(UTC), holding)
            ) is None and time.monotonic() < end:
                time.sleep(0.05)
            if assignment is None:
                return 204, {}
            return 200, _as_sent(assignment)
        if match := _HEARTBEAT.fullmatch(address.path):
            progress = Progress(body["cells_done"], body["cells_total"], body["tail"])
            self.heartbeats.append(progress)
            directive = self.queue.heartbeat(token, match[1], body["attempt"], progress, now)
            return 200, {"cancel": directive.cancel}
        if match := _HAND_BACK.fullmatch(address.path):
            return 200, {"taken": self.queue.hand_back(token, match[1], body["attempt"], now) is not None}
        match = _RESULT.fullmatch(address.path)
        assert match, request.path
        report = RunnerReport(body["outcome"], body["notebook"].encode(), body["reason"], body["error"])
        self.reports.append(report)
        if self.answer_result_with is not None:
            status, self.answer_result_with = self.answer_result_with, None
            return status, {}
        run, following = self.queue.finish_and_claim(token, match[1], body["attempt"], results.read(report), now)
        return 200, {"state": run.state.value, "next": None if following is None else _as_sent(following)}

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        data = b"" if status == 204 else json.dumps(answer).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)
        request.wfile.flush()


@dataclass
class RunnerProcess:
    """``python -m experiments.runner`` in a process of its own."""

    hub: RunnerHub
    home: Path
    token: str
    process: subprocess.Popen[bytes] | None = None
    python: str = sys.executable

    def start(self, *, before: Sequence[str] = (), **environment: str) -> subprocess.Popen[bytes]:
        """Start it, by way of the command ``before`` if one is given; an empty variable is left out."""
        inherited = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        inherited |= {"PROVEROM_RUNNER_URL": self.hub.url, "PROVEROM_RUN_TOKEN": self.token} | environment
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [*before, self.python, "-m", "experiments.runner"],
                cwd=PROJECT,
                env={name: value for name, value in inherited.items() if value},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def wait(self, seconds: float = 60) -> int:
        assert self.process
        return self.process.wait(seconds)

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")


def until(condition: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Wait until ``condition`` is true and return its value; fail after ``seconds``, which is only a way out."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.05)
    return value


def executed(result: RunResult | None) -> Any:
    """Return the recorded notebook."""
    assert result is not None
    return nbformat.reads(result.notebook.decode(), as_version=4)


def printed(result: RunResult | None) -> str:
    """Return all that the recorded notebook's streams say."""
    cells = executed(result).cells
    outputs = [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]
    return "".join(out.text for out in outputs if out.output_type == "stream")
