"""A run of a sweep whose attempt was lost goes alone: the indexes of what waits follow"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_WAITING = "state = 'queued'"
_NOW = {
    "run_waiting_alone": f"{_WAITING} AND (sweep IS NULL OR attempt > 0)",
    "run_waiting_of_sweep": f"{_WAITING} AND sweep IS NOT NULL AND attempt = 0",
}
_BEFORE = {
    "run_waiting_alone": f"{_WAITING} AND sweep IS NULL",
    "run_waiting_of_sweep": f"{_WAITING} AND sweep IS NOT NULL",
}


def upgrade() -> None:
    _replace(_NOW)


def downgrade() -> None:
    _replace(_BEFORE)


def _replace(indexes: dict[str, str]) -> None:
    for name, where in indexes.items():
        op.drop_index(name, "run")
        op.create_index(name, "run", ["orgnr", "id"], sqlite_where=sa.text(where), postgresql_where=sa.text(where))
