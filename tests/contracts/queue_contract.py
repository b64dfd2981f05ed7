"""The promises of every ``experiments.queue.RunQueue``, as one reusable test class.

A queue is held to them by a subclass that says how a catalog of its kind is filled (used so by
``tests/unit/experiments/test_testing.py`` for the in-memory twin; the database's queue does the same):

    from tests.contracts.queue_contract import QueueCase, RunQueueContract

    class TestSqlRunQueue(RunQueueContract):
        @pytest.fixture
        def case(self, ...) -> QueueCase: ...

The case's lease is 15 s. Template ``VERSION`` exists, and the agencies ``NAV`` (slug nav, max_concurrent 4, weight 1)
and ``SKATT`` (slug skatteetaten, max_concurrent 1, weight 2).
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from experiments.model import (
    Assignment,
    CellError,
    Metric,
    Progress,
    Reason,
    Run,
    RunnerTicket,
    RunRequest,
    RunResult,
    RunState,
)
from experiments.queue import LeaseLost, NotYourRun, RunnerLoad, RunQueue, TokenRefused
from lab_templates.model import TemplateVersion, Text

NAV = "889640782"
SKATT = "974761076"
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LEASE = 15
SWEEP, OTHER_SWEEP = "01JSWEEP000000000000000001", "01JSWEEP000000000000000002"
NOTEBOOK = (
    b'{"cells": [{"cell_type": "code", "execution_count": null, "id": "a1", "metadata": {"tags": ["parameters"]},'
    b' "outputs": [], "source": "# none"}], "metadata": {"kernelspec": {"display_name": "Python 3",'
    b' "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}'
)

VERSION = TemplateVersion(
    name="contract",
    version="1.0.0",
    digest="sha256:" + "a" * 64,
    title=Text(nb="Kontrakt"),
    summary=Text(nb="For prøver"),
    language="nb",
    kernel="python3",
    timeout_seconds=600,
    data_class="synthetic",
    data_source=Text(nb="Ingen"),
    parameters=(),
    metrics=(),
    notebook=NOTEBOOK,
    declaration=b"",
)

DONE = RunResult(RunState.SUCCEEDED, NOTEBOOK, metrics=(Metric("difference", 2.3, "pp", 0.4, 4.2, "higher"),))
FAILED = RunResult(RunState.FAILED, NOTEBOOK, Reason.CELL_FAILED, CellError(1, "ValueError", "no such office"))


def request(
    agency: str = NAV, *, timeout_seconds: int = 60, key: str | None = None, sweep: str | None = None
) -> RunRequest:
    return RunRequest(
        agency=agency,
        template=VERSION.name,
        version=VERSION.version,
        template_digest=VERSION.digest,
        parameters={"alpha": 0.05, "name": "æøå"},
        timeout_seconds=timeout_seconds,
        requested_by="team",
        idempotency_key=key,
        sweep=sweep,
    )


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


class QueueCase(Protocol):
    """A queue and the little of its catalog that the contract needs."""

    queue: RunQueue

    def submit(self, request: RunRequest, *, max_attempts: int = 3) -> Run:
        """Queue a run of ``VERSION``; runs submitted later are newer."""

    def cancel(self, run: str) -> Run:
        """Ask for a cancellation, as the catalog's cancel does."""

    def get(self, run: str) -> Run:
        """Return the run as it is recorded."""

    def result_metrics(self, run: str) -> tuple[Metric, ...]:
        """Return the metrics recorded for the run."""


def open_runner(queue: RunQueue, name: str, agency: str = NAV, *, slots: int = 1, batch_limit: int = 1) -> str:
    """Open a runner and return its token."""
    token = f"token-of-{name}"
    queue.open_runner(
        RunnerTicket(
            id=name,
            agency=agency,
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
            sandbox=f"proverom-lab-runner-{name}",
            engine="docker",
            image_digest="sha256:" + "b" * 64,
            created_at=T0,
            slots=slots,
            batch_limit=batch_limit,
        )
    )
    return token


def load_of(queue: RunQueue, name: str) -> RunnerLoad:
    return next(load for load in queue.loads() if load.ticket.id == name)


def claim(queue: RunQueue, token: str, now: datetime) -> Assignment:
    """Return the assignment that there must be."""
    assignment = queue.claim(token, now)
    assert assignment is not None
    return assignment


class RunQueueContract:
    """Subclass it and give a ``case`` fixture."""

    # -- claiming --------------------------------------------------------------------------------------------------
    def test_a_claim_leases_the_oldest_run_of_the_runners_agency(self, case: QueueCase) -> None:
        other = case.submit(request(SKATT))
        first, second = case.submit(request(timeout_seconds=90)), case.submit(request())
        token = open_runner(case.queue, "r1")
        assert [run.id for run in [case.queue.oldest_queued(NAV)] if run] == [first.id]
        assignment = case.queue.claim(token, at(1))
        assert assignment is not None
        assert (assignment.run, assignment.attempt) == (first.id, 1)
        assert dict(assignment.parameters) == {"alpha": 0.05, "name": "æøå"}
        assert assignment.notebook.encode() == NOTEBOOK
        assert (assignment.kernel, assignment.timeout_seconds, assignment.lease_seconds) == ("python3", 90, LEASE)
        assert assignment.output_limit_bytes > 0
        run = case.get(first.id)
        assert (run.state, run.runner, run.attempt) == (RunState.RUNNING, "r1", 1)
        assert (run.started_at, run.deadline_at) == (at(1), at(91))
        assert case.get(second.id).state is case.get(other.id).state is RunState.QUEUED

    def test_the_newest_run_is_known_however_it_stands(self, case: QueueCase) -> None:
        assert case.queue.newest() is None
        first = case.submit(request())
        assert case.queue.newest() == first.id
        second = case.submit(request(SKATT))
        assert case.queue.newest() == second.id
        case.cancel(second.id)
        assert case.queue.newest() == second.id

    def test_nothing_waits(self, case: QueueCase) -> None:
        case.submit(request(SKATT))
        assert case.queue.claim(open_runner(case.queue, "r1"), at(0)) is None
        assert case.queue.oldest_queued(NAV) is None

    def test_an_idle_runner_gets_the_run_that_comes_later(self, case: QueueCase) -> None:
        token = open_runner(case.queue, "r1")
        assert case.queue.claim(token, at(0)) is None
        run = case.submit(request())
        assignment = case.queue.claim(token, at(1))
        assert assignment is not None
        assert assignment.run == run.id

    def test_claiming_again_gives_the_same_assignment_and_renews_the_lease(self, case: QueueCase) -> None:
        case.submit(request())
        case.submit(request())
        token = open_runner(case.queue, "r1")
        first = case.queue.claim(token, at(0))
        assert first is not None
        assert case.queue.claim(token, at(10)) == first
        assert case.queue.expired(at(20)) == []
        assert len(case.queue.active()) == 1
        assert case.get(first.run).started_at == at(0)

    @pytest.mark.parametrize("token", ["", "nobody", "token-of-r1 ", "æøå\x00"])
    def test_an_unknown_token_is_refused(self, case: QueueCase, token: str) -> None:
        run = case.submit(request())
        open_runner(case.queue, "r1")
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(0))
        with pytest.raises(TokenRefused):
            case.queue.heartbeat(token, run.id, 1, Progress(0, 1), at(0))
        with pytest.raises(TokenRefused):
            case.queue.finish(token, run.id, 1, DONE, at(0))

    def test_a_closed_runner_is_refused_everywhere(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        case.queue.close_runner("r1")
        case.queue.close_runner("r1")
        case.queue.close_runner("never-opened")
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(1))
        with pytest.raises(TokenRefused):
            case.queue.heartbeat(token, run.id, 1, Progress(0, 1), at(1))
        with pytest.raises(TokenRefused):
            case.queue.finish(token, run.id, 1, DONE, at(1))
        assert case.get(run.id).state is RunState.RUNNING

    def test_a_quota_holds_however_many_runners_there_are(self, case: QueueCase) -> None:
        runs = [case.submit(request(SKATT)) for _ in range(2)]
        tokens = [open_runner(case.queue, name, SKATT) for name in ("r1", "r2")]
        assert case.queue.claim(tokens[0], at(0)) is not None
        assert case.queue.claim(tokens[1], at(0)) is None
        case.queue.finish(tokens[0], runs[0].id, 1, DONE, at(1))
        assignment = case.queue.claim(tokens[1], at(2))
        assert assignment is not None
        assert assignment.run == runs[1].id

    # -- heartbeats ------------------------------------------------------------------------------------------------
    def test_a_heartbeat_extends_the_lease_and_keeps_the_progress(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        assert case.queue.expired(at(LEASE - 1)) == []
        assert [r.id for r in case.queue.expired(at(LEASE + 1))] == [run.id]
        directive = case.queue.heartbeat(token, run.id, 1, Progress(2, 5, "linje æøå"), at(LEASE + 2))
        assert not directive.cancel
        assert case.queue.expired(at(LEASE + 3)) == []
        assert case.get(run.id).progress == Progress(2, 5, "linje æøå")
        assert case.get(run.id).deadline_at == at(60)

    def test_a_heartbeat_brings_the_cancellation(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        assert case.cancel(run.id).state is RunState.RUNNING
        assert case.queue.heartbeat(token, run.id, 1, Progress(0, 1), at(1)).cancel
        assert [r.cancel_requested for r in case.queue.active()] == [True]

    def test_a_token_is_good_for_its_own_run_only(self, case: QueueCase) -> None:
        mine, theirs = case.submit(request()), case.submit(request())
        token, idle = open_runner(case.queue, "r1"), open_runner(case.queue, "r2")
        case.queue.claim(token, at(0))
        for holder, run in ((token, theirs.id), (token, "no-such-run"), (idle, mine.id)):
            with pytest.raises(NotYourRun):
                case.queue.heartbeat(holder, run, 1, Progress(0, 1), at(1))
            with pytest.raises(NotYourRun):
                case.queue.finish(holder, run, 1, DONE, at(1))
        assert case.get(theirs.id).state is RunState.QUEUED

    @pytest.mark.parametrize("attempt", [-1, 0, 2])
    def test_another_attempt_owns_nothing(self, case: QueueCase, attempt: int) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        with pytest.raises(LeaseLost):
            case.queue.heartbeat(token, run.id, attempt, Progress(0, 1), at(1))
        with pytest.raises(LeaseLost):
            case.queue.finish(token, run.id, attempt, DONE, at(1))
        assert case.queue.give_back(run.id, attempt, at(1)).state is RunState.RUNNING
        with pytest.raises(LeaseLost):
            case.queue.end(run.id, attempt, FAILED, at(1))

    # -- endings ---------------------------------------------------------------------------------------------------
    def test_a_result_is_recorded_once(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        recorded = case.queue.finish(token, run.id, 1, DONE, at(5))
        assert (recorded.state, recorded.reason, recorded.ended_at) == (RunState.SUCCEEDED, None, at(5))
        assert case.queue.finish(token, run.id, 1, FAILED, at(6)) == recorded
        assert case.get(run.id) == recorded
        assert case.result_metrics(run.id) == DONE.metrics
        with pytest.raises(LeaseLost):
            case.queue.heartbeat(token, run.id, 1, Progress(0, 1), at(7))
        with pytest.raises(LeaseLost):
            case.queue.end(run.id, 1, FAILED, at(7))
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(7))
        assert case.queue.give_back(run.id, 1, at(8)) == recorded

    def test_a_failure_keeps_its_cell(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        recorded = case.queue.finish(token, run.id, 1, FAILED, at(5))
        assert (recorded.state, recorded.reason, recorded.error) == (RunState.FAILED, Reason.CELL_FAILED, FAILED.error)

    def test_a_result_tells_how_many_cells_were_executed(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        case.queue.heartbeat(token, run.id, 1, Progress(1, 3, "half way"), at(1))
        case.queue.finish(token, run.id, 1, replace(DONE, cells=(3, 3)), at(2))
        assert case.get(run.id).progress == Progress(3, 3, "half way")

    def test_the_server_ends_a_running_run(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        ended = case.queue.end(run.id, 1, RunResult(RunState.TIMED_OUT, b"", Reason.TIME_LIMIT), at(80))
        assert (ended.state, ended.reason, ended.ended_at) == (RunState.TIMED_OUT, Reason.TIME_LIMIT, at(80))
        assert case.queue.finish(token, run.id, 1, DONE, at(81)) == ended
        assert case.result_metrics(run.id) == ()

    def test_the_server_ends_a_queued_run(self, case: QueueCase) -> None:
        run = case.submit(request())
        with pytest.raises(LeaseLost):
            case.queue.end(run.id, 1, RunResult(RunState.FAILED, b"", Reason.START_FAILED), at(1))
        ended = case.queue.end(run.id, 0, RunResult(RunState.FAILED, b"", Reason.START_FAILED), at(1))
        assert (ended.state, ended.reason) == (RunState.FAILED, Reason.START_FAILED)
        assert case.queue.claim(open_runner(case.queue, "r1"), at(2)) is None

    def test_a_cancelled_queued_run_is_never_claimed(self, case: QueueCase) -> None:
        run = case.submit(request())
        assert case.cancel(run.id).state is RunState.CANCELLED
        assert case.queue.claim(open_runner(case.queue, "r1"), at(1)) is None
        assert case.queue.demand() == []

    # -- lost attempts ---------------------------------------------------------------------------------------------
    def test_a_lost_attempt_is_given_to_another_runner(self, case: QueueCase) -> None:
        run = case.submit(request())
        old, new = open_runner(case.queue, "r1"), open_runner(case.queue, "r2")
        case.queue.claim(old, at(0))
        case.queue.heartbeat(old, run.id, 1, Progress(1, 2, "x"), at(1))
        back = case.queue.give_back(run.id, 1, at(20))
        assert (back.state, back.attempt, back.runner, back.progress) == (RunState.QUEUED, 1, None, None)
        assert (back.started_at, back.deadline_at, back.ended_at) == (None, None, None)
        assert case.queue.expired(at(99)) == []
        with pytest.raises(LeaseLost):
            case.queue.finish(old, run.id, 1, DONE, at(21))
        again = case.queue.claim(new, at(22))
        assert again is not None
        assert (again.run, again.attempt) == (run.id, 2)
        with pytest.raises(LeaseLost):
            case.queue.heartbeat(old, run.id, 1, Progress(0, 1), at(23))
        with pytest.raises(LeaseLost):
            case.queue.heartbeat(old, run.id, 2, Progress(0, 1), at(23))
        with pytest.raises(LeaseLost):
            case.queue.finish(old, run.id, 2, FAILED, at(23))
        with pytest.raises(TokenRefused):
            case.queue.claim(old, at(23))
        assert case.queue.give_back(run.id, 1, at(24)).state is RunState.RUNNING
        assert case.queue.finish(new, run.id, 2, DONE, at(25)).state is RunState.SUCCEEDED

    def test_after_the_last_attempt_the_run_has_failed(self, case: QueueCase) -> None:
        run = case.submit(request(), max_attempts=2)
        for attempt in (1, 2):
            case.queue.claim(open_runner(case.queue, f"r{attempt}"), at(attempt))
            case.queue.give_back(run.id, attempt, at(attempt + 0.5))
        ended = case.get(run.id)
        assert (ended.state, ended.reason, ended.ended_at) == (RunState.FAILED, Reason.RUNNER_LOST, at(2.5))
        assert case.queue.claim(open_runner(case.queue, "r3"), at(4)) is None

    def test_a_lost_attempt_that_was_to_be_cancelled_is_cancelled(self, case: QueueCase) -> None:
        run = case.submit(request())
        case.queue.claim(open_runner(case.queue, "r1"), at(0))
        case.cancel(run.id)
        ended = case.queue.give_back(run.id, 1, at(20))
        assert (ended.state, ended.reason) == (RunState.CANCELLED, Reason.CANCELLED_BY_USER)

    # -- batches ---------------------------------------------------------------------------------------------------
    def test_a_runner_for_sweeps_holds_as_many_runs_as_it_has_slots(self, case: QueueCase) -> None:
        runs = [case.submit(request(sweep=SWEEP)).id for _ in range(4)]
        token = open_runner(case.queue, "r1", slots=2, batch_limit=10)
        held: list[str] = []
        for _ in range(2):
            assignment = case.queue.claim(token, at(1), held)
            assert assignment is not None
            held.append(assignment.run)
        assert held == runs[:2]
        assert case.queue.claim(token, at(2), held) is None
        assert load_of(case.queue, "r1") == RunnerLoad(case.queue.runners()[0], claimed=2, running=2, spent=False)
        case.queue.finish(token, held[0], 1, DONE, at(3))
        assignment = case.queue.claim(token, at(3), held[1:])
        assert assignment is not None
        assert assignment.run == runs[2]
        case.queue.heartbeat(token, runs[1], 1, Progress(1, 2), at(4))
        case.queue.heartbeat(token, runs[2], 1, Progress(0, 2), at(4))
        assert case.get(runs[1]).progress == Progress(1, 2)

    def test_an_assignment_that_the_runner_does_not_list_is_sent_again(self, case: QueueCase) -> None:
        first, second = (case.submit(request(sweep=SWEEP)).id for _ in range(2))
        token = open_runner(case.queue, "r1", slots=2, batch_limit=10)
        assert [case.queue.claim(token, at(0), [])] == [case.queue.claim(token, at(10), [])]
        case.queue.claim(token, at(11), [first])
        again = case.queue.claim(token, at(12), [first])
        assert again is not None
        assert again.run == second
        again = case.queue.claim(token, at(12), [second, "no-such-run"])
        assert again is not None
        assert again.run == first
        assert case.queue.expired(at(24)) == []
        assert len(case.queue.active()) == 2

    def test_a_batch_is_of_one_sweep(self, case: QueueCase) -> None:
        mine = case.submit(request(sweep=SWEEP)).id
        case.submit(request(sweep=OTHER_SWEEP))
        case.submit(request())
        token = open_runner(case.queue, "r1", slots=4, batch_limit=10)
        assignment = case.queue.claim(token, at(0))
        assert assignment is not None
        assert assignment.run == mine
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(1), [mine])
        # What it found out is kept: a run of its sweep that is queued later is for another runner.
        case.submit(request(sweep=SWEEP))
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(2), [mine])
        assert not case.queue.heartbeat(token, mine, 1, Progress(1, 2), at(3)).cancel
        assert (load_of(case.queue, "r1").spent, load_of(case.queue, "r1").finished) == (True, False)
        assert case.queue.finish(token, mine, 1, DONE, at(4)).state is RunState.SUCCEEDED
        assert load_of(case.queue, "r1").finished

    def test_a_batch_has_a_limit(self, case: QueueCase) -> None:
        for _ in range(3):
            case.submit(request(sweep=SWEEP))
        token = open_runner(case.queue, "r1", slots=1, batch_limit=2)
        for second in (1, 2):
            assignment = case.queue.claim(token, at(second))
            assert assignment is not None
            case.queue.finish(token, assignment.run, 1, DONE, at(second))
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(3))
        assert load_of(case.queue, "r1").finished

    @pytest.mark.parametrize(("batch_limit", "first"), [(1, "single"), (10, "sweep")])
    def test_each_kind_of_runner_takes_its_kind_of_run_first(
        self, case: QueueCase, batch_limit: int, first: str
    ) -> None:
        sweep, single = case.submit(request(sweep=SWEEP)).id, case.submit(request()).id
        assignment = case.queue.claim(open_runner(case.queue, "r1", slots=2, batch_limit=batch_limit), at(0))
        assert assignment is not None
        assert assignment.run == {"single": single, "sweep": sweep}[first]

    @pytest.mark.parametrize(("batch_limit", "sweep"), [(1, "01JSWEEP000000000000000001"), (10, None)])
    def test_where_its_kind_is_missing_it_takes_the_other(
        self, case: QueueCase, batch_limit: int, sweep: str | None
    ) -> None:
        run = case.submit(request(sweep=sweep)).id
        token = open_runner(case.queue, "r1", slots=2, batch_limit=batch_limit)
        assignment = case.queue.claim(token, at(0))
        assert assignment is not None
        assert assignment.run == run
        more = case.submit(request(sweep=sweep)).id
        if sweep is None:
            with pytest.raises(TokenRefused):  # one run is its whole batch
                case.queue.claim(token, at(1), [run])
        else:  # from now on it is one for sweeps
            assert load_of(case.queue, "r1").ticket.for_sweeps
            assert case.queue.claim(token, at(1), [run]).run == more  # type: ignore[union-attr]

    def test_a_runner_holds_as_many_runs_as_it_is_told_while_it_works(self, case: QueueCase) -> None:
        runs = [case.submit(request(sweep=SWEEP)).id for _ in range(4)]
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        assert case.queue.claim(token, at(0), runs[:1]) is None
        case.queue.resize_runner("r1", 3)
        assert load_of(case.queue, "r1").ticket.slots == 3
        case.queue.claim(token, at(1), runs[:1])
        case.queue.resize_runner("r1", 1)
        assert case.queue.claim(token, at(2), runs[:2]) is None
        case.queue.finish(token, runs[0], 1, DONE, at(3))
        assert case.queue.claim(token, at(3), runs[1:2]) is None
        case.queue.finish(token, runs[1], 1, DONE, at(4))
        assert case.queue.claim(token, at(4)).run == runs[2]  # type: ignore[union-attr]
        case.queue.resize_runner("never-opened", 2)
        case.queue.retire_runner("r1")
        case.queue.resize_runner("r1", 4)
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(5), [runs[2]])

    # -- a result that asks for more -------------------------------------------------------------------------------
    def test_with_its_result_a_runner_is_given_its_next_run(self, case: QueueCase) -> None:
        first, second = (case.submit(request(sweep=SWEEP, timeout_seconds=90)).id for _ in range(2))
        token = open_runner(case.queue, "r1", batch_limit=10)
        case.queue.claim(token, at(0))
        recorded, following = case.queue.finish_and_claim(token, first, 1, DONE, at(5))
        assert recorded == case.get(first)
        assert (recorded.state, recorded.ended_at) == (RunState.SUCCEEDED, at(5))
        assert following is not None
        assert (following.run, following.attempt) == (second, 1)
        running = case.get(second)
        assert (running.state, running.started_at, running.deadline_at) == (RunState.RUNNING, at(5), at(95))
        assert case.queue.expired(at(5 + LEASE - 1)) == []
        assert load_of(case.queue, "r1").claimed == 2
        # Whoever lost the answer sends the result again and claims: the same run, and no other.
        assert case.queue.finish_and_claim(token, first, 1, FAILED, at(6)) == (recorded, None)
        assert case.queue.claim(token, at(6)) == following
        assert case.queue.finish_and_claim(token, second, 1, DONE, at(7))[1] is None
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(7))
        assert load_of(case.queue, "r1").finished

    @pytest.mark.parametrize("why", ["alone", "batch done", "retired", "fewer slots", "nothing waits"])
    def test_with_its_result_a_runner_is_given_no_more_than_it_could_claim(self, case: QueueCase, why: str) -> None:
        sweep = None if why == "alone" else SWEEP
        first, second = (case.submit(request(sweep=sweep)).id for _ in range(2))
        slots, batch = {"alone": (2, 1), "batch done": (1, 2)}.get(why, (2, 10))
        token = open_runner(case.queue, "r1", slots=slots, batch_limit=batch)
        case.queue.claim(token, at(0))
        waiting = second
        if why == "retired":
            case.queue.retire_runner("r1")
        elif why == "batch done":
            assert case.queue.finish_and_claim(token, first, 1, DONE, at(1))[1] is not None
            first, waiting = second, case.submit(request(sweep=SWEEP)).id
        elif why == "fewer slots":
            case.queue.claim(token, at(0), [first])
            waiting = case.submit(request(sweep=SWEEP)).id
            case.queue.resize_runner("r1", 1)
        elif why == "nothing waits":
            case.cancel(second)
        recorded, following = case.queue.finish_and_claim(token, first, 1, DONE, at(2))
        assert (recorded.state, following) == (RunState.SUCCEEDED, None)
        assert case.get(waiting).state is (RunState.CANCELLED if why == "nothing waits" else RunState.QUEUED)
        assert load_of(case.queue, "r1").finished is (why != "fewer slots")

    def test_a_result_that_is_refused_brings_no_run(self, case: QueueCase) -> None:
        first, second = (case.submit(request(sweep=SWEEP)).id for _ in range(2))
        token = open_runner(case.queue, "r1", batch_limit=10)
        case.queue.claim(token, at(0))
        with pytest.raises(LeaseLost):
            case.queue.finish_and_claim(token, first, 2, DONE, at(1))
        with pytest.raises(NotYourRun):
            case.queue.finish_and_claim(token, second, 1, DONE, at(1))
        with pytest.raises(TokenRefused):
            case.queue.finish_and_claim("nobody", first, 1, DONE, at(1))
        assert [run.id for run in case.queue.active()] == [first]

    def test_results_that_ask_for_more_at_once_hold_the_batchs_limits(self, case: QueueCase) -> None:
        runs = [case.submit(request(sweep=SWEEP)).id for _ in range(9)]
        token = open_runner(case.queue, "r1", slots=3, batch_limit=5)
        for held in range(3):
            claim(case.queue, token, at(0)) if not held else case.queue.claim(token, at(0), runs[:held])
        start = threading.Barrier(3)

        def finish(run: str) -> Assignment | None:
            start.wait(30)
            return case.queue.finish_and_claim(token, run, 1, DONE, at(1))[1]

        with ThreadPoolExecutor(3) as pool:
            following = [found.run for found in pool.map(finish, runs[:3]) if found is not None]
        assert sorted(following) == runs[3:5]
        assert [case.get(run).state for run in runs[:3]] == [RunState.SUCCEEDED] * 3
        assert load_of(case.queue, "r1").spent

    def test_the_quota_counts_every_run_of_a_batch(self, case: QueueCase) -> None:
        runs = [case.submit(request(SKATT, sweep=SWEEP)).id for _ in range(2)]
        token = open_runner(case.queue, "r1", SKATT, slots=2, batch_limit=10)
        assert case.queue.claim(token, at(0)) is not None
        assert case.queue.claim(token, at(1), runs[:1]) is None
        case.queue.finish(token, runs[0], 1, DONE, at(2))
        assert case.queue.claim(token, at(3)) is not None

    def test_a_retired_runner_claims_no_more_and_ends_what_it_holds(self, case: QueueCase) -> None:
        run, waiting = case.submit(request(sweep=SWEEP)).id, case.submit(request(sweep=SWEEP)).id
        token = open_runner(case.queue, "r1", slots=2, batch_limit=10)
        case.queue.claim(token, at(0))
        case.queue.retire_runner("r1")
        case.queue.retire_runner("never-opened")
        assert case.queue.claim(token, at(1)).run == run  # type: ignore[union-attr]
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(1), [run])
        assert case.get(waiting).state is RunState.QUEUED
        case.queue.heartbeat(token, run, 1, Progress(0, 1), at(2))
        assert not load_of(case.queue, "r1").finished
        case.queue.finish(token, run, 1, DONE, at(3))
        assert load_of(case.queue, "r1").finished
        idle = open_runner(case.queue, "r2")
        case.queue.retire_runner("r2")
        assert load_of(case.queue, "r2").finished
        with pytest.raises(TokenRefused):
            case.queue.claim(idle, at(4))

    @pytest.mark.parametrize("how", ["give back", "end"])
    def test_who_lost_one_run_of_a_batch_gets_no_more(self, case: QueueCase, how: str) -> None:
        first, second, _ = (case.submit(request(sweep=SWEEP)).id for _ in range(3))
        token = open_runner(case.queue, "r1", slots=2, batch_limit=10)
        case.queue.claim(token, at(0))
        case.queue.claim(token, at(0), [first])
        if how == "give back":
            case.queue.give_back(first, 1, at(1))
        else:
            case.queue.end(first, 1, RunResult(RunState.TIMED_OUT, b"", Reason.TIME_LIMIT), at(1))
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(2), [second])
        with pytest.raises(LeaseLost):
            case.queue.heartbeat(token, first, 1, Progress(0, 1), at(2))
        # The other run is not touched by it.
        case.queue.heartbeat(token, second, 1, Progress(0, 1), at(2))
        assert case.queue.finish(token, second, 1, DONE, at(3)).state is RunState.SUCCEEDED
        assert load_of(case.queue, "r1").finished

    def test_a_run_of_a_sweep_that_was_lost_goes_alone(self, case: QueueCase) -> None:
        lost, other, _ = (case.submit(request(sweep=SWEEP)).id for _ in range(3))
        token = open_runner(case.queue, "r1", slots=4, batch_limit=10)
        for _ in range(2):
            case.queue.claim(token, at(0), {lost, other})
        case.queue.give_back(lost, 1, at(1))
        (nav,) = case.queue.demand()
        assert (nav.queued, nav.queued_of_sweeps) == (2, 1)
        sweeps = open_runner(case.queue, "r2", slots=4, batch_limit=10)
        assignment = case.queue.claim(sweeps, at(2))
        assert assignment is not None
        assert assignment.run not in (lost, other), "a runner for sweeps prefers what does not go alone"
        with pytest.raises(TokenRefused):
            case.queue.claim(sweeps, at(2), {assignment.run})
        again = claim(case.queue, open_runner(case.queue, "r3"), at(3))
        assert (again.run, again.attempt) == (lost, 2)

    def test_a_run_that_goes_alone_has_nobody_beside_it(self, case: QueueCase) -> None:
        lost = case.submit(request(sweep=SWEEP)).id
        claim(case.queue, open_runner(case.queue, "r1"), at(0))
        case.queue.give_back(lost, 1, at(1))
        # Where nobody else takes it, a runner for sweeps does, and claims no more.
        token = open_runner(case.queue, "r2", slots=4, batch_limit=10)
        assert claim(case.queue, token, at(2)).run == lost
        case.submit(request(sweep=SWEEP))
        with pytest.raises(TokenRefused):
            case.queue.claim(token, at(3), {lost})

    def test_a_run_that_was_disturbed_is_handed_back(self, case: QueueCase) -> None:
        run, beside = (case.submit(request(sweep=SWEEP)).id for _ in range(2))
        token = open_runner(case.queue, "r1", slots=4, batch_limit=10)
        for _ in range(2):
            case.queue.claim(token, at(0), {run, beside})
        for _ in range(2):  # an answer that was lost is asked for again
            again = case.queue.hand_back(token, run, 1, at(1))
            assert again is not None
            assert (again.state, again.attempt, again.runner) == (RunState.QUEUED, 1, None)
        assert case.queue.loads()[0].spent
        assert case.queue.finish(token, beside, 1, DONE, at(2)).state is RunState.SUCCEEDED
        alone = open_runner(case.queue, "r2")
        assert claim(case.queue, alone, at(3)).attempt == 2
        with pytest.raises(LeaseLost):
            case.queue.hand_back(token, run, 1, at(4))
        assert case.queue.finish(alone, run, 2, DONE, at(5)).state is RunState.SUCCEEDED
        with pytest.raises(LeaseLost):
            case.queue.hand_back(alone, run, 2, at(6))

    @pytest.mark.parametrize("why", ["never another", "last attempt", "cancelled"])
    def test_what_is_not_handed_back_is_to_be_recorded(self, case: QueueCase, why: str) -> None:
        run = case.submit(request(sweep=SWEEP), max_attempts=1 if why == "last attempt" else 3).id
        token = open_runner(case.queue, "r1", slots=2, batch_limit=10)
        claim(case.queue, token, at(0))
        if why != "never another":
            case.submit(request(sweep=SWEEP))
            assert case.queue.claim(token, at(0), {run}) is not None
        if why == "cancelled":
            case.cancel(run)
        assert case.queue.hand_back(token, run, 1, at(1)) is None
        assert case.queue.finish(token, run, 1, FAILED, at(2)).reason is Reason.CELL_FAILED

    def test_nobody_hands_back_what_is_not_theirs(self, case: QueueCase) -> None:
        run = case.submit(request(sweep=SWEEP)).id
        claim(case.queue, open_runner(case.queue, "r1", slots=2, batch_limit=10), at(0))
        with pytest.raises(NotYourRun):
            case.queue.hand_back(open_runner(case.queue, "r2", slots=2, batch_limit=10), run, 1, at(1))
        with pytest.raises(TokenRefused):
            case.queue.hand_back("nobody's", run, 1, at(1))

    def test_claims_of_one_batch_at_once_hold_its_limits(self, case: QueueCase) -> None:
        for _ in range(6):
            case.submit(request(sweep=SWEEP))
        token = open_runner(case.queue, "r1", slots=2, batch_limit=3)
        gate = threading.Barrier(8)

        def claim(_: int) -> str | None:
            gate.wait()
            try:
                assignment = case.queue.claim(token, at(0), [run.id for run in case.queue.active()])
            except TokenRefused:
                return None
            return assignment.run if assignment else None

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(claim, range(8)))
        assert len(case.queue.active()) <= 2
        assert load_of(case.queue, "r1").claimed <= 3

    # -- what the dispatcher sees ----------------------------------------------------------------------------------
    def test_demand_counts_what_waits_and_what_runs(self, case: QueueCase) -> None:
        assert case.queue.demand() == []
        first = case.submit(request())
        case.submit(request())
        case.submit(request(SKATT))
        case.queue.claim(open_runner(case.queue, "r1"), at(0))
        rows = {row.agency: row for row in case.queue.demand()}
        assert set(rows) == {NAV, SKATT}
        nav, skatt = rows[NAV], rows[SKATT]
        assert (nav.slug, nav.queued, nav.running, nav.max_concurrent, nav.weight) == ("nav", 1, 1, 4, 1)
        assert (skatt.slug, skatt.queued, skatt.running, skatt.weight) == ("skatteetaten", 1, 0, 2)
        waiting = case.queue.oldest_queued(NAV)
        assert waiting is not None
        assert waiting.id != first.id
        assert nav.oldest == waiting.created_at

    def test_demand_tells_sweeps_apart_and_knows_who_was_there_recently(self, case: QueueCase) -> None:
        case.submit(request())
        case.submit(request(sweep=SWEEP))
        [nav] = case.queue.demand()
        assert (nav.queued, nav.queued_of_sweeps) == (2, 1)
        single = case.submit(request(SKATT))
        created = single.created_at
        case.cancel(single.id)
        assert [row.agency for row in case.queue.demand(created + timedelta(seconds=1))] == [NAV]
        rows = {row.agency: row for row in case.queue.demand(created)}
        assert (rows[SKATT].queued, rows[SKATT].running, rows[SKATT].oldest) == (0, 0, None)

    def test_runners_go_from_idle_to_bound_to_finished_to_closed(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")

        def seen() -> tuple[list[str], list[str], list[str]]:
            queue = case.queue
            loads = queue.loads()
            idle = [load.ticket.id for load in loads if not load.bound]
            return [t.id for t in queue.runners()], idle, [load.ticket.id for load in loads if load.finished]

        assert seen() == (["r1"], ["r1"], [])
        case.queue.claim(token, at(0))
        assert seen() == (["r1"], [], [])
        case.queue.finish(token, run.id, 1, DONE, at(1))
        assert seen() == (["r1"], [], ["r1"])
        ticket = case.queue.runners()[0]
        assert (ticket.agency, ticket.sandbox, ticket.engine) == (NAV, "proverom-lab-runner-r1", "docker")
        case.queue.close_runner("r1")
        assert seen() == ([], [], [])

    def test_the_runner_of_a_lost_attempt_is_finished(self, case: QueueCase) -> None:
        run = case.submit(request())
        case.queue.claim(open_runner(case.queue, "r1"), at(0))
        case.queue.give_back(run.id, 1, at(20))
        assert [load.ticket.id for load in case.queue.loads() if load.finished] == ["r1"]
        case.queue.claim(open_runner(case.queue, "r2"), at(21))
        assert [load.ticket.id for load in case.queue.loads() if load.finished] == ["r1"]

    def test_a_token_is_opened_once(self, case: QueueCase) -> None:
        open_runner(case.queue, "r1")
        with pytest.raises(Exception, match=r".") as caught:
            open_runner(case.queue, "r1")
        assert not isinstance(caught.value, TokenRefused)
        assert len(case.queue.runners()) == 1

    # -- everybody at once -----------------------------------------------------------------------------------------
    def test_claims_at_once_share_no_run(self, case: QueueCase) -> None:
        runs = {case.submit(request()).id for _ in range(3)}
        tokens = [open_runner(case.queue, f"r{i}") for i in range(8)]
        gate = threading.Barrier(len(tokens))

        def claim(token: str) -> str | None:
            gate.wait()
            assignment = case.queue.claim(token, at(0))
            return assignment.run if assignment else None

        with ThreadPoolExecutor(len(tokens)) as pool:
            got = [run for run in pool.map(claim, tokens) if run]
        # A claim that lost the race may come back empty-handed; it asks again.
        for token in tokens:
            if len(got) < len(runs) and token not in {case.get(r).runner for r in got}:
                assignment = case.queue.claim(token, at(1))
                if assignment and assignment.run not in got:
                    got.append(assignment.run)
        assert sorted(got) == sorted(runs)
        assert len({run.runner for run in case.queue.active()}) == 3

    def test_a_quota_holds_at_once(self, case: QueueCase) -> None:
        for _ in range(4):
            case.submit(request(SKATT))
        tokens = [open_runner(case.queue, f"r{i}", SKATT) for i in range(4)]
        gate = threading.Barrier(len(tokens))

        def claim(token: str) -> bool:
            gate.wait()
            return case.queue.claim(token, at(0)) is not None

        with ThreadPoolExecutor(len(tokens)) as pool:
            assert sum(pool.map(claim, tokens)) <= 1
        assert len(case.queue.active()) <= 1

    def test_one_result_of_many_at_once_is_recorded(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        gate = threading.Barrier(10)

        def finish(i: int) -> Run:
            gate.wait()
            result = RunResult(RunState.SUCCEEDED, NOTEBOOK, metrics=(Metric("i", float(i)),))
            return case.queue.finish(token, run.id, 1, result, at(5 + i))

        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(finish, range(10)))
        assert all(answer == answers[0] for answer in answers)
        metrics = case.result_metrics(run.id)
        assert len(metrics) == 1
        assert answers[0].ended_at == at(5 + (metrics[0].value or 0))

    def test_giving_back_and_finishing_at_once_agree(self, case: QueueCase) -> None:
        run = case.submit(request())
        token = open_runner(case.queue, "r1")
        case.queue.claim(token, at(0))
        gate = threading.Barrier(2)

        def finish() -> RunState | None:
            gate.wait()
            try:
                return case.queue.finish(token, run.id, 1, DONE, at(20)).state
            except LeaseLost:
                return None

        def give_back() -> RunState:
            gate.wait()
            return case.queue.give_back(run.id, 1, at(20)).state

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.submit(finish), pool.submit(give_back)
            outcome = (first.result(), second.result(), case.get(run.id).state)
        assert outcome in {
            (RunState.SUCCEEDED, RunState.SUCCEEDED, RunState.SUCCEEDED),
            (None, RunState.QUEUED, RunState.QUEUED),
        }
