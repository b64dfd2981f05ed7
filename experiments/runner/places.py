"""The places of a sandbox that all its runs can write to, and what a run has left in them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from experiments.runner import removal


class SharedPlaces:
    """Folders that are this runner's alone (its sandbox's /tmp, say), as they were before the first run.

    Each run has folders of its own and is told of no others; these are for notebooks that write to fixed paths. While
    another run lives, what is younger than that run's start stays: it may be that run's.
    """

    def __init__(self, places: str) -> None:
        """``places`` are absolute paths with colons between; "" is none, and then nothing is ever removed."""
        self.paths = tuple(Path(place) for place in places.split(":") if place.startswith("/"))
        self._before: set[str] = set()

    def remember(self) -> None:
        """Take what is there now for the runner's own."""
        self._before = set(self._entries())

    def clear(self, *, keep: Collection[Path], oldest_living: float | None) -> None:
        """Remove what is new, but for ``keep`` and what is younger than the start of the oldest living run (time())."""
        kept = {str(path) for path in keep}
        for entry in self._entries():
            if entry in self._before or entry in kept:
                continue
            with contextlib.suppress(OSError):
                found = os.lstat(entry)
                if oldest_living is not None and found.st_ctime >= oldest_living:
                    continue
                removal.remove(Path(entry))

    def _entries(self) -> list[str]:
        found: list[str] = []
        for place in self.paths:
            with contextlib.suppress(OSError):
                found += [os.path.join(place, name) for name in os.listdir(place)]
        return found
