"""A Python kernel that is forked instead of started: all it needs is imported before it exists.

The seed is forked from the worker's warden, which has one thread, no event loop and no zmq context: none of these
survives a fork. The seed waits; when ``provisioner`` says what kernel it is to be, it becomes that kernel.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib.util
import json
import os
import random
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from experiments.runner import frames, processes
from experiments.runner.warden import Warden, WardenGone

# When memory runs out, the system picks the largest process of these, and never the runner or another run's worker.
_KILL_ME_FIRST = b"500"
# What ``sys.argv`` of a kernel that is started begins with. Looked up here, once for all forks.
_LAUNCHER = getattr(importlib.util.find_spec("ipykernel_launcher"), "origin", None) or "ipykernel_launcher"
INLINE = "module://matplotlib_inline.backend_inline"  # matplotlib's name of the way in which notebooks show figures


class KernelNotBorn(RuntimeError):
    """The forked process ended before it was a kernel."""


class Seed:
    """A forked process that waits to become a kernel. ``pid`` is its process, group and session.

    ``alive`` is its pid descriptor: it is nobody's child whose exit status could be asked for.
    """

    def __init__(self, pid: int, alive: int, order: socket.socket) -> None:
        self.pid, self.alive = pid, alive
        self._order = order

    async def grow(self, arguments: Sequence[str], cwd: str, environment: Mapping[str, str]) -> None:
        """Let it become a kernel; return when its sockets are bound. Raise KernelNotBorn."""
        order = {"arguments": list(arguments), "cwd": cwd, "environment": dict(environment)}
        loop = asyncio.get_running_loop()
        self._order.setblocking(False)
        try:
            payload = json.dumps(order).encode("utf-8", "surrogateescape")
            await loop.sock_sendall(self._order, frames.packed(frames.ORDER, payload))
            answer = await loop.sock_recv(self._order, 1)
        except OSError as error:
            raise KernelNotBorn(f"The kernel died before it was ready: {error}") from error
        finally:
            self._order.close()
        if answer != frames.READY:
            raise KernelNotBorn("The kernel died before it was ready.")


_planted: tuple[Warden, socket.socket] | None = None


def plant(warden: Warden) -> None:
    """Have a seed forked for the next kernel of this process; raise WardenGone."""
    global _planted
    weed()
    ours, theirs = socket.socketpair()
    with theirs:
        warden.ask_for_seed(theirs)
    _planted = (warden, ours)


def take() -> Seed | None:
    """Return the seed, once; None if none was planted. Raise WardenGone."""
    global _planted
    planted, _planted = _planted, None
    if planted is None:
        return None
    warden, order = planted
    try:
        return Seed(*warden.seed(), order)
    except BaseException:
        order.close()
        raise


def weed() -> None:
    """Let go of a seed that was planted and not taken; the warden kills it with all else."""
    with contextlib.suppress(WardenGone):
        if (seed := take()) is not None:
            os.close(seed.alive)
            seed._order.close()


def become(order: socket.socket) -> NoReturn:
    """Be the seed that was just forked, and then the kernel it is told to be."""
    code = 1
    try:
        os.setsid()
        _leave_the_parent(order.fileno())
        frame = frames.receive(order)
        if frame is not None and frame[0] == frames.ORDER:
            code = _live(order, json.loads(frame[1]))
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(BaseException):
                stream.flush()  # type: ignore[union-attr]
        os._exit(code)


def _live(order: socket.socket, told: Mapping[str, Any]) -> int:
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["cwd"])
    from experiments.runner import mould

    app: Any = mould.take()
    _be_oneself(told["arguments"], shows_figures=app is not None and app.shows_figures)
    if app is not None:
        app.become(told["arguments"], os.getppid())
    else:
        from ipykernel.kernelapp import IPKernelApp

        app = IPKernelApp.instance(parent_handle=os.getppid())
        app.initialize(told["arguments"])
    order.sendall(frames.READY)
    order.close()
    app.start()
    return 0


def _leave_the_parent(keep: int) -> None:
    """Give up what is the warden's: its descriptors, its way with signals, its place in the order of killing."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != keep:
                with contextlib.suppress(OSError):
                    os.close(int(name))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    # As the interpreter sets them when it starts.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Warden and worker are closed to the kernel; the kernel is its user's own, and may look at itself.
    processes.close_to_others(False)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(_KILL_ME_FIRST)


def _be_oneself(arguments: Sequence[str], *, shows_figures: bool) -> None:
    """Undo what all forks of one process would share: the state of random numbers, the program's name."""
    sys.argv = [_LAUNCHER, *arguments]
    tempfile.tempdir = None  # it was asked for before, and kept
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()
    if "matplotlib" in sys.modules and not shows_figures:
        # A kernel finds its way of showing figures in the environment when it imports matplotlib; this one has.
        backend = os.environ.get("MPLBACKEND") or INLINE
        sys.modules["matplotlib"].rcParams["backend"] = backend
        # When it is imported, it hooks itself into the kernel that is there then; in the zygote there was none.
        sys.modules.pop(INLINE.removeprefix("module://"), None)
