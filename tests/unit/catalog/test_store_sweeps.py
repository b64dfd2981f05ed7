"""Sweeps in the store: planned, submitted whole or not at all, followed, cancelled, resumed, told of, compared."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import event, func, select
from sqlmodel import col

from catalog.access import Forbidden, NotFound
from catalog.store.records import RunFilter, SweepRecord, SweepState, SweepSubmission
from catalog.tables import Event, RunRow, SweepRow
from experiments.model import Metric, Reason, RunResult, RunState
from experiments.notices import NoticeKind
from experiments.queue import TokenRefused
from experiments.sweeps import Range, Sample, SweepRequest
from lab_templates.model import InvalidInput
from tests.unit.catalog.world import DONE, NAV, SKATT, SYSTEM, World

GRID = SweepRequest(grid={"alpha": [0.01, 0.05, 0.1], "office": ["Oslo", "Bergen"]})


def asked(sweep: SweepRequest = GRID, agency: str = NAV, **fields: object) -> SweepSubmission:
    return SweepSubmission("letter", agency, sweep, **fields)  # type: ignore[arg-type]


def submit(world: World, sweep: SweepRequest = GRID, who: str = "kari", agency: str = NAV) -> SweepRecord:
    record, created = world.catalog.sweeps.submit(world.viewer(who), asked(sweep, agency))
    assert created
    return record


def count(world: World, table: type, *where: object) -> int:
    with world.catalog._database.read() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0  # type: ignore[arg-type]


def work(world: World, runner: str, results: dict[float, RunResult] | None = None, *, most: int = 1000) -> list[str]:
    """Let one runner carry out what waits, up to ``most`` runs; ``results`` by alpha, DONE for the others."""
    token = world.open_runner(runner, slots=most, batch_limit=most)
    done: list[str] = []
    while len(done) < most:
        try:
            assignment = world.catalog.queue.claim(token, world.clock(), done)
        except TokenRefused:
            break
        if assignment is None:
            break
        alpha = float(assignment.parameters["alpha"] or 0)
        result = (results or {}).get(alpha, replace(DONE, metrics=(Metric("difference", 100 * alpha, "pp"),)))
        world.clock.advance(10)
        world.catalog.queue.finish(token, assignment.run, assignment.attempt, result, world.clock())
        done.append(assignment.run)
    return done


FAILED = RunResult(RunState.FAILED, b"{}", Reason.CELL_FAILED)


def test_a_plan_stores_nothing_and_learns_the_time_from_earlier_runs(world: World) -> None:
    viewer = world.viewer("kari")
    before = world.catalog.sweeps.plan(viewer, asked())
    assert (before.runs, before.varied, before.concurrent, before.seconds) == (6, ("alpha", "office"), 4, None)
    for number in range(3):
        run = world.submit()
        token, assignment = world.claim(f"r{number}")
        world.clock.advance(30)
        world.catalog.queue.finish(token, run.id, assignment.attempt, DONE, world.clock())
    plan = world.catalog.sweeps.plan(viewer, asked())
    assert (plan.seconds_each, plan.seconds) == (30.0, 60.0)  # six runs, four at once: two rounds
    assert count(world, SweepRow) == 0


def test_a_sweep_is_submitted_whole_with_one_event(world: World) -> None:
    sweep = submit(world)
    assert (sweep.size, sweep.state, dict(sweep.counts)) == (6, SweepState.QUEUED, {"queued": 6})
    runs = world.catalog.runs.list(world.viewer("kari"), RunFilter(sweep=sweep.id)).items
    assert {(r.parameters["alpha"], r.parameters["office"]) for r in runs} == {
        (a, o) for a in (0.01, 0.05, 0.1) for o in ("Oslo", "Bergen")
    }
    assert sorted(r.point or 0 for r in runs) == list(range(6))
    assert count(world, Event, col(Event.action) == "sweep.submitted") == 1
    assert count(world, Event, col(Event.action) == "run.submitted") == 0
    assert len(world.catalog.runs.list(world.viewer("kari"), RunFilter(q="kortere brev")).items) == 6


def test_bulk_submission_takes_as_few_statements_for_many_runs_as_for_few(world: World) -> None:
    def statements(sweep: SweepRequest) -> int:
        seen: list[str] = []

        def note(_c: object, _k: object, statement: str, *_: object) -> None:
            seen.append(statement)

        engine = world.catalog._database.engine
        event.listen(engine, "before_cursor_execute", note)
        submit(world, sweep)
        event.remove(engine, "before_cursor_execute", note)
        return len(seen)

    assert statements(SweepRequest(grid={"alpha": Range("0.001", "0.2", "0.001")})) == statements(GRID)


@pytest.mark.parametrize(
    ("sweep", "code"),
    [
        (SweepRequest(grid={}), "empty_sweep"),
        (SweepRequest(points=()), "empty_sweep"),
        (SweepRequest(grid={"alpha": Range(0, 1, "0.000000001")}), "too_many_runs"),
        (SweepRequest(grid={"alpha": [9]}), "above_maximum"),
        (SweepRequest(grid={"alhpa": [0.1]}), "unknown_parameter"),
        (SweepRequest(), "bad_sweep"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused_and_nothing_is_stored(world: World, sweep: SweepRequest, code: str) -> None:
    for ask in (world.catalog.sweeps.plan, world.catalog.sweeps.submit):
        with pytest.raises(InvalidInput) as caught:
            ask(world.viewer("kari"), asked(sweep))
        assert code in {p.code for p in caught.value.problems}
    assert count(world, RunRow) == count(world, SweepRow) == 0


def test_the_agency_has_a_cap_of_its_own(world: World) -> None:
    world.catalog.agencies.change(SYSTEM, NAV, max_sweep_runs=5)
    with pytest.raises(InvalidInput) as caught:
        submit(world)
    (problem,) = caught.value.problems
    assert (problem.code, problem.value, problem.limit) == ("too_many_runs", "6", "5")


def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    wrong = asked(SweepRequest(grid={"alpha": [9]}), experiment="nope", timeout_seconds=0)
    with pytest.raises(InvalidInput) as caught:
        world.catalog.sweeps.submit(world.viewer("kari"), wrong)
    assert {p.code for p in caught.value.problems} == {"above_maximum", "unknown_experiment", "bad_timeout"}


def test_readers_cannot_submit_and_strangers_see_nothing(world: World) -> None:
    with pytest.raises(Forbidden):
        submit(world, who="leif")
    with pytest.raises(InvalidInput):
        submit(world, who="siri")
    sweep = submit(world)
    assert world.catalog.sweeps.get(world.viewer("leif"), sweep.id).size == 6
    with pytest.raises(Forbidden):
        world.catalog.sweeps.cancel(world.viewer("leif"), sweep.id)
    for stranger in ("siri", "nobody"):
        viewer = world.viewer(stranger)
        for call in (
            world.catalog.sweeps.get,
            world.catalog.sweeps.cancel,
            world.catalog.sweeps.resume,
            world.catalog.sweep_results.points,
            world.catalog.sweep_results.sensitivity,
        ):
            with pytest.raises(NotFound):
                call(viewer, sweep.id)
        assert world.catalog.sweeps.list(viewer).items == ()


def test_a_key_makes_one_sweep_however_often_it_comes(world: World) -> None:
    viewer = world.viewer("kari")
    gate = threading.Barrier(8)

    def once(_: int) -> tuple[str, bool]:
        gate.wait()
        record, created = world.catalog.sweeps.submit(viewer, asked(idempotency_key="k"))
        return record.id, created

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(once, range(8)))
    assert len({id for id, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert count(world, RunRow) == 6
    other = SweepRequest(grid={"alpha": [0.01]})
    with pytest.raises(InvalidInput, match="another request"):
        world.catalog.sweeps.submit(viewer, asked(other, idempotency_key="k"))


def test_the_same_sample_again_is_the_same_request(world: World) -> None:
    viewer = world.viewer("kari")
    sample = SweepRequest(sample=Sample(5, 7, {"alpha": None}))
    first, _ = world.catalog.sweeps.submit(viewer, asked(sample, idempotency_key="s"))
    again, created = world.catalog.sweeps.submit(viewer, asked(sample, idempotency_key="s"))
    assert (again.id, created) == (first.id, False)


def test_partial_failure_is_seen_and_resumed_where_it_is_missing(world: World) -> None:
    sweep = submit(world)
    viewer = world.viewer("kari")
    assert len(work(world, "r1", {0.05: FAILED})) == 6
    assert world.catalog.sweeps.settle() == (sweep.id,)
    assert world.catalog.sweeps.settle() == ()
    ended = world.catalog.sweeps.get(viewer, sweep.id)
    assert (ended.state, dict(ended.counts)) == (SweepState.PARTIAL, {"succeeded": 4, "failed": 2})
    assert ended.ended_at == world.clock()

    resumed = world.catalog.sweeps.resume(viewer, sweep.id)
    assert (resumed.state, dict(resumed.counts)) == (SweepState.RUNNING, {"succeeded": 4, "queued": 2})
    with pytest.raises(InvalidInput, match="nothing to run again"):
        world.catalog.sweeps.resume(viewer, sweep.id)
    assert len(work(world, "r2")) == 2
    world.catalog.sweeps.settle()
    whole = world.catalog.sweeps.get(viewer, sweep.id)
    assert (whole.state, dict(whole.counts), whole.rounds) == (SweepState.SUCCEEDED, {"succeeded": 6}, 2)
    assert count(world, RunRow) == 8
    notices = world.catalog.notices.list(viewer).items
    assert [(n.kind, n.state, n.subject) for n in notices] == [
        (NoticeKind.SWEEP, "succeeded", sweep.id),
        (NoticeKind.SWEEP, "partial", sweep.id),
    ]


def test_a_cancelled_sweep_keeps_what_is_done(world: World) -> None:
    sweep = submit(world)
    viewer = world.viewer("kari")
    work(world, "r1", most=2)
    token = world.open_runner("r2", slots=1, batch_limit=9)
    assignment = world.catalog.queue.claim(token, world.clock())
    assert assignment is not None
    cancelled = world.catalog.sweeps.cancel(viewer, sweep.id)
    assert dict(cancelled.counts) == {"succeeded": 2, "cancelled": 3, "running": 1}
    assert cancelled.state is SweepState.RUNNING
    assert world.catalog.runs.progress(viewer, assignment.run).cancel_requested
    stopped = RunResult(RunState.CANCELLED, b"{}", Reason.CANCELLED_BY_USER)
    world.catalog.queue.finish(token, assignment.run, 1, stopped, world.clock())
    world.catalog.sweeps.settle()
    record = world.catalog.sweeps.get(viewer, sweep.id)
    assert (record.state, dict(record.counts)) == (SweepState.CANCELLED, {"succeeded": 2, "cancelled": 4})
    assert world.catalog.sweeps.cancel(viewer, sweep.id) == record
    assert dict(world.catalog.sweeps.resume(viewer, sweep.id).counts) == {"succeeded": 2, "queued": 4}


def test_cancelling_what_only_waits_ends_the_sweep_at_once(world: World) -> None:
    sweep = submit(world)
    record = world.catalog.sweeps.cancel(world.viewer("kirsten"), sweep.id)
    assert record.state is SweepState.CANCELLED
    assert record.ended_at is not None
    assert world.catalog.sweeps.settle() == ()
    assert world.catalog.notices.unread(world.viewer("kari")) == 1


def test_many_settle_at_once_and_it_is_told_once(world: World) -> None:
    sweep = submit(world, SweepRequest(grid={"alpha": [0.01, 0.02]}))
    work(world, "r1")
    gate = threading.Barrier(6)

    def settle(_: int) -> tuple[str, ...]:
        gate.wait()
        return world.catalog.sweeps.settle()

    with ThreadPoolExecutor(6) as pool:
        assert sum(len(found) for found in pool.map(settle, range(6))) == 1
    assert world.catalog.notices.unread(world.viewer("kari")) == 1
    assert count(world, Event, col(Event.subject) == sweep.id, col(Event.action) == "sweep.ended") == 1


def test_closing_the_agency_ends_its_sweeps(world: World) -> None:
    sweep = submit(world)
    world.catalog.agencies.change(SYSTEM, NAV, active=False)
    assert world.catalog.sweeps.settle() == (sweep.id,)
    assert world.catalog.sweeps.get(SYSTEM, sweep.id).done == 6
    with pytest.raises(InvalidInput, match="closed"):
        world.catalog.sweeps.resume(SYSTEM, sweep.id)


def test_a_withdrawn_template_is_not_resumed(world: World) -> None:
    sweep = submit(world)
    world.catalog.sweeps.cancel(world.viewer("kari"), sweep.id)
    world.catalog.templates.deprecate(world.viewer("kirsten"), "letter", "1.0.0")
    with pytest.raises(InvalidInput) as caught:
        world.catalog.sweeps.resume(world.viewer("kari"), sweep.id)
    assert {p.code for p in caught.value.problems} == {"not_published"}


def test_points_come_in_order_and_in_pages(world: World) -> None:
    sweep = submit(world)
    work(world, "r1", {0.1: FAILED})
    viewer = world.viewer("leif")
    points, more = world.catalog.sweep_results.points(viewer, sweep.id)
    assert more is None
    assert [p.point for p in points] == list(range(6))
    assert points[0].parameters == {"alpha": 0.01, "office": "Oslo"}
    assert points[0].metrics == {"difference": pytest.approx(1.0)}
    assert [p.state for p in points[-2:]] == [RunState.FAILED] * 2
    assert points[-1].metrics == {}
    page, more = world.catalog.sweep_results.points(viewer, sweep.id, limit=4)
    rest, end = world.catalog.sweep_results.points(viewer, sweep.id, after=more or 0, limit=4)
    assert (page + rest, more, end) == (points, 3, None)
    with pytest.raises(InvalidInput):
        world.catalog.sweep_results.points(viewer, sweep.id, limit=0)


def test_sensitivity_speaks_of_what_has_succeeded(world: World) -> None:
    sweep = submit(world)
    results = world.catalog.sweep_results
    assert results.sensitivity(world.viewer("kari"), sweep.id).effects == ()
    work(world, "r1", {0.1: FAILED})
    partly = results.sensitivity(world.viewer("kari"), sweep.id)
    assert partly.points == 4
    world.catalog.sweeps.resume(world.viewer("kari"), sweep.id)
    work(world, "r2")
    found = results.sensitivity(world.viewer("kari"), sweep.id)
    assert (found.points, found.metrics, dict(found.units)) == (6, ("difference",), {"difference": "pp"})
    by_name = {e.parameter: e for e in found.effects}
    assert by_name["alpha"].rho == pytest.approx(1.0)
    assert by_name["office"].difference == pytest.approx(0.0)
    assert [e.parameter for e in found.effects] == ["alpha", "office"]


def test_listing_pages_and_filters(world: World) -> None:
    sweeps = [submit(world, SweepRequest(grid={"alpha": [0.01]})) for _ in range(3)]
    other = submit(world, SweepRequest(grid={"alpha": [0.01]}), "siri", SKATT)
    viewer = world.viewer("kari")
    first = world.catalog.sweeps.list(viewer, limit=2)
    second = world.catalog.sweeps.list(viewer, limit=2, cursor=first.next)
    assert [s.id for s in (*first.items, *second.items)] == [s.id for s in reversed(sweeps)]
    assert second.next is None
    assert {s.id for s in world.catalog.sweeps.list(SYSTEM).items} == {other.id, *(s.id for s in sweeps)}
    assert [s.id for s in world.catalog.sweeps.list(SYSTEM, agency="skatteetaten").items] == [other.id]
    assert world.catalog.sweeps.list(viewer, agency="skatteetaten").items == ()
    assert world.catalog.sweeps.list(viewer, template="other").items == ()


def test_time_left_comes_from_earlier_runs(world: World) -> None:
    run = world.submit()
    token, _ = world.claim("r1")
    world.clock.advance(100)
    world.catalog.queue.finish(token, run.id, 1, DONE, world.clock())
    second = world.submit()
    world.claim("r2")
    world.clock.advance(30)
    left = world.catalog.durations.seconds_left(world.catalog.runs.progress(SYSTEM, second.id))
    assert left == 70
    world.clock.advance(100)
    assert world.catalog.durations.seconds_left(world.catalog.runs.progress(SYSTEM, second.id)) is None
    waiting = world.submit()
    assert world.catalog.durations.seconds_left(waiting) is None
    sweep = submit(world)
    assert world.catalog.sweeps.get(SYSTEM, sweep.id).seconds_left == 200


def test_claims_ends_cancels_and_resumes_at_once_lose_nothing(world: World) -> None:
    """Everything that locks a sweep's rows, at the same time: it neither stops for good nor counts a point twice."""
    sweep = submit(world, SweepRequest(grid={"alpha": Range("0.001", "0.04", "0.001")}))
    viewer = world.viewer("kari")
    world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=100)
    gate = threading.Barrier(8)

    def act(number: int) -> None:
        gate.wait()
        if number < 5:
            work(world, f"r{number}", most=10)
        elif number < 7:
            for _ in range(3):
                world.catalog.sweeps.cancel(viewer, sweep.id)
                with contextlib.suppress(InvalidInput):
                    world.catalog.sweeps.resume(viewer, sweep.id)
        else:
            for weight in (2, 3, 4, 5):
                world.catalog.agencies.change(SYSTEM, NAV, weight=weight)
                world.catalog.sweeps.settle()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(8)))
    record = world.catalog.sweeps.get(viewer, sweep.id)
    assert sum(record.counts.values()) == 40
    points, _ = world.catalog.sweep_results.points(viewer, sweep.id)
    assert [p.point for p in points] == list(range(40))
    work(world, "last")
    world.catalog.sweeps.settle()
    ended = world.catalog.sweeps.get(viewer, sweep.id)
    assert ended.state.ended
    if ended.state is not SweepState.SUCCEEDED:
        world.catalog.sweeps.resume(viewer, sweep.id)
        work(world, "again")
    assert dict(world.catalog.sweeps.get(viewer, sweep.id).counts) == {"succeeded": 40}


def test_points_by_a_metric_and_by_how_they_failed(world: World) -> None:
    sweep = submit(world, SweepRequest(grid={"alpha": [0.01, 0.02, 0.03, 0.04, 0.05]}))
    nothing = replace(DONE, metrics=())
    late = RunResult(RunState.TIMED_OUT, None, Reason.TIME_LIMIT)
    work(world, "r1", {0.01: FAILED, 0.02: nothing, 0.03: FAILED}, most=4)
    work(world, "r2", {0.05: late}, most=1)
    viewer, results = world.viewer("leif"), world.catalog.sweep_results

    def alphas(**how: object) -> list[object]:
        return [p.parameters["alpha"] for p in results.ranked(viewer, sweep.id, **how)]  # type: ignore[arg-type]

    assert alphas() == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert alphas(metric="difference", descending=True) == [0.04, 0.01, 0.02, 0.03, 0.05], "without a value last"
    assert alphas(metric="no'such\x00") == [0.01, 0.02, 0.03, 0.04, 0.05]
    assert alphas(unsuccessful=True) == [0.01, 0.03, 0.05]
    assert alphas(offset=3, limit=1) == [0.04]
    first = results.ranked(viewer, sweep.id, limit=1)[0]
    assert (first.state, first.reason) == (RunState.FAILED, Reason.CELL_FAILED)
    ways = [(f.state, f.reason, f.points) for f in results.failures(viewer, sweep.id)]
    assert ways == [(RunState.FAILED, Reason.CELL_FAILED, 2), (RunState.TIMED_OUT, Reason.TIME_LIMIT, 1)]
    for ask in (results.ranked, results.failures):
        with pytest.raises(NotFound):
            ask(world.viewer("siri"), sweep.id)
