"""The catalog's tables. Times are UTC with a zone on every database; JSON columns hold plain JSON."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time. SQLite keeps no zone, so it is taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone. Give an aware datetime in UTC.")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _time(nullable: bool = True, index: bool = False) -> Any:
    return Field(default=None, sa_column=Column(UtcDateTime(), nullable=nullable, index=index))


def _json() -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


def _text(default: str = "") -> Any:
    return Field(default=default, sa_column=Column(Text, nullable=False))


def _index_where(name: str, columns: tuple[str, ...], where: str) -> Index:
    """Return an index of the rows that fulfil ``where``. A query uses it that says the same, word for word."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Agency(SQLModel, table=True):
    """A public agency. ``slug`` names its network, volumes and desks: 1-20 lowercase letters, digits, hyphens."""

    orgnr: str = Field(primary_key=True, max_length=9)
    slug: str = Field(unique=True, max_length=20)
    name_nb: str = _text()
    name_nn: str = _text()
    name_en: str = _text()
    active: bool = True
    weight: int = 1
    max_desks: int = 10
    max_concurrent_runs: int = 8
    max_sweep_runs: int = 10_000
    max_memory: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))  # bytes; None: no limit
    max_cpus: float | None = None  # cores; None: no limit
    created_at: datetime = _time(nullable=False)


class Membership(SQLModel, table=True):
    """One person's place in one agency, from ``starts`` to ``ends``, both inclusive. A lab admin has no ``orgnr``."""

    id: str = Field(primary_key=True, max_length=26)
    person: str = Field(index=True, max_length=255)
    orgnr: str = Field(default="", index=True, max_length=9)
    role: str  # member | coordinator | leader | admin
    kind: str = "employed"  # employed | seconded
    starts: date
    ends: date | None = None
    created_at: datetime = _time(nullable=False)


class TemplateVersionRow(SQLModel, table=True):
    """An immutable published version; only ``state`` and the approval move."""

    __tablename__ = "template_version"
    __table_args__ = (UniqueConstraint("name", "version"),)

    id: str = Field(primary_key=True, max_length=26)
    name: str = Field(index=True, max_length=60)
    version: str = Field(max_length=40)
    digest: str = Field(max_length=71)
    state: str = Field(index=True, max_length=20)
    title: dict[str, str] = _json()
    summary: dict[str, str] = _json()
    notebook: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    declaration: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    readme: str = _text()
    published_by: str = Field(max_length=255)
    published_at: datetime = _time(nullable=False)
    approved_by: str | None = Field(default=None, max_length=255)
    approved_at: datetime | None = _time()


class Experiment(SQLModel, table=True):
    """The learning record; runs hang below it. Visibility: agency, lab, public (not before ``embargo_until``)."""

    id: str = Field(primary_key=True, max_length=26)
    orgnr: str = Field(index=True, foreign_key="agency.orgnr", max_length=9)
    title: str = _text()
    summary: str = _text()
    language: str = Field(default="nb", max_length=2)
    visibility: str = Field(default="agency", index=True, max_length=10)
    embargo_until: date | None = None
    status: str = Field(default="draft", index=True, max_length=20)
    created_by: str = Field(max_length=255)
    created_at: datetime = _time(nullable=False)


class SweepRow(SQLModel, table=True):
    """One request for many runs of one template version. Its state is that of its runs."""

    __tablename__ = "sweep"
    __table_args__ = (
        UniqueConstraint("requested_by", "idempotency_key"),
        Index("sweep_by_agency", "orgnr", "id"),
        Index("sweep_by_template", "template", "id"),
        Index("sweep_by_experiment", "experiment", "id"),
    )

    id: str = Field(primary_key=True, max_length=26)
    orgnr: str = Field(foreign_key="agency.orgnr", max_length=9)
    experiment: str | None = Field(default=None, foreign_key="experiment.id", max_length=26)
    template: str = Field(max_length=60)
    version: str = Field(max_length=40)
    template_digest: str = Field(max_length=71)
    request: dict[str, Any] = _json()  # as it was asked for
    size: int  # points
    duplicates: int = 0
    varied: list[str] = _json()
    timeout_seconds: int
    requested_by: str = Field(max_length=255)
    idempotency_key: str | None = Field(default=None, max_length=255)
    created_at: datetime = _time(nullable=False)
    rounds: int = 1  # 1 + how often it was resumed
    cancel_requested: bool = False
    ended_at: datetime | None = _time(index=True)
    tally: dict[str, int] | None = _json()  # points by state, once it has ended


class RunRow(SQLModel, table=True):
    """A run, from request to recorded result. Every field below ``state`` is written by the server alone."""

    __tablename__ = "run"
    # What waits and what runs is found by indexes that hold nothing else: they stay as small as the work at hand,
    # however many runs have ended.
    __table_args__ = (
        UniqueConstraint("requested_by", "idempotency_key"),
        Index("run_by_agency", "orgnr", "id"),
        Index("run_by_template", "template", "id"),
        Index("run_by_experiment", "experiment", "id"),
        Index("run_by_state", "state", "id"),
        Index("run_by_sweep", "sweep", "stands", "state", "id"),
        Index("run_by_schedule", "schedule", "id"),
        Index("run_by_version", "template", "version", "state", "id"),
        _index_where("run_waiting", ("orgnr", "id"), "state = 'queued'"),
        _index_where("run_waiting_alone", ("orgnr", "id"), "state = 'queued' AND (sweep IS NULL OR attempt > 0)"),
        _index_where("run_waiting_of_sweep", ("orgnr", "id"), "state = 'queued' AND sweep IS NOT NULL AND attempt = 0"),
        _index_where("run_running", ("orgnr", "runner"), "state = 'running'"),
    )

    id: str = Field(primary_key=True, max_length=26)  # a ULID: sorts by time of creation
    orgnr: str = Field(foreign_key="agency.orgnr", max_length=9)
    experiment: str | None = Field(default=None, foreign_key="experiment.id", max_length=26)
    template: str = Field(max_length=60)
    version: str = Field(max_length=40)
    template_digest: str = Field(max_length=71)
    parameters: dict[str, Any] = _json()
    timeout_seconds: int
    max_attempts: int
    requested_by: str = Field(max_length=255)
    idempotency_key: str | None = Field(default=None, max_length=255)
    created_at: datetime = _time(nullable=False)
    retry_of: str | None = Field(default=None, max_length=26)
    sweep: str | None = Field(default=None, foreign_key="sweep.id", max_length=26)
    point: int | None = None  # which point of its sweep, from 0
    stands: bool = True  # False for a run of a sweep whose point has a newer run
    schedule: str | None = Field(default=None, foreign_key="schedule.id", max_length=26)

    state: str = Field(max_length=20)
    attempt: int = 0
    reason: str | None = Field(default=None, max_length=40)
    error: dict[str, Any] | None = _json()
    cancel_requested: bool = False
    runner: str | None = Field(default=None, max_length=26)
    lease_until: datetime | None = _time()
    started_at: datetime | None = _time()
    ended_at: datetime | None = _time()
    deadline_at: datetime | None = _time()
    cells_done: int = 0
    cells_total: int = 0
    tail: str = _text()
    engine: str | None = Field(default=None, max_length=20)
    image_digest: str | None = Field(default=None, max_length=100)
    notebook_sha256: str | None = Field(default=None, max_length=64)
    notebook_bytes: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    notices: list[str] | None = _json()


class MetricRow(SQLModel, table=True):
    __tablename__ = "metric"
    __table_args__ = (Index("metric_by_value", "name", "value"),)

    run: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    name: str = Field(primary_key=True, max_length=200)
    position: int
    value: float | None = None
    unit: str = Field(default="", max_length=60)
    ci_low: float | None = None
    ci_high: float | None = None
    better: str | None = Field(default=None, max_length=10)
    flag: str | None = Field(default=None, max_length=10)


class FigureRow(SQLModel, table=True):
    __tablename__ = "figure"

    run: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    name: str = Field(primary_key=True, max_length=200)
    position: int
    mime: str = Field(max_length=40)
    sha256: str = Field(max_length=64)
    caption: str = _text()
    alt: str = _text()


class TableRow(SQLModel, table=True):
    __tablename__ = "result_table"

    run: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    name: str = Field(primary_key=True, max_length=200)
    position: int
    columns: list[str] = _json()
    rows: list[list[Any]] = _json()
    caption: str = _text()


class FindingRow(SQLModel, table=True):
    __tablename__ = "finding"

    run: str = Field(primary_key=True, foreign_key="run.id", max_length=26)
    position: int = Field(primary_key=True)
    text: str = _text()


class RunText(SQLModel, table=True):
    """The words a run is found by, folded and parted by spaces; ``store.search`` indexes them for full text."""

    __tablename__ = "run_text"

    number: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    )
    run: str = Field(foreign_key="run.id", unique=True, max_length=26)
    words: str = _text()


class RunnerRow(SQLModel, table=True):
    """One throw-away runner and its token's hash. ``spent`` runners claim no more (see ``experiments.queue``)."""

    __tablename__ = "runner"

    id: str = Field(primary_key=True, max_length=26)
    orgnr: str = Field(foreign_key="agency.orgnr", index=True, max_length=9)
    token_sha256: str = Field(unique=True, max_length=64)
    sandbox: str = Field(max_length=100)
    engine: str = Field(max_length=20)
    image_digest: str = Field(max_length=100)
    slots: int = 1
    batch_limit: int = 1
    claimed: int = 0  # runs so far
    sweep: str | None = Field(default=None, max_length=26)  # the sweep that its first claim bound it to
    spent: bool = False
    created_at: datetime = _time(nullable=False)
    closed_at: datetime | None = _time(index=True)


class RunnerClaim(SQLModel, table=True):
    """Which attempt of which run a runner has claimed: what it may report on, whatever became of the run since."""

    __tablename__ = "runner_claim"

    runner: str = Field(primary_key=True, foreign_key="runner.id", max_length=26)
    run: str = Field(primary_key=True, max_length=26)
    attempt: int
    number: int  # from 1, in the order of the claims


class ScheduleRow(SQLModel, table=True):
    """A run that is asked for again and again, at the times of a cron expression in a time zone."""

    __tablename__ = "schedule"
    __table_args__ = (
        Index("schedule_by_agency", "orgnr", "id"),
        Index("schedule_by_experiment", "experiment"),
        Index("schedule_by_key", "requested_by", "idempotency_key", unique=True),
        _index_where("schedule_due", ("next_at",), "state = 'active'"),
    )

    id: str = Field(primary_key=True, max_length=26)
    orgnr: str = Field(foreign_key="agency.orgnr", max_length=9)
    experiment: str | None = Field(default=None, foreign_key="experiment.id", max_length=26)
    title: str = _text()
    template: str = Field(max_length=60)
    version: str | None = Field(default=None, max_length=40)  # None: the newest published at the time
    parameters: dict[str, Any] = _json()  # as given, bound anew for each run
    time_parameter: str | None = Field(default=None, max_length=200)
    timeout_seconds: int | None = None
    cron: str = Field(max_length=100)
    zone: str = Field(max_length=60)
    catch_up: str = Field(max_length=10)
    state: str = Field(max_length=20)  # active | paused | stopped | removed
    stop_reason: str | None = Field(default=None, max_length=40)
    requested_by: str = Field(max_length=255)
    idempotency_key: str | None = Field(default=None, max_length=255)
    created_at: datetime = _time(nullable=False)
    next_at: datetime | None = _time()
    last_at: datetime | None = _time()


class Firing(SQLModel, table=True):
    """One time of one schedule: its key is why no schedule fires twice for one time."""

    __tablename__ = "firing"

    schedule: str = Field(primary_key=True, foreign_key="schedule.id", max_length=26)
    scheduled_at: datetime = Field(sa_column=Column(UtcDateTime(), primary_key=True))
    at: datetime = _time(nullable=False)
    by_hand: bool = False
    run: str | None = Field(default=None, index=True, max_length=26)
    left_out: int = 0  # earlier times that were missed and not made up for


class PersonSettings(SQLModel, table=True):
    """What a person has chosen. Whoever has no row has chosen nothing."""

    __tablename__ = "person_settings"

    person: str = Field(primary_key=True, max_length=255)
    mail: str = Field(default="", max_length=254)
    wish: str = Field(max_length=20)
    language: str = Field(default="nb", max_length=2)
    changed_at: datetime = _time(nullable=False)


class NoticeRow(SQLModel, table=True):
    """Something that ended, told to whoever asked for it; ``occasion`` tells apart what can end again."""

    __tablename__ = "notice"
    __table_args__ = (
        UniqueConstraint("subject", "occasion", "person"),
        Index("notice_by_person", "person", "id"),
        _index_where("notice_unread", ("person", "id"), "read_at IS NULL"),
    )

    id: str = Field(primary_key=True, max_length=26)
    person: str = Field(max_length=255)
    orgnr: str = Field(foreign_key="agency.orgnr", max_length=9)
    at: datetime = _time(nullable=False)
    kind: str = Field(max_length=20)  # run | sweep | schedule
    subject: str = Field(max_length=26)
    occasion: int = 1
    state: str = Field(max_length=20)
    template: str = Field(max_length=60)
    version: str = Field(default="", max_length=40)
    detail: dict[str, Any] | None = _json()
    read_at: datetime | None = _time()


class Outbox(SQLModel, table=True):
    """An e-mail that is to be sent: one for a notice, made in the notice's own transaction."""

    __tablename__ = "outbox"
    __table_args__ = (_index_where("outbox_due", ("next_at",), "sent_at IS NULL AND given_up_at IS NULL"),)

    notice: str = Field(primary_key=True, foreign_key="notice.id", max_length=26)
    address: str = Field(max_length=254)
    language: str = Field(max_length=2)
    created_at: datetime = _time(nullable=False)
    attempts: int = 0
    next_at: datetime = _time(nullable=False)
    sent_at: datetime | None = _time()
    given_up_at: datetime | None = _time()
    fault: str = _text()


class Event(SQLModel, table=True):
    """The audit log: who, what, when, from where. Rows are only ever added, and their ids sort by time."""

    __table_args__ = (Index("event_by_agency", "orgnr", "id"), Index("event_by_subject", "subject", "id"))

    id: str = Field(primary_key=True, max_length=26)
    at: datetime = _time(nullable=False)
    person: str = Field(index=True, max_length=255)  # "system" for the lab itself
    action: str = Field(max_length=60)  # run.submitted, template.approved, membership.ended, ...
    orgnr: str | None = Field(default=None, max_length=9)
    subject: str = Field(default="", max_length=255)
    source: str = Field(default="", max_length=60)  # web | api | cli | desk:<slug> | dispatcher | runner
    detail: dict[str, Any] | None = _json()
