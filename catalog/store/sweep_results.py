"""What a sweep found: its points for a plot, and how strongly each parameter moves each metric."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Viewer
from catalog.store.database import Database
from catalog.store.fields import one_problem, storable
from catalog.store.records import Failures, SensitivityRecord, SweepPoint, SweepRecord
from catalog.store.sweeps import Sweeps
from catalog.store.templates import find_version, version_of
from catalog.tables import MetricRow, RunRow
from experiments.model import Reason, RunState, Scalar
from experiments.sensitivity import Observation, sensitivity
from lab_templates.model import InvalidInput, ParameterType

MOST_POINTS = 10_000
MOST_METRICS = 50
_ORDERED = (ParameterType.NUMBER, ParameterType.INTEGER, ParameterType.DATE)
_MOST_KEPT = 32
_MOST_WHOLE = 4  # sweeps whose points are kept for the next reader of the same page
_UNSUCCESSFUL = (RunState.FAILED.value, RunState.TIMED_OUT.value, RunState.CANCELLED.value)
_POINT = (col(RunRow.point), col(RunRow.id), col(RunRow.state), col(RunRow.parameters), col(RunRow.reason))


class SweepResults:
    def __init__(self, database: Database, sweeps: Sweeps, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._sweeps = sweeps
        self._clock = clock
        self._lock = Lock()
        self._kept: dict[tuple[str, int, int], SensitivityRecord] = {}
        self._whole: dict[tuple[object, ...], tuple[tuple[SweepPoint, ...], int | None]] = {}

    def points(
        self, viewer: Viewer, id: str, *, after: int = -1, limit: int = MOST_POINTS
    ) -> tuple[tuple[SweepPoint, ...], int | None]:
        """Return the points behind point ``after`` in their order, at most ``limit``, and the last one if more follow.

        Raise NotFound; InvalidInput (bad_limit) for a limit that is not 1 to ``MOST_POINTS``.
        """
        if not 1 <= limit <= MOST_POINTS:
            what = f"limit={limit} is not a whole number from 1 to {MOST_POINTS}. Give one."
            raise one_problem("bad_limit", "limit", limit, what, str(MOST_POINTS))
        sweep = self._sweeps.get(viewer, id)
        whole = after < 0 and limit == MOST_POINTS
        key = (id, sweep.rounds, *sorted(sweep.counts.items()))
        with self._lock:
            if whole and key in self._whole:
                return self._whole[key]
        found = self._points(sweep, after, limit)
        if whole:
            with self._lock:
                while len(self._whole) >= _MOST_WHOLE:
                    del self._whole[next(iter(self._whole))]
                self._whole[key] = found
        return found

    def _points(self, sweep: SweepRecord, after: int, limit: int) -> tuple[tuple[SweepPoint, ...], int | None]:
        id = sweep.id
        this = (col(RunRow.sweep) == id, col(RunRow.stands), col(RunRow.point) > after)
        with self._database.read() as session:
            rows = session.execute(
                select(*_POINT).where(*this).order_by(col(RunRow.point), col(RunRow.id)).limit(limit + 1)
            ).all()
            metrics = _metrics(session, id)
        points = _points(sweep, rows[:limit], metrics)
        return points, points[-1].point if len(rows) > limit else None

    def ranked(
        self,
        viewer: Viewer,
        id: str,
        *,
        metric: str = "",
        descending: bool = False,
        unsuccessful: bool = False,
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[SweepPoint, ...]:
        """Return points by a metric's value, those without it last; in their own order where ``metric`` is "".

        ``unsuccessful``: only those whose run has ended without success. Raise NotFound.
        """
        sweep = self._sweeps.get(viewer, id)
        query = select(*_POINT).where(col(RunRow.sweep) == id, col(RunRow.stands))
        if unsuccessful:
            query = query.where(col(RunRow.state).in_(_UNSUCCESSFUL))
        if metric:
            this = and_(col(MetricRow.run) == col(RunRow.id), col(MetricRow.name) == storable(metric))
            value = col(MetricRow.value)
            order = value.desc() if descending else value.asc()
            query = query.outerjoin(MetricRow, this).order_by(value.is_(None), order)
        query = query.order_by(col(RunRow.point), col(RunRow.id)).offset(max(0, offset)).limit(limit)
        with self._database.read() as session:
            rows = session.execute(query).all()
            metrics = _metrics(session, id, [row[1] for row in rows])
        return _points(sweep, rows, metrics)

    def failures(self, viewer: Viewer, id: str) -> tuple[Failures, ...]:
        """Return in which ways points have ended without success, the most common first. Raise NotFound."""
        self._sweeps.get(viewer, id)
        state, reason, many = col(RunRow.state), col(RunRow.reason), func.count()
        query = (
            select(state, reason, many, func.min(col(RunRow.id)))
            .where(col(RunRow.sweep) == id, col(RunRow.stands), state.in_(_UNSUCCESSFUL))
            .group_by(state, reason)
            .order_by(many.desc(), state, reason)
        )
        with self._database.read() as session:
            rows = session.execute(query).all()
        return tuple(Failures(RunState(s), Reason(r) if r else None, count, run) for s, r, count, run in rows)

    def sensitivity(self, viewer: Viewer, id: str) -> SensitivityRecord:
        """Return how each parameter that varies moves each metric, over the points that have succeeded. Raise NotFound.

        The ``MOST_METRICS`` metrics that most points have are looked at.
        """
        sweep = self._sweeps.get(viewer, id)
        key = (id, sweep.rounds, sweep.counts.get(RunState.SUCCEEDED, 0))
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        found = self._sensitivity(sweep)
        with self._lock:
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = found
        return found

    def _sensitivity(self, sweep: SweepRecord) -> SensitivityRecord:
        done = (col(RunRow.sweep) == sweep.id, col(RunRow.stands), col(RunRow.state) == RunState.SUCCEEDED.value)
        with self._database.read() as session:
            rows = session.execute(select(col(RunRow.id), col(RunRow.parameters)).where(*done)).all()
            metrics = _metrics(session, sweep.id)
            units = _units(session, [run for run, _ in rows[:1]])
            ordered = self._ordered(session, sweep)
        varied = partial(_varied, sweep)
        observations = [Observation(varied(values or {}), metrics.get(run, {})) for run, values in rows]
        seen = Counter(name for o in observations for name in o.metrics)
        names = tuple(name for name, _ in seen.most_common(MOST_METRICS))
        effects = sensitivity(observations, ordered, names)
        return SensitivityRecord(len(rows), names, {name: units.get(name, "") for name in names}, effects)

    def _ordered(self, session: Session, sweep: SweepRecord) -> Mapping[str, bool]:
        """Return which of the varied parameters are numbers or dates, as the sweep's template version declares them."""
        row = find_version(session, sweep.template, sweep.version)
        try:
            version = version_of(row) if row is not None else None
        except InvalidInput:
            version = None
        specs = {name: version.parameter(name) if version else None for name in sweep.varied}
        return {name: spec is not None and spec.type in _ORDERED for name, spec in specs.items()}


def _varied(sweep: SweepRecord, values: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    return {name: values.get(name) for name in sweep.varied}


def _points(
    sweep: SweepRecord, rows: Sequence[Any], metrics: Mapping[str, Mapping[str, float]]
) -> tuple[SweepPoint, ...]:
    """Return the points of rows of ``_POINT``."""
    return tuple(
        SweepPoint(
            point or 0,
            run,
            RunState(state),
            _varied(sweep, values or {}),
            metrics.get(run, {}),
            Reason(reason) if reason else None,
        )
        for point, run, state, values, reason in rows
    )


def _metrics(session: Session, sweep: str, runs: Sequence[str] | None = None) -> Mapping[str, Mapping[str, float]]:
    """Return the finite metrics of a sweep's standing runs, by run and name, in the order they were recorded.

    ``runs``: only of these.
    """
    query = (
        select(col(MetricRow.run), col(MetricRow.name), col(MetricRow.value))
        .join(RunRow, col(RunRow.id) == col(MetricRow.run))
        .where(col(RunRow.sweep) == sweep, col(RunRow.stands), col(MetricRow.value).is_not(None))
        .order_by(col(MetricRow.run), col(MetricRow.position))
    )
    if runs is not None:
        query = query.where(col(MetricRow.run).in_(runs))
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for run, name, value in session.execute(query):
        if value is not None:
            found[run][name] = value
    return found


def _units(session: Session, runs: Sequence[str]) -> Mapping[str, str]:
    query = select(col(MetricRow.name), col(MetricRow.unit)).where(col(MetricRow.run).in_(runs))
    return dict(session.execute(query).all())
