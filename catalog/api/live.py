"""Following a run or a sweep while it runs: one look at the database for all who watch it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from starlette.concurrency import run_in_threadpool

from catalog.access import Forbidden, NotFound, Viewer
from catalog.bell import Bell, of_run
from catalog.identity import IdentityUnavailable

log = logging.getLogger("proverom.api")


class _State(Protocol):
    """What is needed of a state: whether it is an ending."""

    @property
    def ended(self) -> bool: ...


class _Watched(Protocol):
    """What is needed of what is watched: compared with what it was, until its state is an ending."""

    @property
    def state(self) -> _State: ...


Record = TypeVar("Record", bound=_Watched)

T = TypeVar("T")

RECHECK_SECONDS = 20.0  # how long somebody whose rights have ended can go on watching


@dataclass
class _Poll(Generic[Record]):
    """One run that is being watched. ``signal`` is set and replaced at every change."""

    watchers: int = 0
    latest: Record | None = None
    over: bool = False
    signal: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        self.signal.set()
        self.signal = asyncio.Event()


class Watches(Generic[Record]):
    """``progress(viewer, id)`` blocks and raises NotFound; it is called every ``seconds``, or when the bell rings.

    ``topic`` gives what rings for an id. Between two looks at the same thing lie at least ``pause`` seconds, however
    often the bell rings.
    """

    def __init__(
        self,
        progress: Callable[[Viewer, str], Record],
        bell: Bell,
        *,
        seconds: float = 0.5,
        topic: Callable[[str], str] = of_run,
        pause: float = 0.0,
    ) -> None:
        self._progress = progress
        self._bell = bell
        self._seconds = seconds
        self._topic = topic
        self._pause = pause
        self._polls: dict[tuple[int, str], _Poll[Record]] = {}

    @property
    def polls(self) -> int:
        """How many runs are being looked at now."""
        return len(self._polls)

    async def follow(
        self, viewer: Viewer, run: str, still_allowed: Callable[[], Awaitable[object]]
    ) -> AsyncGenerator[Record, None]:
        """Yield the run as it is now, then at each change, until it has ended or ``still_allowed`` raises."""
        key = (id(asyncio.get_running_loop()), run)
        poll = self._polls.setdefault(key, _Poll[Record]())
        poll.watchers += 1
        if poll.task is None:
            poll.task = asyncio.create_task(self._look(poll, viewer, run))
        seen: Record | None = None
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

    async def _look(self, poll: _Poll[Record], viewer: Viewer, run: str) -> None:
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
                await self._bell.wait(self._topic(run), self._seconds)
                await asyncio.sleep(self._pause)


async def and_again(source: AsyncGenerator[T, None], seconds: float) -> AsyncGenerator[T, None]:
    """Yield what ``source`` yields, and the latest of it once more whenever nothing new has come for ``seconds``.

    For what changes by itself as time goes: how long is left, who stands before one in a queue.
    """
    coming: asyncio.Future[T] = asyncio.ensure_future(anext(source))
    latest: list[T] = []
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=seconds)
            if done:
                try:
                    latest = [coming.result()]
                except StopAsyncIteration:
                    return
                coming = asyncio.ensure_future(anext(source))
            if latest:
                yield latest[0]
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
            await coming
        await source.aclose()
