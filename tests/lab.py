"""A lab of one's own, started and ended by the commands users type: for the end-to-end tests and the bench.

It shares nothing with a lab that runs on the machine already: another name, port and state folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import httpx

PROJECT = Path(__file__).resolve().parent.parent
PROVEROM = PROJECT / ".venv" / "bin" / "proverom"
API = "/services/catalog/api/v1"
ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled"})

# The sandbox environments of the last lab on the local engine.
KEPT = PROJECT / ".lab-tests" / "env"

# The first start on a machine builds images: a base by debootstrap, then two package installations.
START_SECONDS = 1200

NAV, SKATTEETATEN, DIGDIR = "889640782", "974761076", "991825827"

T = TypeVar("T")


class LabError(Exception):
    """A command of the lab failed; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def wait_until(ask: Callable[[], T | None], *, seconds: float, what: str, every: float = 0.2) -> T:
    """Return the first answer that is neither None nor False; raise LabError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def free_port() -> int:
    """Return a port that is free now, as are those 81, 99 and 2101 above it, which the local engine takes."""
    for port in range(30000 + os.getpid() % 20000, 60000 - 2101, 7):
        if all(_free(port + above) for above in (0, 81, 99, 2101)):
            return port
    raise LabError("No free port below 57899.")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@dataclass(frozen=True, slots=True)
class Lab:
    """``state`` is the lab's folder; ``settings`` are further settings as ``section.name``."""

    name: str
    port: int
    state: Path
    engine: str
    settings: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return what the lab's commands see: this process' environment, with this lab's settings and no other's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PROVEROM_")}
        chosen = {
            "lab.name": self.name,
            "lab.state": str(self.state),
            "hub.port": str(self.port),
            "engine.kind": self.engine,
            **self.settings,
        }
        return kept | {f"PROVEROM_{key.upper().replace('.', '__')}": value for key, value in chosen.items()}

    def proverom(
        self, *arguments: str, seconds: float = 120, check: bool = True, further: Mapping[str, str] | None = None
    ) -> Done:
        """Run ``proverom`` as a user of this machine would. Raise LabError if it fails and ``check`` is set."""
        done = subprocess.run(
            [str(PROVEROM), *arguments],
            cwd=PROJECT,
            env=self.environment() | dict(further or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode != 0:
            said = f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            raise LabError(f"proverom {' '.join(arguments)} ended with {done.returncode}:\n{said}")
        return Done(done.returncode, done.stdout, done.stderr)

    def up(self) -> str:
        """Start the lab and return what the command said."""
        return self.proverom("up", seconds=START_SECONDS).out

    def down(self) -> None:
        self.proverom("down", seconds=120)

    def login(self, person: str) -> Mapping[str, str]:
        """Return ``{"password", "token"}`` of one of the demonstration's logins."""
        logins: dict[str, dict[str, str]] = json.loads((self.state / "logins.json").read_text(encoding="utf-8"))[
            "logins"
        ]
        return logins[person]

    def client(self, person: str | None, *, token: str | None = None) -> httpx.Client:
        """Return an HTTP client of the lab, with a person's API token, another token, or none."""
        bearer = token or (self.login(person)["token"] if person else None)
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def wait_for_run(self, client: httpx.Client, run: str, *, seconds: float = 180) -> dict[str, Any]:
        """Return the run as the API has it once it has ended, told so by its event stream."""
        deadline = time.monotonic() + seconds
        while True:
            for state in run_states(client, run, seconds=max(0.1, deadline - time.monotonic())):
                if state["state"] in ENDED:
                    found: dict[str, Any] = client.get(f"{API}/runs/{run}").raise_for_status().json()
                    return found
            if time.monotonic() > deadline:
                raise LabError(f"Run {run} did not end within {seconds:.0f} s:\n{self.log()}")

    def log(self) -> str:
        """Return the last lines of the lab's log, for a failure's message."""
        return self.proverom("logs", "--no-follow", check=False).out[-6000:]


def run_states(client: httpx.Client, run: str, *, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield each ``run`` event of a run's stream until it closes; nothing more after ``seconds`` without one."""
    try:
        with client.stream("GET", f"{API}/runs/{run}/events", timeout=httpx.Timeout(30, read=seconds)) as stream:
            stream.raise_for_status()
            for line in stream.iter_lines():
                if match := re.match(r"data:\s*(\{.*)", line):
                    yield json.loads(match[1])
    except (httpx.ReadTimeout, httpx.RemoteProtocolError):
        return


@contextmanager
def own_lab(name: str, engine: str, **settings: str) -> Iterator[Lab]:
    """Start a lab, and end it with all that it made. ``settings``: ``section__name=value``."""
    with tempfile.TemporaryDirectory(prefix=f"proverom-{name}-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        further = {key.replace("__", "."): value for key, value in settings.items()}
        lab = Lab(name=name, port=free_port(), state=Path(folder) / "state", engine=engine, settings=further)
        try:
            if engine == "local":
                hard_link(KEPT, lab.state / "env")
            lab.up()
            if engine == "local":
                hard_link(lab.state / "env", KEPT)
            yield lab
        finally:
            lab.down()
            if engine == "docker":
                remove_volumes(name)


def hard_link(source: Path, target: Path) -> None:
    """Put the local engine's two environments where the next lab finds them, instead of installing them each time.

    They are only ever read, and the lab replaces what is out of date with new files.
    """
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True, copy_function=os.link)


def remove_volumes(lab: str) -> None:
    """Remove the files of a lab's desks, which outlive the lab on purpose."""
    client = docker.from_env()
    try:
        for volume in client.volumes.list(filters={"label": f"no.proverom.lab={lab}"}):
            volume.remove(force=True)
    finally:
        client.close()
