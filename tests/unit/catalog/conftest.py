from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.catalog.world import World, build_world


@pytest.fixture
def world(migrated_database_url: str, tmp_path: Path) -> Iterator[World]:
    """A small lab: once on SQLite, once on PostgreSQL."""
    built = build_world(migrated_database_url, tmp_path / "blobs")
    yield built
    built.catalog.close()
