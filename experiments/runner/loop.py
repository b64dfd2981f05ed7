"""A runner's life: claim, execute, report, end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from pathlib import Path
from types import FrameType

from experiments.runner import processes
from experiments.runner.protocol import HubAway, HubClient, Refused, Report, Task

CLAIM_WAIT = 20  # seconds that one question for work may stay open
SLOWEST_RETRY = 5.0
LOOK_FOR_PROGRESS = 0.5  # seconds between two looks at how far the run has come
# A result is sent for this long before the runner gives up: a database that is restored from its backup takes its time.
KEEP_TRYING = 6 * 3600.0

DONE, FAILED, MISUSED = 0, 1, 2


def main(environment: MutableMapping[str, str]) -> int:
    """Live one runner's life; return the exit status: 0 done or not needed, 1 its result was not taken, 2 wrong use.

    PROVEROM_RUNNER_URL is the Hub's address. The token is in PROVEROM_RUN_TOKEN, or in the file that
    PROVEROM_RUN_TOKEN_FILE names; it is taken out of the environment, and the file removed, before anything else.
    """
    processes.shield()
    url, token = take_credentials(environment)
    if not url or not token:
        print("PROVEROM_RUNNER_URL and PROVEROM_RUN_TOKEN are not both set: a runner is started by the dispatcher.")
        return MISUSED
    _handle_signals()
    hub = HubClient(url, token)
    task = claim(hub)
    return DONE if task is None else carry_out(hub, task, environment)


def take_credentials(environment: MutableMapping[str, str]) -> tuple[str, str]:
    """Return address and token, "" where missing, and leave none of the token behind for a kernel to find."""
    url = environment.pop("PROVEROM_RUNNER_URL", "")
    token = environment.pop("PROVEROM_RUN_TOKEN", "")
    file = environment.pop("PROVEROM_RUN_TOKEN_FILE", "")
    if not token and file:
        with contextlib.suppress(OSError):
            token = Path(file).read_text(encoding="ascii", errors="replace").strip()
            Path(file).unlink()
    return url, token


def claim(hub: HubClient) -> Task | None:
    """Return the assignment, None if the Hub has no use for this runner. Waits for as long as the Hub is away."""
    retry = Backoff()
    while True:
        try:
            task = hub.claim(CLAIM_WAIT)
        except HubAway as away:
            say(f"waiting for the Hub: {away}")
            retry.wait()
        except Refused as refused:
            say(f"no longer needed: {refused}")
            return None
        else:
            retry.reset()
            if task is not None:
                return task


def carry_out(hub: HubClient, task: Task, environment: MutableMapping[str, str]) -> int:
    """Execute the task while heartbeats are sent, and send its result; return the exit status."""
    # Here and not above: what a kernel needs takes half a second to import, and a warm runner has done it by then.
    from experiments.runner.execution import Execution

    say(f"run {task.run}, attempt {task.attempt}: starting")
    execution = Execution(task, environment)
    heart = Heart(hub, task, execution.progress, execution.cancel)
    heart.start()
    report = execution.run()
    say(f"run {task.run}, attempt {task.attempt}: {report.outcome} {report.reason or ''}".rstrip())
    try:
        return deliver(hub, task, report)
    finally:
        heart.stop()


class Heart(threading.Thread):
    """Says how far the run has come whenever it has, and every third of a lease, from its start until ``stop``.

    A Hub that is away is asked again at the next beat: the notebook goes on. A Hub that says the lease is lost ends
    this process at once, because whatever it finished would be refused.
    """

    def __init__(
        self, hub: HubClient, task: Task, progress: Callable[[], tuple[int, int, str]], cancel: Callable[[], None]
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self._hub, self._task, self._progress, self._cancel = hub, task, progress, cancel
        self._ended = threading.Event()

    def run(self) -> None:
        pause = max(0.2, self._task.lease_seconds / 3)
        while not self._ended.is_set():
            told = self._progress()
            due = time.monotonic() + self._beat(pause, told)
            # A person watches the page, so what has moved is told soon; a chatty cell is not told of at every line.
            while not self._ended.wait(min(LOOK_FOR_PROGRESS, pause)):
                if time.monotonic() >= due or self._progress() != told:
                    break

    def stop(self) -> None:
        self._ended.set()

    def _beat(self, pause: float, told: tuple[int, int, str]) -> float:
        """Send one heartbeat; return after how many seconds the next is due."""
        try:
            if self._hub.heartbeat(self._task, *told):
                self._cancel()
        except HubAway as away:
            say(f"no heartbeat: {away}")
            return min(pause, 1.0)
        except Refused as refused:
            if not self._ended.is_set():
                say(f"run {self._task.run} is lost to this runner: {refused}")
                _end_at_once(DONE)
        return pause


def deliver(hub: HubClient, task: Task, report: Report) -> int:
    """Send the report until the Hub has recorded or refused it; return the exit status."""
    retry = Backoff()
    end = time.monotonic() + KEEP_TRYING
    while time.monotonic() < end:
        try:
            state = hub.finish(task, report)
        except HubAway as away:
            say(f"the result waits: {away}")
            retry.wait()
        except Refused as refused:
            say(f"the result was refused: {refused}")
            # 413 and 422 leave the run open. Something that is recorded ends it; a retry would end the same way.
            if refused.status not in (413, 422) or report.reason == "bad_result":
                return FAILED
            report = replace(report, outcome="failed", reason="bad_result", error=None, notebook=task.notebook)
        else:
            say(f"recorded: {state}")
            return DONE
    return FAILED


class Backoff:
    """Waits 0.2 s, then twice as long each time up to 5 s, each a little different so that runners do not march."""

    def __init__(self) -> None:
        self._next = 0.2

    def wait(self) -> None:
        time.sleep(self._next * random.uniform(0.8, 1.2))  # noqa: S311
        self._next = min(self._next * 2, SLOWEST_RETRY)

    def reset(self) -> None:
        self._next = 0.2


def say(text: str) -> None:
    """Write one line to the sandbox's log."""
    print(text, file=sys.stderr, flush=True)


def _end_at_once(code: int) -> None:
    processes.kill_descendants(within_seconds=2.0)
    os._exit(code)


def _handle_signals() -> None:
    """SIGTERM ends the runner at once and sends nothing: the server gives the run to another one.

    Process 1 gets no signal that it has no handler for, so this one has to be said. The others are what a kernel's
    process can send its neighbours by mistake; they get a handler that does nothing, for a signal that is set to be
    ignored stays ignored in the kernels too, and then no cell can be interrupted.
    """

    def terminated(_number: int, _frame: FrameType | None) -> None:
        _end_at_once(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminated)
    for harmless in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(harmless, lambda _number, _frame: None)
