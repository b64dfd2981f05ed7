"""The control loop: compares the runs that wait with the runners that live, and asks the engine for more or fewer.

It keeps no state that matters. What it must not forget is in the queue before the engine is asked (a runner's ticket is
opened before its sandbox is started), and what it finds in the engine is compared with the queue by label. So it can be
killed anywhere and started again, and two of them can run at once: every decision is made good by one atomic call of
the queue, and the one that loses does nothing.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from ulid import ULID

from experiments.model import NO_CELL, CellError, Reason, Run, RunnerTicket, RunResult, RunState
from experiments.queue import AgencyDemand, LeaseLost, RunQueue
from experiments.shares import desired_runners
from spawner_config import names
from spawner_config.engines.base import Engine, EngineError, EngineUnreachable, SandboxStatus
from spawner_config.sandbox import Limits, sandbox_spec

log = logging.getLogger("proverom.dispatcher")


@dataclass(frozen=True, slots=True)
class DispatcherConfig:
    """Times in seconds. ``runner_url`` is the Hub's runner protocol as a sandbox reaches it."""

    lab: str
    image: str
    runner_url: str
    limits: Limits
    command: tuple[str, ...] = ("/opt/runner/bin/python", "-m", "experiments.runner")
    total_runners: int = 8  # of all agencies together
    poll_seconds: float = 0.5
    reconcile_seconds: float = 2.0  # how often the engine is asked what lives
    start_grace_seconds: float = 60.0  # a ticket without a sandbox is given up after this
    claim_grace_seconds: float = 120.0  # a sandbox that has not asked for work by then is given up
    idle_seconds: float = 30.0  # a runner that nothing waits for is ended after this
    silence_seconds: float = 30.0  # a runner that lives but says nothing after its lease has this long to speak up
    deadline_grace_seconds: float = 20.0  # the runner ends its run itself at the deadline; this is for those that don't
    cancel_grace_seconds: float = 10.0
    start_attempts: int = 5  # in a row (15 s at least), before the run that waits longest is failed
    start_workers: int = 4


@dataclass
class _Trouble:
    """An agency's starts that failed in a row."""

    count: int = 0
    not_before: datetime | None = None


class Dispatcher:
    """``step(now)`` is one pass and may be repeated at will; ``run(stop)`` loops."""

    def __init__(
        self, queue: RunQueue, engine: Engine, config: DispatcherConfig, *, executor: Executor | None = None
    ) -> None:
        """``executor`` does what can be slow in the engine; without one, threads of the dispatcher's own do."""
        self._queue = queue
        self._engine = engine
        self._config = config
        self._executor = executor or ThreadPoolExecutor(config.start_workers, thread_name_prefix="engine")
        self._lock = threading.Lock()
        self._starting: dict[str, str] = {}  # runner id -> agency
        self._removing: set[str] = set()  # sandbox names
        self._trouble: dict[str, _Trouble] = {}
        self._cancel_seen: dict[tuple[str, int], datetime] = {}
        self._silent_since: dict[tuple[str, int], datetime] = {}
        self._reconciled_at: datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Loop until ``stop`` is set. An error of one pass is logged, and the next pass starts afresh."""
        failures = 0
        while not stop.is_set():
            try:
                self.step(datetime.now(UTC))
                failures = 0
            except Exception:
                failures += 1
                # Who was silent while nothing could be heard is not to blame for it.
                self._silent_since.clear()
                log.warning("A pass failed; the next one starts afresh.", exc_info=failures in (1, 10) or None)
            stop.wait(self._config.poll_seconds * min(2**failures, 8))
        self._executor.shutdown(wait=True, cancel_futures=True)

    def step(self, now: datetime) -> None:
        """Do one pass. Raise whatever the queue raises; an engine that does not answer is no error."""
        self._enforce(now)
        if self._reconciled_at is None or not _within(now, self._reconciled_at, self._config.reconcile_seconds):
            self._reconcile(now)
        self._clear_finished()
        self._fill(now)

    # -- runs that overstay ----------------------------------------------------------------------------------------
    def _enforce(self, now: datetime) -> None:
        """End runs past their deadline, and runs whose runner does not obey a cancellation."""
        active = self._queue.active()
        keys = {(run.id, run.attempt) for run in active}
        self._cancel_seen = {key: since for key, since in self._cancel_seen.items() if key in keys}
        grace = timedelta(seconds=self._config.deadline_grace_seconds)
        for run in active:
            if run.deadline_at is not None and now > run.deadline_at + grace:
                self._end(run, RunResult(RunState.TIMED_OUT, b"", Reason.TIME_LIMIT), now)
            elif run.cancel_requested:
                since = self._cancel_seen.setdefault((run.id, run.attempt), now)
                if not _within(now, since, self._config.cancel_grace_seconds):
                    self._end(run, RunResult(RunState.CANCELLED, b"", Reason.CANCELLED_BY_USER), now)

    def _end(self, run: Run, result: RunResult, now: datetime) -> None:
        try:
            self._queue.end(run.id, run.attempt, result, now)
            log.info("run %s attempt %s: %s (%s)", run.id, run.attempt, result.state, result.reason)
        except LeaseLost:
            log.info("run %s attempt %s ended by itself meanwhile", run.id, run.attempt)

    # -- queue and engine compared ---------------------------------------------------------------------------------
    def _reconcile(self, now: datetime) -> None:
        """Compare queue and engine.

        The order of the questions matters. What was bound or idle before the engine was asked had its sandbox by then:
        if the engine does not know it, it is dead. What has no ticket after the engine was asked has none for good.
        """
        active_before = {(run.id, run.attempt) for run in self._queue.active()}
        idle_before = {ticket.id for ticket in self._queue.idle_runners()}
        try:
            found = self._engine.sandboxes(lab=self._config.lab, kind="runner")
        except EngineUnreachable as error:
            log.warning("The engine does not answer; nothing is taken for dead: %s", error)
            self._silent_since.clear()
            return
        sandboxes = {sandbox.name: sandbox for sandbox in found}
        tickets = {ticket.id: ticket for ticket in self._queue.runners()}
        self._bury_runs(
            [r for r in self._queue.active() if (r.id, r.attempt) in active_before], tickets, sandboxes, now
        )
        idle = [ticket for ticket in self._queue.idle_runners() if ticket.id in idle_before]
        self._bury_idle(idle, sandboxes, now)
        ticketed = {ticket.sandbox for ticket in tickets.values()}
        for name in sandboxes.keys() - ticketed:
            log.info("sandbox %s has no ticket: removed", name)
            self._remove(name)
        self._reconciled_at = now

    def _bury_runs(
        self,
        runs: Iterable[Run],
        tickets: Mapping[str, RunnerTicket],
        sandboxes: Mapping[str, SandboxStatus],
        now: datetime,
    ) -> None:
        """Give back the runs whose runner is dead, or silent for too long after its lease."""
        expired = {(run.id, run.attempt) for run in self._queue.expired(now)}
        self._silent_since = {key: since for key, since in self._silent_since.items() if key in expired}
        for run in runs:
            ticket = tickets.get(run.runner or "")
            sandbox = sandboxes.get(ticket.sandbox) if ticket else None
            if sandbox is not None and sandbox.running:
                if (run.id, run.attempt) in expired:
                    since = self._silent_since.setdefault((run.id, run.attempt), now)
                    if not _within(now, since, self._config.silence_seconds):
                        self._give_back(run, "its runner is silent", now)
            elif sandbox is not None and sandbox.out_of_memory:
                self._end(run, RunResult(RunState.FAILED, b"", Reason.OUT_OF_MEMORY), now)
            else:
                how = "is gone" if sandbox is None else f"ended with {sandbox.exit_code}"
                self._give_back(run, f"its runner {how}", now)

    def _give_back(self, run: Run, why: str, now: datetime) -> None:
        after = self._queue.give_back(run.id, run.attempt, now)
        log.warning("run %s attempt %s: %s; the run is now %s", run.id, run.attempt, why, after.state)

    def _bury_idle(self, idle: Iterable[RunnerTicket], sandboxes: Mapping[str, SandboxStatus], now: datetime) -> None:
        """Give up runners that ended, or never got up, before they had asked for work."""
        waiting = {row.agency for row in self._queue.demand() if row.queued and row.running < row.max_concurrent}
        for ticket in idle:
            sandbox = sandboxes.get(ticket.sandbox)
            config = self._config
            if sandbox is None:
                if ticket.id not in self._starting and not _within(now, ticket.created_at, config.start_grace_seconds):
                    self._give_up(ticket, "its sandbox is gone")
            elif not sandbox.running:
                said = self._last_words(ticket.sandbox)
                self._give_up(ticket, f"its sandbox ended with {sandbox.exit_code}")
                self._failed_start(ticket.agency, f"The runner ended before it had asked for work. {said}", now)
            elif ticket.agency in waiting and not _within(now, ticket.created_at, config.claim_grace_seconds):
                said = self._last_words(ticket.sandbox)
                self._give_up(ticket, "it does not ask for work")
                self._failed_start(ticket.agency, f"The runner did not reach the Hub. {said}", now)

    def _give_up(self, ticket: RunnerTicket, why: str) -> None:
        # Closed first: should it wake up after all and claim, the run it got comes back to the queue.
        log.warning("runner %s of %s is given up: %s", ticket.id, ticket.agency, why)
        self._queue.close_runner(ticket.id)
        self._remove(ticket.sandbox)

    def _last_words(self, sandbox: str) -> str:
        try:
            lines = self._engine.logs(sandbox, tail=5).strip()
        except EngineError as error:
            lines = str(error)
        return f"Its last lines: {lines}" if lines else "It wrote nothing."

    # -- runners that are done -------------------------------------------------------------------------------------
    def _clear_finished(self) -> None:
        """Remove the sandboxes whose result is recorded, then close their tickets."""
        for ticket in self._queue.finished_runners():
            self._forgive(ticket.agency)
            self._remove(ticket.sandbox, then=partial(self._queue.close_runner, ticket.id))

    def _remove(self, sandbox: str, then: Callable[[], None] | None = None) -> None:
        with self._lock:
            if sandbox in self._removing:
                return
            self._removing.add(sandbox)

        def work() -> None:
            try:
                self._engine.remove(sandbox)
                if then is not None:
                    then()
            except EngineError as error:
                log.warning("sandbox %s could not be removed, and will be tried again: %s", sandbox, error)
            except Exception:
                log.warning("sandbox %s could not be cleared, and will be tried again", sandbox, exc_info=True)
            finally:
                with self._lock:
                    self._removing.discard(sandbox)

        self._executor.submit(work)

    # -- runners that are wanted -----------------------------------------------------------------------------------
    def _fill(self, now: datetime) -> None:
        """Start the runners that are missing, end those that nothing waits for."""
        demand = self._queue.demand()
        wanted = desired_runners(demand, total=self._config.total_runners)
        finished = {ticket.id for ticket in self._queue.finished_runners()}
        open_tickets = [ticket for ticket in self._queue.runners() if ticket.id not in finished]
        with self._lock:
            live = dict(self._starting)
        live.update({ticket.id: ticket.agency for ticket in open_tickets})
        counts = {agency: list(live.values()).count(agency) for agency in {*wanted, *live.values()}}
        room = self._config.total_runners - len(live)
        for row in sorted(demand, key=lambda row: (counts[row.agency] / max(row.weight, 1), row.agency)):
            missing = min(wanted[row.agency] - counts[row.agency], room, self._may_start(row.agency, now))
            for _ in range(max(missing, 0)):
                room -= 1
                self._start(row, now)
        self._end_idle(open_tickets, wanted, counts, now)

    def _end_idle(
        self, tickets: Sequence[RunnerTicket], wanted: Mapping[str, int], counts: Mapping[str, int], now: datetime
    ) -> None:
        spare = {agency: count - wanted.get(agency, 0) for agency, count in counts.items()}
        idle = {ticket.id for ticket in self._queue.idle_runners()}
        for ticket in sorted(tickets, key=lambda ticket: ticket.created_at, reverse=True):
            old = not _within(now, ticket.created_at, self._config.idle_seconds)
            if ticket.id in idle and old and spare[ticket.agency] > 0 and ticket.id not in self._starting:
                spare[ticket.agency] -= 1
                self._give_up(ticket, "nothing waits for it")

    def _start(self, row: AgencyDemand, now: datetime) -> None:
        runner = str(ULID()).lower()
        with self._lock:
            self._starting[runner] = row.agency

        def work() -> None:
            try:
                self._start_runner(runner, row, now)
            except EngineUnreachable as error:
                log.warning("runner %s was not started, the engine does not answer: %s", runner, error)
                self._queue.close_runner(runner)
            except (EngineError, ValueError) as error:
                log.warning("runner %s of %s was not started: %s", runner, row.agency, error)
                self._queue.close_runner(runner)
                self._failed_start(row.agency, str(error), now)
            except Exception:
                log.warning("runner %s of %s was not started", runner, row.agency, exc_info=True)
            finally:
                with self._lock:
                    self._starting.pop(runner, None)

        self._executor.submit(work)

    def _start_runner(self, runner: str, row: AgencyDemand, now: datetime) -> None:
        config = self._config
        token = secrets.token_urlsafe(32)
        spec = sandbox_spec(
            "runner",
            lab=config.lab,
            agency=row.agency,
            slug=row.slug,
            name=names.runner_container(config.lab, runner),
            image=config.image,
            command=config.command,
            environment={"PROVEROM_RUNNER_URL": config.runner_url, "PROVEROM_RUN_TOKEN": token},
            limits=config.limits,
        )
        digest = self._engine.image_digest(config.image)
        self._engine.ensure_network(spec.network, lab=config.lab, agency=row.agency)
        self._queue.open_runner(
            RunnerTicket(
                id=runner,
                agency=row.agency,
                token_sha256=hashlib.sha256(token.encode()).hexdigest(),
                sandbox=spec.name,
                engine=self._engine.name,
                image_digest=digest,
                created_at=now,
            )
        )
        self._engine.start(spec)

    # -- starts that fail ------------------------------------------------------------------------------------------
    def _may_start(self, agency: str, now: datetime) -> int:
        """Return how many runners may be started now: after a failed start one at a time, and not before a pause."""
        trouble = self._trouble.get(agency)
        if trouble is None:
            return self._config.total_runners
        return 0 if trouble.not_before is not None and now < trouble.not_before else 1

    def _failed_start(self, agency: str, message: str, now: datetime) -> None:
        """Count a failed start; after too many in a row, fail the run that waits longest instead of trying for ever."""
        with self._lock:
            trouble = self._trouble.setdefault(agency, _Trouble())
            trouble.count += 1
            trouble.not_before = now + timedelta(seconds=min(2.0 ** (trouble.count - 1), 30.0))
            enough = trouble.count % self._config.start_attempts == 0
        run = self._queue.oldest_queued(agency) if enough else None
        if run is not None:
            error = CellError(NO_CELL, "StartFailed", message[:4096])
            self._end(run, RunResult(RunState.FAILED, b"", Reason.START_FAILED, error), now)

    def _forgive(self, agency: str) -> None:
        with self._lock:
            self._trouble.pop(agency, None)


def _within(now: datetime, since: datetime, seconds: float) -> bool:
    return now <= since + timedelta(seconds=seconds)
