"""What an agency has in use of its quotas: counted as the dispatcher counts, for whoever belongs there."""

from __future__ import annotations

import pytest

from catalog.access import NotFound
from catalog.store.records import SweepSubmission
from catalog.store.usage import Quota
from experiments.sweeps import SweepRequest
from tests.unit.catalog.world import DONE, GIB, NAV, SKATT, SYSTEM, World


def test_nothing_is_in_use(world: World) -> None:
    usage = world.catalog.usage.of(world.viewer("kari"), NAV)
    assert usage.agency == world.catalog.agencies.get(SYSTEM, NAV)
    assert (usage.waiting, usage.full, usage.run_memory, usage.run_cpus) == (0, False, 2 * GIB, 0.5)
    assert usage.runs == Quota(0, 4, 4)
    assert usage.memory == Quota(0, None, None)
    assert usage.cpus == Quota(0, None, None)
    assert world.catalog.usage.of(world.viewer("leif"), "nav") == usage


def test_what_runs_what_waits_and_what_stands_ready(world: World) -> None:
    world.catalog.agencies.change(SYSTEM, NAV, max_memory=8 * GIB, max_cpus=1.75)
    world.submit()
    token, assignment = world.claim("at-work")
    world.open_runner("ready")
    world.submit("siri", SKATT)
    world.claim("of-another", SKATT)
    for _ in range(2):
        world.submit()
    usage = world.catalog.usage.of(world.viewer("kari"), NAV)
    assert (usage.waiting, usage.full) == (2, False)
    assert usage.runs == Quota(1, 4, 3)
    assert usage.memory == Quota(4 * GIB, 8 * GIB, 3), "two places, and the one that stands ready is for a run"
    assert usage.cpus == Quota(1.0, 1.75, 2), "there is room for three in all"
    world.catalog.queue.finish(token, assignment.run, assignment.attempt, DONE, world.clock())
    world.catalog.queue.close_runner("ready")
    assert world.catalog.usage.of(SYSTEM, NAV).memory == Quota(0, 8 * GIB, 4), "a finished runner takes no place"


def test_a_sweeps_runner_takes_all_its_places(world: World) -> None:
    points = SweepRequest(grid={"alpha": [0.01, 0.02, 0.03]})
    world.catalog.sweeps.submit(world.viewer("kari"), SweepSubmission("letter", NAV, points))
    token = world.open_runner("wide", slots=3, batch_limit=10)
    assert world.catalog.queue.claim(token, world.clock()) is not None
    usage = world.catalog.usage.of(SYSTEM, NAV)
    assert (usage.runs.used, usage.waiting, usage.memory.used, usage.cpus.used) == (1, 2, 6 * GIB, 1.5)
    world.catalog.queue.retire_runner("wide")
    assert world.catalog.usage.of(SYSTEM, NAV).memory.used == 2 * GIB, "it keeps what its run needs, and no more"


def test_a_quota_that_is_used_up_is_told(world: World) -> None:
    world.submit()
    world.claim("r1")
    for quota in ({"max_concurrent_runs": 1}, {"max_memory": 3 * GIB}, {"max_cpus": 0.5}, {"max_concurrent_runs": 0}):
        world.catalog.agencies.change(SYSTEM, NAV, **quota)
        usage = world.catalog.usage.of(SYSTEM, NAV)
        assert usage.full
        assert min(q.more for q in (usage.runs, usage.memory, usage.cpus) if q.more is not None) == 0
        world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=4, max_memory=None, max_cpus=None)
        assert not world.catalog.usage.of(SYSTEM, NAV).full


@pytest.mark.parametrize("who", ["siri", "nobody"])
def test_a_stranger_learns_nothing(world: World, who: str) -> None:
    for agency in (NAV, "nav", "991825827", "no-such", ""):
        with pytest.raises(NotFound):
            world.catalog.usage.of(world.viewer(who), agency)
    with pytest.raises(NotFound):
        world.catalog.usage.of(world.viewer("both", desk="skatteetaten"), NAV)
