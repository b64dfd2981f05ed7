"""The database's shape, step by step (Alembic). The revisions lie in ``catalog/migrations``."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from catalog.store.database import make_engine

_LOCK = 0x50524F56  # any number of our own; PostgreSQL's advisory lock of whoever migrates


def migrate(database_url: str, revision: str = "head") -> None:
    """Bring the database to a revision, making its tables if it is empty. Several processes may call it at once.

    All steps are one transaction: a failure changes nothing. Raise ValueError for an address that cannot be used.
    """
    engine = make_engine(database_url).execution_options(catalog_writes=True)
    try:
        with engine.begin() as connection:
            _alone(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        engine.dispose()


def downgrade(database_url: str, revision: str) -> None:
    """Go back to a revision (``base``: no tables). What the later steps added is lost."""
    engine = make_engine(database_url).execution_options(catalog_writes=True)
    try:
        with engine.begin() as connection:
            _alone(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.downgrade(config, revision)
    finally:
        engine.dispose()


def current(database_url: str) -> bool:
    """Say whether the database is at the newest revision."""
    engine = make_engine(database_url)
    try:
        with engine.connect() as connection:
            heads = set(MigrationContext.configure(connection).get_current_heads())
        return heads == set(ScriptDirectory.from_config(_config()).get_heads())
    finally:
        engine.dispose()


def _alone(connection: Connection) -> None:
    """Wait until nobody else migrates. On SQLite the transaction itself holds the only write lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "catalog:migrations")
    return config
