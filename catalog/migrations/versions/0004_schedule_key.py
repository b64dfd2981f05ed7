"""A schedule that is sent twice is made once: the key of its submission"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("schedule", sa.Column("idempotency_key", sa.String(length=255), nullable=True))
    # An index and no constraint, which SQLite adds to a table only by copying it.
    op.create_index("schedule_by_key", "schedule", ["requested_by", "idempotency_key"], unique=True)


def downgrade() -> None:
    op.drop_index("schedule_by_key", "schedule")
    op.drop_column("schedule", "idempotency_key")
