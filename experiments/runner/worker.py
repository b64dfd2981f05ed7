"""papermill in a process of its own, below its warden: one run at a time, and another one when that left nothing.

It holds no secret: the token is the runner's, which takes nothing from a worker but progress and a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import socket
import tempfile
import threading
from dataclasses import asdict
from typing import Any

from experiments.runner import frames, kernel, processes
from experiments.runner.execution import Execution, kernel_environment
from experiments.runner.protocol import Report, Task, result_body
from experiments.runner.warden import Warden, WardenGone

ORDINARY = "ordinary"
TELL_EVERY = 0.5  # seconds between two frames of progress
# What a larger result leaves in this process' memory is not carried to the next run.
_LARGE_RESULT = 1024 * 1024


def main(stream: socket.socket, warden: Warden) -> int:
    """Carry out the runs that the frames on ``stream`` describe, and send their results; return the exit status.

    It ends with a run that left something behind, or may have: the runner has the next one in another worker.
    """
    frames.send(stream, frames.READY, str(os.getpid()).encode())
    talk = Conversation(stream)
    talk.start()
    while _carry_out(talk, warden):
        pass
    return 0


def _carry_out(talk: Conversation, warden: Warden) -> bool:
    """Wait for a run, carry it out, and send its result; return whether this process is as it was before."""
    order = talk.next()
    task = Task(**order["task"])
    forked = bool(order["may_fork"]) and task.start != ORDINARY and not _asks_for_ordinary(task.notebook)
    if forked:
        with contextlib.suppress(WardenGone):  # the kernel then starts the ordinary way, or says why it cannot
            kernel.plant(warden)
    environment = kernel_environment(order["environment"], order["home"])
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # the run before had another one

    def clear() -> bool:
        # A kernel of another language is this process' own child, whatever was planted.
        below_this = processes.kill_descendants()
        return warden.clear() and below_this

    execution = Execution(task, order["home"], environment, forked=forked, clear=clear)
    talk.attend(execution)
    report = execution.run()
    body = result_body(task, report)
    again = forked and execution.clean and len(body) < _LARGE_RESULT
    talk.end(report, body, again=again)
    return again


def _asks_for_ordinary(notebook: str) -> bool:
    """Return whether the notebook's metadata says ``{"proverom": {"start": "ordinary"}}``, its own or its kernel's."""
    if ORDINARY not in notebook:
        return False
    with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError, RecursionError):
        metadata = json.loads(notebook)["metadata"]
        wishes = [part.get("proverom", {}).get("start") for part in (metadata, metadata.get("kernelspec", {}))]
        return ORDINARY in wishes
    return False


class Conversation(threading.Thread):
    """Takes orders, sends progress while it changes. A runner that is gone takes this process and its run with it."""

    def __init__(self, stream: socket.socket) -> None:
        super().__init__(name="conversation", daemon=True)
        self._stream = stream
        self._orders: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._execution: Execution | None = None
        self._busy = False  # from a run's order to its result
        self._unwanted = ""  # the run that was last told to stop
        self._told: tuple[int, int, str] = (0, 0, "")
        self._sending = threading.Lock()

    def next(self) -> dict[str, Any]:
        """Wait for a run, and return what is said of it."""
        return self._orders.get()

    def attend(self, execution: Execution) -> None:
        """From now on tell of this run, and stop it when told so."""
        with self._sending:
            self._execution, self._told = execution, (0, 0, "")
            if execution.task.run == self._unwanted:
                execution.cancel()

    def end(self, report: Report, body: bytes, *, again: bool) -> None:
        """Send the result; nothing is sent of the run after it."""
        about = {key: value for key, value in asdict(report).items() if key != "notebook"}
        with self._sending:
            self._execution, self._busy = None, False
            frames.send(self._stream, frames.REPORT, json.dumps({**about, "again": again}).encode())
            frames.send(self._stream, frames.BODY, body)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        while True:
            try:
                # A worker without a run waits for nothing but an order.
                if not poll.poll(TELL_EVERY * 1000 if self._busy else None):
                    self._tell()
                    continue
                frame = frames.receive(self._stream)
                if frame is None:
                    break
                if frame[0] == frames.ORDER:
                    self._busy = True
                    self._orders.put(json.loads(frame[1]))
                else:
                    self._stop(frame[1].decode())
            except (OSError, ValueError, frames.BadFrame):
                break
        # The warden sees this process' end, and kills what is left of the run.
        processes.kill_descendants(within_seconds=2.0)
        os._exit(1)

    def _stop(self, run: str) -> None:
        # The word may come before its run has begun, or when the next one has.
        with self._sending:
            self._unwanted = run
            if self._execution is not None and self._execution.task.run == run:
                self._execution.cancel()

    def _tell(self) -> None:
        with self._sending:
            if self._execution is not None and (now := self._execution.progress()) != self._told:
                self._told = now
                frames.send(self._stream, frames.PROGRESS, json.dumps(now).encode())
