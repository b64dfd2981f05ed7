"""Following a run while it runs: one look at the database for all who watch it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from catalog.access import Forbidden, NotFound, Viewer
from catalog.bell import Bell, of_run
from catalog.identity import IdentityUnavailable
from catalog.store.records import RunRecord

log = logging.getLogger("proverom.api")

RECHECK_SECONDS = 20.0  # how long somebody whose rights have ended can go on watching


@dataclass
class _Poll:
    """One run that is being watched. ``signal`` is set and replaced at every change."""

    watchers: int = 0
    latest: RunRecord | None = None
    over: bool = False
    signal: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        self.signal.set()
        self.signal = asyncio.Event()


class Watches:
    """``progress(viewer, run)`` blocks and raises NotFound; it is called every ``seconds``, or when the bell rings."""

    def __init__(self, progress: Callable[[Viewer, str], RunRecord], bell: Bell, *, seconds: float = 0.5) -> None:
        self._progress = progress
        self._bell = bell
        self._seconds = seconds
        self._polls: dict[tuple[int, str], _Poll] = {}

    @property
    def polls(self) -> int:
        """How many runs are being looked at now."""
        return len(self._polls)

    async def follow(
        self, viewer: Viewer, run: str, still_allowed: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[RunRecord]:
        """Yield the run as it is now, then at each change, until it has ended or ``still_allowed`` raises."""
        key = (id(asyncio.get_running_loop()), run)
        poll = self._polls.setdefault(key, _Poll())
        poll.watchers += 1
        if poll.task is None:
            poll.task = asyncio.create_task(self._look(poll, viewer, run))
        seen: RunRecord | None = None
        checked = time.monotonic()
        try:
            while True:
                signal = poll.signal
                if poll.latest is not None and poll.latest != seen:
                    seen = poll.latest
                    yield seen
                    if seen.state.ended:
                        return
                    continue
                if poll.over:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(signal.wait(), RECHECK_SECONDS)
                if time.monotonic() - checked >= RECHECK_SECONDS:
                    try:
                        await still_allowed()
                    except (NotFound, Forbidden):
                        return
                    except IdentityUnavailable:
                        log.warning("Watching run %s goes on: the Hub could not be asked", run)
                    checked = time.monotonic()
        finally:
            poll.watchers -= 1
            if poll.watchers == 0:
                if self._polls.get(key) is poll:
                    del self._polls[key]
                poll.task.cancel()

    async def _look(self, poll: _Poll, viewer: Viewer, run: str) -> None:
        """Keep ``poll`` up to date. A database that is away ends nothing: the next look may find it back."""
        while not poll.over:
            try:
                latest = await run_in_threadpool(self._progress, viewer, run)
            except (NotFound, Forbidden):
                poll.over = True
                poll.tell()
                return
            except Exception:
                log.exception("Looking at run %s failed; trying again", run)
            else:
                if latest != poll.latest:
                    poll.latest = latest
                    poll.over = latest.state.ended
                    poll.tell()
            if not poll.over:
                await self._bell.wait(of_run(run), self._seconds)
