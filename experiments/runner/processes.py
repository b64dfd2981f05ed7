"""The runner and the processes below it: who can look into whom, and how all of them are ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def shield() -> None:
    """Close this process's memory and environment to others of its uid, and adopt the orphans of the processes below.

    The environment a process was started with stays readable in /proc/<pid>/environ however it was changed since, and
    the runner's token was in it. Where the system has no prctl, nothing happens.
    """
    close_to_others()
    adopt_orphans()


def close_to_others(closed: bool = True) -> None:
    """Keep others of this uid from this process' memory and descriptors, and those it forks; False opens it again."""
    _prctl(_PR_SET_DUMPABLE, 0 if closed else 1)


def adopt_orphans() -> None:
    """Become the parent of orphans below: so ``kill_descendants`` finds daemons that left their own parent."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def children(pid: int) -> set[int] | None:
    """Return the children of a process, zombies among them; None where the system does not say."""
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.update(int(child) for child in file.read().split())
    except FileNotFoundError:
        return None if os.path.isdir(f"/proc/{pid}/task") and pid == os.getpid() else found
    except OSError:
        pass  # it ended meanwhile
    return found


def descendants(root: int | None = None, *, without: Collection[int] = ()) -> set[int]:
    """Return the pids of every process below ``root`` (default: this process). Zombies are left out.

    Nor are ``without`` among them, nor what is below these.
    """
    found: set[int] = set()
    todo = [os.getpid() if root is None else root]
    while todo:
        below = children(todo.pop())
        if below is None:
            return _descendants_by_scan(os.getpid() if root is None else root, without)
        below -= set(without)
        todo.extend(below - found)
        found |= below
    return {pid for pid in found if _state(pid) not in b"ZX"}


def is_stopped(pid: int) -> bool:
    """Return whether somebody has stopped the process (SIGSTOP) or traces it."""
    return _state(pid) in b"Tt"


def _state(pid: int) -> bytes:
    """Return the letter of a process' state, that of a dead one where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0]
    except OSError:
        return b"X"


def _descendants_by_scan(root: int, without: Collection[int]) -> set[int]:
    """Do the same by looking at every process there is, where the system does not list children."""
    below: dict[int, list[int]] = {}
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
        below.setdefault(int(fields[1]), []).append(pid)
        if fields[0] in "ZX":
            zombies.add(pid)
    found: set[int] = set()
    todo = [root]
    while todo:
        for child in below.get(todo.pop(), ()):
            if child not in found and child not in without:
                found.add(child)
                todo.append(child)
    return found - zombies


def kill_descendants(*, within_seconds: float = 5.0, keep: Collection[int] = ()) -> bool:
    """Kill every process below this one; return False if some live on after ``within_seconds``.

    They are all stopped before any is killed: what cannot run cannot fork, so a fork bomb does not outrun the loop.
    This process must adopt orphans; then, when it has no child left, nothing is left below it. ``keep`` are children of
    this process that are left alone, with all that is below them.
    """
    end = time.monotonic() + within_seconds
    pause = 0.001
    while True:
        stopped: set[int] = set()
        while (fresh := descendants(without=keep) - stopped) and time.monotonic() < end:
            _signal(fresh, signal.SIGSTOP)
            stopped |= fresh
        _signal(stopped, signal.SIGKILL)
        if _nothing_left(keep):
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def interrupt(group: int) -> None:
    """Send SIGINT to a process group; a group that is gone is no error."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGINT)


def out_of_memory_kills() -> int:
    """Return how often the system has killed a process of this sandbox for want of memory; 0 where it does not say."""
    return _counted("oom_kill", "/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def refused_processes() -> int:
    """Return how often a process or thread was refused because this sandbox had too many; 0 where nobody counts."""
    return _counted("max", "/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events")


def _counted(name: str, *paths: str) -> int:
    """Return what the first readable of some lists of names and numbers says of ``name``; 0 if none does."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                if line.startswith(f"{name} "):
                    return int(line.split()[1])
    return 0


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _nothing_left(keep: Collection[int]) -> bool:
    """Take the exit status of every dead child but ``keep``; return whether nothing else is left below this process."""
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in keep:
                break
            os.waitpid(ended.si_pid, os.WNOHANG)
        if keep:
            return not descendants(without=keep)
        return False
    return True
