"""What the API answers with, and how each is made from the store's records."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import date, datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from catalog.access import Action, Role, Viewer
from catalog.store.records import (
    AgencyRecord,
    ExperimentRecord,
    FiringRecord,
    MemberRecord,
    NoticeRecord,
    NotificationSettings,
    RunRecord,
    ScheduleRecord,
    SensitivityRecord,
    SweepPlan,
    SweepPoint,
    SweepRecord,
    TemplateRecord,
)
from catalog.store.usage import Quota, Usage
from experiments.model import Metric, Scalar, Table
from lab_templates.model import ParameterSpec, Text

Value = str | int | float | bool | None
T = TypeVar("T")


class Items(BaseModel, Generic[T]):
    """One page of a listing. ``next`` is the cursor of the next page, null at the end."""

    items: list[T]
    next: str | None = None


class TextOut(BaseModel):
    nb: str
    nn: str
    en: str

    @classmethod
    def of(cls, text: Text) -> TextOut:
        return cls(nb=text.nb, nn=text.nn, en=text.en)


class AgencyOut(BaseModel):
    orgnr: str
    slug: str
    name: TextOut
    active: bool
    weight: int
    max_desks: int
    max_concurrent_runs: int
    max_sweep_runs: int
    max_memory: int | None = Field(description="Bytes of all its runs together; null: no limit")
    max_cpus: float | None

    @classmethod
    def of(cls, a: AgencyRecord) -> AgencyOut:
        return cls(
            orgnr=a.orgnr,
            slug=a.slug,
            name=TextOut.of(a.name),
            active=a.active,
            weight=a.weight,
            max_desks=a.max_desks,
            max_concurrent_runs=a.max_concurrent_runs,
            max_sweep_runs=a.max_sweep_runs,
            max_memory=a.max_memory,
            max_cpus=a.max_cpus,
        )


class QuotaOut(BaseModel):
    used: float = Field(description="Now")
    allowed: float | None = Field(description="Null: no limit of the agency's own")
    more: int | None = Field(description="How many runs it lets begin before others have ended; null: any number")

    @classmethod
    def of(cls, q: Quota) -> QuotaOut:
        return cls(used=q.used, allowed=q.allowed, more=q.more)


class UsageOut(BaseModel):
    """Memory and CPU count for each place that a sandbox has, also one that stands ready for a run."""

    agency: AgencyOut
    waiting: int = Field(description="Runs that have not begun")
    full: bool = Field(description="No run can begin before another has ended, because of a quota")
    runs: QuotaOut = Field(description="At a time")
    memory: QuotaOut = Field(description="Bytes")
    cpus: QuotaOut = Field(description="Cores")
    run_memory: int = Field(description="Bytes that one run takes")
    run_cpus: float = Field(description="Cores that one run takes")

    @classmethod
    def of(cls, u: Usage) -> UsageOut:
        return cls(
            agency=AgencyOut.of(u.agency),
            waiting=u.waiting,
            full=u.full,
            runs=QuotaOut.of(u.runs),
            memory=QuotaOut.of(u.memory),
            cpus=QuotaOut.of(u.cpus),
            run_memory=u.run_memory,
            run_cpus=u.run_cpus,
        )


class AgencyRef(BaseModel):
    orgnr: str
    slug: str
    name: TextOut


class MembershipOut(BaseModel):
    orgnr: str = Field(description="Empty for an admin of the lab")
    slug: str
    name: str
    role: Role
    ends: date | None


class MeOut(BaseModel):
    name: str
    admin: bool
    confined_to: str | None = Field(description="The organisation number a desk's token is bound to")
    actions: list[Action]
    memberships: list[MembershipOut]

    @classmethod
    def of(cls, viewer: Viewer, agencies: dict[str, AgencyRecord]) -> MeOut:
        return cls(
            name=viewer.name,
            admin=any(g.role is Role.ADMIN and not g.agency for g in viewer.grants),
            confined_to=viewer.confined_to,
            actions=sorted(viewer.actions),
            memberships=[
                MembershipOut(
                    orgnr=g.agency,
                    slug=agencies[g.agency].slug if g.agency in agencies else "",
                    name=agencies[g.agency].name.get("nb") if g.agency in agencies else "",
                    role=g.role,
                    ends=g.ends,
                )
                for g in viewer.grants
                if viewer.confined_to in (None, g.agency)
            ],
        )


class MemberOut(BaseModel):
    id: str
    person: str
    agency: str = Field(description="Organisation number, empty for an admin of the lab")
    role: str
    kind: str
    starts: date
    ends: date | None
    created_at: datetime

    @classmethod
    def of(cls, m: MemberRecord) -> MemberOut:
        return cls(
            id=m.id,
            person=m.person,
            agency=m.agency,
            role=m.role,
            kind=m.kind,
            starts=m.starts,
            ends=m.ends,
            created_at=m.created_at,
        )


class ParameterOut(BaseModel):
    name: str
    type: str
    default: Value
    unit: str
    minimum: float | None
    maximum: float | None
    max_length: int
    choices: list[str]
    choice_labels: dict[str, TextOut]
    label: TextOut
    help: TextOut

    @classmethod
    def of(cls, p: ParameterSpec) -> ParameterOut:
        return cls(
            name=p.name,
            type=p.type.value,
            default=plain(p.default),
            unit=p.unit,
            minimum=p.minimum,
            maximum=p.maximum,
            max_length=p.max_length,
            choices=list(p.choices),
            choice_labels={k: TextOut.of(v) for k, v in p.choice_labels.items()},
            label=TextOut.of(p.label),
            help=TextOut.of(p.help),
        )


class MetricSpecOut(BaseModel):
    name: str
    unit: str
    better: str | None
    label: TextOut


class TemplateOut(BaseModel):
    name: str
    version: str
    digest: str
    state: Literal["submitted", "published", "deprecated"]
    title: TextOut
    summary: TextOut
    language: str
    kernel: str
    timeout_seconds: int
    data_class: str
    data_source: TextOut
    published_by: str
    published_at: datetime
    approved_by: str | None
    approved_at: datetime | None

    @classmethod
    def of(cls, record: TemplateRecord) -> TemplateOut:
        return cls(**_template(record))


class TemplateDetail(TemplateOut):
    parameters: list[ParameterOut]
    metrics: list[MetricSpecOut]
    readme: str

    @classmethod
    def of(cls, record: TemplateRecord) -> TemplateDetail:
        v = record.version
        return cls(
            **_template(record),
            parameters=[ParameterOut.of(p) for p in v.parameters],
            metrics=[
                MetricSpecOut(name=m.name, unit=m.unit, better=m.better, label=TextOut.of(m.label)) for m in v.metrics
            ],
            readme=v.readme,
        )


class CheckOut(BaseModel):
    """What the publish gate found: the version as it would be published. Anything wrong is a 422 with every problem."""

    name: str
    version: str
    digest: str
    parameters: list[ParameterOut]
    metrics: list[MetricSpecOut]


class CellErrorOut(BaseModel):
    cell: int = Field(description="Index in the executed notebook, from 0")
    name: str
    message: str
    traceback: str
    source: str


class MetricOut(BaseModel):
    name: str
    value: float | None = Field(description="Null where the notebook recorded NaN or an infinity: see flag")
    unit: str
    ci: tuple[float | None, float | None] | None
    better: str | None
    flag: str | None

    @classmethod
    def of(cls, m: Metric) -> MetricOut:
        ci = None if m.ci_low is None and m.ci_high is None else (m.ci_low, m.ci_high)
        return cls(name=m.name, value=m.value, unit=m.unit, ci=ci, better=m.better, flag=m.flag)


class FigureOut(BaseModel):
    name: str
    mime: str
    sha256: str
    caption: str
    alt: str


class TableOut(BaseModel):
    name: str
    columns: list[str]
    rows: list[list[Value]]
    caption: str

    @classmethod
    def of(cls, t: Table) -> TableOut:
        return cls(
            name=t.name, columns=list(t.columns), rows=[[plain(c) for c in row] for row in t.rows], caption=t.caption
        )


class Provenance(BaseModel):
    """Written by the server, never by the sandbox."""

    template_digest: str
    image_digest: str | None
    engine: str | None
    notebook_sha256: str | None


class RunOut(BaseModel):
    """A run in a listing."""

    id: str
    agency: AgencyRef
    template: str
    template_title: TextOut
    version: str
    parameters: dict[str, Value]
    experiment: str | None
    state: Literal["queued", "running", "succeeded", "failed", "timed_out", "cancelled"]
    reason: str | None
    attempt: int
    max_attempts: int
    timeout_seconds: int
    requested_by: str
    retry_of: str | None
    sweep: str | None
    point: int | None = Field(description="Of its sweep, from 0")
    schedule: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None
    seconds: float | None
    cells_done: int
    cells_total: int
    metrics: list[MetricOut]
    findings: list[str]

    @classmethod
    def of(cls, run: RunRecord) -> RunOut:
        return cls(**_run(run))


class RunDetail(RunOut):
    seconds_left: float | None = Field(description="What it probably still takes, judged by earlier runs")
    error: CellErrorOut | None
    tail: str
    notices: list[str]
    figures: list[FigureOut]
    tables: list[TableOut]
    provenance: Provenance

    @classmethod
    def of(cls, run: RunRecord, seconds_left: float | None = None) -> RunDetail:
        e = run.error
        return cls(
            **_run(run),
            seconds_left=seconds_left,
            error=e
            and CellErrorOut(cell=e.cell, name=e.name, message=e.message, traceback=e.traceback, source=e.source),
            tail=run.tail,
            notices=list(run.notices),
            figures=[
                FigureOut(name=f.name, mime=f.mime, sha256=f.sha256, caption=f.caption, alt=f.alt) for f in run.figures
            ],
            tables=[TableOut.of(t) for t in run.tables],
            provenance=Provenance(
                template_digest=run.template_digest,
                image_digest=run.image_digest,
                engine=run.engine,
                notebook_sha256=run.notebook_sha256,
            ),
        )


class PlanOut(BaseModel):
    """What a sweep would be."""

    agency: str
    template: str
    version: str
    runs: int = Field(description="Without duplicates")
    duplicates: int
    varied: list[str]
    limit: int = Field(description="The most runs of one sweep for this agency")
    concurrent: int = Field(description="Runs of the agency that run at once")
    ahead: int = Field(description="Runs of the agency that wait or run already")
    seconds_each: float | None = Field(description="Median of earlier runs of this version; null if there are none")
    seconds: float | None = Field(description="Until all have ended, if nothing else comes between")

    @classmethod
    def of(cls, p: SweepPlan) -> PlanOut:
        return cls(**asdict(p))


class SweepOut(BaseModel):
    id: str
    agency: AgencyRef
    template: str
    template_title: TextOut
    version: str
    experiment: str | None
    state: Literal["queued", "running", "succeeded", "partial", "failed", "cancelled"]
    size: int = Field(description="Points")
    done: int = Field(description="Points that have ended, however")
    counts: dict[str, int] = Field(description="Points by the state of their runs")
    duplicates: int
    varied: list[str]
    timeout_seconds: int
    requested_by: str
    created_at: datetime
    ended_at: datetime | None
    rounds: int = Field(description="1, and one more for each time it was resumed")
    cancel_requested: bool

    @classmethod
    def of(cls, s: SweepRecord) -> SweepOut:
        return cls(**_sweep(s))


class SweepDetail(SweepOut):
    request: dict[str, Any]
    template_digest: str
    seconds_left: float | None = Field(description="Until all have ended, judged by earlier runs")

    @classmethod
    def of(cls, s: SweepRecord) -> SweepDetail:
        return cls(**_sweep(s), request=dict(s.request), template_digest=s.template_digest, seconds_left=s.seconds_left)


class PointOut(BaseModel):
    point: int
    run: str
    state: str
    parameters: dict[str, Value] = Field(description="Those that vary")
    metrics: dict[str, float]

    @classmethod
    def of(cls, p: SweepPoint) -> PointOut:
        return cls(
            point=p.point,
            run=p.run,
            state=p.state.value,
            parameters={n: plain(v) for n, v in p.parameters.items()},
            metrics=dict(p.metrics),
        )


class PointsOut(BaseModel):
    items: list[PointOut]
    next: int | None = Field(description="The `after` of the next page, null at the end")


class LevelOut(BaseModel):
    value: Value
    points: int
    mean: float


class EffectOut(BaseModel):
    """How a parameter moves a metric."""

    parameter: str
    metric: str
    ordered: bool = Field(description="A number or date; otherwise choices")
    points: int
    strength: float | None = Field(description="0 to 1: |rho|, or the correlation ratio for choices")
    rho: float | None = Field(description="Spearman's rank correlation")
    effect: float | None = Field(description="Standardised: slope x s_x / s_y; for choices difference / s_y")
    difference: float | None = Field(description="Between the largest and the smallest mean of the choices")
    levels: list[LevelOut]


class SensitivityOut(BaseModel):
    points: int = Field(description="Those that have succeeded")
    metrics: list[str]
    units: dict[str, str]
    effects: list[EffectOut]

    @classmethod
    def of(cls, s: SensitivityRecord) -> SensitivityOut:
        return cls(
            points=s.points,
            metrics=list(s.metrics),
            units=dict(s.units),
            effects=[EffectOut.model_validate(asdict(e)) for e in s.effects],
        )


class ScheduleOut(BaseModel):
    id: str
    agency: AgencyRef
    title: str
    template: str
    template_title: TextOut
    version: str | None
    experiment: str | None
    parameters: dict[str, Any]
    time_parameter: str | None
    timeout_seconds: int | None
    cron: str
    zone: str
    catch_up: str
    state: Literal["active", "paused", "stopped"]
    stop_reason: str | None
    requested_by: str
    created_at: datetime
    last_at: datetime | None
    next: list[datetime]

    @classmethod
    def of(cls, s: ScheduleRecord) -> ScheduleOut:
        return cls(
            id=s.id,
            agency=AgencyRef(orgnr=s.agency.orgnr, slug=s.agency.slug, name=TextOut.of(s.agency.name)),
            title=s.title,
            template=s.template,
            template_title=TextOut.of(s.template_title),
            version=s.version,
            experiment=s.experiment,
            parameters=dict(s.parameters),
            time_parameter=s.time_parameter,
            timeout_seconds=s.timeout_seconds,
            cron=s.cron,
            zone=s.zone,
            catch_up=s.catch_up.value,
            state=s.state.value,
            stop_reason=s.stop_reason and s.stop_reason.value,
            requested_by=s.requested_by,
            created_at=s.created_at,
            last_at=s.last_at,
            next=list(s.next),
        )


class FiringOut(BaseModel):
    scheduled_at: datetime
    at: datetime
    by_hand: bool
    run: str | None
    left_out: int = Field(description="Earlier times that were missed and not made up for")

    @classmethod
    def of(cls, f: FiringRecord) -> FiringOut:
        return cls(scheduled_at=f.scheduled_at, at=f.at, by_hand=f.by_hand, run=f.run, left_out=f.left_out)


class TimesOut(BaseModel):
    times: list[datetime]


class NoticeOut(BaseModel):
    id: str
    at: datetime
    kind: Literal["run", "sweep", "schedule"]
    subject: str = Field(description="The id of the run, sweep or schedule")
    agency: str
    state: str
    template: str
    version: str
    detail: dict[str, Any]
    read_at: datetime | None

    @classmethod
    def of(cls, n: NoticeRecord) -> NoticeOut:
        return cls(**{**asdict(n), "kind": n.kind.value, "detail": dict(n.detail)})


class NoticesOut(Items[NoticeOut]):
    unread: int


class ReadOut(BaseModel):
    read: int = Field(description="How many were unread before")


class NotificationsOut(BaseModel):
    mail: str
    wish: Literal["none", "failures", "batches", "all"]
    language: str

    @classmethod
    def of(cls, s: NotificationSettings) -> NotificationsOut:
        return cls(mail=s.mail, wish=s.wish.value, language=s.language)


class ExperimentOut(BaseModel):
    id: str
    agency: str
    title: str
    summary: str
    language: str
    visibility: str
    embargo_until: date | None
    status: str
    created_by: str
    created_at: datetime
    runs: int

    @classmethod
    def of(cls, e: ExperimentRecord) -> ExperimentOut:
        return cls(
            id=e.id,
            agency=e.agency,
            title=e.title,
            summary=e.summary,
            language=e.language,
            visibility=e.visibility,
            embargo_until=e.embargo_until,
            status=e.status,
            created_by=e.created_by,
            created_at=e.created_at,
            runs=e.runs,
        )


def _sweep(s: SweepRecord) -> dict[str, Any]:
    return {
        "id": s.id,
        "agency": AgencyRef(orgnr=s.agency.orgnr, slug=s.agency.slug, name=TextOut.of(s.agency.name)),
        "template": s.template,
        "template_title": TextOut.of(s.template_title),
        "version": s.version,
        "experiment": s.experiment,
        "state": s.state.value,
        "size": s.size,
        "done": s.done,
        "counts": dict(s.counts),
        "duplicates": s.duplicates,
        "varied": list(s.varied),
        "timeout_seconds": s.timeout_seconds,
        "requested_by": s.requested_by,
        "created_at": s.created_at,
        "ended_at": s.ended_at,
        "rounds": s.rounds,
        "cancel_requested": s.cancel_requested,
    }


def plain(value: Scalar) -> Scalar:
    """Return ``value`` as JSON can say it: NaN and the infinities have no form there."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _template(record: TemplateRecord) -> dict[str, Any]:
    v = record.version
    return {
        "name": v.name,
        "version": v.version,
        "digest": v.digest,
        "state": record.state.value,
        "title": TextOut.of(v.title),
        "summary": TextOut.of(v.summary),
        "language": v.language,
        "kernel": v.kernel,
        "timeout_seconds": v.timeout_seconds,
        "data_class": v.data_class,
        "data_source": TextOut.of(v.data_source),
        "published_by": record.published_by,
        "published_at": record.published_at,
        "approved_by": record.approved_by,
        "approved_at": record.approved_at,
    }


def _run(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "agency": AgencyRef(orgnr=run.agency.orgnr, slug=run.agency.slug, name=TextOut.of(run.agency.name)),
        "template": run.template,
        "template_title": TextOut.of(run.template_title),
        "version": run.version,
        "parameters": {name: plain(value) for name, value in run.parameters.items()},
        "experiment": run.experiment,
        "state": run.state.value,
        "reason": run.reason and run.reason.value,
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "timeout_seconds": run.timeout_seconds,
        "requested_by": run.requested_by,
        "retry_of": run.retry_of,
        "sweep": run.sweep,
        "point": run.point,
        "schedule": run.schedule,
        "cancel_requested": run.cancel_requested,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "deadline_at": run.deadline_at,
        "seconds": run.seconds,
        "cells_done": run.cells_done,
        "cells_total": run.cells_total,
        "metrics": [MetricOut.of(m) for m in run.metrics],
        "findings": list(run.findings),
    }
