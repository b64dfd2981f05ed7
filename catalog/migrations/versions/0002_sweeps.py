"""Sweeps, batches of runs, schedules, notices; and indexes that do not grow with what has ended"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from catalog.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WAITING = "state = 'queued'"
_WHERE = (
    ("run_waiting", "run", ["orgnr", "id"], _WAITING),
    ("run_waiting_alone", "run", ["orgnr", "id"], f"{_WAITING} AND sweep IS NULL"),
    ("run_waiting_of_sweep", "run", ["orgnr", "id"], f"{_WAITING} AND sweep IS NOT NULL"),
    ("run_running", "run", ["orgnr", "runner"], "state = 'running'"),
    ("schedule_due", "schedule", ["next_at"], "state = 'active'"),
    ("notice_unread", "notice", ["person", "id"], "read_at IS NULL"),
    ("outbox_due", "outbox", ["next_at"], "sent_at IS NULL AND given_up_at IS NULL"),
)


def upgrade() -> None:
    op.add_column("agency", sa.Column("max_sweep_runs", sa.Integer(), nullable=False, server_default="10000"))
    op.add_column("agency", sa.Column("max_memory", sa.BigInteger(), nullable=True))
    op.add_column("agency", sa.Column("max_cpus", sa.Float(), nullable=True))
    _sweeps_and_schedules()
    _batches()
    # In SQL, because SQLite adds a column with its reference in this form only.
    op.execute("ALTER TABLE run ADD COLUMN sweep VARCHAR(26) REFERENCES sweep (id)")
    op.add_column("run", sa.Column("point", sa.Integer(), nullable=True))
    op.add_column("run", sa.Column("stands", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.execute("ALTER TABLE run ADD COLUMN schedule VARCHAR(26) REFERENCES schedule (id)")
    op.drop_index("run_waiting", "run")
    op.drop_index("ix_run_lease_until", "run")
    op.create_index("run_by_sweep", "run", ["sweep", "stands", "state", "id"])
    op.create_index("run_by_schedule", "run", ["schedule", "id"])
    op.create_index("run_by_version", "run", ["template", "version", "state", "id"])
    _notices()
    for name, table, columns, where in _WHERE:
        op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    for name in ("ix_event_at", "ix_event_action", "ix_event_orgnr", "ix_event_subject"):
        op.drop_index(name, "event")
    op.create_index("event_by_agency", "event", ["orgnr", "id"])
    op.create_index("event_by_subject", "event", ["subject", "id"])


def _sweeps_and_schedules() -> None:
    op.create_table(
        "sweep",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("experiment", sa.String(length=26), nullable=True),
        sa.Column("template", sa.String(length=60), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("template_digest", sa.String(length=71), nullable=False),
        sa.Column("request", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("varied", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("timeout_seconds", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("idempotency_key", sa.String(length=255), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("tally", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["orgnr"], ["agency.orgnr"]),
        sa.ForeignKeyConstraint(["experiment"], ["experiment.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("requested_by", "idempotency_key"),
    )
    op.create_index("sweep_by_agency", "sweep", ["orgnr", "id"])
    op.create_index("sweep_by_template", "sweep", ["template", "id"])
    op.create_index("sweep_by_experiment", "sweep", ["experiment", "id"])
    op.create_index("ix_sweep_ended_at", "sweep", ["ended_at"])
    op.create_table(
        "schedule",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("experiment", sa.String(length=26), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("template", sa.String(length=60), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=True),
        sa.Column("parameters", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("time_parameter", sa.String(length=200), nullable=True),
        sa.Column("timeout_seconds", sa.Integer(), nullable=True),
        sa.Column("cron", sa.String(length=100), nullable=False),
        sa.Column("zone", sa.String(length=60), nullable=False),
        sa.Column("catch_up", sa.String(length=10), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("stop_reason", sa.String(length=40), nullable=True),
        sa.Column("requested_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=True),
        sa.Column("last_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["orgnr"], ["agency.orgnr"]),
        sa.ForeignKeyConstraint(["experiment"], ["experiment.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("schedule_by_agency", "schedule", ["orgnr", "id"])
    op.create_index("schedule_by_experiment", "schedule", ["experiment"])
    op.create_table(
        "firing",
        sa.Column("schedule", sa.String(length=26), nullable=False),
        sa.Column("scheduled_at", UtcDateTime(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("by_hand", sa.Boolean(), nullable=False),
        sa.Column("run", sa.String(length=26), nullable=True),
        sa.Column("left_out", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["schedule"], ["schedule.id"]),
        sa.PrimaryKeyConstraint("schedule", "scheduled_at"),
    )
    op.create_index("ix_firing_run", "firing", ["run"])


def _batches() -> None:
    """A runner was bound to one run; now it claims several, each kept in a row of its own."""
    op.create_table(
        "runner_claim",
        sa.Column("runner", sa.String(length=26), nullable=False),
        sa.Column("run", sa.String(length=26), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["runner"], ["runner.id"]),
        sa.PrimaryKeyConstraint("runner", "run"),
    )
    op.execute(
        "INSERT INTO runner_claim (runner, run, attempt, number)"
        " SELECT id, run, attempt, 1 FROM runner WHERE run IS NOT NULL"
    )
    op.add_column("runner", sa.Column("slots", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("runner", sa.Column("batch_limit", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("runner", sa.Column("claimed", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("runner", sa.Column("sweep", sa.String(length=26), nullable=True))
    op.add_column("runner", sa.Column("spent", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute("UPDATE runner SET claimed = 1, spent = true WHERE run IS NOT NULL")
    op.drop_index("ix_runner_run", "runner")
    op.drop_column("runner", "run")
    op.drop_column("runner", "attempt")


def _notices() -> None:
    op.create_table(
        "person_settings",
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("mail", sa.String(length=254), nullable=False),
        sa.Column("wish", sa.String(length=20), nullable=False),
        sa.Column("language", sa.String(length=2), nullable=False),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("person"),
    )
    op.create_table(
        "notice",
        sa.Column("id", sa.String(length=26), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("orgnr", sa.String(length=9), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("subject", sa.String(length=26), nullable=False),
        sa.Column("occasion", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("template", sa.String(length=60), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("read_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["orgnr"], ["agency.orgnr"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("subject", "occasion", "person"),
    )
    op.create_index("notice_by_person", "notice", ["person", "id"])
    op.create_table(
        "outbox",
        sa.Column("notice", sa.String(length=26), nullable=False),
        sa.Column("address", sa.String(length=254), nullable=False),
        sa.Column("language", sa.String(length=2), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.Column("sent_at", UtcDateTime(), nullable=True),
        sa.Column("given_up_at", UtcDateTime(), nullable=True),
        sa.Column("fault", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["notice"], ["notice.id"]),
        sa.PrimaryKeyConstraint("notice"),
    )


def downgrade() -> None:
    for name in ("event_by_agency", "event_by_subject"):
        op.drop_index(name, "event")
    for column in ("at", "action", "orgnr", "subject"):
        op.create_index(f"ix_event_{column}", "event", [column])
    for name, table, _, _ in _WHERE:
        op.drop_index(name, table)
    op.drop_table("outbox")
    op.drop_table("notice")
    op.drop_table("person_settings")
    for name in ("run_by_sweep", "run_by_schedule", "run_by_version"):
        op.drop_index(name, "run")
    for column in ("schedule", "stands", "point", "sweep"):
        op.drop_column("run", column)
    op.create_index("ix_run_lease_until", "run", ["lease_until"])
    op.create_index("run_waiting", "run", ["state", "orgnr", "id"])
    op.add_column("runner", sa.Column("run", sa.String(length=26), nullable=True))
    op.add_column("runner", sa.Column("attempt", sa.Integer(), nullable=True))
    first = "FROM runner_claim AS c WHERE c.runner = runner.id AND c.number = 1"
    op.execute(f"UPDATE runner SET run = (SELECT c.run {first}), attempt = (SELECT c.attempt {first})")  # noqa: S608
    op.create_index("ix_runner_run", "runner", ["run"])
    for column in ("spent", "sweep", "claimed", "batch_limit", "slots"):
        op.drop_column("runner", column)
    for table in ("runner_claim", "firing", "schedule", "sweep"):
        op.drop_table(table)
    for column in ("max_cpus", "max_memory", "max_sweep_runs"):
        op.drop_column("agency", column)
