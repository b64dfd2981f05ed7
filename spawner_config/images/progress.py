"""How long work tells what it is doing."""

from __future__ import annotations

from collections.abc import Callable

# (what is being done, in words; how much of it is done, 0 to 1, or None where nobody knows)
Progress = Callable[[str, float | None], None]


def silent(_doing: str, _done: float | None) -> None:
    """Tell nobody."""
