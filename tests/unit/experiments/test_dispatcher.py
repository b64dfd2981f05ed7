"""The dispatcher over the in-memory queue and engine, step by step."""

from __future__ import annotations

import threading
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
