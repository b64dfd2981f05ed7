"""The database's queue keeps every promise of the contract, and a few that only a database can break."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, update
from sqlmodel import col

from catalog.store import Catalog, RunLimits, open_catalog
from catalog.store.run_rows import add_run, queue_run
from catalog.tables import Event, MetricRow, RunRow, SweepRow, TemplateVersionRow
from experiments.model import CellError, Figure, Metric, Progress, Reason, Run, RunRequest, RunResult, RunState, Table
from experiments.queue import LeaseLost, TokenRefused
from experiments.testing import FakeClock
from lab_templates.checks import read_template
from tests.contracts import queue_contract as contract
from tests.unit.catalog.world import (
    DECLARATION,
    DONE,
    NAV,
    SKATT,
    SYSTEM,
    World,
    agency,
    publish,
    submission,
)


class SqlCase:
    """A catalog filled as the contract wants it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.queue = catalog.queue
        catalog.agencies.add(SYSTEM, agency(NAV, "nav", "NAV", max_concurrent_runs=4))
        catalog.agencies.add(SYSTEM, agency(SKATT, "skatteetaten", "Skatteetaten", max_concurrent_runs=1, weight=2))
        declaration = DECLARATION.format(name="contract", version="1.0.0", title="Kontrakt")
        self.version = publish(
            catalog, read_template(contract.NOTEBOOK, declaration[: declaration.index("[[parameters]]")].encode(), "")
        )

    def submit(self, request: RunRequest, *, max_attempts: int = 3) -> Run:
        wanted = replace(request, template_digest=self.version.digest)
        with self.catalog._database.write() as session:
            if wanted.sweep is not None and session.get(SweepRow, wanted.sweep) is None:
                session.add(self.sweep(wanted))
                session.flush()
            return queue_run(add_run(session, wanted, contract.T0, max_attempts=max_attempts))

    @staticmethod
    def sweep(request: RunRequest) -> SweepRow:
        return SweepRow(
            id=request.sweep or "",
            orgnr=request.agency,
            template=request.template,
            version=request.version,
            template_digest=request.template_digest,
            size=1,
            timeout_seconds=request.timeout_seconds,
            requested_by=request.requested_by,
            created_at=contract.T0,
        )

    def cancel(self, run: str) -> Run:
        self.catalog.runs.cancel(SYSTEM, run)
        return self.get(run)

    def get(self, run: str) -> Run:
        with self.catalog._database.read() as session:
            return queue_run(session.scalars(select(RunRow).where(col(RunRow.id) == run)).one())

    def result_metrics(self, run: str) -> tuple[Metric, ...]:
        return self.catalog.runs.get(SYSTEM, run).metrics


class TestSqlRunQueue(contract.RunQueueContract):
    @pytest.fixture
    def case(self, migrated_database_url: str, tmp_path: Path) -> Iterator[SqlCase]:
        limits = RunLimits(lease_seconds=contract.LEASE)
        catalog = open_catalog(
            migrated_database_url, str(tmp_path / "blobs"), limits=limits, clock=FakeClock(contract.T0)
        )
        yield SqlCase(catalog)
        catalog.close()


# -- fifty at once -------------------------------------------------------------------------------------------------

CROWD = 50


def rows(world: World, table: type, *where: object) -> int:
    with world.catalog._database.read() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0  # type: ignore[arg-type]


def test_fifty_identical_claims_start_one_run(world: World) -> None:
    run = world.submit()
    world.submit()
    token = world.open_runner("r1")
    gate = threading.Barrier(CROWD)

    def claim(_: int) -> object:
        gate.wait()
        return world.catalog.queue.claim(token, world.clock())

    with ThreadPoolExecutor(CROWD) as pool:
        answers = list(pool.map(claim, range(CROWD)))
    assert {answer.run for answer in answers if answer} == {run.id}  # type: ignore[attr-defined]
    assert len(answers) == CROWD
    assert [(r.id, r.attempt) for r in world.catalog.queue.active()] == [(run.id, 1)]
    assert rows(world, Event, col(Event.action) == "run.started") == 1


def test_fifty_different_results_at_once_record_exactly_one(world: World) -> None:
    run = world.submit()
    token, _ = world.claim("r1")
    gate = threading.Barrier(CROWD)

    def finish(i: int) -> Run:
        result = replace(
            DONE,
            notebook=b'{"i": %d}' % i,
            metrics=(Metric("i", float(i)),),
            figures=(Figure("f", "image/png", b"png %d" % i, alt=str(i)),),
            findings=(f"svar{i}",),
        )
        gate.wait()
        return world.catalog.queue.finish(token, run.id, 1, result, world.clock())

    with ThreadPoolExecutor(CROWD) as pool:
        answers = list(pool.map(finish, range(CROWD)))
    assert all(answer == answers[0] for answer in answers)
    record = world.catalog.runs.get(SYSTEM, run.id)
    (metric,) = record.metrics
    winner = int(metric.value or 0)
    assert record.findings == (f"svar{winner}",)
    assert [f.alt for f in record.figures] == [str(winner)]
    assert world.catalog.runs.notebook(SYSTEM, run.id) == b'{"i": %d}' % winner
    assert world.catalog.runs.figure(SYSTEM, run.id, "f")[1] == b"png %d" % winner
    assert rows(world, Event, col(Event.action) == "run.ended") == 1
    assert rows(world, MetricRow) == 1


def test_a_flood_of_one_submission_makes_one_run(world: World) -> None:
    viewer = world.viewer("kari")
    gate = threading.Barrier(CROWD)

    def submit(_: int) -> tuple[str, bool]:
        gate.wait()
        record, created = world.catalog.runs.submit(viewer, submission(idempotency_key="one"))
        return record.id, created

    with ThreadPoolExecutor(CROWD) as pool:
        answers = list(pool.map(submit, range(CROWD)))
    assert len({id for id, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert rows(world, RunRow) == 1
    assert rows(world, Event, col(Event.action) == "run.submitted") == 1


def test_lost_and_finished_by_many_at_once_ends_once(world: World) -> None:
    run = world.submit()
    token, _ = world.claim("r1")
    gate = threading.Barrier(30)

    def act(i: int) -> None:
        gate.wait()
        try:
            if i % 3 == 0:
                world.catalog.queue.finish(token, run.id, 1, DONE, world.clock())
            elif i % 3 == 1:
                ended = RunResult(RunState.TIMED_OUT, b"", Reason.TIME_LIMIT)
                world.catalog.queue.end(run.id, 1, ended, world.clock())
            else:
                world.catalog.runs.cancel(SYSTEM, run.id)
        except LeaseLost:
            pass

    with ThreadPoolExecutor(30) as pool:
        list(pool.map(act, range(30)))
    record = world.catalog.runs.get(SYSTEM, run.id)
    assert record.state in (RunState.SUCCEEDED, RunState.TIMED_OUT)
    assert bool(record.metrics) == (record.state is RunState.SUCCEEDED)
    assert rows(world, Event, col(Event.action) == "run.ended") == 1


# -- what is recorded ----------------------------------------------------------------------------------------------


def test_a_result_is_kept_whole(world: World) -> None:
    world.clock.advance(1)
    run = world.submit()
    result = replace(
        DONE,
        metrics=(Metric("b", None, flag="nan"), Metric("a", 1.5, "NOK", better="lower")),
        figures=(Figure("kurve", "image/svg+xml", b"<svg/>", "Bildetekst", "Alternativ tekst"),),
        tables=(Table("per kontor", ("kontor", "andel"), (("Bø", 0.5), ("Ås", None), ("Å", True)), "Tabell"),),
        findings=("Først.", "Så."),
        notices=("output_cut",),
    )
    record = world.finished(run, result, "r1")
    assert record.metrics == result.metrics
    assert record.tables == result.tables
    assert record.findings == result.findings
    assert record.notices == ("output_cut",)
    (figure,) = record.figures
    assert (figure.name, figure.mime, figure.caption, figure.alt) == (
        "kurve", "image/svg+xml", "Bildetekst", "Alternativ tekst",
    )  # fmt: skip
    assert world.catalog.runs.figure(SYSTEM, run.id, "kurve") == (figure, b"<svg/>")
    assert world.catalog.runs.notebook(SYSTEM, run.id) == result.notebook
    assert (record.engine, record.image_digest) == ("docker", "sha256:" + "b" * 64)
    assert (record.attempt, record.requested_by, record.template_digest[:7]) == (1, "kari", "sha256:")


def test_a_hostile_result_cannot_keep_its_run_from_ending(world: World) -> None:
    run = world.submit()
    nasty = "\x00\ud800" + "x" * 5000
    result = RunResult(
        RunState.FAILED,
        b"not even json",
        Reason.CELL_FAILED,
        error=CellError(3, nasty, nasty, nasty, nasty),
        metrics=(Metric(nasty, float("inf"), nasty, better=nasty, flag=nasty), Metric(nasty, 2.0)),
        figures=(Figure(nasty, nasty, b"", nasty, nasty),),
        tables=(Table(nasty, (nasty,), ((float("nan"),), (nasty,), (2**80,)), nasty),),
        findings=(nasty,) * 3,
    )
    record = world.finished(run, result, "r1")
    assert record.state is RunState.FAILED
    assert [m.value for m in record.metrics] == [2.0]  # a name recorded twice is a correction
    assert record.tables[0].rows[0] == (None,)
    assert record.tables[0].rows[2] == (2**80,)
    assert len(record.findings) == 3


@pytest.mark.parametrize("progress", [Progress(-5, 10**12, "\x00\ud800" * 20_000), Progress(10**30, -1)])
def test_hostile_progress_is_kept_within_bounds(world: World, progress: Progress) -> None:
    run = world.submit()
    token, _ = world.claim("r1")
    world.catalog.queue.heartbeat(token, run.id, 1, progress, world.clock())
    seen = world.catalog.runs.progress(SYSTEM, run.id)
    assert 0 <= seen.cells_done <= 10**6
    assert 0 <= seen.cells_total <= 10**6
    assert len(seen.tail) <= 16_000


def test_a_template_whose_bytes_were_changed_does_not_run(world: World) -> None:
    run, next_run = world.submit(), world.submit()
    with world.catalog._database.write() as session:
        session.execute(update(TemplateVersionRow).values(declaration=b"name = 'x'"))
    token = world.open_runner("r1")
    with pytest.raises(TokenRefused):
        world.catalog.queue.claim(token, world.clock())
    record = world.catalog.runs.get(SYSTEM, run.id)
    assert (record.state, record.reason) == (RunState.FAILED, Reason.START_FAILED)
    assert world.catalog.runs.get(SYSTEM, next_run.id).state is RunState.QUEUED
    with pytest.raises(TokenRefused):
        world.catalog.queue.claim(token, world.clock())


def test_attempts_and_times_belong_to_the_attempt_that_runs(world: World) -> None:
    run = world.submit(timeout_seconds=100)
    world.claim("r1")
    world.clock.advance(50)
    world.catalog.queue.give_back(run.id, 1, world.clock())
    world.clock.advance(50)
    _, assignment = world.claim("r2")
    assert assignment.attempt == 2
    record = world.catalog.runs.progress(SYSTEM, run.id)
    assert record.started_at == world.clock()
    assert record.deadline_at == world.clock() + timedelta(seconds=100)


def test_closing_an_agency_ends_what_waits_and_stops_what_runs(world: World) -> None:
    running, waiting, other = world.submit(), world.submit(), world.submit("siri", SKATT)
    token, _ = world.claim("r1")
    world.catalog.agencies.change(SYSTEM, NAV, active=False)
    assert world.catalog.runs.get(SYSTEM, waiting.id).state is RunState.CANCELLED
    assert world.catalog.queue.heartbeat(token, running.id, 1, Progress(0, 1), world.clock()).cancel
    assert world.catalog.runs.get(SYSTEM, other.id).state is RunState.QUEUED


def test_a_claim_costs_the_same_however_big_the_catalog_is(world: World) -> None:
    """Every statement of a claim goes by an index: none of them scans a table that grows."""
    world.submit()
    token = world.open_runner("r1")
    statements: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements.append((statement, parameters))

    event.listen(world.catalog._database.engine, "before_cursor_execute", note)
    assert world.catalog.queue.claim(token, world.clock()) is not None
    event.remove(world.catalog._database.engine, "before_cursor_execute", note)
    assert 4 <= len(statements) <= 12
    if world.catalog._database.dialect != "sqlite":
        return  # PostgreSQL's plan depends on the tables' sizes; that the indexes are there is the same on both
    with world.catalog._database.engine.connect() as connection:
        for statement, parameters in statements:
            if statement.startswith("BEGIN"):
                continue
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()  # type: ignore[call-overload]
            assert not [line for line in plan if "SCAN run" in str(line) or "SCAN event" in str(line)], statement
