"""The database behind the store: one engine, short transactions, and one error when it cannot be reached.

Nothing here relies on the isolation level. A writer on SQLite takes the write lock when it begins (``BEGIN
IMMEDIATE``), so it never fails half-way with a stale snapshot; on PostgreSQL it is READ COMMITTED, with rows locked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, CursorResult, Engine, Result, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

BUSY_SECONDS = 20.0  # how long a writer waits for SQLite's one write lock


class Unavailable(Exception):
    """The database cannot be reached or cannot write. Nothing was acknowledged; the same call may be made again."""


class _Cursor(Protocol):
    def execute(self, sql: str, /) -> Any: ...
    def close(self) -> None: ...


class _RawConnection(Protocol):
    isolation_level: str | None

    def cursor(self) -> _Cursor: ...
    def create_function(self, name: str, narg: int, func: Any, /, *, deterministic: bool = False) -> None: ...


def normal_url(database_url: str) -> str:
    """Return the address with its driver: ``postgresql://`` means psycopg 3. Raise ValueError for other databases."""
    try:
        url = make_url(database_url)
    except Exception as error:
        raise ValueError("database_url is not an address like sqlite:////srv/lab/catalog.sqlite.") from error
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ValueError(f"database_url is for {url.drivername!r}. Use sqlite:///<file> or postgresql://….")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("database_url names no file. An in-memory catalog would be forgotten: use sqlite:///<file>.")
    return url.render_as_string(hide_password=False)


def make_engine(database_url: str) -> Engine:
    """Return an engine for a SQLite file or a PostgreSQL database; nothing is connected yet. Raise ValueError."""
    url = make_url(normal_url(database_url))
    # NaN is not JSON: PostgreSQL would refuse it, so it must not get into SQLite either.
    shared: dict[str, Any] = {
        "json_serializer": lambda value: json.dumps(value, allow_nan=False, separators=(",", ":"))
    }
    if url.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, **shared)
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_size=10, max_overflow=50, **shared)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: _RawConnection, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin on its own: _begin_sqlite does
    # SQLite's own lower() knows ASCII only; without this "Åse" is not found as "åse".
    connection.create_function("lower", 1, lambda v: v.lower() if isinstance(v, str) else v, deterministic=True)
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("catalog_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Database:
    """The catalog's database. ``read`` and ``write`` give a session for one transaction."""

    def __init__(self, database_url: str) -> None:
        self.engine = make_engine(database_url)
        self._writer = self.engine.execution_options(catalog_writes=True)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that reads one snapshot and is rolled back. Raise Unavailable."""
        with _unavailable(), Session(self.engine, autoflush=False, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed when the block ends, rolled back when it raises. Raise Unavailable.

        Only when this returns may anything be acknowledged.
        """
        with _unavailable(), Session(self._writer, autoflush=False, expire_on_commit=False) as session, session.begin():
            yield session

    def ping(self) -> None:
        """Return if the database answers. Raise Unavailable."""
        with self.read() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give all connections back. The database can be used again afterwards."""
        self.engine.dispose()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise Unavailable(f"The catalog's database does not answer: {_first_line(error)}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(f"The catalog's database went away: {_first_line(error)}") from error
        raise


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).splitlines() or [type(cause).__name__])[0]


def changed(result: Result[Any]) -> int:
    """Return how many rows an update, insert or delete touched."""
    return result.rowcount if isinstance(result, CursorResult) else 0
