"""The catalog's tables"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from catalog.store import search
from catalog.tables import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agency",
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("slug", sa.String(length=20), nullable=False),
        sa.Column("name_nb", sa.Text(), nullable=False),
        sa.Column("name_nn", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("max_desks", sa.Integer(), nullable=False),
        sa.Column("max_concurrent_runs", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("orgnr"),
        sa.UniqueConstraint("slug"),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=True),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("source", sa.String(length=60), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_event_action", "event", ["action"])
    op.create_index("ix_event_at", "event", ["at"])
    op.create_index("ix_event_orgnr", "event", ["orgnr"])
    op.create_index("ix_event_person", "event", ["person"])
    op.create_index("ix_event_subject", "event", ["subject"])
    op.create_table(
        "membership",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("starts", sa.Date(), nullable=False),
        sa.Column("ends", sa.Date(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_membership_orgnr", "membership", ["orgnr"])
    op.create_index("ix_membership_person", "membership", ["person"])
    op.create_table(
        "template_version",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=60), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("title", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("summary", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("notebook", sa.LargeBinary(), nullable=False),
        sa.Column("declaration", sa.LargeBinary(), nullable=False),
        sa.Column("readme", sa.Text(), nullable=False),
        sa.Column("published_by", sa.String(length=255), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=False),
        sa.Column("approved_by", sa.String(length=255), nullable=True),
        sa.Column("approved_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name", "version"),
    )
    op.create_index("ix_template_version_name", "template_version", ["name"])
    op.create_index("ix_template_version_state", "template_version", ["state"])
    op.create_table(
        "experiment",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("language", sa.String(length=2), nullable=False),
        sa.Column("visibility", sa.String(length=10), nullable=False),
        sa.Column("embargo_until", sa.Date(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["orgnr"], ["agency.orgnr"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_experiment_orgnr", "experiment", ["orgnr"])
    op.create_index("ix_experiment_status", "experiment", ["status"])
    op.create_index("ix_experiment_visibility", "experiment", ["visibility"])
    op.create_table(
        "runner",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("sandbox", sa.String(length=100), nullable=False),
        sa.Column("engine", sa.String(length=20), nullable=False),
        sa.Column("image_digest", sa.String(length=100), nullable=False),
        sa.Column("run", sa.String(length=26), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("closed_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["orgnr"], ["agency.orgnr"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_sha256"),
    )
    op.create_index("ix_runner_closed_at", "runner", ["closed_at"])
    op.create_index("ix_runner_orgnr", "runner", ["orgnr"])
    op.create_index("ix_runner_run", "runner", ["run"])
    op.create_table(
        "run",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("experiment", sa.String(length=26), nullable=True),
        sa.Column("template", sa.String(length=60), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("template_digest", sa.String(length=71), nullable=False),
        sa.Column("parameters", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("retry_of", sa.String(length=26), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("runner", sa.String(length=26), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("started_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("deadline_at", UtcDateTime(), nullable=True),
        sa.Column("cells_done", sa.Integer(), nullable=False),
        sa.Column("cells_total", sa.Integer(), nullable=False),
        sa.Column("tail", sa.Text(), nullable=False),
        sa.Column("engine", sa.String(length=20), nullable=True),
        sa.Column("image_digest", sa.String(length=100), nullable=True),
        sa.Column("notebook_sha256", sa.String(length=64), nullable=True),
        sa.Column("notebook_bytes", sa.BigInteger(), nullable=True),
        sa.Column("notices", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["experiment"], ["experiment.id"]),
        sa.ForeignKeyConstraint(["orgnr"], ["agency.orgnr"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("requested_by", "idempotency_key"),
    )
    op.create_index("ix_run_lease_until", "run", ["lease_until"])
    op.create_index("run_by_agency", "run", ["orgnr", "id"])
    op.create_index("run_by_experiment", "run", ["experiment", "id"])
    op.create_index("run_by_template", "run", ["template", "id"])
    op.create_index("run_by_state", "run", ["state", "id"])
    op.create_index("run_waiting", "run", ["state", "orgnr", "id"])
    op.create_table(
        "figure",
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("mime", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("caption", sa.Text(), nullable=False),
        sa.Column("alt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sa.PrimaryKeyConstraint("run", "name"),
    )
    op.create_table(
        "finding",
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sa.PrimaryKeyConstraint("run", "position"),
    )
    op.create_table(
        "metric",
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("unit", sa.String(length=60), nullable=False),
        sa.Column("ci_low", sa.Float(), nullable=True),
        sa.Column("ci_high", sa.Float(), nullable=True),
        sa.Column("better", sa.String(length=10), nullable=True),
        sa.Column("flag", sa.String(length=10), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sa.PrimaryKeyConstraint("run", "name"),
    )
    op.create_index("metric_by_value", "metric", ["name", "value"])
    op.create_table(
        "result_table",
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("columns", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("rows", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("caption", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sa.PrimaryKeyConstraint("run", "name"),
    )
    op.create_table(
        "run_text",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.id"]),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("run"),
    )
    search.install(op.get_bind())


def downgrade() -> None:
    search.remove(op.get_bind())
    op.drop_table("run_text")
    op.drop_table("result_table")
    op.drop_table("metric")
    op.drop_table("finding")
    op.drop_table("figure")
    op.drop_table("run")
    op.drop_table("runner")
    op.drop_table("experiment")
    op.drop_table("template_version")
    op.drop_table("membership")
    op.drop_table("event")
    op.drop_table("agency")
