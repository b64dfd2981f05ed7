"""In-memory twins for tests: a clock, an executor, a run queue, an engine. They keep the promises of the real ones.

``tests/contracts/queue_contract.py`` holds ``InMemoryRunQueue`` and the database's queue to the same promises.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ulid import ULID

from experiments.model import (
    Assignment,
    Directive,
    Progress,
    Reason,
    Run,
    RunnerTicket,
    RunRequest,
    RunResult,
    RunState,
)
from experiments.queue import AgencyDemand, LeaseLost, NotYourRun, RunnerLoad, TokenRefused
from lab_templates.model import TemplateVersion
from spawner_config.engines.base import EngineError, EngineUnreachable, SandboxStatus
from spawner_config.sandbox import Limits, SandboxSpec


class FakeClock:
    """A clock that moves only when told to. Calling it returns the time, in UTC."""

    def __init__(self, start: datetime = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)) -> None:
        self._now = start

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> datetime:
        """Move the clock (back, if negative) and return the new time."""
        self._now += timedelta(seconds=seconds)
        return self._now


class InlineExecutor(Executor):
    """Does what it is given at once, in the caller's thread, so that a test knows when it is done."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@dataclass
class _Agency:
    slug: str
    max_concurrent: int
    weight: int
    max_memory: int | None = None
    max_cpus: float | None = None


@dataclass
class _Kept:
    """A run with what the queue keeps beside it."""

    run: Run
    version: TemplateVersion
    lease_until: datetime | None = None
    result: RunResult | None = None


@dataclass
class _Runner:
    ticket: RunnerTicket
    claimed: dict[str, int] = field(default_factory=dict)  # run -> attempt, in the order of the claims
    sweep: str | None = None
    spent: bool = False
    closed: bool = False


class InMemoryRunQueue:
    """A ``RunQueue`` that forgets everything when its process ends. Safe to share between threads."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        lease_seconds: int = 15,
        output_limit_bytes: int = 32 * 1024 * 1024,
        sweep_batch: int = 200,
    ) -> None:
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._output_limit_bytes = output_limit_bytes
        self._sweep_batch = sweep_batch
        self._lock = threading.RLock()
        self._agencies: dict[str, _Agency] = {}
        self._runs: dict[str, _Kept] = {}  # in order of creation
        self._runners: dict[str, _Runner] = {}

    # -- what a catalog does beside the queue ----------------------------------------------------------------------
    def add_agency(
        self,
        agency: str,
        slug: str,
        *,
        max_concurrent: int = 2,
        weight: int = 1,
        max_memory: int | None = None,
        max_cpus: float | None = None,
    ) -> None:
        """Make an agency known; again to change it."""
        with self._lock:
            self._agencies[agency] = _Agency(slug, max_concurrent, weight, max_memory, max_cpus)

    def submit(self, request: RunRequest, version: TemplateVersion, *, max_attempts: int = 3) -> Run:
        """Queue a run of an agency; the same requester's same idempotency key gives the same run again.

        Raise KeyError if the agency is unknown.
        """
        with self._lock:
            self._agencies.setdefault(request.agency, _Agency(request.agency, 2, 1))
            if request.idempotency_key is not None:
                wanted = (request.requested_by, request.idempotency_key)
                for kept in self._runs.values():
                    if (kept.run.request.requested_by, kept.run.request.idempotency_key) == wanted:
                        return kept.run
            run = Run(
                id=str(ULID()),
                request=request,
                state=RunState.QUEUED,
                attempt=0,
                max_attempts=max_attempts,
                created_at=self._clock(),
            )
            self._runs[run.id] = _Kept(run, version)
            return run

    def cancel(self, run: str) -> Run:
        """End a queued run; ask the runner of a running one. An ended run is returned as it is."""
        with self._lock:
            kept = self._runs[run]
            if kept.run.state is RunState.QUEUED:
                self._end(kept, RunResult(RunState.CANCELLED, b"", Reason.CANCELLED_BY_USER), self._clock())
                kept.run = replace(kept.run, cancel_requested=True)
            elif kept.run.state is RunState.RUNNING:
                kept.run = replace(kept.run, cancel_requested=True)
            return kept.run

    def get(self, run: str) -> Run:
        """Return the run as it is now; raise KeyError."""
        with self._lock:
            return self._runs[run].run

    def runs(self) -> Sequence[Run]:
        """Return every run, oldest first."""
        with self._lock:
            return [kept.run for kept in self._runs.values()]

    def result(self, run: str) -> RunResult | None:
        """Return the recorded result, None before the run has ended; raise KeyError."""
        with self._lock:
            return self._runs[run].result

    # -- the dispatcher's side -------------------------------------------------------------------------------------
    def demand(self, recent: datetime | None = None) -> Sequence[AgencyDemand]:
        with self._lock:
            own: dict[str, list[Run]] = {orgnr: [] for orgnr in self._agencies}
            busy: set[str] = set()
            for kept in self._runs.values():
                run = kept.run
                if not run.state.ended:
                    own[run.request.agency].append(run)
                if not run.state.ended or (recent is not None and run.created_at >= recent):
                    busy.add(run.request.agency)
            return [self._demand(orgnr, self._agencies[orgnr], own[orgnr]) for orgnr in self._agencies if orgnr in busy]

    @staticmethod
    def _demand(orgnr: str, agency: _Agency, open_runs: Sequence[Run]) -> AgencyDemand:
        queued = [run for run in open_runs if run.state is RunState.QUEUED]
        return AgencyDemand(
            agency=orgnr,
            slug=agency.slug,
            queued=len(queued),
            running=len(open_runs) - len(queued),
            max_concurrent=agency.max_concurrent,
            weight=agency.weight,
            oldest=min((run.created_at for run in queued), default=None),
            queued_of_sweeps=sum(not _goes_alone(run) for run in queued),
            max_memory=agency.max_memory,
            max_cpus=agency.max_cpus,
        )

    def open_runner(self, ticket: RunnerTicket) -> None:
        with self._lock:
            if any(r.ticket.token_sha256 == ticket.token_sha256 for r in self._runners.values()):
                raise ValueError(f"The token of runner {ticket.id} is in use already. Make a new one.")
            if ticket.id in self._runners:
                raise ValueError(f"Runner {ticket.id} exists already. Give it another id.")
            self._runners[ticket.id] = _Runner(ticket)

    def runners(self) -> Sequence[RunnerTicket]:
        with self._lock:
            return [r.ticket for r in self._runners.values() if not r.closed]

    def loads(self) -> Sequence[RunnerLoad]:
        with self._lock:
            return [
                RunnerLoad(r.ticket, len(r.claimed), len(self._owned(r)), r.spent)
                for r in self._runners.values()
                if not r.closed
            ]

    def resize_runner(self, runner: str, slots: int) -> None:
        with self._lock:
            if (kept := self._runners.get(runner)) is not None and not kept.spent and not kept.closed:
                kept.ticket = replace(kept.ticket, slots=max(1, slots))

    def retire_runner(self, runner: str) -> None:
        with self._lock:
            if runner in self._runners:
                self._runners[runner].spent = True

    def close_runner(self, runner: str) -> None:
        with self._lock:
            if runner in self._runners:
                self._runners[runner].closed = True

    def active(self) -> Sequence[Run]:
        with self._lock:
            return [kept.run for kept in self._runs.values() if kept.run.state is RunState.RUNNING]

    def newest(self) -> str | None:
        with self._lock:
            return max(self._runs, default=None)

    def oldest_queued(self, agency: str) -> Run | None:
        with self._lock:
            kept = next(self._queued(agency), None)
            return kept.run if kept else None

    def expired(self, now: datetime) -> Sequence[Run]:
        with self._lock:
            return [
                kept.run
                for kept in self._runs.values()
                if kept.run.state is RunState.RUNNING and kept.lease_until is not None and kept.lease_until < now
            ]

    def give_back(self, run: str, attempt: int, now: datetime) -> Run:
        with self._lock:
            kept = self._runs[run]
            if not self._owns(kept.run, attempt):
                return kept.run
            self.retire_runner(kept.run.runner or "")
            if kept.run.cancel_requested:
                self._end(kept, RunResult(RunState.CANCELLED, b"", Reason.CANCELLED_BY_USER), now)
            elif attempt >= kept.run.max_attempts:
                self._end(kept, RunResult(RunState.FAILED, b"", Reason.RUNNER_LOST), now)
            else:
                self._requeue(kept)
            return kept.run

    def end(self, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        with self._lock:
            kept = self._runs[run]
            if kept.run.state.ended or kept.run.attempt != attempt:
                raise LeaseLost(f"Attempt {attempt} of run {run} no longer owns it.")
            self.retire_runner(kept.run.runner or "")
            return self._end(kept, result, now)

    # -- the runner's side -----------------------------------------------------------------------------------------
    def claim(self, token: str, now: datetime, holding: Collection[str] = ()) -> Assignment | None:
        with self._lock:
            runner = self._runner(token)
            for kept in self._owned(runner):
                if kept.run.id not in holding:
                    kept.lease_until = now + timedelta(seconds=self._lease_seconds)
                    return self._assignment(kept)
            return self._claim(runner, now)

    def _claim(self, runner: _Runner, now: datetime) -> Assignment | None:
        if runner.spent:
            raise TokenRefused("The runner's batch is done.")
        agency = runner.ticket.agency
        running = sum(run.request.agency == agency for run in self.active())
        if len(self._owned(runner)) >= runner.ticket.slots or running >= self._agencies[agency].max_concurrent:
            return None
        waiting = self._next(runner)
        return None if waiting is None else self._take(runner, waiting, now)

    def _next(self, runner: _Runner) -> _Kept | None:
        queued = list(self._queued(runner.ticket.agency))
        if runner.sweep is not None:
            queued = [kept for kept in queued if kept.run.request.sweep == runner.sweep and not _goes_alone(kept.run)]
            if not queued:
                runner.spent = True
                raise TokenRefused("Nothing more of the runner's sweep waits.")
        meant = (kept for kept in queued if _goes_alone(kept.run) != runner.ticket.for_sweeps)
        return next(meant, queued[0] if queued else None)

    def _take(self, runner: _Runner, kept: _Kept, now: datetime) -> Assignment:
        attempt, alone = kept.run.attempt + 1, _goes_alone(kept.run)
        kept.run = replace(
            kept.run,
            state=RunState.RUNNING,
            attempt=attempt,
            runner=runner.ticket.id,
            started_at=now,
            deadline_at=now + timedelta(seconds=kept.run.request.timeout_seconds),
        )
        kept.lease_until = now + timedelta(seconds=self._lease_seconds)
        runner.claimed[kept.run.id] = attempt
        runner.sweep = kept.run.request.sweep
        if not alone and not runner.ticket.for_sweeps:
            runner.ticket = replace(runner.ticket, batch_limit=self._sweep_batch)
        runner.spent = alone or len(runner.claimed) >= runner.ticket.batch_limit
        return self._assignment(kept)

    def heartbeat(self, token: str, run: str, attempt: int, progress: Progress, now: datetime) -> Directive:
        with self._lock:
            runner, kept = self._own_run(token, run)
            if runner.claimed[run] != attempt or not self._owns(kept.run, attempt):
                raise LeaseLost(f"Attempt {attempt} of run {run} no longer owns it.")
            kept.lease_until = now + timedelta(seconds=self._lease_seconds)
            kept.run = replace(kept.run, progress=progress)
            return Directive(cancel=kept.run.cancel_requested)

    def finish(self, token: str, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        with self._lock:
            runner, kept = self._own_run(token, run)
            # The runner's own attempt counts, not the number it sends: an old runner could send the new one's.
            if runner.claimed[run] == attempt == kept.run.attempt and kept.run.state.ended:
                return kept.run
            if runner.claimed[run] != attempt or not self._owns(kept.run, attempt):
                raise LeaseLost(f"Attempt {attempt} of run {run} no longer owns it.")
            return self._end(kept, result, now)

    def finish_and_claim(
        self, token: str, run: str, attempt: int, result: RunResult, now: datetime
    ) -> tuple[Run, Assignment | None]:
        with self._lock:
            before = self._own_run(token, run)[1].run
            ended = self.finish(token, run, attempt, result, now)
            if before.state.ended:
                return ended, None
            with suppress(TokenRefused):
                return ended, self._claim(self._runner(token), now)
            return ended, None

    def hand_back(self, token: str, run: str, attempt: int, now: datetime) -> Run | None:  # noqa: ARG002
        with self._lock:
            runner, kept = self._own_run(token, run)
            if runner.claimed[run] != attempt or kept.run.attempt != attempt or kept.run.state.ended:
                raise LeaseLost(f"Attempt {attempt} of run {run} no longer owns it.")
            if kept.run.state is RunState.QUEUED:
                return kept.run
            if len(runner.claimed) == 1 or attempt >= kept.run.max_attempts or kept.run.cancel_requested:
                return None
            runner.spent = True
            return self._requeue(kept)

    # -- inside ----------------------------------------------------------------------------------------------------
    @staticmethod
    def _owns(run: Run, attempt: int | None) -> bool:
        return run.state is RunState.RUNNING and run.attempt == attempt

    @staticmethod
    def _requeue(kept: _Kept) -> Run:
        kept.lease_until = None
        kept.run = replace(
            kept.run, state=RunState.QUEUED, runner=None, started_at=None, deadline_at=None, progress=None
        )
        return kept.run

    @staticmethod
    def _end(kept: _Kept, result: RunResult, now: datetime) -> Run:
        kept.result = result
        kept.lease_until = None
        kept.run = replace(kept.run, state=result.state, reason=result.reason, error=result.error, ended_at=now)
        if result.cells is not None:
            tail = kept.run.progress.tail if kept.run.progress else ""
            kept.run = replace(kept.run, progress=Progress(*result.cells, tail))
        return kept.run

    def _queued(self, agency: str) -> Iterator[_Kept]:
        for kept in self._runs.values():
            if kept.run.request.agency == agency and kept.run.state is RunState.QUEUED:
                yield kept

    def _owned(self, runner: _Runner) -> Sequence[_Kept]:
        """Return what a runner has claimed and still owns, in the order of its claims."""
        kept = ((self._runs[run], attempt) for run, attempt in runner.claimed.items())
        return [run for run, attempt in kept if self._owns(run.run, attempt)]

    def _runner(self, token: str) -> _Runner:
        hashed = hashlib.sha256(token.encode()).hexdigest()
        for runner in self._runners.values():
            if runner.ticket.token_sha256 == hashed and not runner.closed:
                return runner
        raise TokenRefused("The runner's token is unknown or has been closed.")

    def _own_run(self, token: str, run: str) -> tuple[_Runner, _Kept]:
        runner = self._runner(token)
        if run not in runner.claimed:
            raise NotYourRun(f"Run {run} does not belong to runner {runner.ticket.id}.")
        return runner, self._runs[run]

    def _assignment(self, kept: _Kept) -> Assignment:
        return Assignment(
            run=kept.run.id,
            attempt=kept.run.attempt,
            notebook=kept.version.notebook.decode(),
            parameters=kept.run.request.parameters,
            kernel=kept.version.kernel,
            timeout_seconds=kept.run.request.timeout_seconds,
            lease_seconds=self._lease_seconds,
            output_limit_bytes=self._output_limit_bytes,
            start=kept.version.start,
        )


def _goes_alone(run: Run) -> bool:
    """Return whether a queued run has a runner of its own (``experiments.queue``)."""
    return run.request.sweep is None or run.attempt > 0


@dataclass
class _Sandbox:
    spec: SandboxSpec
    running: bool = True
    exit_code: int | None = None
    out_of_memory: bool = False
    log: str = ""


@dataclass
class InMemoryEngine:
    """An ``Engine`` whose sandboxes are records. A test sets ``unreachable`` or ``start_error``, and kills by name.

    ``started``, ``stopped`` and ``removed`` are the names in the order of the calls that had an effect.
    """

    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    name: str = "memory"
    unreachable: bool = False
    start_error: str | None = None
    images: dict[str, str] = field(default_factory=lambda: {"proverom/sandbox:test": "sha256:" + "0" * 64})
    on_start: Callable[[SandboxSpec], None] | None = None
    networks: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    _sandboxes: dict[str, _Sandbox] = field(default_factory=dict)
    _started_at: dict[str, datetime] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # -- what a test does to it ------------------------------------------------------------------------------------
    def kill(self, name: str, *, exit_code: int = 137, out_of_memory: bool = False, log: str = "") -> None:
        """Let a sandbox die; raise KeyError if there is none of that name."""
        with self._lock:
            box = self._sandboxes[name]
            box.running, box.exit_code, box.out_of_memory, box.log = False, exit_code, out_of_memory, log

    def lose(self, name: str) -> None:
        """Let a sandbox vanish without a trace."""
        with self._lock:
            self._sandboxes.pop(name, None)

    def spec(self, name: str) -> SandboxSpec:
        """Return what a sandbox was started with; raise KeyError."""
        with self._lock:
            return self._sandboxes[name].spec

    def names(self, *, running: bool | None = None) -> set[str]:
        """Return the names of the sandboxes that exist, or of those that run (or do not)."""
        with self._lock:
            return {n for n, box in self._sandboxes.items() if running is None or box.running is running}

    # -- what an engine does ---------------------------------------------------------------------------------------
    def check(self) -> str:
        self._reach()
        return "in-memory engine"

    def ensure_network(self, network: str, *, lab: str, agency: str) -> None:  # noqa: ARG002
        self._reach()
        with self._lock:
            self.networks.add(network)

    def start(self, spec: SandboxSpec) -> None:
        self._reach()
        if self.start_error is not None:
            raise EngineError(self.start_error)
        with self._lock:
            if spec.name in self._sandboxes:
                return
            self._sandboxes[spec.name] = _Sandbox(spec)
            self._started_at[spec.name] = self.clock()
            self.started.append(spec.name)
        if self.on_start is not None:
            self.on_start(spec)

    def resize(self, name: str, limits: Limits) -> None:
        self._reach()
        with self._lock:
            box = self._sandboxes.get(name)
            if box is None or not box.running:
                raise EngineError(f"The sandbox {name} is gone.")
            resized = replace(box.spec.limits, memory=limits.memory, cpus=limits.cpus)
            box.spec = replace(box.spec, limits=resized)

    def stop(self, name: str, *, grace_seconds: float = 2.0) -> None:  # noqa: ARG002
        self._reach()
        with self._lock:
            box = self._sandboxes.get(name)
            if box is not None and box.running:
                box.running, box.exit_code = False, 143
                self.stopped.append(name)

    def remove(self, name: str) -> None:
        self._reach()
        with self._lock:
            if self._sandboxes.pop(name, None) is not None:
                self.removed.append(name)

    def sandboxes(self, *, lab: str, kind: str | None = None) -> Sequence[SandboxStatus]:
        self._reach()
        with self._lock:
            return [
                SandboxStatus(
                    name=name,
                    kind=box.spec.kind,
                    agency=box.spec.agency,
                    labels=dict(box.spec.labels),
                    running=box.running,
                    exit_code=box.exit_code,
                    out_of_memory=box.out_of_memory,
                    started_at=self._started_at[name],
                )
                for name, box in self._sandboxes.items()
                if box.spec.lab == lab and kind in (None, box.spec.kind)
            ]

    def logs(self, name: str, *, tail: int = 200) -> str:
        self._reach()
        with self._lock:
            box = self._sandboxes.get(name)
            return "\n".join(box.log.splitlines()[-tail:]) if box else ""

    def image_digest(self, image: str) -> str:
        self._reach()
        try:
            return self.images[image]
        except KeyError:
            raise EngineError(f"There is no image {image}. Build it with: proverom image build") from None

    def _reach(self) -> None:
        if self.unreachable:
            raise EngineUnreachable("The in-memory engine does not answer.")
