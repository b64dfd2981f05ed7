"""What the store hands out and takes in: frozen values, never rows of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Generic, TypeVar

from experiments.model import CellError, Metric, Reason, RunState, Scalar, Table
from experiments.notices import NoticeKind, Wish
from experiments.schedules import DEFAULT_ZONE, CatchUp, ScheduleState, StopReason
from experiments.sensitivity import Effect
from experiments.sweeps import SweepRequest
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
    max_concurrent_runs: int = 8
    max_sweep_runs: int = 10_000  # runs of one sweep
    max_memory: int | None = None  # of all its runners together, in bytes; None: no limit of its own
    max_cpus: float | None = None  # likewise, in cores


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
    sweep: str | None = None
    point: int | None = None  # of its sweep, from 0
    schedule: str | None = None

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
    sweep: str | None = None
    schedule: str | None = None
    q: str | None = None  # words that must all occur in title, findings, agency or requester


class SweepState(StrEnum):
    """Where a sweep is: what its runs make it."""

    QUEUED = "queued"  # nothing of it has started
    RUNNING = "running"
    SUCCEEDED = "succeeded"  # every point
    PARTIAL = "partial"  # some points
    FAILED = "failed"  # no point
    CANCELLED = "cancelled"  # ended early by a person, whatever had succeeded by then

    @property
    def ended(self) -> bool:
        return self not in (SweepState.QUEUED, SweepState.RUNNING)


@dataclass(frozen=True, slots=True)
class SweepSubmission:
    """What somebody asks for, before anything is checked."""

    template: str
    agency: str
    sweep: SweepRequest
    version: str | None = None  # None: the newest published
    experiment: str | None = None
    timeout_seconds: object = None  # None: the template's own
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a sweep would be. ``seconds`` is None where no earlier run says how long one takes.

    ``runs`` is without ``duplicates``. ``seconds_each`` is the median of earlier runs of this template version,
    ``concurrent`` how many runs of the agency run at once, ``ahead`` how many wait or run there already.
    """

    agency: str
    template: str
    version: str
    runs: int
    duplicates: int
    varied: tuple[str, ...]
    limit: int
    concurrent: int
    ahead: int
    seconds_each: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """A sweep as it is now. ``counts`` says how many of its ``size`` points are in each run state."""

    id: str
    agency: AgencyRecord
    template: str
    template_title: Text
    version: str
    template_digest: str
    experiment: str | None
    request: Mapping[str, object]
    size: int
    duplicates: int
    varied: tuple[str, ...]
    timeout_seconds: int
    requested_by: str
    created_at: datetime
    rounds: int
    cancel_requested: bool
    ended_at: datetime | None
    counts: Mapping[str, int]
    seconds_left: float | None = None

    @property
    def state(self) -> SweepState:
        done = self.counts.get(RunState.SUCCEEDED, 0)
        waiting, running = self.counts.get(RunState.QUEUED, 0), self.counts.get(RunState.RUNNING, 0)
        if waiting + running:
            return SweepState.QUEUED if waiting == self.size else SweepState.RUNNING
        if self.cancel_requested and done < self.size:
            return SweepState.CANCELLED
        if done == self.size:
            return SweepState.SUCCEEDED
        return SweepState.PARTIAL if done else SweepState.FAILED

    @property
    def done(self) -> int:
        """How many points have ended, however."""
        return self.size - self.counts.get(RunState.QUEUED, 0) - self.counts.get(RunState.RUNNING, 0)


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One point of a sweep and the run that stands for it; ``parameters`` are those that vary."""

    point: int
    run: str
    state: RunState
    parameters: Mapping[str, Scalar]
    metrics: Mapping[str, float]
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Failures:
    """How many points of a sweep have ended in one and the same way without success, and the run of one of them."""

    state: RunState
    reason: Reason | None
    points: int
    run: str


@dataclass(frozen=True, slots=True)
class SensitivityRecord:
    """``points`` is how many points have succeeded and so speak here. ``units`` gives each metric's unit."""

    points: int
    metrics: tuple[str, ...]
    units: Mapping[str, str]
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """What somebody asks for, before anything is checked."""

    template: str
    agency: str
    cron: str
    zone: str = DEFAULT_ZONE
    title: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    version: str | None = None  # None: at each time the newest published
    experiment: str | None = None
    timeout_seconds: object = None
    time_parameter: str | None = None
    catch_up: str = CatchUp.ONCE
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    id: str
    agency: AgencyRecord
    title: str
    template: str
    template_title: Text
    version: str | None
    experiment: str | None
    parameters: Mapping[str, object]
    time_parameter: str | None
    timeout_seconds: int | None
    cron: str
    zone: str
    catch_up: CatchUp
    state: ScheduleState
    stop_reason: StopReason | None
    requested_by: str
    created_at: datetime
    last_at: datetime | None
    next: tuple[datetime, ...]  # the coming times, UTC; empty unless it is active


@dataclass(frozen=True, slots=True)
class FiringRecord:
    """One time of a schedule and the run it made."""

    schedule: str
    scheduled_at: datetime
    at: datetime
    by_hand: bool
    run: str | None
    left_out: int


@dataclass(frozen=True, slots=True)
class NoticeRecord:
    """``subject`` is the id of the run, sweep or schedule; ``state`` the state in which it ended."""

    id: str
    at: datetime
    kind: NoticeKind
    subject: str
    agency: str
    state: str
    template: str
    version: str
    detail: Mapping[str, object]
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """``mail`` "" is no e-mail at all."""

    mail: str
    wish: Wish
    language: str


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
