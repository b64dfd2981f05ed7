"""The lab without a Docker Engine, for trying out: the Hub is a process in the background, on loopback only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from hub.deployment import Deployment
from hub.engines import local_engine
from hub.keys import write_private
from hub.ports import ports_of
from hub.settings import PROJECT, Settings
from spawner_config.engines.base import EngineError
from spawner_config.engines.keeper import boot_id, start_time
from spawner_config.images import context
from spawner_config.images.environments import build_local_environments
from spawner_config.images.site import site_of_this_machine

NOTICE = (
    "This lab runs on the local engine, which is for trying out: on this machine's loopback only, with bubblewrap "
    "sandboxes whose limits on memory and CPU are softer than a Docker Engine's."
)
STOP_SECONDS = 20.0


class LocalBackend:
    engine = "local"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.with_engine("local")
        self._engine = local_engine(self._settings)
        self._pid_file = settings.state / "hub" / "hub.pid"
        self._log = settings.state / "lab.log"
        self._child: subprocess.Popen[bytes] | None = None  # the Hub, if this very process has started it

    def prepare(self, progress: Callable[[str, float | None], None]) -> Deployment:
        self._engine.check()
        site = site_of_this_machine(ca_bundle=self._settings.ca_bundle, proxy=self._settings.proxy_variables)
        build_local_environments(self._settings.state, PROJECT, site=site, progress=progress)
        return Deployment("local", "local")

    def start(self, deployment: Deployment) -> bool:  # noqa: ARG002  (the environments have a fixed place)
        revision = self._revision()
        running = self._running()
        if running is not None and running.get("revision") == revision:
            return False
        if running is not None:
            self._end(running)
        if self._child is not None:
            self._child.wait(timeout=STOP_SECONDS)  # it has ended; this collects it
        self._check_ports()
        with self._log.open("ab") as log:
            self._child = process = subprocess.Popen(
                [sys.executable, "-m", "hub.services", "front"],
                cwd=PROJECT,
                env=_environment(self._settings.state),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it lives on when this terminal closes
            )
        write_private(
            self._pid_file,
            {"pid": process.pid, "start": start_time(process.pid), "boot": boot_id(), "revision": revision},
        )
        return True

    def alive(self) -> bool:
        return self._running() is not None

    def last_words(self) -> str:
        return "\n".join(self._tail(30))

    def logs(self, *, follow: bool) -> Iterator[str]:
        """Yield the log's end; following it ends with the Hub."""
        with contextlib.suppress(FileNotFoundError), self._log.open(encoding="utf-8", errors="replace") as log:
            yield "".join(line + "\n" for line in self._tail(200))
            log.seek(0, os.SEEK_END)
            while follow:
                piece = log.read()
                if piece:
                    yield piece
                elif self._running() is None:
                    return
                else:
                    time.sleep(0.3)

    def stop(self, progress: Callable[[str], None]) -> None:
        progress("Ending the Hub")
        running = self._running()
        if running is not None:
            self._end(running)
        self._pid_file.unlink(missing_ok=True)
        for sandbox in self._engine.sandboxes(lab=self._settings.lab.name):
            progress(f"Ending {sandbox.name}")
            self._engine.remove(sandbox.name)

    def erase(self) -> None:
        shutil.rmtree(self._settings.state / "local", ignore_errors=True)

    def notices(self) -> tuple[str, ...]:
        return (NOTICE,)

    def _revision(self) -> str:
        """Return what the Hub must be started anew for when it changes: the project's files and the lab's settings."""
        settings_file = (self._settings.state / "hub" / "settings.json").read_text(encoding="utf-8")
        return sha256((context.digest(context.project_files(PROJECT)) + settings_file).encode()).hexdigest()

    def _running(self) -> Mapping[str, Any] | None:
        """Return the pid file of the Hub that runs. A number alone may by now be another process's."""
        if self._child is not None:
            self._child.poll()  # collects it if it has ended, or it would stay as a zombie
        try:
            found: Mapping[str, Any] = json.loads(self._pid_file.read_text(encoding="utf-8"))
            same = found["boot"] == boot_id() and start_time(int(found["pid"])) == found["start"] is not None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if same else None

    def _end(self, running: Mapping[str, Any]) -> None:
        pid = int(running["pid"])
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if self._running() is None:
                    return
                time.sleep(0.05)
        raise EngineError(f"The Hub, process {pid}, does not end. End it by hand, then start again.")

    def _check_ports(self) -> None:
        """Raise EngineError if another program listens where the Hub is to listen.

        The parts of a Hub that was just killed may need a moment to follow it, so the question is asked for a while.
        """
        ports = ports_of(self._settings)
        deadline = time.monotonic() + 5
        for port in (ports.proxy, ports.hub, ports.proxy_api, ports.catalog):
            while _taken(port):
                if time.monotonic() > deadline:
                    raise EngineError(
                        f"Port {port} is taken by another program, and hub.port={ports.proxy} needs it. "
                        "End that program, or choose another hub.port."
                    )
                time.sleep(0.1)

    def _tail(self, lines: int) -> list[str]:
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - 64 * 1024))
                return log.read().decode("utf-8", "replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []


def _environment(state: Path) -> dict[str, str]:
    """Return the Hub's environment: the settings file says everything, so no variable of ours is passed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROVEROM_")}
    return kept | {
        "PROVEROM_CONFIG": str(state / "hub" / "settings.json"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "PYTHONUNBUFFERED": "1",
    }


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
