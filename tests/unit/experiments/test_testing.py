"""The in-memory queue keeps the promises of every queue."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from experiments.model import Metric, Run, RunRequest
from experiments.testing import FakeClock, InMemoryRunQueue
from tests.contracts.queue_contract import LEASE, NAV, SKATT, T0, VERSION, RunQueueContract, request


class InMemoryCase:
    def __init__(self, queue: InMemoryRunQueue, tick: Callable[[], object]) -> None:
        self.queue = queue
        self.tick = tick

    def submit(self, request: RunRequest, *, max_attempts: int = 3) -> Run:
        self.tick()
        return self.queue.submit(request, VERSION, max_attempts=max_attempts)

    def cancel(self, run: str) -> Run:
        return self.queue.cancel(run)

    def get(self, run: str) -> Run:
        return self.queue.get(run)

    def result_metrics(self, run: str) -> tuple[Metric, ...]:
        result = self.queue.result(run)
        return result.metrics if result else ()


@pytest.fixture
def case() -> InMemoryCase:
    clock = FakeClock(T0 - timedelta(hours=1))
    queue = InMemoryRunQueue(clock=clock, lease_seconds=LEASE)
    queue.add_agency(NAV, "nav", max_concurrent=4)
    queue.add_agency(SKATT, "skatteetaten", max_concurrent=1, weight=2)
    return InMemoryCase(queue, lambda: clock.advance(1))


class TestInMemoryRunQueue(RunQueueContract):
    pass


def test_the_same_key_is_the_same_run(case: InMemoryCase) -> None:
    first = case.submit(request(key="a"))
    assert case.submit(request(key="a")) == first
    assert case.submit(request(key="b")).id != first.id
    assert case.submit(request()).id != case.submit(request()).id
