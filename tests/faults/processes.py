"""The lab's processes as the suite starts them: the catalog's service, and dispatchers with named fail points.

Both are the real thing with real databases and the real engine. What is the suite's own: people sign in by tokens that
are told beforehand (there is no JupyterHub), times are shorter, and a dispatcher may be told to kill itself at a point.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from catalog.store import Catalog, RunLimits, open_catalog
from experiments.dispatcher import Dispatcher, DispatcherConfig
from spawner_config import names
from spawner_config.engines.base import EngineUnreachable
from spawner_config.sandbox import MIB, Limits

BASE = "/services/catalog"
PEOPLE = ("kari", "siri", "admin")

# Where a dispatcher can be told to die: before or after any of these.
FAIL_POINTS = tuple(
    f"{name}:{when}"
    for name in (
        "queue.open_runner",
        "queue.close_runner",
        "queue.give_back",
        "queue.retire_runner",
        "engine.ensure_network",
        "engine.sandboxes",
        "engine.start",
        "engine.remove",
    )
    for when in ("before", "after")
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process of a lab needs to know. Times in seconds; ``usual_times`` are those that a lab has by default."""

    lab: str
    database_url: str
    blobs: str
    port: int
    docker_host: str
    image: str
    log: str
    usual_times: bool = False
    fail_at: str = ""  # one of FAIL_POINTS
    fail_nth: int = 1  # which passing of it is the last
    places: int = 4

    @property
    def lease_seconds(self) -> int:
        return RunLimits().lease_seconds if self.usual_times else 6

    @property
    def limits(self) -> RunLimits:
        return RunLimits(lease_seconds=self.lease_seconds, max_timeout_seconds=3600)

    def dispatching(self) -> DispatcherConfig:
        config: dict[str, Any] = {
            "lab": self.lab,
            "image": self.image,
            "runner_url": f"http://hub:8000{BASE}/runner/v1",
            "limits": Limits(memory=224 * MIB, cpus=1.0, pids=200),
            "total_runs": self.places,
            "sweep_slots": 2,
            "sweep_batch": 6,
        }
        if not self.usual_times:
            quick = {"start_grace_seconds": 12.0, "idle_seconds": 4.0, "silence_seconds": 5.0, "poll_seconds": 0.4}
            config |= {**quick, "reconcile_seconds": 1.0}
        return DispatcherConfig(**config)


def open_plan(plan: Plan) -> Catalog:
    return open_catalog(plan.database_url, plan.blobs, limits=plan.limits)


def say_to(log: str) -> None:
    """Write what is logged, printed and raised to the end of a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, force=True, format="%(asctime)s %(process)d %(name)s %(message)s"
    )


def serve(plan: Plan) -> None:
    """Be the catalog's service until killed."""
    import uvicorn

    from catalog.api.app import create_api
    from catalog.api.context import ApiSettings
    from catalog.testing import InMemoryIdentity

    catalog = open_plan(plan)
    identity = InMemoryIdentity(catalog, base_path=BASE)
    for person in PEOPLE:
        identity.add(f"token-{person}", person)
    app = create_api(catalog, identity=identity, settings=ApiSettings(version="faults", engine="docker"))
    uvicorn.run(app, host="0.0.0.0", port=plan.port, log_level="warning", access_log=False)  # noqa: S104 - a namespace


def dispatch(plan: Plan) -> None:
    """Dispatch until SIGTERM, as ``hub.dispatching`` does; or die at the plan's fail point."""
    from hub.housekeeping import Housekeeper
    from spawner_config.engines.docker import DockerEngine
    from spawner_config.engines.docker_hub import connect

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    catalog = open_plan(plan)
    threading.Thread(target=Housekeeper(catalog).run, args=(stop,), daemon=True).start()
    client = None
    while client is None and not stop.is_set():
        try:
            client = connect(plan.docker_host)
        except EngineUnreachable:
            time.sleep(0.5)
    if client is None:
        return
    engine = DockerEngine(client, hub=names.hub_container(plan.lab))
    point = FailPoint(plan.fail_at, plan.fail_nth)
    queue, engine_ = Passing(catalog.queue, "queue", point), Passing(engine, "engine", point)
    Dispatcher(queue, engine_, plan.dispatching()).run(stop)


class FailPoint:
    """Kills this process, as nothing else can be killed: at once and without a word, at the nth passing of a point."""

    def __init__(self, at: str, nth: int) -> None:
        self._at, self._left = at, nth
        self._lock = threading.Lock()

    def passed(self, point: str) -> None:
        if point == self._at:
            with self._lock:
                self._left -= 1
                if self._left <= 0:
                    os.write(2, f"fail point {point}\n".encode())
                    os.kill(os.getpid(), signal.SIGKILL)


class Passing:
    """Stands before an object and tells the fail point of each call of a method, before and after."""

    def __init__(self, target: object, prefix: str, point: FailPoint) -> None:
        self._target, self._prefix, self._point = target, prefix, point

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._point.passed(f"{self._prefix}.{name}:before")
            answer = found(*args, **kwargs)
            self._point.passed(f"{self._prefix}.{name}:after")
            return answer

        return call


def lease_grace(plan: Plan) -> timedelta:
    """Return after how long a runner that says nothing has lost its run, and its sandbox."""
    return timedelta(seconds=plan.lease_seconds + plan.dispatching().silence_seconds)


def log_path(folder: Path, kind: str) -> str:
    return str(folder / f"{kind}.log")
