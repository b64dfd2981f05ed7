"""What runs that share a sandbox may have done to each other.

They share its uid and its limits, so one of them can use up the processes, the memory or the room for files, and can
kill what belongs to another. Nobody can tell from inside whose doing it was. So of a run that failed in company it is
told whether the company may be why (``Stay.disturbed``); the server has such a run tried again, alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from experiments.runner import processes

# How little of a place's room is none.
_NO_ROOM = 64 * 1024
# What a cell's error says where something is used up that all runs of a sandbox share: memory, processes, room.
_SCARCE_NAMES = frozenset({"MemoryError", "_ArrayMemoryError"})
_SCARCE = re.compile(r"\[Errno (?:11|12|28)\]|can't start new thread|No space left on device|Cannot allocate memory")


class Stay:
    """One run's time in the sandbox."""

    def __init__(self) -> None:
        self.shared = False  # another run was there at the same time
        self.troubled = False  # and something was wrong in the sandbox meanwhile

    def disturbed(self, about: Mapping[str, Any]) -> bool:
        """Return whether what happened to the run (``Report`` without its notebook) may be another's doing."""
        outcome, reason = about.get("outcome"), about.get("reason")
        if not self.shared or outcome not in ("failed", "timed_out"):
            return False
        if outcome == "timed_out":
            return self.troubled
        return self.troubled or reason != "cell_failed" or _scarce(about.get("error"))


class Company:
    """The runs that are in the sandbox now. Threads may share it. ``places`` are folders that all of them write to."""

    def __init__(self, places: Collection[Path]) -> None:
        self._places = tuple(places)
        self._lock = threading.Lock()
        self._staying: list[Stay] = []
        self._seen = _refusals()

    def enter(self) -> Stay:
        stay = Stay()
        with self._lock:
            self._staying.append(stay)
            if len(self._staying) > 1:
                for each in self._staying:
                    each.shared = True
        return stay

    def leave(self, stay: Stay) -> None:
        """Let a run go; one that has left already is no error."""
        with self._lock, contextlib.suppress(ValueError):
            self._staying.remove(stay)

    def look(self) -> None:
        """Note whether the sandbox has refused a process, killed for memory, or has no room for files just now."""
        seen = _refusals()
        if seen != self._seen or any(_full(place) for place in self._places):
            self._seen = seen
            self.trouble()

    def trouble(self) -> None:
        """Note that something is wrong: whoever is here now may suffer from it."""
        with self._lock:
            for stay in self._staying:
                stay.troubled = True


def _refusals() -> tuple[int, int]:
    return processes.refused_processes(), processes.out_of_memory_kills()


def _full(place: Path) -> bool:
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    return found.f_blocks > 0 and found.f_bavail * found.f_frsize < _NO_ROOM


def _scarce(error: object) -> bool:
    if not isinstance(error, Mapping):
        return False
    return error.get("name") in _SCARCE_NAMES or bool(_SCARCE.search(str(error.get("message", ""))[:4096]))
