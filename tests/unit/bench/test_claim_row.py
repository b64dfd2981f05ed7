"""The catalog that the claims are measured in: it holds what it says, and a run can be claimed in it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from bench import claim_row
from catalog.store.database import make_engine


def counts(url: str) -> dict[str, int]:
    engine = make_engine(url)
    tables = ("run", "runner", "runner_claim", "metric", "finding", "run_text", "event")
    with engine.connect() as connection:
        found = {table: connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in tables}  # noqa: S608
        by_state = "SELECT count(*) FROM run WHERE state = 'succeeded'"
        found["succeeded"] = connection.scalar(text(by_state)) or 0
        listed = "sqlite_master WHERE type = 'index'" if engine.dialect.name == "sqlite" else "pg_indexes"
        indexes = f"SELECT count(*) FROM {listed}"  # noqa: S608
        found["indexes"] = connection.scalar(text(indexes)) or 0
    engine.dispose()
    return found


def test_each_copy_has_all_that_a_finished_run_has(database_url: str, tmp_path: Path) -> None:
    claims = claim_row._Claims(database_url, tmp_path / "blobs")
    model = claims.finished_run()
    before = counts(database_url)
    claim_row.fill(database_url, model, 30)
    after = counts(database_url)
    grown = {name: after[name] - before[name] for name in before}
    assert grown == {**dict.fromkeys(before, 30), "event": 90, "indexes": 0}
    assert claims.claim_seconds() > 0
    claims.close()


def test_a_row_compares_a_full_catalog_with_an_empty_one() -> None:
    said: list[str] = []
    row = claim_row.claim_at_1m("sqlite", say=said.append, finished=100)
    assert row is not None
    assert (row.name, row.unit, row.sense) == ("claim-at-1m", "ms", "ours / theirs")
    assert row.ours > 0
    assert row.theirs
    assert "100 finished runs" in said[0]
