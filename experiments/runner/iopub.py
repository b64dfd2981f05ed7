"""How a prepared kernel sends what it puts out: by whichever thread makes it, until one is needed that sends meanwhile.

ipykernel hands each message over to a thread of its own. It is there for output that is to be seen while a cell still
runs, and each message costs two switches of threads; it starts here with the first such output.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import zmq
from ipykernel.iostream import IOPubThread, OutStream


class Sender(IOPubThread):
    """ipykernel's sender, whose thread starts when ``begin`` is called. Threads may share it."""

    def __init__(self, socket: Any, session: Any) -> None:
        super().__init__(socket, pipe=False, session=session)  # type: ignore[no-untyped-call]
        self._beginning = threading.RLock()  # held while the socket is used by another thread than its own
        # What a fork of the kernel prints comes back by a pipe, which the thread reads.
        os.register_at_fork(before=self.begin)

    def begin(self) -> bool:
        """Return whether there is the thread; start it if there is none yet. A fork of the kernel has none."""
        if self.thread.is_alive():
            return True
        if self._stopped or self.closed or not self._is_master_process():  # type: ignore[no-untyped-call]
            return False
        with self._beginning:
            if not self.thread.is_alive():
                self._open_pipe()
                try:
                    self.start()  # type: ignore[no-untyped-call]
                except RuntimeError:  # the system has no thread to give
                    return False
        return True

    def schedule(self, f: Callable[[], Any]) -> None:
        """Call ``f`` in the thread, or here and now if there is none."""
        if self.thread.is_alive():
            self.io_loop.add_callback(f)
        elif self._is_master_process():  # type: ignore[no-untyped-call]
            with self._beginning:
                if not self.thread.is_alive():
                    self._do_whole(f)
                    return
            self.schedule(f)
        else:
            f()

    @staticmethod
    def _do_whole(f: Callable[[], Any]) -> None:
        """Call ``f``; an interruption waits for its end. A message is several frames, and half of one would make the
        next one unreadable.
        """
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(handler):
            f()  # it cannot be interrupted
            return
        struck: list[FrameType | None] = []
        signal.signal(signal.SIGINT, lambda _number, frame: struck.append(frame))
        try:
            f()
        finally:
            signal.signal(signal.SIGINT, handler)
            if struck:
                handler(signal.SIGINT, struck[0])

    def _open_pipe(self) -> None:
        if not self._pipe_flag:
            self._pipe_flag = True
            try:
                self._setup_pipe_in()  # type: ignore[no-untyped-call]
            except zmq.ZMQError:  # the kernel has used up its descriptors
                self._pipe_flag = False

    def _setup_event_pipe(self) -> None:
        """Have none: the loop's own way to wake it needs no socket for each thread that has something to send."""


class Stream(OutStream):
    """``sys.stdout`` and ``sys.stderr``: what is written is sent within a fifth of a second, and so by the thread."""

    def _schedule_flush(self) -> None:
        if self.pub_thread.begin():
            super()._schedule_flush()  # type: ignore[no-untyped-call]
        else:
            self._flush()  # type: ignore[no-untyped-call]
