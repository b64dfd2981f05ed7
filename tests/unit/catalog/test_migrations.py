"""The migrations make what the tables say, on both databases, and the way back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlmodel import SQLModel

import catalog.tables  # noqa: F401 - fills the metadata
from catalog.store import current, migrate, open_catalog
from catalog.store.database import Unavailable, make_engine, normal_url
from catalog.store.schema import downgrade
from catalog.store.search import INDEX_OBJECTS
from tests.unit.catalog.world import SYSTEM


def test_an_empty_database_becomes_what_the_tables_say(database_url: str) -> None:
    assert not current(database_url)
    migrate(database_url)
    assert current(database_url)
    migrate(database_url)

    def ours(name: str | None, _kind: str, _parents: object) -> bool:
        return not any(name == made or (name or "").startswith(f"{made}_") for made in INDEX_OBJECTS)

    engine = make_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": ours})
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_the_way_back_leaves_nothing(database_url: str) -> None:
    migrate(database_url)
    downgrade(database_url, "base")
    assert not current(database_url)
    engine = make_engine(database_url)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()
    migrate(database_url)
    assert current(database_url)


def test_runners_keep_their_run_on_the_way_to_batches_and_back(database_url: str) -> None:
    migrate(database_url, "0001")
    engine = make_engine(database_url)
    insert = (
        "INSERT INTO agency (orgnr, slug, name_nb, name_nn, name_en, active, weight, max_desks, max_concurrent_runs,"
        " created_at) VALUES ('889640782', 'nav', 'NAV', '', '', true, 1, 10, 2, '2026-03-02 09:00:00')",
        "INSERT INTO runner (id, orgnr, token_sha256, sandbox, engine, image_digest, run, attempt, created_at) VALUES"
        " ('bound', '889640782', 'a', 's', 'docker', 'd', 'the-run', 2, '2026-03-02 09:00:00'),"
        " ('idle', '889640782', 'b', 's', 'docker', 'd', NULL, NULL, '2026-03-02 09:00:00')",
    )
    with engine.begin() as connection:
        for statement in insert:
            connection.exec_driver_sql(statement)
    migrate(database_url)
    with engine.connect() as connection:
        claims = connection.exec_driver_sql("SELECT runner, run, attempt, number FROM runner_claim").all()
        runners = connection.exec_driver_sql("SELECT id, claimed, spent FROM runner ORDER BY id").all()
        assert connection.exec_driver_sql("SELECT max_sweep_runs FROM agency").scalar() == 10_000
    assert [tuple(row) for row in claims] == [("bound", "the-run", 2, 1)]
    assert [(id, claimed, bool(spent)) for id, claimed, spent in runners] == [("bound", 1, True), ("idle", 0, False)]
    downgrade(database_url, "0001")
    with engine.connect() as connection:
        back = connection.exec_driver_sql("SELECT id, run, attempt FROM runner ORDER BY id").all()
    assert [tuple(row) for row in back] == [("bound", "the-run", 2), ("idle", None, None)]
    engine.dispose()


def test_several_may_migrate_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: migrate(database_url), range(4)))
    assert current(database_url)


def test_a_failing_step_changes_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog.store import search

    def broken(_: object) -> None:
        raise RuntimeError("half-way")

    monkeypatch.setattr(search, "install", broken)
    with pytest.raises(RuntimeError, match="half-way"):
        migrate(database_url)
    engine = make_engine(database_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_the_steps_are_in_the_package() -> None:
    folder = files("catalog") / "migrations"
    assert (folder / "env.py").is_file()
    assert (folder / "versions" / "0001_tables.py").is_file()


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgres://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
        ("sqlite:////srv/lab/catalog.sqlite", "sqlite:////srv/lab/catalog.sqlite"),
    ],
)
def test_addresses_get_their_driver(given: str, normal: str) -> None:
    assert normal_url(given) == normal


@pytest.mark.parametrize("url", ["", "x", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://h/d"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="database_url"):
        normal_url(url)


def test_a_database_that_does_not_answer_is_said_to_be_unavailable(tmp_path: Path) -> None:
    catalog = open_catalog("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2", str(tmp_path))
    with pytest.raises(Unavailable, match="does not answer"):
        catalog.ping()
    with pytest.raises(Unavailable):
        catalog.queue.demand()
    catalog.close()


def test_a_database_without_tables_answers_but_serves_nothing(tmp_path: Path) -> None:
    catalog = open_catalog(f"sqlite:///{tmp_path}/new/catalog.sqlite", str(tmp_path))
    catalog.ping()
    with pytest.raises(Unavailable):
        catalog.agencies.list(SYSTEM)
    catalog.close()
