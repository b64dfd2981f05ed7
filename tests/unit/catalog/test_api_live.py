"""Events that come again as time goes, and what is let go when nobody listens any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from catalog.api.live import and_again


class Source:
    """Yields what it is given; ``closed`` tells that it was let go."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[int | None] = asyncio.Queue()
        self.closed = False

    async def __call__(self) -> AsyncGenerator[int, None]:
        try:
            while (item := await self.given.get()) is not None:
                if item < 0:
                    raise ValueError(item)
                yield item
        finally:
            self.closed = True


async def test_the_latest_comes_again() -> None:
    source = Source()
    async with contextlib.aclosing(and_again(source(), 0.01)) as looks:
        source.given.put_nowait(1)
        assert [await anext(looks) for _ in range(3)] == [1, 1, 1]
        source.given.put_nowait(2)
        while await anext(looks) != 2:
            pass
        source.given.put_nowait(None)
        assert {item async for item in looks} <= {2}
    assert source.closed


async def test_nothing_comes_before_the_first() -> None:
    source = Source()
    async with contextlib.aclosing(and_again(source(), 0.001)) as looks:
        first = asyncio.ensure_future(anext(looks))
        await asyncio.sleep(0.05)
        assert not first.done()
        source.given.put_nowait(7)
        assert await first == 7
    assert source.closed


async def test_a_listener_that_goes_lets_the_source_go() -> None:
    source = Source()

    async def listen() -> None:
        async with contextlib.aclosing(and_again(source(), 60)) as looks:
            async for _ in looks:
                pass

    listening = asyncio.ensure_future(listen())
    source.given.put_nowait(1)
    await asyncio.sleep(0.02)
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    assert source.closed


async def test_a_fault_of_the_source_is_the_listeners() -> None:
    source = Source()
    source.given.put_nowait(-1)
    with pytest.raises(ValueError, match="-1"):
        async for _ in and_again(source(), 60):
            pass
    assert source.closed
