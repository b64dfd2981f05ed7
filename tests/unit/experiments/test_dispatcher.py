"""The dispatcher over the in-memory queue and engine, step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from experiments.dispatcher import Dispatcher, DispatcherConfig
from experiments.model import NO_CELL, Assignment, Progress, Reason, Run, RunResult, RunState
from experiments.queue import TokenRefused
from experiments.testing import FakeClock, InlineExecutor, InMemoryEngine, InMemoryRunQueue
from spawner_config.engines.base import SandboxStatus
from spawner_config.sandbox import Limits
from tests.contracts.queue_contract import DONE, NAV, SKATT, VERSION, request

CONFIG = DispatcherConfig(
    lab="lab",
    image="proverom/sandbox:test",
    runner_url="http://hub:8000/services/catalog/runner/v1",
    limits=Limits(memory=2**30, cpus=1.0, pids=200),
    total_runs=4,
)


@dataclass
class Lab:
    """Queue, engine and dispatcher on one clock."""

    config: DispatcherConfig = CONFIG
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.queue = InMemoryRunQueue(clock=self.clock, lease_seconds=15)
        self.queue.add_agency(NAV, "nav", max_concurrent=2)
        self.queue.add_agency(SKATT, "skatteetaten", max_concurrent=2)
        self.engine = InMemoryEngine(clock=self.clock)
        self.dispatcher = self.another()

    def another(self) -> Dispatcher:
        return Dispatcher(self.queue, self.engine, self.config, executor=InlineExecutor())

    def submit(self, agency: str = NAV, *, timeout_seconds: int = 60, max_attempts: int = 3) -> Run:
        return self.queue.submit(request(agency, timeout_seconds=timeout_seconds), VERSION, max_attempts=max_attempts)

    def step(self, after: float = 0) -> None:
        self.dispatcher.step(self.clock.advance(after))

    def steps(self, seconds: float, *, alive: bool = True) -> None:
        """Let time pass second by second; living runners say so."""
        for _ in range(int(seconds)):
            self.clock.advance(1)
            if alive:
                self.beat()
            self.dispatcher.step(self.clock())

    def token(self, sandbox: str) -> str:
        return self.engine.spec(sandbox).environment["PROVEROM_RUN_TOKEN"]

    def claim(self) -> list[tuple[str, Assignment]]:
        """Let every living sandbox ask for work; return those that got some."""
        claims = [(name, self.queue.claim(self.token(name), self.clock())) for name in self.alive()]
        return [(name, assignment) for name, assignment in claims if assignment]

    def alive(self) -> list[str]:
        return sorted(self.engine.names(running=True))

    def beat(self) -> None:
        for run in self.queue.active():
            sandbox = f"proverom-lab-runner-{run.runner}"
            if sandbox in self.engine.names(running=True):
                self.queue.heartbeat(self.token(sandbox), run.id, run.attempt, Progress(0, 1), self.clock())

    def finish(self, sandbox: str, assignment: Assignment, result: RunResult = DONE) -> Run:
        token = self.token(sandbox)
        run = self.queue.finish(token, assignment.run, assignment.attempt, result, self.clock())
        self.engine.kill(sandbox, exit_code=0)
        return run


@pytest.fixture
def lab() -> Lab:
    return Lab()


def start_one(lab: Lab, **submission: int) -> tuple[Run, str, Assignment]:
    run = lab.submit(**submission)
    lab.step()
    [(sandbox, assignment)] = lab.claim()
    return run, sandbox, assignment


def test_nothing_to_do_starts_nothing(lab: Lab) -> None:
    lab.steps(3)
    assert lab.engine.started == []


def test_a_run_gets_a_sandbox_and_the_sandbox_goes_after_the_result(lab: Lab) -> None:
    run = lab.submit()
    lab.step()
    [sandbox] = lab.alive()
    spec = lab.engine.spec(sandbox)
    [ticket] = lab.queue.runners()
    assert (spec.kind, spec.agency, spec.network, spec.image) == ("runner", NAV, "proverom-lab-nav", CONFIG.image)
    assert spec.command == ("/opt/runner/bin/python", "-m", "experiments.runner")
    assert spec.environment["PROVEROM_RUNNER_URL"] == CONFIG.runner_url
    assert spec.labels["no.proverom.runner"] == ticket.id
    assert spec.name == ticket.sandbox == f"proverom-lab-runner-{ticket.id}"
    assert (ticket.engine, ticket.image_digest) == ("memory", "sha256:" + "0" * 64)
    assert lab.token(sandbox) not in repr(ticket)
    assert spec.network in lab.engine.networks
    lab.steps(5)
    assert lab.engine.started == [sandbox]
    [(_, assignment)] = lab.claim()
    lab.steps(5)
    assert lab.engine.removed == []
    lab.finish(sandbox, assignment)
    lab.step()
    assert lab.engine.removed == [sandbox]
    assert lab.queue.runners() == []
    assert lab.queue.get(run.id).state is RunState.SUCCEEDED


def test_the_ticket_is_there_before_the_sandbox(lab: Lab) -> None:
    seen: list[int] = []
    lab.engine.on_start = lambda _spec: seen.append(len(lab.queue.runners()))
    lab.submit()
    lab.step()
    assert seen == [1]


def test_each_agency_has_its_quota_and_the_lab_its_total(lab: Lab) -> None:
    for _ in range(5):
        lab.submit(NAV)
    lab.steps(3)
    assert len(lab.alive()) == 2
    for _ in range(5):
        lab.submit(SKATT)
    lab.steps(3)
    assert len(lab.alive()) == 4
    narrow = Lab(replace(CONFIG, total_runs=3))
    for _ in range(5):
        narrow.submit(NAV)
        narrow.submit(SKATT)
    narrow.steps(3)
    assert len(narrow.alive()) == 3


def test_every_run_of_a_queue_is_done(lab: Lab) -> None:
    runs = [lab.submit(agency) for agency in (NAV, SKATT) for _ in range(5)]
    for _ in range(10):
        lab.step(1)
        for sandbox, assignment in lab.claim():
            lab.finish(sandbox, assignment)
    lab.step(1)
    assert {lab.queue.get(run.id).state for run in runs} == {RunState.SUCCEEDED}
    assert len(lab.engine.started) == 10
    assert lab.engine.names() == set()
    assert lab.queue.runners() == []


# -- runners that die ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["killed", "vanished"])
def test_the_run_of_a_dead_runner_is_tried_again_at_once(lab: Lab, how: str) -> None:
    run, sandbox, _ = start_one(lab)
    lab.engine.kill(sandbox) if how == "killed" else lab.engine.lose(sandbox)
    lab.steps(3)
    [(second, assignment)] = lab.claim()
    assert second != sandbox
    assert (assignment.run, assignment.attempt) == (run.id, 2)
    assert sandbox not in lab.engine.names()
    lab.finish(second, assignment)
    assert lab.queue.get(run.id).state is RunState.SUCCEEDED


def test_after_the_last_attempt_the_runner_was_lost(lab: Lab) -> None:
    run = lab.submit(max_attempts=2)
    for _ in range(2):
        lab.steps(3)
        [(sandbox, _)] = lab.claim()
        lab.engine.kill(sandbox)
    lab.steps(5)
    ended = lab.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.FAILED, Reason.RUNNER_LOST)
    assert lab.engine.names() == set()
    assert len(lab.engine.started) == 2


def test_a_runner_without_memory_fails_its_run(lab: Lab) -> None:
    run, sandbox, _ = start_one(lab)
    lab.engine.kill(sandbox, out_of_memory=True)
    lab.steps(3)
    ended = lab.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.FAILED, Reason.OUT_OF_MEMORY)
    assert lab.engine.names() == set()


def test_a_runner_that_finished_and_ended_is_not_lost(lab: Lab) -> None:
    run, sandbox, assignment = start_one(lab)
    lab.finish(sandbox, assignment)
    lab.steps(5)
    assert lab.queue.get(run.id).state is RunState.SUCCEEDED
    assert len(lab.engine.started) == 1


def test_a_silent_runner_is_waited_for_and_then_replaced(lab: Lab) -> None:
    run, sandbox, _ = start_one(lab)
    lab.steps(15 + 20, alive=False)
    assert lab.queue.get(run.id).attempt == 1
    lab.steps(20, alive=False)
    [(second, assignment)] = claim_except(lab, sandbox)
    assert (assignment.run, assignment.attempt) == (run.id, 2)
    assert sandbox not in lab.engine.names()
    assert second in lab.engine.names()


def claim_except(lab: Lab, sandbox: str) -> list[tuple[str, Assignment]]:
    return [(name, assignment) for name, assignment in lab.claim() if name != sandbox]


def test_a_silent_runner_that_speaks_up_keeps_its_run(lab: Lab) -> None:
    run, _, _ = start_one(lab, timeout_seconds=600)
    for _ in range(4):
        lab.steps(15 + 20, alive=False)
        lab.steps(1)
    assert (lab.queue.get(run.id).attempt, lab.queue.get(run.id).state) == (1, RunState.RUNNING)


def test_an_engine_that_does_not_answer_kills_nobody(lab: Lab) -> None:
    run, sandbox, assignment = start_one(lab, timeout_seconds=600)
    lab.engine.unreachable = True
    lab.steps(120, alive=False)
    assert lab.queue.get(run.id).state is RunState.RUNNING
    waiting = lab.submit()
    lab.steps(10)
    assert lab.queue.get(waiting.id).state is RunState.QUEUED
    lab.finish(sandbox, assignment)
    lab.steps(2)
    lab.engine.unreachable = False
    lab.steps(5)
    assert sandbox not in lab.engine.names()
    assert [a.run for _, a in lab.claim()] == [waiting.id]


# -- limits and cancellation -----------------------------------------------------------------------------------------
def test_a_runner_that_overstays_its_deadline_is_ended(lab: Lab) -> None:
    run, sandbox, _ = start_one(lab, timeout_seconds=30)
    lab.steps(30 + 18)
    assert lab.queue.get(run.id).state is RunState.RUNNING
    lab.steps(5)
    ended = lab.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.TIMED_OUT, Reason.TIME_LIMIT)
    assert sandbox not in lab.engine.names()


def test_a_cancellation_that_is_not_obeyed_is_enforced(lab: Lab) -> None:
    run, sandbox, _ = start_one(lab, timeout_seconds=600)
    lab.queue.cancel(run.id)
    lab.steps(9)
    assert lab.queue.get(run.id).state is RunState.RUNNING
    lab.steps(4)
    ended = lab.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.CANCELLED, Reason.CANCELLED_BY_USER)
    assert sandbox not in lab.engine.names()


def test_a_cancelled_run_of_a_dead_runner_is_cancelled(lab: Lab) -> None:
    run, sandbox, _ = start_one(lab)
    lab.queue.cancel(run.id)
    lab.engine.kill(sandbox)
    lab.steps(3)
    assert lab.queue.get(run.id).state is RunState.CANCELLED


# -- starts that fail ------------------------------------------------------------------------------------------------
def test_a_sandbox_that_cannot_start_fails_the_run_with_the_engines_words(lab: Lab) -> None:
    lab.engine.start_error = "The image proverom/sandbox:test cannot be read. Build it again."
    runs = [lab.submit(), lab.submit()]
    lab.steps(20)
    first = lab.queue.get(runs[0].id)
    assert (first.state, first.reason) == (RunState.FAILED, Reason.START_FAILED)
    assert first.error is not None
    assert first.error.cell == NO_CELL
    assert "Build it again." in first.error.message
    lab.engine.start_error = None
    lab.steps(40)
    assert lab.queue.runners() != []
    assert [a.run for _, a in lab.claim()] == [runs[1].id]


def test_a_missing_image_fails_the_run(lab: Lab) -> None:
    lab.engine.images.clear()
    run = lab.submit()
    lab.steps(20)
    assert lab.queue.get(run.id).reason is Reason.START_FAILED
    assert lab.queue.runners() == []
    assert lab.engine.started == []


def test_a_failure_now_and_then_costs_only_time(lab: Lab) -> None:
    lab.engine.start_error = "no space left"
    run = lab.submit()
    lab.steps(2)
    lab.engine.start_error = None
    lab.steps(10)
    assert [a.run for _, a in lab.claim()] == [run.id]
    assert lab.queue.get(run.id).attempt == 1


def test_a_runner_that_ends_before_it_asks_for_work_is_a_failed_start(lab: Lab) -> None:
    run = lab.submit()
    for _ in range(40):
        lab.steps(1)
        for sandbox in lab.alive():
            lab.engine.kill(sandbox, exit_code=1, log="ModuleNotFoundError: No module named 'papermill'")
    ended = lab.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.FAILED, Reason.START_FAILED)
    assert ended.error is not None
    assert "No module named 'papermill'" in ended.error.message
    assert len(lab.engine.started) == CONFIG.start_attempts
    assert lab.engine.names() == set()


def test_runners_that_die_at_once_are_one_failed_start() -> None:
    lab = Lab(replace(CONFIG, total_runs=10))
    lab.queue.add_agency(NAV, "nav", max_concurrent=100)
    runs = [lab.submit() for _ in range(CONFIG.start_attempts)]
    lab.step()
    alive = lab.alive()
    assert len(alive) >= CONFIG.start_attempts
    for sandbox in alive:
        lab.engine.kill(sandbox, exit_code=143)
    lab.steps(2)
    assert {lab.queue.get(run.id).state for run in runs} == {RunState.QUEUED}


def test_a_runner_that_never_asks_for_work_is_replaced(lab: Lab) -> None:
    lab.submit()
    lab.step()
    [mute] = lab.alive()
    lab.steps(CONFIG.claim_grace_seconds + 5)
    assert mute not in lab.engine.names()
    assert len(lab.alive()) == 1


def test_a_runner_that_nothing_waits_for_is_ended(lab: Lab) -> None:
    run = lab.submit()
    lab.step()
    [sandbox] = lab.alive()
    token = lab.token(sandbox)
    lab.queue.cancel(run.id)
    lab.steps(CONFIG.idle_seconds + 3)
    assert lab.engine.names() == set()
    with pytest.raises(TokenRefused):
        lab.queue.claim(token, lab.clock())


# -- crashes ---------------------------------------------------------------------------------------------------------
def test_a_ticket_whose_sandbox_was_never_started_is_closed(lab: Lab) -> None:
    class Killed(BaseException):
        pass

    def die(_spec: object) -> None:
        raise Killed

    run = lab.submit()
    lab.engine.on_start = die
    lab.step()
    [sandbox] = lab.engine.names()
    lab.engine.lose(sandbox)
    lab.engine.on_start = None
    lab.dispatcher = lab.another()
    lab.steps(CONFIG.start_grace_seconds + 5)
    assert [ticket.sandbox for ticket in lab.queue.runners()] == lab.alive()
    assert sandbox not in lab.alive()
    assert [a.run for _, a in lab.claim()] == [run.id]


def test_a_sandbox_without_a_ticket_is_removed_and_others_are_left_alone(lab: Lab) -> None:
    _, sandbox, _ = start_one(lab)
    [ticket] = lab.queue.runners()
    stray = replace(lab.engine.spec(sandbox), name="proverom-lab-runner-stray")
    desk = replace(stray, kind="desk", name="proverom-lab-desk-nav-ola")
    neighbour = replace(stray, lab="other", name="proverom-other-runner-x")
    for spec in (stray, desk, neighbour):
        lab.engine.start(spec)
    lab.steps(3)
    assert lab.engine.names() == {ticket.sandbox, desk.name, neighbour.name}


def test_a_new_dispatcher_takes_over_what_lives(lab: Lab) -> None:
    run, sandbox, assignment = start_one(lab, timeout_seconds=600)
    lab.dispatcher = lab.another()
    lab.steps(10)
    assert lab.engine.started == [sandbox]
    lab.finish(sandbox, assignment)
    lab.dispatcher = lab.another()
    lab.step()
    assert lab.engine.names() == set()
    assert lab.queue.get(run.id).state is RunState.SUCCEEDED


def test_a_new_dispatcher_in_another_time_gives_a_run_that_lives_its_grace(lab: Lab) -> None:
    run, _, _ = start_one(lab, timeout_seconds=60)
    lab.clock.advance(3600)  # somebody has set the clock
    lab.dispatcher = lab.another()
    lab.steps(CONFIG.deadline_grace_seconds - 1)
    assert lab.queue.get(run.id).state is RunState.RUNNING
    lab.steps(3)
    assert lab.queue.get(run.id).state is RunState.TIMED_OUT


def test_two_dispatchers_lose_and_double_nothing(lab: Lab) -> None:
    other = lab.another()
    runs = [lab.submit() for _ in range(6)]
    for _ in range(60):
        lab.step(1)
        other.step(lab.clock())
        for sandbox, assignment in lab.claim():
            lab.finish(sandbox, assignment)
        assert len(lab.queue.active()) <= 2
    for _ in range(int(CONFIG.idle_seconds) + 5):
        lab.step(1)
        other.step(lab.clock())
    assert {(run.state, run.attempt) for run in map(lab.queue.get, [r.id for r in runs])} == {(RunState.SUCCEEDED, 1)}
    assert lab.engine.names() == set()


class Listing(InMemoryEngine):
    """Lets something happen right after the engine has said what lives."""

    then: Callable[[], object] | None = None

    def sandboxes(self, *, lab: str, kind: str | None = None) -> Sequence[SandboxStatus]:
        found = super().sandboxes(lab=lab, kind=kind)
        then, self.then = self.then, None
        if then:
            then()
        return found


@pytest.fixture
def listing(lab: Lab) -> Listing:
    lab.engine = Listing(clock=lab.clock)
    lab.dispatcher = lab.another()
    return lab.engine


def test_a_runner_that_came_to_life_during_the_look_is_not_taken_for_dead(lab: Lab, listing: Listing) -> None:
    other = lab.another()
    run = lab.submit()

    def meanwhile() -> None:
        other.step(lab.clock())
        lab.claim()

    listing.then = meanwhile
    lab.step()
    assert (lab.queue.get(run.id).state, lab.queue.get(run.id).attempt) == (RunState.RUNNING, 1)
    assert len(lab.alive()) == 1


def test_a_run_that_finished_during_the_look_is_not_taken_for_lost(lab: Lab, listing: Listing) -> None:
    run, sandbox, assignment = start_one(lab)
    listing.then = lambda: lab.finish(sandbox, assignment)
    lab.step(5)
    assert lab.queue.get(run.id).state is RunState.SUCCEEDED
    assert lab.engine.names() == set()


def test_a_step_may_be_repeated(lab: Lab) -> None:
    lab.submit()
    for _ in range(5):
        lab.step()
    assert len(lab.engine.started) == 1


# -- the loop --------------------------------------------------------------------------------------------------------
class Broken(InMemoryRunQueue):
    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)

    def active(self):  # type: ignore[no-untyped-def]
        self.asked.release()
        raise ConnectionError("the database is away")


def test_the_loop_outlives_a_database_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    queue, stop = Broken(), threading.Event()
    dispatcher = Dispatcher(queue, InMemoryEngine(), replace(CONFIG, poll_seconds=0.01))
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    for _ in range(3):
        assert queue.asked.acquire(timeout=20)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert "the database is away" in caplog.text


def test_what_is_submitted_does_not_wait_for_the_next_pass() -> None:
    lab = Lab(replace(CONFIG, poll_seconds=3600.0, look_seconds=0.01))
    stop = threading.Event()
    thread = threading.Thread(target=lab.dispatcher.run, args=(stop,))
    thread.start()
    try:
        for number in (1, 2):
            lab.submit()
            end = time.monotonic() + 30
            while len(lab.engine.names()) < number and time.monotonic() < end:
                time.sleep(0.01)
            assert len(lab.engine.names()) == number
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


# -- sweeps, fairness and warm runners -------------------------------------------------------------------------------


def sweep_lab(**changes: object) -> Lab:
    return Lab(replace(CONFIG, sweep_slots=2, **changes))  # type: ignore[arg-type]


@dataclass
class Working:
    """Living sandboxes that work: they claim as many runs as they have slots for, and each run takes ``seconds``."""

    lab: Lab
    seconds: int
    held: dict[str, dict[str, tuple[Assignment, int]]] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)
    time: int = 0

    def second(self) -> None:
        self.time += 1
        lab = self.lab
        lab.clock.advance(1)
        lab.dispatcher.step(lab.clock())
        for sandbox in lab.alive():
            held = self.held.setdefault(sandbox, {})
            for run, (assignment, since) in list(held.items()):
                if self.time - since >= self.seconds:
                    lab.queue.finish(lab.token(sandbox), run, assignment.attempt, DONE, lab.clock())
                    del held[run]
            self._claim(sandbox, held)
        lab.beat()

    def _claim(self, sandbox: str, held: dict[str, tuple[Assignment, int]]) -> None:
        lab = self.lab
        try:
            while assignment := lab.queue.claim(lab.token(sandbox), lab.clock(), list(held)):
                held[assignment.run] = (assignment, self.time)
                self.started[assignment.run] = self.time
        except TokenRefused:
            if not held:
                lab.engine.kill(sandbox, exit_code=0)

    def until(self, done: Callable[[], bool], *, most: int) -> int:
        """Let seconds pass until it is done; return how many."""
        began = self.time
        while not done():
            if self.time - began > most:
                raise AssertionError(f"not done after {most} s")
            self.second()
        return self.time - began


def submit_sweep(lab: Lab, runs: int, agency: str = NAV) -> list[Run]:
    return [lab.queue.submit(request(agency, sweep="01JSWEEP"), VERSION) for _ in range(runs)]


def test_a_sweep_gets_runners_that_do_several_runs_at_a_time() -> None:
    lab = sweep_lab(sweep_batch=3)
    runs = submit_sweep(lab, 7)
    lab.step()
    [sandbox] = lab.alive()
    spec = lab.engine.spec(sandbox)
    assert spec.environment["PROVEROM_RUNNER_SLOTS"] == "2"
    assert spec.environment["PROVEROM_RUNNER_PLACES"].split(":")[0] == "/home/lab"
    one = CONFIG.limits
    assert (spec.limits.memory, spec.limits.cpus, spec.limits.pids) == (2 * one.memory, 2 * one.cpus, 2 * one.pids)
    assert [(t.slots, t.batch_limit) for t in lab.queue.runners()] == [(2, 3)]
    work = Working(lab, seconds=2)
    work.until(lambda: all(lab.queue.get(run.id).state.ended for run in runs), most=60)
    work.until(lambda: not lab.queue.runners(), most=60)
    # 7 runs in batches of at most 3: three sandboxes, each thrown away.
    assert len(lab.engine.started) == len(lab.engine.removed) == 3


def test_a_run_that_overstays_beside_others_is_tried_again_alone() -> None:
    """Another may have kept it from its end; the second time there is nobody else to blame."""
    lab = sweep_lab()
    runs = submit_sweep(lab, 2)
    lab.step()
    claimed: list[str] = []
    for _ in runs:
        [sandbox] = lab.alive()
        assignment = lab.queue.claim(lab.token(sandbox), lab.clock(), claimed)
        assert assignment is not None
        claimed.append(assignment.run)
    limit = runs[0].request.timeout_seconds + CONFIG.deadline_grace_seconds
    lab.steps(limit + 3)
    assert {lab.queue.get(run.id).state for run in runs} == {RunState.QUEUED}
    again = lab.claim()
    assert {assignment.attempt for _, assignment in again} == {2}
    lab.steps(limit + 3)
    ended = [lab.queue.get(assignment.run) for _, assignment in again]
    assert {(run.state, run.reason) for run in ended} == {(RunState.TIMED_OUT, Reason.TIME_LIMIT)}


@pytest.mark.parametrize(("sweep_slots", "total"), [(1, 2), (2, 4), (4, 4), (3, 5)])
def test_a_sweep_of_10000_delays_another_agency_by_no_more_than_one_run(sweep_slots: int, total: int) -> None:
    seconds = 20
    lab = Lab(replace(CONFIG, sweep_slots=sweep_slots, total_runs=total))
    lab.queue.add_agency(NAV, "nav", max_concurrent=100)
    submit_sweep(lab, 10_000)
    work = Working(lab, seconds)
    for _ in range(3):
        for _ in range(seconds + 7):
            work.second()
        assert len(lab.queue.active()) == total
        run = lab.submit(SKATT)
        # Without the sweep it starts in the pass after its submission.
        assert work.until(lambda run=run: run.id in work.started, most=60) <= seconds + 2  # type: ignore[misc]
        work.until(lambda run=run: lab.queue.get(run.id).state.ended, most=60)  # type: ignore[misc]
    # The places come back to the sweep.
    work.until(lambda: len(lab.queue.active()) == total, most=3 * seconds)


def test_a_sweep_does_not_keep_its_own_agencys_single_run_waiting() -> None:
    lab = sweep_lab()
    submit_sweep(lab, 500)
    work = Working(lab, seconds=20)
    for _ in range(30):
        work.second()
    run = lab.submit(NAV)
    assert work.until(lambda: run.id in work.started, most=60) <= 22


def test_two_agencies_with_sweeps_share_by_weight() -> None:
    lab = Lab(replace(CONFIG, sweep_slots=1, total_runs=4))
    lab.queue.add_agency(NAV, "nav", max_concurrent=100, weight=1)
    lab.queue.add_agency(SKATT, "skatteetaten", max_concurrent=100, weight=3)
    submit_sweep(lab, 300)
    work = Working(lab, seconds=5)
    for _ in range(20):
        work.second()
    submit_sweep(lab, 300, SKATT)
    for _ in range(30):
        work.second()
    running = [run.request.agency for run in lab.queue.active()]
    assert (running.count(NAV), running.count(SKATT)) == (1, 3)


@pytest.mark.parametrize(("quota", "most"), [({"max_memory": 3 * 2**30}, 3), ({"max_cpus": 2.0}, 2), ({}, 4)])
def test_an_agencys_quotas_of_memory_and_cpu_bound_all_its_runners(quota: dict[str, float], most: int) -> None:
    lab = sweep_lab(warm_per_agency=2)
    lab.queue.add_agency(NAV, "nav", max_concurrent=100, **quota)  # type: ignore[arg-type]
    submit_sweep(lab, 50)
    for _ in range(3):
        lab.submit(NAV)
    work = Working(lab, seconds=3)
    for _ in range(40):
        work.second()
        memory = sum(lab.engine.spec(name).limits.memory for name in lab.engine.names())
        assert memory <= most * CONFIG.limits.memory
    assert len(lab.queue.active()) >= most - 1


def test_a_quota_below_one_run_starts_nothing() -> None:
    lab = sweep_lab(warm_per_agency=1)
    lab.queue.add_agency(NAV, "nav", max_memory=2**29)
    lab.submit(NAV)
    lab.steps(5)
    assert lab.engine.started == []


def test_runners_are_kept_warm_for_agencies_that_were_active() -> None:
    lab = sweep_lab(warm_per_agency=1, warm_for_seconds=300)
    run = lab.submit(NAV)
    work = Working(lab, seconds=2)
    work.until(lambda: lab.queue.get(run.id).state.ended, most=20)
    for _ in range(200):
        work.second()
    # One waits, ready, and it is the same all the time.
    assert len(lab.alive()) == 1
    assert len(lab.engine.started) == 2
    [warm] = lab.alive()
    again = lab.submit(NAV)
    work.until(lambda: again.id in work.started, most=1)
    assert f"proverom-lab-runner-{lab.queue.get(again.id).runner}" == warm
    for _ in range(400):
        work.second()
    assert lab.alive() == []
    assert lab.queue.runners() == []


def test_warm_runners_give_their_places_to_runs_at_once() -> None:
    lab = sweep_lab(warm_per_agency=2, total_runs=2)
    run = lab.submit(NAV)
    work = Working(lab, seconds=2)
    work.until(lambda: lab.queue.get(run.id).state.ended, most=20)
    work.until(lambda: len(lab.alive()) == 2, most=20)
    other = lab.submit(SKATT)
    assert work.until(lambda: other.id in work.started, most=20) <= 4


def warm_runner(lab: Lab, work: Working, agency: str) -> str:
    """Let an agency's run come and go; return the sandbox that waits, ready, for its next one."""
    run = lab.submit(agency)
    work.until(lambda: lab.queue.get(run.id).state.ended, most=40)
    idle = lambda: [load.ticket for load in lab.queue.loads() if load.ticket.agency == agency and not load.bound]  # noqa: E731
    work.until(lambda: len(idle()) == 1, most=40)
    return str(idle()[0].sandbox)


def test_a_sweep_begins_on_the_runner_that_waits_and_is_given_more_places_in_it() -> None:
    lab = sweep_lab(warm_per_agency=1)
    work = Working(lab, seconds=2)
    warm = warm_runner(lab, work, NAV)
    assert lab.engine.spec(warm).limits.memory == CONFIG.limits.memory
    runs = submit_sweep(lab, 20)
    assert lab.claim()[0][0] == warm
    work.held[warm] = {runs[0].id: (Assigned(runs[0].id), work.time)}  # type: ignore[dict-item]
    started = len(lab.engine.started)
    work.second()
    work.second()
    assert len(lab.queue.active()) == 2
    assert {f"proverom-lab-runner-{run.runner}" for run in lab.queue.active()} == {warm}
    assert lab.engine.spec(warm).limits.memory == 2 * CONFIG.limits.memory
    assert len(lab.engine.started) == started
    work.until(lambda: lab.queue.oldest_queued(NAV) is None, most=60)
    assert len(lab.engine.started) == started


@dataclass(frozen=True)
class Assigned:
    run: str
    attempt: int = 1


def test_no_runner_is_started_beside_one_that_is_about_to_take_the_sweep() -> None:
    lab = sweep_lab(warm_per_agency=1)
    work = Working(lab, seconds=2)
    warm_runner(lab, work, NAV)
    started = len(lab.engine.started)
    submit_sweep(lab, 20)
    lab.step()
    assert len(lab.engine.started) == started
    lab.step(after=5)  # it does not take it: another one is started after all
    assert len(lab.engine.started) == started + 1


@pytest.mark.parametrize("waited", [1, 60])
def test_a_sweep_that_wants_every_place_keeps_the_runner_that_is_about_to_take_it(waited: int) -> None:
    lab = sweep_lab(warm_per_agency=1, total_runs=2)
    work = Working(lab, seconds=2)
    warm = warm_runner(lab, work, NAV)
    for _ in range(waited):
        work.second()
    submit_sweep(lab, 20)
    started = len(lab.engine.started)
    lab.step()  # a pass between the submission and the runner's next question
    assert warm in lab.alive()
    work.second()
    assert {f"proverom-lab-runner-{run.runner}" for run in lab.queue.active()} == {warm}
    assert len(lab.engine.started) == started


def test_a_sweep_leaves_others_their_runners_that_wait() -> None:
    lab = Lab(replace(CONFIG, sweep_slots=4, total_runs=4, warm_per_agency=1, warm_for_seconds=900))
    lab.queue.add_agency(NAV, "nav", max_concurrent=100)
    work = Working(lab, seconds=20)
    warm = warm_runner(lab, work, SKATT)
    submit_sweep(lab, 10_000)
    for _ in range(50):
        work.second()
    assert len(lab.queue.active()) == 3
    run = lab.submit(SKATT)
    assert work.until(lambda: run.id in work.started, most=5) <= 1
    assert f"proverom-lab-runner-{lab.queue.get(run.id).runner}" == warm
    # And has another one again, for which the sweep gave one place back as a run ended.
    work.until(lambda: any(not load.bound for load in lab.queue.loads()), most=45)
    assert len([name for name in lab.alive() if lab.engine.spec(name).agency == NAV]) == 1


def test_a_runner_that_waited_long_is_not_blamed_for_a_run_of_this_moment() -> None:
    lab = sweep_lab(warm_per_agency=1)
    work = Working(lab, seconds=2)
    warm = warm_runner(lab, work, NAV)
    for _ in range(300):
        work.second()
    lab.submit(NAV)
    lab.step(after=3)
    assert warm in lab.alive()


def test_a_sweeps_runner_that_dies_gives_all_its_runs_back() -> None:
    lab = sweep_lab()
    runs = submit_sweep(lab, 2)
    work = Working(lab, seconds=1000)
    work.second()
    [sandbox] = lab.alive()
    assert len(lab.queue.active()) == 2
    lab.engine.kill(sandbox, out_of_memory=True)
    work.until(lambda: [lab.queue.get(run.id).attempt for run in runs] == [2, 2], most=20)
    assert sandbox in lab.engine.removed


def test_a_runner_without_memory_fails_the_only_run_it_had_however_many_it_may_have() -> None:
    lab = sweep_lab()
    [run] = submit_sweep(lab, 1)
    lab.step()
    [(sandbox, _)] = lab.claim()
    lab.engine.kill(sandbox, out_of_memory=True)
    lab.steps(3)
    ended = lab.queue.get(run.id)
    assert (ended.state, ended.reason) == (RunState.FAILED, Reason.OUT_OF_MEMORY)


def test_a_run_is_not_blamed_for_what_an_earlier_one_of_its_runner_may_have_done() -> None:
    lab = Lab(replace(CONFIG, sweep_slots=1))
    submit_sweep(lab, 2)
    lab.step()
    sandbox = lab.alive()[0]
    first = lab.queue.claim(lab.token(sandbox), lab.clock())
    assert first is not None
    lab.queue.finish(lab.token(sandbox), first.run, 1, DONE, lab.clock())
    second = lab.queue.claim(lab.token(sandbox), lab.clock())
    assert second is not None
    lab.engine.kill(sandbox, out_of_memory=True)
    lab.steps(3)
    assert lab.queue.get(second.run).state is RunState.QUEUED


def test_a_sweeps_runner_that_dies_between_two_runs_is_noticed() -> None:
    lab = sweep_lab()
    runs = submit_sweep(lab, 4)
    work = Working(lab, seconds=1000)
    work.second()
    [sandbox] = lab.alive()
    for run in list(lab.queue.active()):
        lab.queue.finish(lab.token(sandbox), run.id, 1, DONE, lab.clock())
    lab.engine.kill(sandbox)
    work.held.clear()
    work.until(lambda: lab.queue.get(runs[3].id).state is RunState.RUNNING, most=20)
    assert sandbox in lab.engine.removed


def test_a_sweeps_runner_that_asks_for_no_more_is_ended() -> None:
    lab = sweep_lab()
    submit_sweep(lab, 4)
    lab.step()
    [(sandbox, assignment)] = lab.claim()
    lab.queue.finish(lab.token(sandbox), assignment.run, 1, DONE, lab.clock())
    lab.steps(60)
    assert sandbox in lab.engine.removed


# -- a clock that jumps ----------------------------------------------------------------------------------------------


def steps_of_both(lab: Lab, steady: FakeClock, seconds: int, *, alive: bool = True) -> None:
    for _ in range(seconds):
        lab.clock.advance(1)
        if alive:
            lab.beat()
        lab.dispatcher.step(lab.clock(), steady.advance(1))


def test_a_clock_set_forward_ends_no_run(lab: Lab) -> None:
    steady = FakeClock()
    lab.dispatcher.step(lab.clock(), steady())
    run, _, _ = start_one_at(lab, steady, timeout_seconds=60)
    steps_of_both(lab, steady, 5)
    lab.clock.advance(86400)
    steps_of_both(lab, steady, 50)
    assert lab.queue.get(run.id).state is RunState.RUNNING
    steps_of_both(lab, steady, 40)
    assert lab.queue.get(run.id).state is RunState.TIMED_OUT


def test_a_clock_set_forward_ends_no_run_that_a_new_dispatcher_found(lab: Lab) -> None:
    steady = FakeClock()
    run, _, _ = start_one_at(lab, steady, timeout_seconds=60)
    steps_of_both(lab, steady, 20)
    lab.dispatcher = lab.another()
    steps_of_both(lab, steady, 2)
    lab.clock.advance(3600)
    steps_of_both(lab, steady, 30)
    assert lab.queue.get(run.id).state is RunState.RUNNING
    steps_of_both(lab, steady, 60)
    assert lab.queue.get(run.id).state is RunState.TIMED_OUT


def test_a_clock_set_back_hides_no_dead_runner(lab: Lab) -> None:
    steady = FakeClock()
    lab.dispatcher.step(lab.clock(), steady())
    run, sandbox, _ = start_one_at(lab, steady, timeout_seconds=600)
    steps_of_both(lab, steady, 5)
    lab.clock.advance(-86400)
    lab.engine.kill(sandbox, exit_code=137)
    steps_of_both(lab, steady, 5, alive=False)
    assert lab.queue.get(run.id).state is RunState.QUEUED


def test_a_clock_set_back_keeps_no_frozen_run_for_ever(lab: Lab) -> None:
    steady = FakeClock()
    lab.dispatcher.step(lab.clock(), steady())
    run, _, _ = start_one_at(lab, steady, timeout_seconds=60)
    steps_of_both(lab, steady, 5)
    lab.clock.advance(-86400)
    steps_of_both(lab, steady, 90, alive=False)
    assert lab.queue.get(run.id).state is RunState.TIMED_OUT


def start_one_at(lab: Lab, steady: FakeClock, *, timeout_seconds: int) -> tuple[Run, str, Assignment]:
    run = lab.submit(timeout_seconds=timeout_seconds)
    lab.dispatcher.step(lab.clock(), steady())
    [(sandbox, assignment)] = lab.claim()
    return run, sandbox, assignment
