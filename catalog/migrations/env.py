"""What Alembic runs: the revisions over the connection that ``migrate`` hands in, in its transaction."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import catalog.tables  # noqa: F401 - fills the metadata
from catalog.store.search import INDEX_OBJECTS


def ours(name: str | None, type_: str, parents: object) -> bool:  # noqa: ARG001 - Alembic's signature
    """Leave out what the full-text index keeps of its own."""
    return not any(name == made or (name or "").startswith(f"{made}_") for made in INDEX_OBJECTS)


def run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is None:
        raise RuntimeError("Migrations run through catalog.store.migrate(database_url), not by alembic's command.")
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        include_name=ours,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        compare_type=True,
    )
    context.run_migrations()


run()
