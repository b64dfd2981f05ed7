"""From a sweep's rows to the values that leave the store, and how its runs are written all at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, insert, or_, select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.store.agencies import agency_record
from catalog.store.ids import new_id
from catalog.store.limits import RunLimits
from catalog.store.records import SweepRecord
from catalog.store.run_rows import RUNNING, WAITING
from catalog.store.search import document
from catalog.store.templates import text_of
from catalog.tables import Agency, RunRow, RunText, SweepRow, TemplateVersionRow
from experiments.model import RunState, Scalar
from lab_templates.model import Text

OPEN = (RunState.QUEUED.value, RunState.RUNNING.value)

Loaded = tuple[SweepRow, Agency, dict[str, str] | None]


def sweep_query() -> Select[SweepRow, Agency, dict[str, str]]:
    """Return the query whose rows ``sweep_record`` takes: a sweep, its agency, its template's title."""
    of_version = and_(
        col(TemplateVersionRow.name) == col(SweepRow.template), col(TemplateVersionRow.version) == col(SweepRow.version)
    )
    return (
        select(SweepRow, Agency, col(TemplateVersionRow.title))
        .join(Agency, col(Agency.orgnr) == col(SweepRow.orgnr))
        .outerjoin(TemplateVersionRow, of_version)
    )


def sweep_record(loaded: Loaded, counts: Mapping[str, int], seconds_left: float | None = None) -> SweepRecord:
    row, agency, title = loaded
    return SweepRecord(
        id=row.id,
        agency=agency_record(agency),
        template=row.template,
        template_title=text_of(title) if title else Text(nb=row.template),
        version=row.version,
        template_digest=row.template_digest,
        experiment=row.experiment,
        request=row.request or {},
        size=row.size,
        duplicates=row.duplicates,
        varied=tuple(row.varied or ()),
        timeout_seconds=row.timeout_seconds,
        requested_by=row.requested_by,
        created_at=row.created_at,
        rounds=row.rounds,
        cancel_requested=row.cancel_requested,
        ended_at=row.ended_at,
        counts=dict(counts),
        seconds_left=seconds_left,
    )


def counts_of(session: Session, sweeps: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
    """Return how many points of each sweep are in each state, with one query over one index."""
    if not sweeps:
        return {}
    sweep, state = col(RunRow.sweep), col(RunRow.state)
    query = select(sweep, state, func.count()).where(sweep.in_(sweeps), col(RunRow.stands)).group_by(sweep, state)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for id, word, count in session.execute(query):
        found[str(id)][word] = count
    return found


def tally(session: Session, row: SweepRow) -> Mapping[str, int]:
    """Return how many points of a sweep are in each state: as kept when it ended, counted before."""
    return row.tally if row.tally is not None else counts_of(session, [row.id]).get(row.id, {})


def open_runs(session: Session, orgnr: str) -> int:
    """Return how many runs of an agency wait or run."""
    query = select(func.count()).select_from(RunRow).where(or_(WAITING, RUNNING), col(RunRow.orgnr) == orgnr)
    return session.scalar(query) or 0


def new_run(
    sweep: SweepRow,
    point: int | None,
    parameters: Mapping[str, Scalar],
    limits: RunLimits,
    now: datetime,
    retry_of: str | None = None,
) -> dict[str, Any]:
    """Return the columns of a queued run of a sweep, for ``queue_runs``."""
    return {
        "id": new_id(),
        "orgnr": sweep.orgnr,
        "experiment": sweep.experiment,
        "template": sweep.template,
        "version": sweep.version,
        "template_digest": sweep.template_digest,
        "parameters": dict(parameters),
        "timeout_seconds": sweep.timeout_seconds,
        "max_attempts": limits.max_attempts,
        "requested_by": sweep.requested_by,
        "created_at": now,
        "retry_of": retry_of,
        "sweep": sweep.id,
        "point": point,
        "stands": True,
        "state": RunState.QUEUED.value,
        "attempt": 0,
        "cancel_requested": False,
        "cells_done": 0,
        "cells_total": 0,
        "tail": "",
    }


def queue_runs(session: Session, runs: Sequence[Mapping[str, Any]], texts: Iterable[str]) -> None:
    """Write many runs and the words they are found by, in the caller's transaction: two statements for all."""
    words = document(texts)
    session.connection().execute(insert(RunRow.__table__), list(runs))  # type: ignore[attr-defined]
    found_by = [{"run": run["id"], "words": words} for run in runs]
    session.connection().execute(insert(RunText.__table__), found_by)  # type: ignore[attr-defined]
