"""The looks that spare a claim its write lock and a stranger's body its reading: never False where a claim would do."""

from __future__ import annotations

from catalog.store.records import SweepSubmission
from experiments.queue import TokenRefused
from experiments.sweeps import SweepRequest
from tests.unit.catalog.world import DONE, NAV, SKATT, World


def refused(world: World, token: str) -> bool:
    try:
        world.catalog.queue.claim(token, world.clock())
    except TokenRefused:
        return True
    return False


def test_only_an_open_runners_token_is_known(world: World) -> None:
    queue, token = world.catalog.queue, world.open_runner("r1")
    assert queue.knows(token)
    assert not queue.knows("another")
    queue.close_runner("r1")
    assert not queue.knows(token)


def test_a_runner_finds_nothing_until_a_run_of_its_own_agency_waits(world: World) -> None:
    queue, token = world.catalog.queue, world.open_runner("r1")
    assert not queue.may_find(token)
    world.submit("siri", SKATT)
    assert not queue.may_find(token)
    world.submit()
    assert queue.may_find(token)
    assert queue.claim(token, world.clock()) is not None


def test_what_a_runner_has_and_does_not_know_is_found(world: World) -> None:
    queue = world.catalog.queue
    viewer = world.viewer("kari")
    points = SweepRequest(points=[{"alpha": 0.1}, {"alpha": 0.2}])
    world.catalog.sweeps.submit(viewer, SweepSubmission(template="letter", agency=NAV, sweep=points))
    token = world.open_runner("r1", slots=2, batch_limit=10)
    first, second = (queue.claim(token, world.clock(), holding) for holding in ((), ()))
    assert first == second  # it did not say that it holds it: its answer was lost
    assert first is not None
    assert queue.may_find(token)
    further = queue.claim(token, world.clock(), [first.run])
    assert further is not None
    queue.finish(token, first.run, 1, DONE, world.clock())
    queue.finish(token, further.run, 1, DONE, world.clock())
    # Bound to a sweep of which nothing waits: the claim says that the batch is done.
    assert queue.may_find(token, [])
    assert refused(world, token)


def test_a_runner_that_is_refused_is_not_kept_waiting(world: World) -> None:
    queue = world.catalog.queue
    retired, closed = world.open_runner("r1"), world.open_runner("r2")
    queue.retire_runner("r1")
    queue.close_runner("r2")
    for token in (retired, closed, "unknown"):
        assert queue.may_find(token)
        assert refused(world, token)
