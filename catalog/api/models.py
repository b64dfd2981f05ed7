"""What the API takes: strict, closed models. A field that is not here is refused by name."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from catalog.store.records import SweepSubmission
from experiments.schedules import DEFAULT_ZONE
from experiments.sweeps import Range, Sample, Span, SweepRequest
from lab_templates.model import InvalidInput, Problem

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


def _date(value: object) -> object:
    """Take ISO text and nothing else: pydantic alone would also read 0 as a day in 1970."""
    if isinstance(value, str) and _ISO_DATE.match(value):
        return date.fromisoformat(value)
    if value is None or isinstance(value, date):
        return value
    raise ValueError("it is not a date, written year-month-day as in 2026-01-31")


IsoDate = Annotated[date, BeforeValidator(_date)]
Orgnr = Annotated[str, StringConstraints(pattern=r"^[0-9]{9}$")]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,18}[a-z0-9])?$")]
AgencyName = Annotated[str, StringConstraints(min_length=1, max_length=20)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Person = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Language = Literal["nb", "nn", "en"]
Visibility = Literal["agency", "lab", "public"]
MAX_PARAMETERS = 500


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextIn(Closed):
    """A text in the lab's languages; at least bokmål."""

    nb: str = Field(min_length=1, max_length=200)
    nn: str = Field("", max_length=200)
    en: str = Field("", max_length=200)


class AgencyIn(Closed):
    orgnr: Orgnr = Field(examples=["889640782"])
    slug: Slug = Field(examples=["nav"])
    name: TextIn
    weight: int = Field(1, ge=1, le=1000)
    max_desks: int = Field(10, ge=0, le=10_000)
    max_concurrent_runs: int = Field(8, ge=0, le=10_000)
    max_sweep_runs: int = Field(10_000, ge=1, le=1_000_000, description="Runs of one sweep")
    max_memory: int | None = Field(
        None, ge=256 * 1024**2, le=2**50, description="Bytes of all its runs together; null: no limit"
    )
    max_cpus: float | None = Field(None, ge=0.1, le=10_000, description="Cores of all its runs together")


class AgencyChange(Closed):
    name: TextIn | None = None
    active: bool | None = None
    weight: int | None = Field(None, ge=1, le=1000)
    max_desks: int | None = Field(None, ge=0, le=10_000)
    max_concurrent_runs: int | None = Field(None, ge=0, le=10_000)
    max_sweep_runs: int | None = Field(None, ge=1, le=1_000_000)
    max_memory: int | None = Field(None, ge=256 * 1024**2, le=2**50, description="Bytes; null: no limit")
    max_cpus: float | None = Field(None, ge=0.1, le=10_000, description="Cores; null: no limit")


class MemberIn(Closed):
    person: Person = Field(examples=["team"])
    agency: str = Field(
        "", max_length=20, description="Organisation number or slug; empty for an admin of the lab", examples=["nav"]
    )
    role: Literal["member", "coordinator", "leader", "admin"]
    kind: Literal["employed", "seconded"] = "employed"
    starts: IsoDate | None = Field(None, description="Today, if left out")
    ends: IsoDate | None = None


class RunIn(Closed):
    template: str = Field(min_length=1, max_length=200, examples=["letter-ab-test"])
    version: str | None = Field(
        None, max_length=200, description="The newest published version, if left out", examples=["1.0.0"]
    )
    agency: AgencyName = Field(description="Organisation number or slug", examples=["889640782"])
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        max_length=MAX_PARAMETERS,
        description="Name to value; the template's declaration says which. Left out: its default",
        examples=[{"alpha": 0.05}],
    )
    experiment: Id | None = None
    timeout_seconds: int | None = Field(None, description="The template's own, if left out", examples=[600])


Cell = str | int | float | bool | None


class RangeIn(Closed):
    """The numbers from, from + step, … up to and including to."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)

    start: int | float | str = Field(alias="from", examples=[0])
    stop: int | float | str = Field(alias="to", examples=[1])
    step: int | float | str = Field(examples=[0.1])


class SpanIn(Closed):
    """Where a sample is drawn from: evenly between the two, or evenly in their logarithms."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)

    low: int | float | str = Field(alias="from", examples=[0.001])
    high: int | float | str = Field(alias="to", examples=[0.2])
    logarithmic: bool = False


class SampleIn(Closed):
    size: int = Field(ge=0, le=10**12, examples=[50])
    seed: int = Field(0, description="The same seed gives the same points")
    space: dict[str, SpanIn | list[Cell] | None] = Field(
        max_length=MAX_PARAMETERS, description="Per parameter a range, a list of values, or null: all that it may be"
    )


class SweepIn(Closed):
    """Exactly one of grid, points and sample."""

    template: str = Field(min_length=1, max_length=200, examples=["letter-ab-test"])
    version: str | None = Field(None, max_length=200, description="The newest published version, if left out")
    agency: AgencyName = Field(description="Organisation number or slug", examples=["889640782"])
    grid: dict[str, RangeIn | list[Cell]] | None = Field(
        None, max_length=MAX_PARAMETERS, description="Per parameter its values: every combination is a run"
    )
    points: list[dict[str, Any]] | None = Field(None, max_length=1_000_000, description="Each run's parameters")
    sample: SampleIn | None = None
    fixed: dict[str, Any] = Field(
        default_factory=dict, max_length=MAX_PARAMETERS, description="Parameters that all runs share"
    )
    experiment: Id | None = None
    timeout_seconds: int | None = Field(None, description="Of each run; the template's own, if left out")

    def submission(self, idempotency_key: str | None = None) -> SweepSubmission:
        sample = self.sample
        sweep = SweepRequest(
            grid=None if self.grid is None else {name: _axis(axis) for name, axis in self.grid.items()},
            points=self.points,
            sample=None
            if sample is None
            else Sample(sample.size, sample.seed, {name: _space(space) for name, space in sample.space.items()}),
            fixed=self.fixed,
        )
        return SweepSubmission(
            template=self.template,
            agency=self.agency,
            sweep=sweep,
            version=self.version,
            experiment=self.experiment,
            timeout_seconds=self.timeout_seconds,
            idempotency_key=idempotency_key,
        )


def _axis(axis: RangeIn | list[Cell]) -> Range | list[Cell]:
    return Range(axis.start, axis.stop, axis.step) if isinstance(axis, RangeIn) else axis


def _space(space: SpanIn | list[Cell] | None) -> Span | list[Cell] | None:
    return Span(space.low, space.high, space.logarithmic) if isinstance(space, SpanIn) else space


class ScheduleIn(Closed):
    template: str = Field(min_length=1, max_length=200, examples=["letter-ab-test"])
    version: str | None = Field(None, max_length=200, description="At each time the newest published, if left out")
    agency: AgencyName = Field(description="Organisation number or slug", examples=["889640782"])
    cron: str = Field(max_length=200, description="Minute, hour, day, month, weekday", examples=["0 7 * * MON-FRI"])
    zone: str = Field(DEFAULT_ZONE, max_length=100, description="IANA time zone")
    title: str = Field("", max_length=200)
    parameters: dict[str, Any] = Field(default_factory=dict, max_length=MAX_PARAMETERS)
    time_parameter: str | None = Field(
        None, max_length=200, description="Gets the scheduled time (text or date); scheduled_at, if the template has it"
    )
    catch_up: Literal["once", "all", "skip"] = Field("once", description="What becomes of times missed while down")
    experiment: Id | None = None
    timeout_seconds: int | None = None


class NotificationsIn(Closed):
    mail: str = Field("", max_length=254, description="Empty: no e-mail")
    wish: Literal["none", "failures", "batches", "all"] = Field(
        "batches", description="batches: sweeps and the runs of schedules"
    )
    language: Language = "nb"


class ReadIn(Closed):
    ids: list[Id] | None = Field(None, max_length=1000, description="All, if left out")


class ExperimentIn(Closed):
    agency: AgencyName
    title: str = Field(min_length=1, max_length=300)
    summary: str = Field("", max_length=20_000)
    language: Language = "nb"
    visibility: Visibility = "agency"
    embargo_until: IsoDate | None = None


class ExperimentChange(Closed):
    title: str | None = Field(None, min_length=1, max_length=300)
    summary: str | None = Field(None, max_length=20_000)
    language: Language | None = None
    visibility: Visibility | None = None
    embargo_until: IsoDate | None = None


def changes(body: Closed, *, nullable: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the fields that a PATCH names.

    Raise InvalidInput (missing_value) for a null where a value is needed, and for a body that changes nothing.
    """
    fields = {name: getattr(body, name) for name in body.model_fields_set}
    empty = sorted(name for name, value in fields.items() if value is None and name not in nullable)
    problems = [
        Problem("missing_value", n, "null", message=f"{n} cannot be null. Give a value, or leave it out.")
        for n in empty
    ]
    if not fields:
        allowed = ", ".join(type(body).model_fields)
        problems.append(
            Problem(
                "missing_value", "body", limit=allowed, message=f"Nothing to change. Give one or more of: {allowed}."
            )
        )
    if problems:
        raise InvalidInput(tuple(problems))
    return fields


class ClaimIn(BaseModel):
    """From a sandbox, as ``HeartbeatIn``: the runs that the runner knows it has."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    holding: list[Annotated[str, StringConstraints(max_length=64)]] = Field(default=[], max_length=1000)


class HeartbeatIn(BaseModel):
    """From a sandbox. Unknown fields are left aside: an older Hub can serve a newer runner."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    attempt: int = Field(ge=1, le=1_000_000)
    cells_done: int = Field(0, ge=0, le=10_000_000)
    cells_total: int = Field(0, ge=0, le=10_000_000)
    tail: str = ""  # the server keeps its last part only


class ResultIn(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    attempt: int = Field(ge=1, le=1_000_000)
    outcome: str = Field(max_length=40)
    reason: str | None = Field(None, max_length=200)
    error: dict[str, Any] | None = None
    notebook: str = Field(description="The executed notebook as JSON text")


class HandBackIn(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    attempt: int = Field(ge=1, le=1_000_000)
