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
    max_concurrent_runs: int = 2
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


class RunRow(SQLModel, table=True):
    """A run, from request to recorded result. Every field below ``state`` is written by the server alone."""

    __tablename__ = "run"
    __table_args__ = (
        UniqueConstraint("requested_by", "idempotency_key"),
        Index("run_by_agency", "orgnr", "id"),
        Index("run_by_template", "template", "id"),
        Index("run_by_experiment", "experiment", "id"),
        Index("run_by_state", "state", "id"),
        Index("run_waiting", "state", "orgnr", "id"),
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

    state: str = Field(max_length=20)
    attempt: int = 0
    reason: str | None = Field(default=None, max_length=40)
    error: dict[str, Any] | None = _json()
    cancel_requested: bool = False
    runner: str | None = Field(default=None, max_length=26)
    lease_until: datetime | None = _time(index=True)
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
    """One throw-away runner and its token's hash. ``run`` is bound by its first claim and never changes after."""

    __tablename__ = "runner"

    id: str = Field(primary_key=True, max_length=26)
    orgnr: str = Field(foreign_key="agency.orgnr", index=True, max_length=9)
    token_sha256: str = Field(unique=True, max_length=64)
    sandbox: str = Field(max_length=100)
    engine: str = Field(max_length=20)
    image_digest: str = Field(max_length=100)
    run: str | None = Field(default=None, index=True, max_length=26)
    attempt: int | None = None
    created_at: datetime = _time(nullable=False)
    closed_at: datetime | None = _time(index=True)


class Event(SQLModel, table=True):
    """The audit log: who, what, when, from where. Rows are only ever added."""

    id: str = Field(primary_key=True, max_length=26)
    at: datetime = _time(nullable=False, index=True)
    person: str = Field(index=True, max_length=255)  # "system" for the lab itself
    action: str = Field(index=True, max_length=60)  # run.submitted, template.approved, membership.ended, ...
    orgnr: str | None = Field(default=None, index=True, max_length=9)
    subject: str = Field(default="", index=True, max_length=255)
    source: str = Field(default="", max_length=60)  # web | api | cli | desk:<slug> | dispatcher | runner
    detail: dict[str, Any] | None = _json()
