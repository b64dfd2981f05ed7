"""A lab on one database: its catalog's service, its two dispatchers, its agencies' runs in the suite's own engine."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from nbformat.v4 import new_code_cell, new_notebook, writes

from catalog.access import Action, Viewer, system
from catalog.store import migrate
from catalog.store.database import Database
from catalog.store.records import AgencyRecord
from lab_templates.checks import read_template
from lab_templates.model import Text
from spawner_config import names
from tests.faults.engine import GATEWAY, IMAGE, OwnEngine, until, wait_for_death
from tests.faults.nursery import Nursery
from tests.faults.postgres import Postgres, url_at
from tests.faults.processes import BASE, FAIL_POINTS, Plan, log_path, open_plan

AGENCIES = (("889640782", "nav", 3, 1), ("974761076", "skatteetaten", 3, 2), ("991825827", "digdir", 2, 1))
OPERATORS = 2  # dispatchers at once
TEMPLATE = "trivial"
STATE_BYTES = 600 * 1024 * 1024  # of the file system that holds the lab's database and files

_NOTEBOOK = (
    "n = 0\nnap = 0.0\nhog = False",
    "import time\nfrom experiments import record\ntime.sleep(nap)",
    "held = []\nwhile hog:\n    held.append(b'x' * 8_000_000)",
    "record.metric('answer', 2 * n + 1)",
)
_DECLARATION = """
name = "trivial"
version = "1.0.0"
language = "nb"
timeout_seconds = 120
data_class = "synthetic"
title = { nb = "Prøve", nn = "Prøve", en = "Trial" }
summary = { nb = "For prøver", nn = "For prøver", en = "For tests" }
data_source = { nb = "Ingen", nn = "Ingen", en = "None" }
[[parameters]]
name = "n"
type = "integer"
default = 0
minimum = 0
maximum = 1000000000
label = { nb = "Nummer", nn = "Nummer", en = "Number" }
[[parameters]]
name = "nap"
type = "number"
default = 0.0
minimum = 0
maximum = 600
label = { nb = "Hvil", nn = "Kvil", en = "Nap" }
[[parameters]]
name = "hog"
type = "boolean"
default = false
label = { nb = "Sluk", nn = "Sluk", en = "Hog" }
[[metrics]]
name = "answer"
label = { nb = "Svar", nn = "Svar", en = "Answer" }
"""
# Stands where the Hub's container stands in a lab, on every agency's network.
_RELAY = """
import asyncio, signal, sys
async def pump(a, b):
    try:
        while data := await a.read(65536):
            b.write(data); await b.drain()
    except OSError: pass
    finally: b.close()
async def accept(r, w):
    try: r2, w2 = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    except OSError: w.close(); return
    await asyncio.gather(pump(r, w2), pump(r2, w))
async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sys.exit)
    await (await asyncio.start_server(accept, "0.0.0.0", 8000)).serve_forever()
asyncio.run(main())
"""


class Lab:
    """``kind`` is sqlite or postgresql. What it keeps is on a small file system of its own, which can be filled."""

    def __init__(
        self, kind: str, folder: Path, engine: OwnEngine, nurseries: tuple[Nursery, Nursery], port: int, programs: Path
    ) -> None:
        self.kind, self.folder, self.engine = kind, folder, engine
        self._plain, self._clocked = nurseries
        self.state = folder / "state"
        self.blobs = self.state / "blobs"
        self.cuts = folder / "cuts"
        self.name = {"sqlite": "fsqlite", "postgresql": "fpostgres"}[kind]
        self.postgres: Postgres | None = None
        self.proxy = 0
        self._make_state()
        if kind == "postgresql":
            (self.state / "pg").mkdir()
            (folder / "proxy").mkdir()
            self.postgres = Postgres(programs, self.state / "pg")
            self.postgres.create()
        self.plan = Plan(
            lab=self.name,
            database_url=url_at(folder / "proxy") if self.postgres else f"sqlite:///{self.state / 'catalog.sqlite'}",
            blobs=str(self.blobs),
            port=port,
            docker_host=engine.host,
            image=IMAGE,
            log="",
        )
        self.direct = Database(self.postgres.url if self.postgres else self.plan.database_url)
        self.service = 0
        self.dispatchers: list[int] = [0] * OPERATORS
        self.client: docker.DockerClient = engine.client()
        self._minding = threading.Event()
        self._minder: threading.Thread | None = None
        self.lock = threading.RLock()  # held while a process is replaced on purpose
        self.clocked = False
        self.usual_times = False  # those of a lab, instead of the suite's shorter ones
        self.measuring = False  # nobody else's fault may touch it
        self.cold: list[subprocess.Popen[bytes]] = []  # to be collected
        self.armed: set[int] = set()  # dispatchers that will kill themselves
        self.self_killed = 0

    def _make_state(self) -> None:
        self.state.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={STATE_BYTES},mode=755", "faults", str(self.state)], check=True
        )

    # -- up and down -----------------------------------------------------------------------------------------------
    def start(self) -> None:
        migrate(self.direct_url)
        catalog = open_plan(replace(self.plan, database_url=self.direct_url))
        me = system("faults")
        for orgnr, slug, most, weight in AGENCIES:
            record = AgencyRecord(orgnr, slug, Text(nb=slug), max_concurrent_runs=most, weight=weight)
            catalog.agencies.add(me, record)
        # Whose clock is set back by 25 hours is a member all the same.
        since = datetime.now(UTC).date() - timedelta(days=3)
        catalog.members.add(me, person="admin", agency="", role="admin", starts=since)
        catalog.members.add(me, person="kari", agency=AGENCIES[0][0], role="coordinator", starts=since)
        catalog.members.add(me, person="kari", agency=AGENCIES[2][0], role="member", starts=since)
        catalog.members.add(me, person="siri", agency=AGENCIES[1][0], role="member", starts=since)
        version = read_template(_notebook(), _DECLARATION.encode(), "For tests")
        catalog.templates.submit(Viewer("author", me.grants, frozenset(Action)), version)
        catalog.templates.approve(me, version.name, version.version)
        catalog.close()
        if self.postgres:
            proxy = {
                "before": str(self.folder / "proxy"),
                "behind": str(self.state / "pg"),
                "cuts": str(self.cuts),
                "log": log_path(self.folder, "proxy"),
            }
            self.proxy = self._plain.fork("proxy", proxy)
            until((self.folder / "proxy" / ".s.PGSQL.5432").exists, 10, "the proxy")
        self._relay()
        self.start_service()

    def _relay(self) -> None:
        self.client.containers.run(
            IMAGE,
            ["python3", "-c", _RELAY, GATEWAY, str(self.plan.port)],
            name=names.hub_container(self.name),
            detach=True,
            restart_policy={"Name": "always"},
        )

    def end(self) -> None:
        self.mind(False)
        for pid in (self.service, self.proxy, *self.dispatchers):
            if pid:
                kill(pid)
        for process in self.cold:
            process.wait(5)
        self.direct.close()
        self.client.close()
        if self.postgres:
            self.postgres.end()
        subprocess.run(["umount", "-l", str(self.state)], check=False)

    @property
    def direct_url(self) -> str:
        """The address of the database itself, past the proxy."""
        return self.postgres.url if self.postgres else self.plan.database_url

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.plan.port}{BASE}"

    # -- its processes ---------------------------------------------------------------------------------------------
    @property
    def nursery(self) -> Nursery:
        return self._clocked if self.clocked else self._plain

    def start_service(self) -> None:
        plan = replace(self.plan, log=log_path(self.folder, "service"), usual_times=self.usual_times)
        self.service = self.nursery.fork("serve", plan)

    def start_dispatcher(self, place: int, *, fail_at: str = "", fail_nth: int = 1) -> None:
        plan = replace(
            self.plan,
            log=log_path(self.folder, "dispatcher"),
            fail_at=fail_at,
            fail_nth=fail_nth,
            usual_times=self.usual_times,
        )
        pid = self.nursery.fork("dispatch", plan)
        if fail_at:
            self.armed.add(pid)
        self.dispatchers[place] = pid

    def restart(self, *, clocked: bool) -> None:
        """Kill all of its processes and start them anew, with a clock that can be moved or without."""
        with self.lock:
            self.clocked = clocked
            self.armed.clear()
            for pid in (self.service, *self.dispatchers):
                kill(pid)
            self.start_service()
            for place in range(OPERATORS):
                self.start_dispatcher(place)

    def mind(self, on: bool) -> None:
        """Keep its processes alive, as a service manager does, or stop doing so."""
        if self._minder is not None:
            self._minding.clear()
            self._minder.join()
            self._minder = None
        if on:
            self._minding.set()
            self._minder = threading.Thread(target=self._mind, name=f"minder {self.name}", daemon=True)
            self._minder.start()

    def _mind(self) -> None:
        while self._minding.is_set():
            try:
                self._tend()
            except (OSError, ValueError):  # the nursery was asked at a bad moment; it is asked again
                traceback.print_exc()
            time.sleep(0.1)

    def _tend(self) -> None:
        with self.lock:
            if not alive(self.service):
                self.start_service()
            for place, pid in enumerate(self.dispatchers):
                if not alive(pid):
                    if pid in self.armed:
                        self.armed.discard(pid)
                        self.self_killed += 1
                    self.start_dispatcher(place)
            for process in self.cold:
                process.poll()

    def arm(self, rng: random.Random) -> None:
        """Put in the place of a dispatcher one that will kill itself at a named point."""
        with self.lock:
            place = rng.randrange(OPERATORS)
            self.armed.discard(self.dispatchers[place])
            kill(self.dispatchers[place])
            self.start_dispatcher(place, fail_at=rng.choice(FAIL_POINTS), fail_nth=rng.randint(1, 3))

    def disarm(self, pid: int, *, after_seconds: float) -> None:
        """Kill a dispatcher that has not come by its fail point in time: that, too, is a kill at some moment."""
        if not wait_for_death(pid, after_seconds):
            kill(pid)
        with self.lock:
            if pid not in self.dispatchers:
                self.armed.discard(pid)

    # -- its sandboxes ---------------------------------------------------------------------------------------------
    def sandboxes(self, *, running: bool = True) -> list[str]:
        """Return the names of the runners' containers. Raise DockerException or OSError if the engine is away."""
        wanted = [f"{names.LAB}={self.name}", f"{names.KIND}=runner"]
        found = self.client.api.containers(all=not running, filters={"label": wanted})
        return [str(one["Names"][0]).lstrip("/") for one in found if not running or one["State"] == "running"]

    def token_of(self, sandbox: str) -> str:
        """Return the token that a runner was started with, as only the engine's owner can; "" if it is gone."""
        with contextlib.suppress(NotFound):
            for line in self.client.api.inspect_container(sandbox)["Config"]["Env"]:
                if line.startswith("PROVEROM_RUN_TOKEN="):
                    return str(line.partition("=")[2])
        return ""

    def signal_sandbox(self, sandbox: str, number: int) -> bool:
        """Send a signal to every process in a sandbox; return whether there was any."""
        try:
            found = self.client.api.top(sandbox, ps_args="-eo pid")["Processes"] or []
        except (DockerException, OSError, TypeError):
            return False
        sent = False
        for [pid] in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)
                sent = True
        return sent

    def kill_sandbox(self, sandbox: str) -> bool:
        try:
            self.client.api.kill(sandbox, signal="KILL")
        except (APIError, DockerException, OSError):
            return False
        return True

    # -- its database ----------------------------------------------------------------------------------------------
    def rows(self, query: str, **values: Any) -> list[Any]:
        """Return the rows of a query, asked of the database itself. Raise catalog.store.Unavailable."""
        from sqlalchemy import text

        with self.direct.read() as session:
            return list(session.execute(text(query), values).all())

    def running_runs(self) -> dict[str, tuple[str, int]]:
        """Return run and attempt by sandbox, for runs that are running (one of each sandbox)."""
        query = (
            "SELECT runner.sandbox, run.id, run.attempt FROM run JOIN runner ON runner.id = run.runner "
            "WHERE run.state = 'running'"
        )
        return {sandbox: (run, attempt) for sandbox, run, attempt in self.rows(query)}

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """Fill the file system that holds the database and the files, but for a few kilobytes."""
        ballast = self.state / "ballast"
        with ballast.open("wb") as file:
            space = os.statvfs(self.state)
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize - 8192)
        try:
            yield
        finally:
            ballast.unlink()

    def since(self, marks: dict[Path, int]) -> bytes:
        """Return what was logged since ``marks``."""
        found = b""
        for path in self._logs():
            with path.open("rb") as file:
                file.seek(marks.get(path, 0))
                found += file.read()
        return found

    def marks(self) -> dict[Path, int]:
        """Return where each log ends now."""
        return {path: path.stat().st_size for path in self._logs()}

    def _logs(self) -> list[Path]:
        logs = [Path(log_path(self.folder, kind)) for kind in ("service", "dispatcher")]
        logs += [self.postgres.log] if self.postgres else []
        return [log for log in logs if log.exists()]


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone. One that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_for_death(pid, 10)


def alive(pid: int) -> bool:
    return pid > 0 and not wait_for_death(pid, 0)


def _notebook() -> bytes:
    cells = [new_code_cell(source) for source in _NOTEBOOK]  # type: ignore[no-untyped-call]
    cells[0].metadata["tags"] = ["parameters"]
    for number, cell in enumerate(cells):
        cell["id"] = f"c{number}"
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = new_notebook(cells=cells, metadata={"kernelspec": spec})  # type: ignore[no-untyped-call]
    return str(writes(book)).encode()  # type: ignore[no-untyped-call]
