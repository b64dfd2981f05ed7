"""Dispatcher, HTTP, real runner processes and real kernels together; only the walls are missing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from experiments.dispatcher import Dispatcher, DispatcherConfig
from experiments.model import RunState
from experiments.testing import InMemoryRunQueue
from spawner_config.engines.base import SandboxStatus
from spawner_config.sandbox import Limits, SandboxSpec
from tests.integration.runner_hub import AGENCY, RunnerHub, RunnerProcess, notebook, printed, until


class ProcessEngine:
    """An engine whose sandboxes are plain processes: what it starts really runs, and nothing is walled off."""

    name = "process"

    def __init__(self, hub: RunnerHub, home: Path) -> None:
        self._hub, self.home = hub, home
        self._boxes: dict[str, tuple[SandboxSpec, RunnerProcess]] = {}
        self.started: list[str] = []

    def check(self) -> str:
        return "plain processes"

    def ensure_network(self, network: str, *, lab: str, agency: str) -> None:
        pass

    def start(self, spec: SandboxSpec) -> None:
        if spec.name in self._boxes:
            return
        home = self.home / spec.name
        home.mkdir()
        runner = RunnerProcess(self._hub, home, spec.environment["PROVEROM_RUN_TOKEN"])
        runner.start()
        self.started.append(spec.name)
        self._boxes[spec.name] = (spec, runner)

    def resize(self, name: str, limits: Limits) -> None:
        pass

    def stop(self, name: str, *, grace_seconds: float = 2.0) -> None:
        self.kill(name, signal.SIGTERM)

    def remove(self, name: str) -> None:
        self.kill(name)
        self._boxes.pop(name, None)

    def sandboxes(self, *, lab: str, kind: str | None = None) -> Sequence[SandboxStatus]:
        found = []
        for name, (spec, runner) in list(self._boxes.items()):
            assert runner.process
            code = runner.process.poll()
            found.append(SandboxStatus(name, "runner", spec.agency, spec.labels, code is None, code, False, None))
        return found

    def logs(self, name: str, *, tail: int = 200) -> str:
        return self._boxes[name][1].log() if name in self._boxes else ""

    def image_digest(self, image: str) -> str:
        return "sha256:" + "1" * 64

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        process = self._boxes[name][1].process if name in self._boxes else None
        if process and process.poll() is None:
            os.kill(process.pid, number)
            process.wait(20)

    def freeze(self, name: str) -> None:
        process = self._boxes[name][1].process
        assert process
        process.send_signal(signal.SIGSTOP)

    def names(self) -> set[str]:
        return set(self._boxes)


@pytest.fixture
def queue() -> InMemoryRunQueue:
    queue = InMemoryRunQueue(lease_seconds=3, output_limit_bytes=1024 * 1024)
    queue.add_agency(AGENCY, "nav", max_concurrent=2)
    return queue


@pytest.fixture
def hub(queue: InMemoryRunQueue) -> Iterator[RunnerHub]:
    hub = RunnerHub(queue)
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture
def engine(hub: RunnerHub, tmp_path: Path) -> Iterator[ProcessEngine]:
    engine = ProcessEngine(hub, tmp_path)
    yield engine
    for name in engine.names():
        engine.remove(name)


@pytest.fixture
def dispatching(queue: InMemoryRunQueue, engine: ProcessEngine, hub: RunnerHub) -> Iterator[DispatcherConfig]:
    config = DispatcherConfig(
        lab="lab",
        image="proverom/sandbox:test",
        runner_url=hub.url,
        limits=Limits(memory=2**30, cpus=1.0, pids=200),
        poll_seconds=0.1,
        reconcile_seconds=0.5,
        deadline_grace_seconds=5.0,
    )
    stop = threading.Event()
    thread = threading.Thread(target=Dispatcher(queue, engine, config).run, args=(stop,))
    thread.start()
    yield config
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.usefixtures("dispatching")
def test_runs_are_done_and_nothing_is_left(queue: InMemoryRunQueue, hub: RunnerHub, engine: ProcessEngine) -> None:
    runs = [hub.submit(notebook(f"print({i})")) for i in range(3)]
    until(lambda: all(queue.get(run.id).state.ended for run in runs), seconds=90)
    assert [printed(queue.result(run.id)) for run in runs] == ["0\n", "1\n", "2\n"]
    assert [queue.get(run.id).attempt for run in runs] == [1, 1, 1]
    until(lambda: not engine.names() and not queue.runners())


@pytest.mark.usefixtures("dispatching")
def test_a_killed_runner_costs_an_attempt(queue: InMemoryRunQueue, hub: RunnerHub, engine: ProcessEngine) -> None:
    source = "import os, time\nprint('started')\nwhile not os.path.exists('{flag}'): time.sleep(0.05)"
    flag = engine.home / "flag"
    run = hub.submit(notebook(source.replace("{flag}", str(flag))))
    until(lambda: hub.heartbeats and "started" in hub.heartbeats[-1].tail)
    [first] = engine.names()
    engine.kill(first)
    flag.touch()
    until(lambda: queue.get(run.id).state.ended, seconds=90)
    ended = queue.get(run.id)
    assert (ended.state, ended.attempt) == (RunState.SUCCEEDED, 2)
    until(lambda: not engine.names() and not queue.runners())
    assert len(engine.started) == 2


@pytest.mark.usefixtures("dispatching")
def test_a_runner_that_is_stopped_is_ended_at_its_deadline(
    queue: InMemoryRunQueue, hub: RunnerHub, engine: ProcessEngine
) -> None:
    run = hub.submit(notebook("import time\ntime.sleep(600)"), timeout_seconds=3)
    until(lambda: hub.heartbeats)
    [name] = engine.names()
    engine.freeze(name)
    until(lambda: queue.get(run.id).state.ended, seconds=60)
    assert queue.get(run.id).state is RunState.TIMED_OUT
    until(lambda: not engine.names())


def test_a_dispatcher_that_died_is_replaced(
    queue: InMemoryRunQueue, hub: RunnerHub, engine: ProcessEngine, dispatching: DispatcherConfig
) -> None:
    """Two at once is what a restart looks like while the old one still writes."""
    second = Dispatcher(queue, engine, dispatching)
    stop = threading.Event()
    thread = threading.Thread(target=second.run, args=(stop,))
    thread.start()
    try:
        runs = [hub.submit(notebook(f"print({i})")) for i in range(3)]
        until(lambda: all(queue.get(run.id).state.ended for run in runs), seconds=90)
    finally:
        stop.set()
        thread.join(30)
    assert [printed(queue.result(run.id)) for run in runs] == ["0\n", "1\n", "2\n"]
    assert [queue.get(run.id).attempt for run in runs] == [1, 1, 1]
