"""claim-at-1m: the time to claim the next run with a million finished runs in the catalog, against an empty one.

No lab and no sandbox: the queue over its database, which is all that grows with the catalog.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, create_engine, text

from bench.measure import Bound, Row, seconds
from catalog.access import Action
from catalog.store import Catalog, migrate, open_catalog
from catalog.store.database import normal_url
from catalog.store.ids import new_id
from catalog.store.records import Submission
from experiments.model import Assignment, Metric, RunnerTicket, RunResult, RunState
from hub.seed import seed
from tests.conftest import PostgresCluster, postgres_programs
from tests.lab import NAV

FINISHED = 1_000_000
CLAIMS = 150
WARM_UP = 20
_PERSON = "team"
_RESULT = RunResult(
    RunState.SUCCEEDED,
    b'{"cells":[],"metadata":{},"nbformat":4,"nbformat_minor":5}',
    metrics=(Metric("difference", 2.3, "pp", 0.4, 4.2, "higher"),),
    findings=("A shorter letter gave 2.3 pp more answers in time.",),
)

# Which columns of a finished run's rows get another value in each copy. {n} is the copy's number in 26 digits: such
# ids sort before those that are made now, as those of older runs do.
_COPIED: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("runner", "id = '{runner}'", {"id": "{n}", "token_sha256": "{n}"}),
    ("run", "id = '{run}'", {"id": "{n}"}),
    ("runner_claim", "run = '{run}'", {"runner": "{n}", "run": "{n}"}),
    ("metric", "run = '{run}'", {"run": "{n}"}),
    ("finding", "run = '{run}'", {"run": "{n}"}),
    ("run_text", "run = '{run}'", {"run": "{n}", "number": ""}),
    ("event", "subject = '{run}' AND action = 'run.submitted'", {"id": "'1' || substr({n}, 2)", "subject": "{n}"}),
    ("event", "subject = '{run}' AND action = 'run.started'", {"id": "'2' || substr({n}, 2)", "subject": "{n}"}),
    ("event", "subject = '{run}' AND action = 'run.ended'", {"id": "'3' || substr({n}, 2)", "subject": "{n}"}),
)


def claim_at_1m(database: str, *, say: Callable[[str], None], finished: int = FINISHED) -> Row | None:
    """Return the row for ``sqlite`` or ``postgresql``; None where this machine has no PostgreSQL."""
    name = "claim-at-1m" if database == "sqlite" else f"claim-at-1m-{database}"
    with (
        tempfile.TemporaryDirectory(prefix="proverom-bench-", dir="/var/tmp") as folder,
        _two_databases(database, Path(folder)) as urls,
    ):
        if urls is None:
            say(f"{name}: not measured, for this machine has no PostgreSQL (initdb)")
            return None
        empty, full = (_Claims(url, Path(folder) / f"blobs-{i}") for i, url in enumerate(urls))
        took = seconds(lambda: fill(urls[1], full.finished_run(), finished))
        say(f"{name}: {finished} finished runs made in {took:.0f} s")
        for _ in range(WARM_UP):
            empty.claim_seconds()
            full.claim_seconds()
        pairs = [(full.claim_seconds(), empty.claim_seconds()) for _ in range(CLAIMS)]
        empty.close()
        full.close()
    ours, theirs = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
    say(f"{name}: {ours:.2f} ms, in an empty catalog {theirs:.2f} ms")
    return Row(name, ours, theirs, "ms", "ours / theirs", Bound(most=1.2))


@contextmanager
def _two_databases(database: str, folder: Path) -> Iterator[tuple[str, str] | None]:
    if database == "sqlite":
        yield f"sqlite:///{folder / 'empty.sqlite'}", f"sqlite:///{folder / 'full.sqlite'}"
        return
    programs = postgres_programs()
    if programs is None:
        yield None
        return
    cluster = PostgresCluster(programs)
    try:
        cluster.start()
        yield cluster.url(cluster.create()), cluster.url(cluster.create())
    finally:
        cluster.stop()


class _Claims:
    """A demonstration lab's catalog in which runs are claimed, one after the other."""

    def __init__(self, url: str, blobs: Path) -> None:
        migrate(url)
        self._catalog: Catalog = open_catalog(url, str(blobs))
        seed(self._catalog)
        self._viewer = self._catalog.members.viewer(_PERSON, actions=frozenset(Action))

    def close(self) -> None:
        self._catalog.close()

    def finished_run(self) -> tuple[str, str]:
        """Carry out one run; return it and its runner."""
        runner, _, assignment = self._one()
        return assignment.run, runner

    def claim_seconds(self) -> float:
        return self._one()[1]

    def _one(self) -> tuple[str, float, Assignment]:
        queue, runner, token = self._catalog.queue, new_id(), new_id()
        self._catalog.runs.submit(self._viewer, Submission("letter-ab-test", NAV, {}))
        hashed = hashlib.sha256(token.encode()).hexdigest()
        queue.open_runner(RunnerTicket(runner, NAV, hashed, f"bench-{runner}", "docker", "sha256:0", _now()))
        began = time.perf_counter()
        assignment = queue.claim(token, _now())
        took = time.perf_counter() - began
        if assignment is None:
            raise RuntimeError("There was no run to claim.")
        queue.finish(token, assignment.run, assignment.attempt, _RESULT, _now())
        queue.close_runner(runner)
        return runner, took, assignment


def fill(url: str, model: tuple[str, str], copies: int) -> None:
    """Copy a finished run and its runner, with all that is recorded of them, so many times."""
    engine = create_engine(normal_url(url), isolation_level="AUTOCOMMIT")
    sqlite = engine.dialect.name == "sqlite"
    quick = "PRAGMA synchronous=OFF" if sqlite else "SET session_replication_role = replica"  # no check of each key
    named = dict(zip(("run", "runner"), model, strict=True))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(quick)
            with _without_indexes(connection, sqlite):
                for table, where, changed in _COPIED:
                    _copy(connection, table, where.format(**named), changed, copies)
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)" if sqlite else "VACUUM ANALYZE")
    finally:
        engine.dispose()


def _copy(connection: Connection, table: str, where: str, changed: dict[str, str], copies: int) -> None:
    padded = "printf('%026d', i)" if connection.dialect.name == "sqlite" else "lpad(i::text, 26, '0')"
    kept = connection.exec_driver_sql(f"SELECT * FROM {table} WHERE 1 = 0").keys()  # noqa: S608
    values = {column: changed.get(column, f'"{column}"').replace("{n}", padded) for column in kept}
    values = {column: value for column, value in values.items() if value}
    columns = ", ".join(f'"{column}"' for column in values)
    numbers = f"SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {copies}"  # noqa: S608
    statement = (
        f"INSERT INTO {table} ({columns}) WITH RECURSIVE numbers(i) AS ({numbers}) "  # noqa: S608
        f"SELECT {', '.join(values.values())} FROM numbers, (SELECT * FROM {table} WHERE {where}) AS model"
    )
    connection.execute(text(statement.replace(":", "\\:")))


@contextmanager
def _without_indexes(connection: Connection, sqlite: bool) -> Iterator[None]:
    """Take the indexes away for the time being: made over all rows at once they take a fraction of the time."""
    listed = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        if sqlite
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT IN "
        "(SELECT conname FROM pg_constraint)"
    )
    indexes = connection.exec_driver_sql(listed).all()
    for name, _ in indexes:
        connection.exec_driver_sql(f'DROP INDEX "{name}"')
    yield
    for _, made_by in indexes:
        connection.exec_driver_sql(made_by)


def _now() -> datetime:
    return datetime.now(UTC)
