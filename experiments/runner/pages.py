"""Large pages for a process that is forked from.

A fork copies an entry for each page, and so does its end; a large page is 512 small ones and has one entry.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_COLLAPSE = 25  # MADV_COLLAPSE, Linux 6.1 and later
_LARGE = 2 * 1024 * 1024  # bytes


def enlarge() -> int:
    """Put the memory this process has written into large pages where it fills them; return how many there are.

    They are shared with forks like all others; what a fork writes to is copied in ordinary pages. A system that cannot
    do it answers with an error, and nothing changes.
    """
    made = 0
    with contextlib.suppress(OSError, ValueError, AttributeError):
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        for start, stop in _written():
            first = -(-start // _LARGE) * _LARGE
            for at in range(first, stop - _LARGE + 1, _LARGE):
                made += not madvise(ctypes.c_void_p(at), ctypes.c_size_t(_LARGE), _COLLAPSE)
    return made


def _written() -> Iterator[tuple[int, int]]:
    """Yield the address ranges of this process that are its own, belong to no file, and are nearly all in memory."""
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as file:
        lines = file.read().splitlines()
    start = stop = 0
    for line in lines:
        name, *rest = line.split()
        if not name.endswith(":"):
            low, high = (int(part, 16) for part in name.split("-"))
            own = rest[0].startswith("rw") and rest[0].endswith("p") and (len(rest) < 5 or rest[4] == "[heap]")
            start, stop = (low, high) if own else (0, 0)
        elif name == "Anonymous:" and stop - start >= _LARGE and (stop - start) - int(rest[0]) * 1024 < _LARGE:
            yield start, stop  # one with more holes would take more memory than before
