"""The dispatcher's process: the control loop over the catalog's queue and the lab's engine."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

from experiments.dispatcher import Dispatcher, DispatcherConfig
from hub.deployment import Deployment
from hub.engines import lab_engine
from hub.housekeeping import Housekeeper
from hub.mailing import Mailer
from hub.settings import Settings
from hub.wiring import open_lab_catalog
from spawner_config.engines.base import Engine, EngineUnreachable
from spawner_config.sandbox import Limits

log = logging.getLogger("proverom.dispatcher")

# As a sandbox reaches it, on each engine.
RUNNER_URL = "http://hub:8000/services/catalog/runner/v1"
RETRY_SECONDS = 2.0
STOP_SECONDS = 5.0


def run(settings: Settings) -> None:
    """Dispatch until SIGINT or SIGTERM. Raise NotDeployed if the lab was never started."""
    deployment = Deployment.load(settings.state)
    stop = threading.Event()

    def end(*_: object) -> None:
        stop.set()
        # A call to the engine can hang, and a thread cannot be ended; what was asked for is in the queue either way.
        guard = threading.Timer(STOP_SECONDS, os._exit, (1,))
        guard.daemon = True
        guard.start()

    for number in (signal.SIGINT, signal.SIGTERM):  # JupyterHub sends the first, a dying parent the second
        signal.signal(number, end)
    catalog = open_lab_catalog(settings)
    # Schedules and e-mail do not wait for the engine.
    loops = (Housekeeper(catalog).run, Mailer(catalog.outbox, settings.mail, pages_url(settings)).run)
    beside = [threading.Thread(target=loop, args=(stop,)) for loop in loops]
    for thread in beside:
        thread.start()
    try:
        engine = _engine(settings, deployment, stop)
        if engine is not None:
            Dispatcher(catalog.queue, engine, config(settings, deployment)).run(stop)
    finally:
        stop.set()
        for thread in beside:
            thread.join()
        catalog.close()


def pages_url(settings: Settings) -> str:
    """Return the address of the catalog's pages as people type it, for links in e-mail."""
    return f"{settings.hub.public_url or settings.url}/services/catalog"


def config(settings: Settings, deployment: Deployment) -> DispatcherConfig:
    """Return what the dispatcher needs of the settings."""
    runs = settings.runs
    return DispatcherConfig(
        lab=settings.lab.name,
        image=deployment.sandbox_image,
        runner_url=RUNNER_URL,
        limits=Limits(memory=runs.memory, cpus=runs.cpus, pids=runs.pids),
        total_runs=runs.concurrent or places_for(os.cpu_count() or 1),
        sweep_slots=runs.sweep_slots or slots_for(os.cpu_count() or 1),
        sweep_batch=runs.sweep_batch,
        warm_per_agency=runs.warm_per_agency,
        warm_for_seconds=runs.warm_for_minutes * 60.0,
    )


def places_for(cores: int) -> int:
    """Return how many runs there are room for at once: more would not be done sooner, and their kernels take memory."""
    return max(4, 2 * cores)


def slots_for(cores: int) -> int:
    """Return how many runs of a series a runner does at a time: kernels wait as much as they work."""
    return max(2, min(2 * cores, 8))


def _engine(settings: Settings, deployment: Deployment, stop: threading.Event) -> Engine | None:
    """Return the engine as soon as it answers, None if the process is to end first."""
    while not stop.is_set():
        try:
            return lab_engine(settings, deployment)
        except EngineUnreachable as error:
            log.warning("%s", error)
            time.sleep(RETRY_SECONDS)
    return None
