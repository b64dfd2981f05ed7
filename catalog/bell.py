"""Telling waiting requests of this process that something changed, so that they need not ask the database so often.

A hint, never a promise: another process may have made the change, so whoever waits also looks for itself now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

WORK = "work"  # a run was queued


def of_run(run: str) -> str:
    """Return the topic of one run's state and progress."""
    return f"run:{run}"


def of_sweep(sweep: str) -> str:
    """Return the topic of one sweep's runs."""
    return f"sweep:{sweep}"


class Bell:
    """``ring`` may be called from any thread; ``wait`` belongs to an event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}

    def ring(self, topic: str) -> None:
        """Wake everybody who waits for ``topic`` now."""
        with self._lock:
            waiting = tuple(self._waiting.get(topic, ()))
        for loop, event in waiting:
            with contextlib.suppress(RuntimeError):  # its loop has closed meanwhile
                loop.call_soon_threadsafe(event.set)

    async def wait(self, topic: str, seconds: float) -> bool:
        """Return True as soon as ``topic`` rings, False after ``seconds``."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.setdefault(topic, set()).add(entry)
        try:
            await asyncio.wait_for(entry[1].wait(), seconds)
        except TimeoutError:
            return False
        else:
            return True
        finally:
            with self._lock:
                self._waiting[topic].discard(entry)
                if not self._waiting[topic]:
                    del self._waiting[topic]
