"""The values a run is made of, from request to result.

Everything here is frozen: one value passes each door of the house, and nobody changes it on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

Scalar = str | int | float | bool | None


class RunState(StrEnum):
    """Where a run is. A run ends exactly once."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)


class Reason(StrEnum):
    """Why a run ended as it did; the wording for people lives with the pages and their translations."""

    CELL_FAILED = "cell_failed"
    ASKED_FOR_INPUT = "asked_for_input"
    NO_SPACE = "no_space"
    TOO_MANY_PROCESSES = "too_many_processes"
    TOO_MANY_FILES = "too_many_files"
    KERNEL_DIED = "kernel_died"
    OUT_OF_MEMORY = "out_of_memory"
    RUNNER_LOST = "runner_lost"
    START_FAILED = "start_failed"
    BAD_RESULT = "bad_result"
    TIME_LIMIT = "time_limit"
    CANCELLED_BY_USER = "cancelled_by_user"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What somebody asked for, already validated: the template version is published, the parameters are bound."""

    agency: str  # organisation number, 9 digits
    template: str
    version: str
    template_digest: str  # "sha256:<hex>"
    parameters: Mapping[str, Scalar]
    timeout_seconds: int
    requested_by: str
    experiment: str | None = None
    idempotency_key: str | None = None  # unique per requester
    sweep: str | None = None  # the sweep this run is a point of


NO_CELL = -1


@dataclass(frozen=True, slots=True)
class CellError:
    """The cell that failed: its index in the executed notebook (from 0), and what the kernel said.

    ``cell`` is NO_CELL where no cell is to blame: the sandbox or the kernel did not start.
    """

    cell: int
    name: str
    message: str
    traceback: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running run has come."""

    cells_done: int
    cells_total: int
    tail: str = ""  # the last lines of output, capped


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the queue knows it. Times are UTC; absent ones are None."""

    id: str
    request: RunRequest
    state: RunState
    attempt: int  # 0 before the first claim, then 1, 2, ...
    max_attempts: int
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    reason: Reason | None = None
    error: CellError | None = None
    progress: Progress | None = None
    cancel_requested: bool = False
    runner: str | None = None


@dataclass(frozen=True, slots=True)
class RunnerTicket:
    """One throw-away runner sandbox. ``token`` is kept by nobody but the sandbox: the queue stores its SHA-256.

    A ticket belongs to one agency and is good for one batch: one run, or up to ``batch_limit`` runs of one sweep, at
    most ``slots`` of them at a time. The first claim decides which; the token then does nothing but claim within its
    batch and report on the runs it holds.
    """

    id: str
    agency: str
    token_sha256: str
    sandbox: str  # the sandbox's name in the engine
    engine: str
    image_digest: str
    created_at: datetime
    slots: int = 1  # how many runs it may hold at a time; ``resize_runner`` changes it
    batch_limit: int = 1  # how many runs it may claim in all; above 1 it is meant for sweeps, or has one

    @property
    def for_sweeps(self) -> bool:
        return self.batch_limit > 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a runner is told to do. Times in seconds, sizes in bytes.

    ``start`` is how a Python kernel comes into being: ``forked`` from a process that has imported the scientific stack
    already, or ``ordinary``, as a process of its own. Kernels of other languages always start the ordinary way.
    """

    run: str
    attempt: int
    notebook: str  # the template's notebook, as JSON text
    parameters: Mapping[str, Scalar]
    kernel: str
    timeout_seconds: int
    lease_seconds: int
    output_limit_bytes: int
    start: str = "forked"  # forked | ordinary


@dataclass(frozen=True, slots=True)
class Directive:
    """The answer to a runner's heartbeat."""

    cancel: bool = False


@dataclass(frozen=True, slots=True)
class RunnerReport:
    """What a runner claims has happened: text from a sandbox, to be distrusted until ``results.read`` has seen it."""

    outcome: str  # succeeded | failed | timed_out | cancelled
    notebook: bytes  # executed notebook so far, JSON
    reason: str | None = None
    error: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """``value`` is None where the notebook recorded NaN or an infinity; ``flag`` then says which."""

    name: str
    value: float | None
    unit: str = ""
    ci_low: float | None = None
    ci_high: float | None = None
    better: str | None = None  # higher | lower
    flag: str | None = None  # nan | inf | -inf


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    mime: str  # image/png or image/svg+xml
    data: bytes
    caption: str = ""
    alt: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Scalar, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A result that has been read with distrust and found whole."""

    state: RunState
    notebook: bytes  # b"" where the server ended the run and nothing came from the sandbox
    reason: Reason | None = None
    error: CellError | None = None
    metrics: tuple[Metric, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    findings: tuple[str, ...] = ()
    cells: tuple[int, int] | None = None  # code cells executed, and in all; None where the server ended the run
    notices: tuple[str, ...] = field(default=())  # machine words: output_cut, records_dropped, ...
