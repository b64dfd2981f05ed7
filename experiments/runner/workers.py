"""The runner's side of the processes that do the runs: a zygote, and the workers with their wardens forked from it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.runner import frames, processes, removal
from experiments.runner.protocol import Report, Task, result_body
from experiments.runner.zygote import PID

WARM_UP = 120.0  # seconds; a cold disk is slow, and a sandbox may have half a core
_FORK = 20.0  # seconds; a zygote that takes longer has been stopped from inside, and is replaced
_SHORT_ENOUGH = 80  # a Unix socket's whole path has 107 bytes
_NOT_OURS = ("PROVEROM_", "JUPYTERHUB_")
# Native libraries would make threads of their own when they are imported, and threads don't survive a fork.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class NoWorker(Exception):
    """No process could be had for a run; the message says why."""


class Zygote:
    """The process that all others are forked from. One that has died is replaced when the next run needs it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {name: value for name, value in environment.items() if not name.startswith(_NOT_OURS)}
        self._warm = {name: value for name, value in environment.items() if name == "PROVEROM_RUNNER_WARM"}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._may_fork = False
        self._waiting: list[WorkerProcess] = []
        self._place = Path(tempfile.mkdtemp(prefix="pr-"))

    def start(self) -> None:
        """Start it and wait until it is warm; raise NoWorker."""
        with self._lock:
            self._start()

    def worker(self, task: Task) -> Worker:
        """Give the run to a worker, one that is free or a new one; raise NoWorker."""
        with self._lock:
            try:
                home = own_directory()
            except OSError as error:
                raise NoWorker(f"There is no room for the run's files: {error.strerror}.") from error
            try:
                return Worker(task, self._free() or self._forked(), home, self._environment, may_fork=self._may_fork)
            except BaseException:
                removal.remove(home)
                raise

    def take_back(self, process: WorkerProcess) -> None:
        """Keep a process that says that its run has left nothing, for another run."""
        with self._lock:
            self._waiting.append(process)

    def kill_others(self, wardens: Collection[int]) -> None:
        """Kill every process below the runner but this one, ``wardens``, those that wait, and what is below all these.

        A warden that was killed leaves its worker, kernel and all that they started to the runner, which adopts them.
        """
        with self._lock:
            keep = {*wardens, *(process.warden for process in self._waiting)}
            if self._process is not None:
                keep.add(self._process.pid)
            if (processes.children(os.getpid()) or set()) - keep:
                processes.kill_descendants(within_seconds=2.0, keep=keep)

    def end(self) -> None:
        """End it, and the workers that wait; those with a run are left alone."""
        with self._lock:
            self._end()
            while self._waiting:
                self._waiting.pop().end()
            removal.remove(self._place)

    def _free(self) -> WorkerProcess | None:
        while self._waiting:
            process = self._waiting.pop()
            if process.lives():
                return process
            process.end()
        return None

    def _forked(self) -> WorkerProcess:
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._start()
            with contextlib.suppress(OSError, EOFError):
                return self._fork()
            self._end()
        raise NoWorker("The process that runs are started from died twice.")

    def _start(self) -> None:
        self._end()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "experiments.runner.zygote", str(theirs.fileno())]
        environment = {**self._environment, **self._warm, **dict.fromkeys(_ONE_THREAD, "1")}
        environment["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # else it advises, on the log, about what nobody does here
        environment |= {"MPLCONFIGDIR": str(self._place / "matplotlib"), "IPYTHONDIR": str(self._place / "ipython")}
        self._control = ours
        ours.settimeout(WARM_UP)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            (threads,) = PID.unpack(_read(ours, PID.size))
        except (OSError, EOFError) as error:
            self._end()
            raise NoWorker(f"The process that runs are started from did not get up: {error!r}") from error
        ours.settimeout(_FORK)
        self._may_fork = threads == 1

    def _fork(self) -> WorkerProcess:
        assert self._control is not None  # noqa: S101
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        (pid,) = PID.unpack(_read(self._control, PID.size))
        if pid < 0:
            ours.close()
            raise NoWorker(f"No process could be made for the run: {os.strerror(-pid)}.")
        return WorkerProcess(pid, ours)

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
        self._process = self._control = None


class WorkerProcess:
    """A worker and its warden, which carry out one run after another. ``warden`` is the warden's pid."""

    def __init__(self, warden: int, stream: socket.socket) -> None:
        self.warden = warden
        self.stream = stream
        self.pid = 0  # the worker's own, once it has said so
        self._stopped = False

    def lives(self) -> bool:
        """Return whether it waits for a run: one that says anything, or is gone, does not."""
        poll = select.poll()
        poll.register(self.stream, select.POLLIN)
        return not poll.poll(0)

    def kill_if_stopped(self) -> None:
        """Kill it if it was stopped by another process, at two looks in a row: it would never end by itself."""
        before = self._stopped
        self._stopped = processes.is_stopped(self.warden) or bool(self.pid and processes.is_stopped(self.pid))
        if before and self._stopped:
            self.kill()

    def kill(self) -> None:
        """Kill the warden and end the conversation: nobody waits for the worker any more, and it ends itself.

        What does not end is left to ``Zygote.kill_others``.
        """
        with contextlib.suppress(OSError):
            os.kill(self.warden, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self.stream.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self.kill()
        self.stream.close()


class Worker:
    """One run in its worker, as the runner sees it. What it says may come from the run's kernel: it is only passed on.

    ``again``: the worker says that it is as it was before the run.
    """

    def __init__(
        self, task: Task, process: WorkerProcess, home: Path, environment: Mapping[str, str], *, may_fork: bool
    ) -> None:
        self.task = task
        self.process = process
        self.home = home
        self.again = False
        self._inode = home.lstat().st_ino
        self.began = time.time()
        self._progress: tuple[int, int, str] = (0, 0, "")
        order = {
            "task": asdict(task) | {"parameters": dict(task.parameters)},
            "home": str(self.home),
            "environment": dict(environment),
            "may_fork": may_fork,
        }
        with contextlib.suppress(OSError):  # a worker that died at once has no result either
            frames.send(process.stream, frames.ORDER, json.dumps(order).encode("utf-8", "surrogateescape"))

    def wait(self, seconds: float) -> tuple[Mapping[str, Any], bytes] | None:
        """Return what happened and the result's body; None if the worker died or said nothing sensible until then.

        It may be called once; ``close`` is to follow.
        """
        end = time.monotonic() + seconds
        try:
            return self._read_result(end)
        except (OSError, ValueError, TypeError, frames.BadFrame) as error:
            print(f"run {self.task.run}: its worker speaks nonsense: {error!r}", file=sys.stderr, flush=True)
            return None

    def close(self) -> None:
        """Leave nothing of the run, but what outlived a warden that was killed (``Zygote.kill_others``)."""
        if not self.again:
            self.process.end()
        removal.remove(self.home)

    def has_its_home(self) -> bool:
        """Return whether the run's directory is where it was made: others of its uid can move it away."""
        try:
            return self.home.lstat().st_ino == self._inode
        except OSError:
            return False

    def cancel(self) -> None:
        """Let it stop the run and report; one that is gone is no error."""
        with contextlib.suppress(OSError):
            frames.send(self.process.stream, frames.STOP, self.task.run.encode())

    def progress(self) -> tuple[int, int, str]:
        """Return cells done, cells in all, and the last lines of output."""
        return self._progress

    def _read_result(self, end: float) -> tuple[Mapping[str, Any], bytes] | None:
        about: dict[str, Any] | None = None
        stream = self.process.stream
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        while (left := end - time.monotonic()) > 0:
            if not poll.poll(min(left, 60.0) * 1000):
                continue
            stream.settimeout(60.0)
            frame = frames.receive(stream)
            if frame is None:
                return None
            kind, payload = frame
            if kind == frames.READY:
                self.process.pid = int(payload)
            elif kind == frames.PROGRESS:
                done, total, tail = json.loads(payload)
                self._progress = (int(done), int(total), str(tail))
            elif kind == frames.REPORT:
                about = dict(json.loads(payload))
            elif kind == frames.BODY and about is not None:
                self.again = about.pop("again", False) is True
                return about, payload
        return None


def died(task: Task, out_of_memory: bool) -> tuple[Mapping[str, Any], bytes]:
    """Return the result of a run whose worker died or hung: its kernel has the same uid, and can kill it."""
    if out_of_memory:
        reason, name, message = "out_of_memory", "MemoryError", "The sandbox's memory was used up."
    else:
        reason, name, message = "kernel_died", "DeadKernelError", "The run's processes were killed from inside."
    return failed(task, reason, {"cell": -1, "name": name, "message": message, "traceback": "", "source": ""})


def not_started(task: Task, why: str) -> tuple[Mapping[str, Any], bytes]:
    """Return the result of a run that no process could be had for."""
    return failed(
        task, "start_failed", {"cell": -1, "name": "StartFailed", "message": why, "traceback": "", "source": ""}
    )


def failed(task: Task, reason: str, error: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], bytes]:
    """Return the result of a run that failed and has nothing to show but its template."""
    return {"outcome": "failed", "reason": reason}, result_body(task, Report("failed", task.notebook, reason, error))


def own_directory() -> Path:
    """Make a directory of a run's own, with a path short enough for a Unix socket."""
    directory = tempfile.gettempdir()
    if len(os.fsencode(directory)) > _SHORT_ENOUGH and os.access("/tmp", os.W_OK):  # noqa: S108
        directory = "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="pr-", dir=directory))


def _read(stream: socket.socket, size: int) -> bytes:
    data = stream.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError("it ended")
    return data
