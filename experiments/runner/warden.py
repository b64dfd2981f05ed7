"""The process above one worker and its kernels: it forks them, and leaves nothing alive of a run that is over.

It keeps to one thread, has no event loop and no zmq context, so a kernel can be forked from it at any time; the worker,
which reads what kernels send, has all three. It adopts every orphan below it, so it finds what a kernel left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading

from experiments.runner import processes

SEED, CLEAR = b"s", b"c"
_PID = struct.Struct("!i")
_ANSWER = 20.0  # seconds; a warden that takes longer has been stopped from inside
_CLEAR_WITHIN = 5.0  # seconds


class WardenGone(Exception):
    """The warden was killed or stopped from inside, or has no process to give; the message says which."""


class Warden:
    """The worker's side of it. Threads may share it."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        stream.settimeout(_ANSWER)
        self._lock = threading.Lock()
        self._awaited = False  # a seed was asked for, and its answer is not read yet
        self._seed: tuple[int, int] | WardenGone | None = None

    def ask_for_seed(self, order: socket.socket) -> None:
        """Have a kernel's seed forked, which reads ``order``; ``seed`` tells of it. Raise WardenGone."""
        with self._lock:
            self._send(SEED, order)
            self._awaited = True

    def seed(self) -> tuple[int, int]:
        """Return pid and pid descriptor of the seed that was asked for; raise WardenGone."""
        with self._lock:
            self._await_seed()
            found, self._seed = self._seed, None
        if not isinstance(found, tuple):
            raise found or WardenGone("No kernel was asked for.")
        return found

    def clear(self) -> bool:
        """Kill all that the kernels have left alive, and they themselves; return whether nothing is."""
        with self._lock, contextlib.suppress(WardenGone):
            self._await_seed()
            self._send(CLEAR)
            return self._receive()[0] == _PID.pack(1)
        return False

    def _await_seed(self) -> None:
        if self._awaited:
            self._awaited = False
            try:
                self._seed = self._read_seed()
            except WardenGone as gone:
                self._seed = gone

    def _read_seed(self) -> tuple[int, int]:
        message, descriptors = self._receive()
        (pid,) = _PID.unpack(message)
        if pid < 0:
            raise WardenGone(f"No process could be made for the kernel: {os.strerror(-pid)}.")
        return pid, descriptors[0]

    def _send(self, order: bytes, descriptor: socket.socket | None = None) -> None:
        try:
            socket.send_fds(self._stream, [order], [descriptor.fileno()] if descriptor else [])
        except OSError as error:
            raise WardenGone(f"The process that kernels are forked from is gone: {error}") from error

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._stream, _PID.size, 1, socket.MSG_WAITALL)
        except OSError as error:
            raise WardenGone(f"The process that kernels are forked from does not answer: {error}") from error
        if len(message) < _PID.size:
            raise WardenGone("The process that kernels are forked from is gone.")
        return message, descriptors


def main(stream: socket.socket) -> int:
    """Fork the worker that speaks on ``stream``, then what it asks for, until it is gone; return the exit status."""
    processes.adopt_orphans()
    ours, theirs = socket.socketpair()
    worker = os.fork()
    if worker == 0:
        ours.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        from experiments.runner.worker import main as work

        return work(stream, Warden(theirs))
    stream.close()
    theirs.close()
    # Whatever ends below is collected by the system (SIGCHLD is ignored, as in the zygote): a kernel that starts
    # thousands of processes does not fill the sandbox with dead ones.
    while True:
        order, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        if order == SEED and descriptors:
            _answer_with_seed(ours, descriptors[0])
        elif order == CLEAR:
            ours.sendall(_PID.pack(processes.kill_descendants(within_seconds=_CLEAR_WITHIN, keep={worker})))
        else:
            processes.kill_descendants(within_seconds=_CLEAR_WITHIN)
            return 0


def _answer_with_seed(ours: socket.socket, descriptor: int) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        pid = -(error.errno or 1)
    if pid == 0:
        from experiments.runner import kernel

        kernel.become(socket.socket(fileno=descriptor))
    os.close(descriptor)
    alive = -1
    try:
        if pid > 0:
            alive = os.pidfd_open(pid)
        socket.send_fds(ours, [_PID.pack(pid)], [alive] if pid > 0 else [])
    except ProcessLookupError as error:
        ours.sendall(_PID.pack(-(error.errno or 1)))
    finally:
        if alive >= 0:
            os.close(alive)
