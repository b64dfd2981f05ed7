"""``python -m tests.faults.nursery SOCKET``: a process that has imported what the lab's processes need, and forks them.

Importing takes a second or two of CPU, and thousands of processes are killed. What is forked starts as empty as what is
started anew: no connection, no thread, nothing of the one before. ``python -m tests.faults.nursery dispatch PLAN``
starts one the ordinary way, for what is timed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults.processes import Plan, dispatch, say_to, serve

PROJECT = Path(__file__).resolve().parents[2]
FAKETIME = "faketime/libfaketimeMT.so.1"


def _proxy(plan: Mapping[str, Any]) -> None:
    from tests.faults.postgres import serve_proxy

    serve_proxy(plan["before"], plan["behind"], plan["cuts"])


KINDS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "serve": lambda plan: serve(Plan(**plan)),
    "dispatch": lambda plan: dispatch(Plan(**plan)),
    "proxy": _proxy,
}


class Nursery:
    """Starts processes by asking the nursery's; ``clock`` is a file whose content moves the clock of all of them."""

    def __init__(self, folder: Path, *, clock: Path | None = None) -> None:
        self._socket = folder / "nursery.sock"
        environment = dict(os.environ)
        if clock is not None:
            environment |= {
                "LD_PRELOAD": faketime_library(),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        with (folder / "nursery.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery", str(self._socket)],
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ready(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"The nursery ended with {self._process.returncode}.")
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def fork(self, kind: str, plan: Plan | Mapping[str, Any]) -> int:
        """Start a process of one of ``KINDS`` and return its pid."""
        content = asdict(plan) if isinstance(plan, Plan) else dict(plan)
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self._socket))
            line.sendall(json.dumps([kind, content]).encode())
            line.shutdown(socket.SHUT_WR)
            return int(line.makefile().read())

    def end(self) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)


def faketime_library() -> str:
    """Return the path of libfaketime; raise FileNotFoundError if it is not installed."""
    found = [*Path("/usr/lib").glob(f"*/{FAKETIME}"), *Path("/usr/lib").glob(FAKETIME)]
    if not found:
        raise FileNotFoundError("libfaketime is not installed. Get it: sudo apt-get install faketime")
    return str(found[0])


def start_cold(plan: Plan) -> subprocess.Popen[bytes]:
    """Start a dispatcher the way a lab does: a new interpreter that imports everything first."""
    command = [sys.executable, "-m", "tests.faults.nursery", "dispatch", json.dumps(asdict(plan))]
    return subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL)


def main(path: str) -> None:
    import docker  # noqa: F401
    import psycopg  # noqa: F401
    import uvicorn  # noqa: F401

    import catalog.api.app
    import catalog.testing  # noqa: F401
    import hub.housekeeping  # noqa: F401
    import spawner_config.engines.docker
    import spawner_config.engines.docker_hub  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system collects them
    if len(os.listdir("/proc/self/task")) != 1:
        raise RuntimeError("Importing has started a thread, which would not survive a fork.")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(50)
        while True:
            line, _ = listener.accept()
            with line:
                asked = line.makefile().read()
                if not asked:
                    continue
                kind, plan = json.loads(asked)
                pid = os.fork()
                if pid == 0:
                    listener.close()
                    line.close()
                    _become(kind, plan)
                line.sendall(str(pid).encode())


def _become(kind: str, plan: Mapping[str, Any]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        say_to(plan["log"])
        KINDS[kind](plan)
        code = 0
    except BaseException as error:
        print(f"{time.strftime('%H:%M:%S')} {kind} ended: {error!r}", file=sys.stderr, flush=True)
        raise
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "dispatch":
        content = json.loads(sys.argv[2])
        say_to(content["log"])
        dispatch(Plan(**content))
    else:
        main(sys.argv[1])
