"""The database's queue keeps every promise of the contract, and a few that only a database can break."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, func, select, text, update
from sqlmodel import col

from catalog.store import Catalog, RunLimits, open_catalog
from catalog.store.run_rows import add_run, queue_run
from catalog.tables import Event, MetricRow, RunRow, TemplateVersionRow
from experiments.model import Figure, Metric, Progress, Reason, Run, RunRequest, RunResult, RunState, Table
from experiments.queue import LeaseLost, TokenRefused
from experiments.testing import FakeClock
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
)
from lab_templates.checks import read_template


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
            return queue_run(add_run(session, wanted, contract.T0, max_attempts=max_attempts))

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
