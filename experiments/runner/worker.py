"""One run in a process of its own, forked from the zygote: papermill, its kernel, and whatever the kernel starts.

The worker adopts every orphan below it, so at the run's end it finds and kills all of them, and no other run's. It
holds no secret: the token is the runner's, which takes nothing from a worker but progress and a result.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
from dataclasses import asdict

from experiments.runner import frames, kernel, processes
from experiments.runner.execution import Execution, kernel_environment
from experiments.runner.protocol import Report, Task, result_body

ORDINARY = "ordinary"
TELL_EVERY = 0.5  # seconds between two frames of progress


def main(stream: socket.socket) -> int:
    """Carry out the run that the first frame describes, and send its result; return the exit status."""
    processes.adopt_orphans()
    frame = frames.receive(stream)
    if frame is None:
        return 1
    order = json.loads(frame[1])
    task = Task(**order["task"])
    forked = bool(order["may_fork"]) and task.start != ORDINARY and not _asks_for_ordinary(task.notebook)
    if forked:
        kernel.plant()
    environment = kernel_environment(order["environment"], order["home"])
    os.environ.clear()
    os.environ.update(environment)
    execution = Execution(task, order["home"], environment, forked=forked)
    talk = Conversation(stream, execution)
    talk.start()
    talk.end(task, execution.run())
    return 0


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
    """Sends progress while it changes, takes the order to stop. A runner that is gone takes this run with it."""

    def __init__(self, stream: socket.socket, execution: Execution) -> None:
        super().__init__(name="conversation", daemon=True)
        self._stream, self._execution = stream, execution
        self._told: tuple[int, int, str] = (0, 0, "")
        self._sending = threading.Lock()
        self._ended = False

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        while True:
            try:
                if not poll.poll(TELL_EVERY * 1000):
                    self._tell()
                elif frames.receive(self._stream) is None:
                    break
                else:
                    self._execution.cancel()
            except (OSError, frames.BadFrame):
                break
        processes.kill_descendants(within_seconds=2.0)
        os._exit(1)

    def end(self, task: Task, report: Report) -> None:
        """Send the result; nothing is sent after it."""
        about = {key: value for key, value in asdict(report).items() if key != "notebook"}
        with self._sending:
            self._ended = True
            frames.send(self._stream, frames.REPORT, json.dumps(about).encode())
            frames.send(self._stream, frames.BODY, result_body(task, report))

    def _tell(self) -> None:
        now = self._execution.progress()
        with self._sending:
            if now != self._told and not self._ended:
                self._told = now
                frames.send(self._stream, frames.PROGRESS, json.dumps(now).encode())
