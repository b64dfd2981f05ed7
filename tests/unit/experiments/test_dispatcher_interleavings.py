"""Whatever happens in whatever order: no run is lost, none is recorded twice, nothing is left over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from experiments.dispatcher import Dispatcher, DispatcherConfig
from experiments.model import Assignment, Progress, Run, RunResult, RunState
from experiments.queue import LeaseLost, NotYourRun, TokenRefused
from experiments.testing import FakeClock, InlineExecutor, InMemoryEngine, InMemoryRunQueue
from spawner_config.sandbox import Limits, SandboxSpec
from tests.contracts.queue_contract import DONE, FAILED, NAV, SKATT, VERSION, request

CONFIG = DispatcherConfig(
    lab="lab",
    image="proverom/sandbox:test",
    runner_url="http://hub:8000/runner/v1",
    limits=Limits(memory=2**30, cpus=1.0, pids=200),
    total_runs=3,
)
REFUSALS = (TokenRefused, NotYourRun, LeaseLost)


# A run that was due already is ended at the next pass; a lost one would wait for its deadline for longer.
GRACE = timedelta(seconds=3)


class Killed(BaseException):
    """The dispatcher's process ends here."""


class RecordingQueue(InMemoryRunQueue):
    """Notes every ending as it is recorded."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.endings: dict[str, int] = {}

    def _end(self, kept: Any, result: RunResult, now: Any) -> Run:  # type: ignore[override]
        self.endings[kept.run.id] = self.endings.get(kept.run.id, 0) + 1
        return super()._end(kept, result, now)


class Door:
    """Stands before a queue or an engine, and lets something happen before the n-th call through any door."""

    def __init__(self, behind: Any, before_call: Callable[[], None]) -> None:
        self._behind = behind
        self._before_call = before_call

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._behind, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._before_call()
            return found(*args, **options)

        return call


class Interleavings(RuleBasedStateMachine):
    """Two dispatchers, runners that work, die, go silent or answer late, people who cancel, an engine that stumbles."""

    @initialize()
    def open(self) -> None:
        self.clock = FakeClock()
        self.queue = RecordingQueue(clock=self.clock, lease_seconds=15)
        self.queue.add_agency(NAV, "nav", max_concurrent=2)
        self.queue.add_agency(SKATT, "skatteetaten", max_concurrent=2, weight=2)
        self.engine = InMemoryEngine(clock=self.clock)
        self.calls_left, self.meanwhile = 0, lambda: None
        self.dispatchers = [self.dispatcher(), self.dispatcher()]
        self.submitted: list[str] = []
        self.acknowledged: dict[str, RunState] = {}  # what a runner was told is recorded
        self.specs: dict[str, SandboxSpec] = {}
        self.work: dict[str, Assignment] = {}  # sandbox -> what it was given; kept after its death, for late answers

    def dispatcher(self) -> Dispatcher:
        queue, engine = Door(self.queue, self.before_call), Door(self.engine, self.before_call)
        return Dispatcher(queue, engine, CONFIG, executor=InlineExecutor())  # type: ignore[arg-type]

    def before_call(self) -> None:
        self.calls_left -= 1
        if self.calls_left == 0:
            self.meanwhile()

    def alive(self) -> list[str]:
        for name in self.engine.names():
            self.specs[name] = self.engine.spec(name)
        return sorted(self.engine.names(running=True))

    def token(self, sandbox: str) -> str:
        return self.specs[sandbox].environment["PROVEROM_RUN_TOKEN"]

    # -- what can happen -------------------------------------------------------------------------------------------
    @rule(agency=st.sampled_from([NAV, SKATT]), attempts=st.integers(1, 3))
    def submit(self, agency: str, attempts: int) -> None:
        wanted = replace(request(agency), timeout_seconds=60)
        self.submitted.append(self.queue.submit(wanted, VERSION, max_attempts=attempts).id)

    @rule(which=st.integers(0, 1))
    def step(self, which: int) -> None:
        self.dispatchers[which].step(self.clock())

    @rule(
        which=st.integers(0, 1),
        call=st.integers(1, 15),
        what=st.sampled_from(
            ["all claim", "all finish", "all die", "all vanish", "engine away", "other steps and all claim", "cancel"]
        ),
    )
    def step_while(self, which: int, call: int, what: str) -> None:
        """Something happens in the middle of a pass."""

        def happens() -> None:
            if what == "other steps and all claim":
                self.dispatchers[1 - which].step(self.clock())
            elif what == "engine away":
                self.engine.unreachable = True
            elif what == "cancel":
                for run in self.submitted:
                    self.queue.cancel(run)
            for sandbox in self.alive():
                if what.endswith("all claim"):
                    self.try_claim(sandbox)
                elif what == "all finish":
                    self._obey(sandbox)
                elif what == "all die":
                    self.engine.kill(sandbox)
                elif what == "all vanish":
                    self.engine.lose(sandbox)

        self.calls_left, self.meanwhile = call, happens
        self.dispatchers[which].step(self.clock())
        self.calls_left = 0

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.dispatchers[which] = self.dispatcher()

    @rule(which=st.integers(0, 1), after_start=st.booleans())
    def die_while_starting(self, which: int, after_start: bool) -> None:
        """The process ends between the ticket and the sandbox, or between the sandbox and everything else."""

        def die(spec: SandboxSpec) -> None:
            if not after_start:
                self.engine.lose(spec.name)
            raise Killed

        self.engine.on_start = die
        self.dispatchers[which].step(self.clock())
        self.engine.on_start = None
        self.dispatchers[which] = self.dispatcher()

    @rule(seconds=st.sampled_from([0.5, 1, 3, 10, 20, 70]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(data=st.data())
    @precondition(lambda self: self.alive())
    def claim(self, data: st.DataObject) -> None:
        self.try_claim(data.draw(st.sampled_from(self.alive())))

    def try_claim(self, sandbox: str) -> None:
        try:
            assignment = self.queue.claim(self.token(sandbox), self.clock())
        except TokenRefused:
            self.engine.kill(sandbox, exit_code=0)
            return
        if assignment:
            assert self.work.setdefault(sandbox, assignment) == assignment
            assert self.queue.get(assignment.run).request.agency == self.specs[sandbox].agency

    @rule(data=st.data())
    @precondition(lambda self: self.work)
    def beat(self, data: st.DataObject) -> None:
        sandbox = data.draw(st.sampled_from(sorted(self.work)))
        task = self.work[sandbox]
        try:
            self.queue.heartbeat(self.token(sandbox), task.run, task.attempt, Progress(1, 2), self.clock())
        except REFUSALS:
            self.alive()
            if sandbox in self.engine.names(running=True):
                self.engine.kill(sandbox, exit_code=0)

    @rule(data=st.data(), result=st.sampled_from([DONE, FAILED]), ends=st.booleans())
    @precondition(lambda self: self.work)
    def finish(self, data: st.DataObject, result: RunResult, ends: bool) -> None:
        """A runner, or the late message of a dead one, brings a result, perhaps not for the first time."""
        sandbox = data.draw(st.sampled_from(sorted(self.work)))
        task = self.work[sandbox]
        try:
            run = self.queue.finish(self.token(sandbox), task.run, task.attempt, result, self.clock())
        except REFUSALS:
            return
        self.acknowledged.setdefault(task.run, run.state)
        if ends and sandbox in self.engine.names(running=True):
            self.engine.kill(sandbox, exit_code=0)

    @rule(data=st.data(), how=st.sampled_from(["kill", "memory", "lose"]))
    @precondition(lambda self: self.alive())
    def lose_a_sandbox(self, data: st.DataObject, how: str) -> None:
        sandbox = data.draw(st.sampled_from(self.alive()))
        if how == "lose":
            self.engine.lose(sandbox)
        else:
            self.engine.kill(sandbox, out_of_memory=how == "memory")

    @rule(data=st.data())
    @precondition(lambda self: self.submitted)
    def cancel(self, data: st.DataObject) -> None:
        self.queue.cancel(data.draw(st.sampled_from(self.submitted)))

    @rule(away=st.booleans())
    def engine_answers_or_not(self, away: bool) -> None:
        self.engine.unreachable = away

    @rule(error=st.sampled_from([None, "no space left on device"]))
    def starts_fail_or_not(self, error: str | None) -> None:
        self.engine.start_error = error

    # -- what must hold --------------------------------------------------------------------------------------------
    @invariant()
    def recorded_once(self) -> None:
        assert all(count == 1 for count in self.queue.endings.values())

    @invariant()
    def what_was_acknowledged_stays(self) -> None:
        for run, state in self.acknowledged.items():
            assert self.queue.get(run).state is state

    @invariant()
    def quotas_hold(self) -> None:
        running = [run.request.agency for run in self.queue.active()]
        assert max((running.count(agency) for agency in (NAV, SKATT)), default=0) <= 2

    def teardown(self) -> None:
        """When all is well again, every run ends, and then nothing is left."""
        if not hasattr(self, "queue"):
            return
        self.engine.unreachable, self.engine.start_error = False, None
        well_since = self.clock()
        for _ in range(400):
            self.clock.advance(1)
            for dispatcher in self.dispatchers:
                dispatcher.step(self.clock())
            for sandbox in self.alive():
                self._obey(sandbox)
        runs = [self.queue.get(run) for run in self.submitted]
        assert all(run.state.ended for run in runs), runs
        # Whoever was lost was noticed: no run was left to its deadline after all was well.
        assert not [run for run in runs if run.state is RunState.TIMED_OUT and run.ended_at > well_since + GRACE]
        assert self.queue.runners() == []
        assert self.engine.names() == set()
        self.recorded_once()
        self.what_was_acknowledged_stays()

    def _obey(self, sandbox: str) -> None:
        """A runner that does what it should."""
        try:
            task = self.queue.claim(self.token(sandbox), self.clock())
            if task is not None:
                run = self.queue.finish(self.token(sandbox), task.run, task.attempt, DONE, self.clock())
                self.acknowledged.setdefault(task.run, run.state)
                self.engine.kill(sandbox, exit_code=0)
        except REFUSALS:
            self.engine.kill(sandbox, exit_code=0)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
