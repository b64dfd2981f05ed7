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
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from ulid import ULID

from experiments.model import NO_CELL, CellError, Reason, Run, RunnerTicket, RunResult, RunState
from experiments.queue import AgencyDemand, LeaseLost, RunnerLoad, RunQueue
from experiments.shares import desired_places, fitting, split
from spawner_config import names
from spawner_config.engines.base import Engine, EngineError, EngineUnreachable, SandboxStatus
from spawner_config.sandbox import HOME, Limits, sandbox_spec

log = logging.getLogger("proverom.dispatcher")

# What a runner's sandbox has for itself alone, on every engine: cleared between the runs of a batch.
OWN_PLACES = f"{HOME}:/tmp:/var/tmp:/dev/shm"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # of the steady clock, which says how long, and not when


@dataclass(frozen=True, slots=True)
class DispatcherConfig:
    """Times in seconds. ``runner_url`` is the Hub's runner protocol as a sandbox reaches it.

    ``limits`` are those of one run. A runner that does several runs of a sweep at a time has as much for each.
    """

    lab: str
    image: str
    runner_url: str
    limits: Limits
    command: tuple[str, ...] = ("/opt/runner/bin/python", "-m", "experiments.runner")
    total_runs: int = 8  # at a time, of all agencies together: the places that runners take, warm ones too
    sweep_slots: int = 4  # runs at a time in one runner for sweeps
    sweep_batch: int = 200  # runs of a sweep that one runner does before it is thrown away
    warm_per_agency: int = 0  # runners that wait, ready, for an agency that was active in the last warm_for_seconds
    warm_for_seconds: float = 900.0
    poll_seconds: float = 0.5
    look_seconds: float = 0.15  # between two looks for something that was submitted, which is not to wait for a pass
    reconcile_seconds: float = 2.0  # how often the engine is asked what lives
    start_grace_seconds: float = 60.0  # a ticket without a sandbox is given up after this
    claim_grace_seconds: float = 120.0  # a sandbox that has not asked for work by then is given up
    take_up_seconds: float = 2.0  # a runner that waits has taken up what was submitted by then
    idle_seconds: float = 30.0  # a runner that nothing waits for is ended after this
    silence_seconds: float = 30.0  # a runner that lives but says nothing after its lease has this long to speak up
    deadline_grace_seconds: float = 20.0  # the runner ends its run itself at the deadline; this is for those that don't
    cancel_grace_seconds: float = 10.0
    start_attempts: int = 5  # in a row (15 s at least), before the run that waits longest is failed
    start_workers: int = 4


@dataclass(frozen=True, slots=True)
class _Begun:
    """When an attempt began, on the steady clock: at the earliest, and when it was first seen."""

    earliest: datetime
    latest: datetime


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
        self._starting: dict[str, RunnerTicket] = {}
        self._resting_since: dict[str, datetime] = {}
        self._widening: dict[str, int] = {}  # runner -> the places it is to have
        self._removing: set[str] = set()  # sandbox names
        self._trouble: dict[str, _Trouble] = {}
        self._cancel_seen: dict[tuple[str, int], datetime] = {}
        self._silent_since: dict[tuple[str, int], datetime] = {}
        self._reconciled_at: datetime | None = None
        self._newest: str | None = None  # run, when the last pass began
        # A clock that nobody sets, for how long things have lasted: the machine's may jump, by hours and either way.
        self._steady = datetime.min.replace(tzinfo=UTC)
        self._passed_at: datetime | None = None
        self._begun: dict[tuple[str, int], _Begun] = {}
        self._met: dict[str, datetime] = {}  # tickets

    def run(self, stop: threading.Event) -> None:
        """Loop until ``stop`` is set. An error of one pass is logged, and the next pass starts afresh."""
        failures = 0
        while not stop.is_set():
            try:
                self.step(datetime.now(UTC), _EPOCH + timedelta(seconds=time.monotonic()))
                failures = 0
            except Exception:
                failures += 1
                # Who was silent while nothing could be heard is not to blame for it.
                self._silent_since.clear()
                log.warning("A pass failed; the next one starts afresh.", exc_info=failures in (1, 10) or None)
            self._rest(stop, self._config.poll_seconds * min(2**failures, 8), look=failures == 0)
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _rest(self, stop: threading.Event, seconds: float, *, look: bool) -> None:
        """Wait for the next pass. With ``look``, one that finds something submitted since the last is due at once."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if stop.wait(min(left, self._config.look_seconds) if look else left):
                return
            if look:
                try:
                    if self._queue.newest() != self._newest:
                        return
                except Exception:
                    return  # the next pass says what it is

    def step(self, now: datetime, steady: datetime | None = None) -> None:
        """Do one pass. Raise whatever the queue raises; an engine that does not answer is no error.

        ``steady`` is the time on a clock that is never set, ``now`` if there is no other.
        """
        self._steady = steady or now
        self._newest = self._queue.newest()
        self._enforce(now)
        if self._reconciled_at is None or not self._just(self._reconciled_at, self._config.reconcile_seconds):
            self._reconcile(now)
        self._clear_finished()
        self._fill(now)
        self._passed_at = self._steady

    def _just(self, since: datetime, seconds: float) -> bool:
        """Return whether a moment on the steady clock is no longer ago than so many seconds."""
        return _within(self._steady, since, seconds)

    def _older(self, ticket: RunnerTicket, seconds: float, now: datetime) -> bool:
        """Return whether a ticket is older than so many seconds, by either clock."""
        met = self._met.setdefault(ticket.id, self._steady)
        return not (_within(now, ticket.created_at, seconds) and self._just(met, seconds))

    # -- runs that overstay ----------------------------------------------------------------------------------------
    def _enforce(self, now: datetime) -> None:
        """End runs past their deadline, and runs whose runner does not obey a cancellation."""
        active = self._queue.active()
        keys = {(run.id, run.attempt) for run in active}
        self._cancel_seen = {key: since for key, since in self._cancel_seen.items() if key in keys}
        self._begun = {key: begun for key, begun in self._begun.items() if key in keys}
        for run in active:
            if self._overdue(run, now):
                self._overstayed(run, now)
            elif run.cancel_requested:
                since = self._cancel_seen.setdefault((run.id, run.attempt), self._steady)
                if not self._just(since, self._config.cancel_grace_seconds):
                    self._end(run, RunResult(RunState.CANCELLED, b"", Reason.CANCELLED_BY_USER), now)

    def _overdue(self, run: Run, now: datetime) -> bool:
        """Return whether a run is past its deadline by the steady clock.

        Of a run that was under way when this dispatcher began, it learns once from the other clock for how long it was.
        """
        key = (run.id, run.attempt)
        if key not in self._begun:
            before = max(now - run.started_at, timedelta(0)) if run.started_at else timedelta(0)
            self._begun[key] = _Begun(self._passed_at or self._steady - before, self._steady)
        begun = self._begun[key]
        grace = self._config.deadline_grace_seconds
        limit = run.request.timeout_seconds + grace
        if not self._just(begun.latest, limit):
            return True
        past = run.deadline_at is not None and not _within(now, run.deadline_at, grace)
        # The other clock may have been set before this dispatcher began; a runner that is well ends its run by itself.
        known = not self._just(begun.latest, grace)
        return past and known and not self._just(begun.earliest, limit)

    def _overstayed(self, run: Run, now: datetime) -> None:
        """End a run that its runner should have ended. What ran beside others may have been kept from it by them."""
        if self._shared(run) and run.attempt < run.max_attempts:
            self._give_back(run, "it was not ended in time, beside others", now)
        else:
            self._end(run, RunResult(RunState.TIMED_OUT, b"", Reason.TIME_LIMIT), now)

    def _shared(self, run: Run) -> bool:
        """Return whether the run's runner has had other runs, so that what befell it may be their doing."""
        return any(load.ticket.id == run.runner and load.claimed > 1 for load in self._queue.loads())

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
        idle_before = {load.ticket.id for load in self._queue.loads() if load.running == 0 and not load.spent}
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
        idle = [load for load in self._queue.loads() if load.running == 0 and not load.spent]
        self._bury_idle([load for load in idle if load.ticket.id in idle_before], sandboxes, now)
        ticketed = {ticket.sandbox for ticket in tickets.values()}
        for name in sandboxes.keys() - ticketed:
            log.info("sandbox %s has no ticket: removed", name)
            self._remove(name)
        self._met = {id: met for id, met in self._met.items() if id in tickets}
        self._reconciled_at = self._steady

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
                    since = self._silent_since.setdefault((run.id, run.attempt), self._steady)
                    if not self._just(since, self._config.silence_seconds):
                        self._give_back(run, "its runner is silent", now)
            elif sandbox is not None and sandbox.out_of_memory and not self._shared(run):
                # Of several runs, nobody knows which it was; each is tried again.
                self._end(run, RunResult(RunState.FAILED, b"", Reason.OUT_OF_MEMORY), now)
            else:
                how = "is gone" if sandbox is None else f"ended with {sandbox.exit_code}"
                self._give_back(run, f"its runner {how}", now)

    def _give_back(self, run: Run, why: str, now: datetime) -> None:
        after = self._queue.give_back(run.id, run.attempt, now)
        log.warning("run %s attempt %s: %s; the run is now %s", run.id, run.attempt, why, after.state)

    def _bury_idle(self, idle: Iterable[RunnerLoad], sandboxes: Mapping[str, SandboxStatus], now: datetime) -> None:
        """Give up runners that ended, or never got up, before they had asked for work, and such that ask no more."""
        config = self._config
        # Since when something has waited that a runner could have asked for.
        waiting = {
            row.agency: row.oldest for row in self._queue.demand() if row.oldest and row.running < row.max_concurrent
        }
        resting: dict[str, datetime] = {}
        for load in idle:
            ticket = load.ticket
            sandbox = sandboxes.get(ticket.sandbox)
            if sandbox is None:
                late = load.bound or self._older(ticket, config.start_grace_seconds, now)
                if ticket.id not in self._starting and late:
                    self._give_up(ticket, "its sandbox is gone")
            elif not sandbox.running:
                said = self._last_words(ticket.sandbox)
                self._give_up(ticket, f"its sandbox ended with {sandbox.exit_code}")
                if not load.bound:
                    self._failed_start(ticket.agency, f"The runner ended before it had asked for work. {said}", now)
            elif load.bound:
                resting[ticket.id] = self._resting_since.get(ticket.id, self._steady)
                if not self._just(resting[ticket.id], config.idle_seconds):
                    log.info("runner %s of %s asks for no more of its batch", ticket.id, ticket.agency)
                    self._queue.retire_runner(ticket.id)
            elif (since := waiting.get(ticket.agency)) and not _within(
                now, max(ticket.created_at, since), config.claim_grace_seconds
            ):
                said = self._last_words(ticket.sandbox)
                self._give_up(ticket, "it does not ask for work")
                self._failed_start(ticket.agency, f"The runner did not reach the Hub. {said}", now)
        self._resting_since = resting

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
        """Remove the sandboxes whose results are recorded, then close their tickets."""
        for load in self._queue.loads():
            if load.finished:
                if load.bound:
                    self._forgive(load.ticket.agency)
                self._remove(load.ticket.sandbox, then=partial(self._queue.close_runner, load.ticket.id))

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
        """Start the runners that are missing, end those that nothing waits for, pass places on."""
        config = self._config
        recent = now - timedelta(seconds=config.warm_for_seconds) if config.warm_per_agency else None
        demand = [self._within_quota(row) for row in self._queue.demand(recent)]
        loads = self._loads()
        lanes = _lanes(demand, loads, desired_places(demand, total=config.total_runs))
        self._keep_ready(lanes)
        room = config.total_runs - sum(load.places for load in loads)
        served = {lane.row.agency for lane in lanes if self._about_to_be_served(lane, lanes, now)}
        for lane in lanes:
            room -= self._widen(lane, loads, room)
            if lane.missing > 0 and lane.row.agency not in served:
                room -= self._start_missing(lane, lane.missing, loads, room, now)
        if not any(lane.missing > 0 for lane in lanes):
            for lane in lanes:
                room -= self._start_missing(lane, lane.missing + lane.warm, loads, room, now)
        # A runner that is about to take a sweep up still looks as if nothing waited for it.
        idle = [load for load in loads if load.ticket.for_sweeps or load.ticket.agency not in served]
        self._make_room(lanes, idle, room)
        self._end_idle(lanes, idle, now)

    def _loads(self) -> list[RunnerLoad]:
        """Return the runners that are there, on their way, or about to be wider, and have something left to do."""
        with self._lock:
            starting, widening = dict(self._starting), dict(self._widening)
        loads = [load for load in self._queue.loads() if not load.finished]
        known = {load.ticket.id for load in loads}
        loads += [RunnerLoad(ticket, 0, 0, False) for ticket in starting.values() if ticket.id not in known]
        wider = {id: max(slots, load.ticket.slots) for load in loads if (slots := widening.get(id := load.ticket.id))}
        return [
            replace(load, ticket=replace(load.ticket, slots=wider.get(load.ticket.id, load.ticket.slots)))
            for load in loads
        ]

    def _within_quota(self, row: AgencyDemand) -> AgencyDemand:
        return replace(row, max_concurrent=min(row.max_concurrent, self._affordable(row)))

    def _affordable(self, row: AgencyDemand) -> int:
        """Return how many places the agency's quotas of memory and CPU allow."""
        limits, total = self._config.limits, self._config.total_runs
        by_quota = (fitting(row.max_memory, limits.memory), fitting(row.max_cpus, limits.cpus))
        return min(total if places is None else places for places in by_quota)

    def _keep_ready(self, lanes: Sequence[_Lane]) -> None:
        """Say how many runners each agency should have beyond those it needs, ready for what comes next.

        Sweeps leave room for them, half of the lab's places at most: so the first run of somebody else starts at once
        beside a sweep, however long that is. An agency whose own sweep waits has none: the sweep would take it.
        """
        config = self._config
        sweeps = [lane for lane in lanes if lane.sweeps]
        swept = {lane.row.agency for lane in sweeps if lane.row.queued_of_sweeps > 0}
        free = config.total_runs - sum(lane.wanted for lane in lanes if not lane.sweeps)
        at_work = sum(lane.wanted > 0 for lane in sweeps)
        left = max(0, min(config.total_runs // 2, free - at_work) if at_work else free)
        for lane in lanes:
            if lane.sweeps or lane.row.agency in swept:
                continue
            used = sum(other.wanted for other in lanes if other.row.agency == lane.row.agency)
            lane.warm = max(0, min(config.warm_per_agency, left, self._affordable(lane.row) - used))
            left -= lane.warm
        over = sum(lane.wanted + lane.warm for lane in lanes) - config.total_runs
        while over > 0:
            widest = max(sweeps, key=lambda lane: (lane.wanted / max(lane.row.weight, 1), lane.row.agency))
            widest.wanted, over = widest.wanted - 1, over - 1

    def _about_to_be_served(self, lane: _Lane, lanes: Sequence[_Lane], now: datetime) -> bool:
        """Return whether a runner that waits will take a sweep's first run in a moment: none is started beside it."""
        if not lane.sweeps or lane.have > 0 or lane.row.oldest is None:
            return False
        spare = any(not o.sweeps and o.row.agency == lane.row.agency and o.missing < 0 for o in lanes)
        return spare and _within(now, lane.row.oldest, self._config.take_up_seconds)

    def _widen(self, lane: _Lane, loads: list[RunnerLoad], room: int) -> int:
        """Let the lane's runners do more runs at a time, which is quicker than starting others; return the places."""
        given = 0
        for index, load in enumerate(loads):
            if not lane.sweeps or not lane.owns(load) or load.spent or not load.bound:
                continue
            most = self._config.sweep_slots - load.ticket.slots
            taken = sum(other.places for other in loads if other.ticket.agency == lane.row.agency)
            more = min(lane.missing, most, room - given, self._affordable(lane.row) - taken)
            with self._lock:
                busy = load.ticket.id in self._widening
            if more > 0 and not busy:
                given, lane.have = given + more, lane.have + more
                loads[index] = replace(load, ticket=replace(load.ticket, slots=load.ticket.slots + more))
                self._resize(loads[index].ticket)
        return given

    def _resize(self, ticket: RunnerTicket) -> None:
        """Give a sandbox the limits of so many runs, and then the runs, in the background."""
        with self._lock:
            self._widening[ticket.id] = ticket.slots

        def work() -> None:
            try:
                self._engine.resize(ticket.sandbox, _times(self._config.limits, ticket.slots))
                self._queue.resize_runner(ticket.id, ticket.slots)
                log.info("runner %s of %s does %d runs at a time", ticket.id, ticket.agency, ticket.slots)
            except EngineError as error:
                log.warning("runner %s of %s stays as it is: %s", ticket.id, ticket.agency, error)
            except Exception:
                log.warning("runner %s of %s stays as it is", ticket.id, ticket.agency, exc_info=True)
            finally:
                with self._lock:
                    self._widening.pop(ticket.id, None)

        self._executor.submit(work)

    def _start_missing(self, lane: _Lane, missing: int, loads: list[RunnerLoad], room: int, now: datetime) -> int:
        """Start runners for so many places of the lane, as far as there is room; return the places."""
        given = 0
        most = self._config.sweep_slots if lane.sweeps else 1
        while missing > given:
            taken = sum(load.places for load in loads if load.ticket.agency == lane.row.agency)
            slots = min(missing - given, most, room - given, self._affordable(lane.row) - taken)
            if slots <= 0 or not self._may_start(lane):
                break
            loads.append(RunnerLoad(self._start(lane, slots, now), 0, 0, False))
            given, lane.have = given + slots, lane.have + slots
        return given

    def _make_room(self, lanes: Sequence[_Lane], loads: Sequence[RunnerLoad], room: int) -> None:
        """Where somebody waits for a place that others have too many of, let them give one back.

        Runners that wait for work go first and at once. A sweep's runner gives back one place after the other as its
        runs end: so nobody waits for longer than one run takes, however long the sweep is.
        """
        needed = sum(max(lane.missing + lane.warm, 0) for lane in lanes) - max(room, 0)
        needed -= sum(_leaving(load) for load in loads if load.ticket.for_sweeps)
        for lane in sorted(lanes, key=lambda lane: lane.missing):
            # A sweep also takes its own agency's single runs their turn, where the agency's quota is all in use.
            own = sum(other.have for other in lanes if other.row.agency == lane.row.agency)
            blocking = own - lane.row.max_concurrent if lane.sweeps else 0
            mine = [load for load in loads if lane.owns(load) and not load.spent]
            for load in sorted(mine, key=lambda load: (load.bound, load.ticket.slots)):
                surplus = -(lane.missing + lane.warm)
                if surplus <= 0 or max(needed, blocking) <= 0:
                    break
                if load.ticket.id in self._starting or (load.bound and not lane.sweeps):
                    continue
                given = self._give_place(lane, load, min(surplus, max(needed, blocking)))
                needed, blocking, lane.have = needed - given, blocking - given, lane.have - given

    def _give_place(self, lane: _Lane, load: RunnerLoad, places: int) -> int:
        """Take places from a runner: some of a sweep's at work, all of another's. Return how many."""
        ticket = load.ticket
        with self._lock:
            if ticket.id in self._widening:
                return 0
        quotas = lane.row.max_memory is not None or lane.row.max_cpus is not None
        # What a sandbox may use is not taken back from it, so where that is counted it has to go.
        if load.bound and ticket.slots > places and not quotas:
            log.info("runner %s of %s gives %d of its places to others", ticket.id, ticket.agency, places)
            self._queue.resize_runner(ticket.id, ticket.slots - places)
            return places
        log.info("runner %s of %s gives its place to others", ticket.id, ticket.agency)
        self._queue.retire_runner(ticket.id)
        return ticket.slots

    def _end_idle(self, lanes: Sequence[_Lane], loads: Sequence[RunnerLoad], now: datetime) -> None:
        """End runners that have waited for long, and that nothing waits for."""
        spare: dict[tuple[str, bool], int] = {}
        for lane in lanes:
            spare[lane.row.agency, lane.sweeps] = lane.have - lane.wanted - lane.warm
        for load in sorted(loads, key=lambda load: load.ticket.created_at, reverse=True):
            ticket = load.ticket
            if load.bound or load.spent or ticket.id in self._starting:
                continue
            key = (ticket.agency, ticket.for_sweeps)
            if self._older(ticket, self._config.idle_seconds, now) and spare.get(key, ticket.slots) > 0:
                spare[key] = spare.get(key, 0) - ticket.slots
                self._give_up(ticket, "nothing waits for it")

    def _start(self, lane: _Lane, slots: int, now: datetime) -> RunnerTicket:
        """Start a runner of the lane in the background; return its ticket (without its token and its image)."""
        row, runner = lane.row, str(ULID()).lower()
        batch = self._config.sweep_batch if lane.sweeps else 1
        name = names.runner_container(self._config.lab, runner)
        ticket = RunnerTicket(runner, row.agency, "", name, self._engine.name, "", now, slots, batch)
        with self._lock:
            self._starting[runner] = ticket

        def work() -> None:
            try:
                self._start_runner(ticket, row.slug)
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
        return ticket

    def _start_runner(self, ticket: RunnerTicket, slug: str) -> None:
        config = self._config
        token = secrets.token_urlsafe(32)
        spec = sandbox_spec(
            "runner",
            lab=config.lab,
            agency=ticket.agency,
            slug=slug,
            name=ticket.sandbox,
            image=config.image,
            command=config.command,
            environment={
                "PROVEROM_RUNNER_URL": config.runner_url,
                "PROVEROM_RUN_TOKEN": token,
                # As many as it can ever be given; the queue decides how many it has.
                "PROVEROM_RUNNER_SLOTS": str(max(config.sweep_slots, ticket.slots)),
                "PROVEROM_RUNNER_PLACES": OWN_PLACES,
            },
            limits=_prepared(_times(config.limits, ticket.slots), max(config.sweep_slots, ticket.slots), config.limits),
        )
        digest = self._engine.image_digest(config.image)
        self._engine.ensure_network(spec.network, lab=config.lab, agency=ticket.agency)
        hashed = hashlib.sha256(token.encode()).hexdigest()
        self._queue.open_runner(replace(ticket, token_sha256=hashed, image_digest=digest))
        self._engine.start(spec)

    # -- starts that fail ------------------------------------------------------------------------------------------
    def _may_start(self, lane: _Lane) -> bool:
        """Return whether a runner may be started now: after a failed start one at a time, and not before a pause."""
        agency = lane.row.agency
        trouble = self._trouble.get(agency)
        if trouble is None:
            return True
        with self._lock:
            being_tried = any(ticket.agency == agency for ticket in self._starting.values())
        return not being_tried and (trouble.not_before is None or self._steady >= trouble.not_before)

    def _failed_start(self, agency: str, message: str, now: datetime) -> None:
        """Count a failed start; after too many in a row, fail the run that waits longest instead of trying for ever."""
        with self._lock:
            trouble = self._trouble.setdefault(agency, _Trouble())
            if trouble.not_before is not None and self._steady < trouble.not_before:
                return  # several that died at once, with their engine say, are one failure
            trouble.count += 1
            trouble.not_before = self._steady + timedelta(seconds=min(2.0 ** (trouble.count - 1), 30.0))
            enough = trouble.count % self._config.start_attempts == 0
        run = self._queue.oldest_queued(agency) if enough else None
        if run is not None:
            error = CellError(NO_CELL, "StartFailed", message[:4096])
            self._end(run, RunResult(RunState.FAILED, b"", Reason.START_FAILED, error), now)

    def _forgive(self, agency: str) -> None:
        with self._lock:
            self._trouble.pop(agency, None)


@dataclass
class _Lane:
    """One agency's single runs, or its runs of sweeps: how many places they should have, and have."""

    row: AgencyDemand
    sweeps: bool
    wanted: int
    have: int
    warm: int = 0  # runners beyond those, ready for what comes next

    @property
    def missing(self) -> int:
        return self.wanted - self.have

    def owns(self, load: RunnerLoad) -> bool:
        return load.ticket.agency == self.row.agency and load.ticket.for_sweeps == self.sweeps


def _lanes(demand: Sequence[AgencyDemand], loads: Sequence[RunnerLoad], places: Mapping[str, int]) -> list[_Lane]:
    """Return two lanes for each agency, those first that have the least for the agency's weight."""
    lanes = []
    for row in demand:
        own = [load for load in loads if load.ticket.agency == row.agency]
        running = sum(load.running for load in own if load.ticket.for_sweeps)
        singles = row.queued - row.queued_of_sweeps + max(row.running - running, 0)
        both = split(places[row.agency], singles=singles, sweeps=row.queued_of_sweeps + running)
        for sweeps, wanted in zip((False, True), both, strict=True):
            have = sum(
                load.running if load.spent else load.ticket.slots for load in own if load.ticket.for_sweeps == sweeps
            )
            lanes.append(_Lane(row, sweeps, wanted, have))
    had = {row.agency: sum(lane.have for lane in lanes if lane.row.agency == row.agency) for row in demand}
    return sorted(
        lanes, key=lambda lane: (had[lane.row.agency] / max(lane.row.weight, 1), lane.row.agency, lane.sweeps)
    )


def _leaving(load: RunnerLoad) -> int:
    """Return how many places come free as a runner's runs end."""
    return load.running if load.spent else max(0, load.running - load.ticket.slots)


def _times(limits: Limits, slots: int) -> Limits:
    """Return the limits of a sandbox for so many runs at a time."""
    return replace(limits, memory=limits.memory * slots, cpus=limits.cpus * slots)


def _prepared(limits: Limits, slots: int, one: Limits) -> Limits:
    """Return the limits that a sandbox starts with, which may later have up to so many runs at a time.

    What cannot be changed while it runs is there from the start. A full tmpfs is to be out of room, not out of memory.
    """
    tmp = max(one.tmp, min(one.tmp * slots, limits.memory // 2))
    return replace(limits, pids=one.pids * slots, tmp=tmp)


def _within(now: datetime, since: datetime, seconds: float) -> bool:
    return now <= since + timedelta(seconds=seconds)
