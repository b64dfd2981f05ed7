"""What this machine offers the lab, what is missing, and what each missing thing costs. Changes nothing."""

from __future__ import annotations

import importlib
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from hub.assets import node_folder, npm_command
from hub.engines import local_engine
from hub.lab import LEAST_FREE
from hub.ports import ports_of
from hub.settings import Settings
from spawner_config.engines.base import EngineError, EngineUnreachable

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """``ok`` False is something missing: ``cost`` is what does not work without it, ``remedy`` what to do about it."""

    name: str
    ok: bool
    found: str
    cost: str = ""
    remedy: str = ""
    needed: bool = False  # the lab does not start without it


def examine(settings: Settings) -> list[Finding]:
    """Look at everything once, in an order that makes sense to read."""
    docker = _docker(settings)
    return [
        _python(),
        docker,
        *([] if docker.ok else [_local(settings)]),
        _memory(settings),
        _disk(settings),
        _port(settings),
        _styles(settings),
        _pdf(),
        _database(settings),
    ]


def _python() -> Finding:
    return Finding("Python", sys.version_info >= (3, 11), sys.version.split()[0], needed=True)


def _docker(settings: Settings) -> Finding:
    from spawner_config.engines.docker import DockerEngine
    from spawner_config.engines.docker_hub import connect

    try:
        return Finding("Docker Engine", True, DockerEngine(connect(settings.docker_host, timeout=10)).check())
    except EngineUnreachable as error:
        return Finding(
            "Docker Engine",
            False,
            str(error),
            cost="Sandboxes are made with bubblewrap instead: for trying out on this machine only.",
            remedy="sudo apt-get install docker.io && sudo systemctl start docker",
            needed=settings.engine.kind == "docker",
        )


def _local(settings: Settings) -> Finding:
    try:
        return Finding("Local sandboxes", True, local_engine(settings).check())
    except EngineError as error:
        return Finding(
            "Local sandboxes",
            False,
            str(error),
            cost="Without a Docker Engine either, nothing can run.",
            remedy="sudo sysctl kernel.unprivileged_userns_clone=1, or start a Docker Engine",
            needed=True,
        )


def _memory(settings: Settings) -> Finding:
    needed = settings.desk.memory + settings.runs.memory + GIB
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        total = int(fields["MemTotal"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return Finding("Memory", True, "unknown")
    return Finding(
        "Memory",
        total >= needed,
        f"{total / GIB:.1f} GiB",
        cost=f"A desk, a run and the Hub may take {needed / GIB:.1f} GiB together; then the machine ends one of them.",
        remedy="Lower desk.memory and runs.memory.",
    )


def _disk(settings: Settings) -> Finding:
    folder = settings.state
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return Finding(
        "Disk",
        free >= LEAST_FREE,
        f"{free / GIB:.1f} GiB free at {folder}",
        cost="The lab does not start.",
        remedy="Make room, or set lab.state to another disk.",
        needed=True,
    )


def _port(settings: Settings) -> Finding:
    port = settings.hub.port
    if _answers(settings.url):
        return Finding("Address", True, f"the lab answers at {settings.url}")
    wanted = [port]
    if settings.engine.kind == "local":
        ports = ports_of(settings)
        wanted = [ports.proxy, ports.hub, ports.proxy_api, ports.catalog]
    taken = [number for number in wanted if _listens(number)]
    return Finding(
        "Address",
        not taken,
        f"port {', '.join(map(str, taken))} is taken by another program" if taken else f"port {port} is free",
        cost="The lab does not start.",
        remedy="End that program, or choose another hub.port.",
        needed=True,
    )


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/services/catalog/health", timeout=3, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _styles(settings: Settings) -> Finding:
    if (node_folder(settings.state) / "fetched").is_file():
        return Finding("Page styles", True, "fetched")
    npm = npm_command()
    return Finding(
        "Page styles",
        npm is not None,
        "are fetched at the first start" if npm else "no npm",
        cost="The pages cannot get their design and font.",
        remedy="make setup",
        needed=True,
    )


def _pdf() -> Finding:
    return _importable(
        "Reports as PDF",
        lambda: importlib.import_module("weasyprint"),
        cost="Reports are web pages only where the Hub runs without a Docker Engine.",
        remedy="sudo apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0",
    )


def _importable(name: str, load: Callable[[], object], *, cost: str, remedy: str) -> Finding:
    try:
        load()
    except (ImportError, OSError) as error:
        return Finding(name, False, str(error).splitlines()[0], cost=cost, remedy=remedy)
    return Finding(name, True, "ready")


def _database(settings: Settings) -> Finding:
    if not settings.catalog.database_url:
        return Finding("Catalog", True, f"SQLite in {settings.state}")
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        shown = make_url(settings.database_url).render_as_string(hide_password=True)
        with create_engine(settings.database_url).connect():
            return Finding("Catalog", True, shown)
    except (SQLAlchemyError, ImportError) as error:
        return Finding(
            "Catalog",
            False,
            str(error).splitlines()[0],
            cost="The lab does not start.",
            remedy="Start the database, or correct catalog.database_url.",
            needed=True,
        )
