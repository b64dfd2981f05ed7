"""The runner and the processes below it: who can look into whom, and how all of them are ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def shield() -> None:
    """Close this process's memory and environment to others of its uid, and adopt the orphans of the processes below.

    The environment a process was started with stays readable in /proc/<pid>/environ however it was changed since, and
    the run's token was in it. Orphans are adopted so that ``kill_descendants`` finds daemons that left their parent.
    Where the system has no prctl, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(root: int | None = None) -> set[int]:
    """Return the pids of every live process below ``root`` (default: this process). Zombies are left out."""
    children: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        # The second field is the program's name in parentheses, and may hold blanks and parentheses itself.
        fields = stat.rpartition(")")[2].split()
        pid = int(entry.name)
        children.setdefault(int(fields[1]), []).append(pid)
        if fields[0] in "ZX":
            zombies.add(pid)
    found: set[int] = set()
    todo = [os.getpid() if root is None else root]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found - zombies


def kill_descendants(*, within_seconds: float = 5.0) -> bool:
    """Kill every process below this one; return False if some live on after ``within_seconds``.

    They are all stopped before any is killed: what cannot run cannot fork, so a fork bomb does not outrun the loop.
    """
    end = time.monotonic() + within_seconds
    while True:
        stopped: set[int] = set()
        while (fresh := descendants() - stopped) and time.monotonic() < end:
            _signal(fresh, signal.SIGSTOP)
            stopped |= fresh
        _signal(stopped, signal.SIGKILL)
        _reap()
        if not descendants():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)


def reap_orphans(kernel: int) -> None:
    """Take the exit status of adopted processes that have ended, so that they don't fill the sandbox's limit on pids.

    The status of ``kernel`` belongs to its manager. Nothing is done while the kernel is not known yet (0).
    """
    with contextlib.suppress(ChildProcessError):
        while kernel and (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            if ended.si_pid == kernel:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def interrupt(group: int) -> None:
    """Send SIGINT to a process group; a group that is gone is no error."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGINT)


def out_of_memory_kills() -> int:
    """Return how often the system has killed a process of this sandbox for want of memory; 0 where it does not say."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _reap() -> None:
    """Take the exit status of every dead child, so that none is left as a zombie."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
