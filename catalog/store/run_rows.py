"""From rows to the values that leave the store, and how a run and its results are written."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, insert, literal, or_, select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.store.agencies import agency_record
from catalog.store.fields import storable
from catalog.store.ids import new_id
from catalog.store.records import FigureInfo, RunRecord
from catalog.store.search import add_words
from catalog.store.templates import text_of
from catalog.tables import Agency, FigureRow, FindingRow, MetricRow, RunRow, TableRow, TemplateVersionRow
from experiments.model import (
    CellError,
    Figure,
    Metric,
    Progress,
    Reason,
    Run,
    RunRequest,
    RunResult,
    RunState,
    Table,
)
from experiments.texts import block, without_ansi
from lab_templates.model import Text

LONGEST_TAIL = 16_000  # characters of live output that are kept
_MOST_CELLS = 1_000_000


def _in_state(state: RunState) -> ColumnElement[bool]:
    """The state stands in the statement itself: only then do the databases see that an index of such rows will do."""
    return col(RunRow.state) == literal(state.value, literal_execute=True)


WAITING = _in_state(RunState.QUEUED)
_UNTRIED = literal(0, literal_execute=True)
# A run whose attempt was lost goes alone too (``experiments.queue``).
ALONE = and_(WAITING, or_(col(RunRow.sweep).is_(None), col(RunRow.attempt) > _UNTRIED))
OF_SWEEP = and_(WAITING, col(RunRow.sweep).is_not(None), col(RunRow.attempt) == _UNTRIED)
RUNNING = _in_state(RunState.RUNNING)

Loaded = tuple[RunRow, Agency, dict[str, str] | None]


def run_query() -> Select[RunRow, Agency, dict[str, str]]:
    """Return the query whose rows ``run_record`` takes: a run, its agency, its template's title."""
    return (
        select(RunRow, Agency, col(TemplateVersionRow.title))
        .join(Agency, col(Agency.orgnr) == col(RunRow.orgnr))
        .outerjoin(
            TemplateVersionRow,
            and_(
                col(TemplateVersionRow.name) == col(RunRow.template),
                col(TemplateVersionRow.version) == col(RunRow.version),
            ),
        )
    )


def run_record(loaded: Loaded, **results: Any) -> RunRecord:
    """Return a run as the catalog remembers it; ``results`` are the fields that other tables hold."""
    row, agency, title = loaded
    return RunRecord(
        id=row.id,
        agency=agency_record(agency),
        template=row.template,
        template_title=text_of(title) if title else Text(nb=row.template),
        version=row.version,
        template_digest=row.template_digest,
        parameters=row.parameters or {},
        experiment=row.experiment,
        state=RunState(row.state),
        reason=Reason(row.reason) if row.reason else None,
        error=_error(row),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        timeout_seconds=row.timeout_seconds,
        requested_by=row.requested_by,
        retry_of=row.retry_of,
        sweep=row.sweep,
        point=row.point,
        schedule=row.schedule,
        cancel_requested=row.cancel_requested,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        deadline_at=row.deadline_at,
        cells_done=row.cells_done,
        cells_total=row.cells_total,
        tail=results.pop("tail", row.tail),
        engine=row.engine,
        image_digest=row.image_digest,
        notebook_sha256=row.notebook_sha256,
        notices=tuple(row.notices or ()),
        **results,
    )


def queue_run(row: RunRow) -> Run:
    """Return a run as the queue knows it."""
    reported = row.cells_done or row.cells_total or row.tail
    return Run(
        id=row.id,
        request=RunRequest(
            agency=row.orgnr,
            template=row.template,
            version=row.version,
            template_digest=row.template_digest,
            parameters=row.parameters or {},
            timeout_seconds=row.timeout_seconds,
            requested_by=row.requested_by,
            experiment=row.experiment,
            idempotency_key=row.idempotency_key,
            sweep=row.sweep,
        ),
        state=RunState(row.state),
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        deadline_at=row.deadline_at,
        reason=Reason(row.reason) if row.reason else None,
        error=_error(row),
        progress=Progress(row.cells_done, row.cells_total, row.tail) if reported else None,
        cancel_requested=row.cancel_requested,
        runner=row.runner,
    )


def _error(row: RunRow) -> CellError | None:
    return CellError(**row.error) if row.error else None


# -- results -------------------------------------------------------------------------------------------------------


def metrics_of(session: Session, runs: Sequence[str]) -> Mapping[str, tuple[Metric, ...]]:
    """Return the metrics of some runs, in the order they were recorded, with one query."""
    found: dict[str, list[Metric]] = defaultdict(list)
    query = select(MetricRow).where(col(MetricRow.run).in_(runs)).order_by(col(MetricRow.position))
    for m in session.scalars(query) if runs else ():
        found[m.run].append(Metric(m.name, m.value, m.unit, m.ci_low, m.ci_high, m.better, m.flag))
    return {run: tuple(metrics) for run, metrics in found.items()}


def findings_of(session: Session, runs: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the findings of some runs, in the order they were recorded, with one query."""
    found: dict[str, list[str]] = defaultdict(list)
    query = select(FindingRow).where(col(FindingRow.run).in_(runs)).order_by(col(FindingRow.position))
    for row in session.scalars(query) if runs else ():
        found[row.run].append(row.text)
    return {run: tuple(texts) for run, texts in found.items()}


def figures_of(session: Session, run: str) -> tuple[FigureInfo, ...]:
    """Return what is known of a run's figures, in the order they were recorded."""
    query = select(FigureRow).where(col(FigureRow.run) == run).order_by(col(FigureRow.position))
    return tuple(FigureInfo(f.name, f.mime, f.sha256, f.caption, f.alt) for f in session.scalars(query))


def tables_of(session: Session, run: str) -> tuple[Table, ...]:
    """Return a run's tables, in the order they were recorded."""
    query = select(TableRow).where(col(TableRow.run) == run).order_by(col(TableRow.position))
    return tuple(
        Table(t.name, tuple(t.columns or ()), tuple(tuple(r) for r in t.rows or ()), t.caption)
        for t in session.scalars(query)
    )


# -- writing -------------------------------------------------------------------------------------------------------


def add_run(
    session: Session,
    request: RunRequest,
    now: datetime,
    *,
    max_attempts: int,
    retry_of: str | None = None,
    schedule: str | None = None,
    words: Iterable[str] = (),
) -> RunRow:
    """Queue a run in the caller's transaction. Raise IntegrityError if the idempotency key was used before."""
    row = RunRow(
        id=new_id(),
        orgnr=request.agency,
        experiment=request.experiment,
        template=request.template,
        version=request.version,
        template_digest=request.template_digest,
        parameters=dict(request.parameters),
        timeout_seconds=request.timeout_seconds,
        max_attempts=max_attempts,
        requested_by=request.requested_by,
        idempotency_key=request.idempotency_key,
        created_at=now,
        retry_of=retry_of,
        sweep=request.sweep,
        schedule=schedule,
        state=RunState.QUEUED.value,
    )
    session.add(row)
    session.flush()
    add_words(session, row.id, (request.template, request.requested_by, *words))
    return row


def ending(result: RunResult, now: datetime, notebook_sha256: str | None) -> dict[str, Any]:
    """Return the columns of a run that an ending sets."""
    error = (
        {k: storable(v) if isinstance(v, str) else v for k, v in asdict(result.error).items()} if result.error else None
    )
    done, total = result.cells or (0, 0)
    counted = {"cells_done": min(done, _MOST_CELLS), "cells_total": min(total, _MOST_CELLS)} if result.cells else {}
    return {
        **counted,
        "state": result.state.value,
        "reason": result.reason.value if result.reason else None,
        "error": error,
        "ended_at": now,
        "lease_until": None,
        "notebook_sha256": notebook_sha256,
        "notebook_bytes": len(result.notebook) if notebook_sha256 else None,
        "notices": list(result.notices) or None,
    }


def reported(progress: Progress) -> dict[str, Any]:
    """Return the columns that a runner's progress sets, within what the columns hold."""
    return {
        "cells_done": min(max(progress.cells_done, 0), _MOST_CELLS),
        "cells_total": min(max(progress.cells_total, 0), _MOST_CELLS),
        "tail": storable(block(without_ansi(progress.tail[-LONGEST_TAIL:]), LONGEST_TAIL)),
    }


def add_results(session: Session, run: str, result: RunResult, figures: Mapping[str, str]) -> None:
    """Write what a run recorded; ``figures`` gives the SHA-256 of each figure's file by its name.

    A name recorded twice counts as corrected: the last one stands. What the columns cannot hold is cut, so that a
    hostile result can spoil itself but never keep its run from ending.
    """
    rows: list[tuple[Any, list[dict[str, Any]]]] = [
        (MetricRow, [_metric(run, i, m) for i, m in enumerate(_by_name(result.metrics))]),
        (FigureRow, [_figure(run, i, f, figures[f.name]) for i, f in enumerate(_by_name(result.figures))]),
        (TableRow, [_table(run, i, t) for i, t in enumerate(_by_name(result.tables))]),
        (FindingRow, [{"run": run, "position": i, "text": storable(t)} for i, t in enumerate(result.findings)]),
    ]
    for table, values in rows:
        if values:
            session.execute(insert(table), values)
    if result.findings:
        add_words(session, run, result.findings)


def _by_name(things: Iterable[Any]) -> list[Any]:
    return list({storable(thing.name, 200): thing for thing in things}.values())


def _metric(run: str, position: int, metric: Metric) -> dict[str, Any]:
    return {
        "run": run,
        "name": storable(metric.name, 200),
        "position": position,
        "value": _finite(metric.value),
        "unit": storable(metric.unit, 60),
        "ci_low": _finite(metric.ci_low),
        "ci_high": _finite(metric.ci_high),
        "better": metric.better if metric.better in ("higher", "lower") else None,
        "flag": metric.flag if metric.flag in ("nan", "inf", "-inf") else None,
    }


def _figure(run: str, position: int, figure: Figure, sha256: str) -> dict[str, Any]:
    return {
        "run": run,
        "name": storable(figure.name, 200),
        "position": position,
        "mime": storable(figure.mime, 40),
        "sha256": sha256,
        "caption": storable(figure.caption),
        "alt": storable(figure.alt),
    }


def _table(run: str, position: int, table: Table) -> dict[str, Any]:
    return {
        "run": run,
        "name": storable(table.name, 200),
        "position": position,
        "columns": [storable(column) for column in table.columns],
        "rows": [[_cell(cell) for cell in row] for row in table.rows],
        "caption": storable(table.caption),
    }


def _cell(value: object) -> object:
    if isinstance(value, str):
        return storable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
