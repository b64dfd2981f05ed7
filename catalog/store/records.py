"""What the store hands out and takes in: frozen values, never rows of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Generic, TypeVar

from experiments.model import CellError, Metric, Reason, RunState, Scalar, Table
from lab_templates.model import TemplateState, TemplateVersion, Text

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing, and the cursor of the next (None at the end)."""

    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class AgencyRecord:
    orgnr: str
    slug: str
    name: Text
    active: bool = True
    weight: int = 1
    max_desks: int = 10
    max_concurrent_runs: int = 2


@dataclass(frozen=True, slots=True)
class MemberRecord:
    id: str
    person: str
    agency: str  # "" for an admin of the lab
    role: str
    kind: str
    starts: date
    ends: date | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """A template version and where it stands."""

    version: TemplateVersion
    state: TemplateState
    published_by: str
    published_at: datetime
    approved_by: str | None = None
    approved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExperimentRecord:
    id: str
    agency: str
    title: str
    summary: str
    language: str
    visibility: str  # agency | lab | public
    embargo_until: date | None
    status: str
    created_by: str
    created_at: datetime
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """What somebody asks for, before anything is checked: ``parameters`` are raw."""

    template: str
    agency: str
    parameters: Mapping[str, object]
    version: str | None = None  # None: the newest published
    experiment: str | None = None
    timeout_seconds: object = None  # None: the template's own
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class FigureInfo:
    name: str
    mime: str
    sha256: str
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as the catalog remembers it. Listings leave ``tables``, ``figures`` and ``tail`` empty."""

    id: str
    agency: AgencyRecord
    template: str
    template_title: Text
    version: str
    template_digest: str
    parameters: Mapping[str, Scalar]
    experiment: str | None
    state: RunState
    reason: Reason | None
    error: CellError | None
    attempt: int
    max_attempts: int
    timeout_seconds: int
    requested_by: str
    retry_of: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None
    cells_done: int
    cells_total: int
    tail: str
    engine: str | None
    image_digest: str | None
    notebook_sha256: str | None
    notices: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    findings: tuple[str, ...] = ()
    figures: tuple[FigureInfo, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long the last attempt took, never negative; None before it ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class RunFilter:
    agency: str | None = None
    template: str | None = None
    state: RunState | None = None
    experiment: str | None = None
    q: str | None = None  # words that must all occur in title, findings, agency or requester


@dataclass(frozen=True, slots=True)
class EventRecord:
    id: str
    at: datetime
    person: str
    action: str
    agency: str | None
    subject: str
    source: str
    detail: Mapping[str, object] = field(default_factory=dict)
