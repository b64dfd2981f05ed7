"""Runs as people see them: asking for one, finding them, following one, ending it early."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, union, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Action, Forbidden, NotFound, Viewer, may, run_lanes, shared_experiments, visible_runs
from catalog.blobs import Blobs
from catalog.store import search
from catalog.store.agencies import find_agency
from catalog.store.database import Database, changed
from catalog.store.events import log_by
from catalog.store.experiments import agency_to_work_in, search_words
from catalog.store.fields import Problems, one_problem, storable
from catalog.store.ids import is_id
from catalog.store.limits import RunLimits
from catalog.store.notices import tell_of_run
from catalog.store.paging import check_limit, cursor_after, cut, read_cursor
from catalog.store.records import FigureInfo, Page, RunFilter, RunRecord, Submission
from catalog.store.run_rows import (
    add_run,
    figures_of,
    findings_of,
    metrics_of,
    run_query,
    run_record,
    tables_of,
)
from catalog.store.submissions import Checked, check, still_published
from catalog.tables import Agency, Experiment, FigureRow, RunRow
from experiments.model import Reason, RunState
from lab_templates.text import quote

_MOST_LANES = 20  # beyond so many agencies a plain disjunction is the better query


class Runs:
    def __init__(self, database: Database, blobs: Blobs, limits: RunLimits, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._blobs = blobs
        self._limits = limits
        self._clock = clock

    # -- asking for a run ------------------------------------------------------------------------------------------
    def submit(self, viewer: Viewer, submission: Submission) -> tuple[RunRecord, bool]:
        """Queue a run and return it, and whether it is new: a used ``idempotency_key`` gives the run it made before.

        Raise Forbidden, or InvalidInput with every problem (see ``submissions.check``); nothing is stored then.
        """
        return self._submit(viewer, submission, None)

    def retry(self, viewer: Viewer, id: str) -> RunRecord:
        """Queue a new run with the request of an ended one. Raise NotFound, Forbidden, InvalidInput (not_ended, …)."""
        record = self.progress(viewer, id)
        self._require_submit(viewer, record.agency.orgnr)
        if not record.state.ended:
            what = f"Run {id} is {record.state} and cannot be repeated before it has ended. Cancel it, or wait."
            raise one_problem("not_ended", "id", id, what, record.state)
        again = Submission(
            template=record.template,
            agency=record.agency.orgnr,
            parameters=record.parameters,
            version=record.version,
            experiment=record.experiment,
            timeout_seconds=min(record.timeout_seconds, self._limits.max_timeout_seconds),
        )
        return self._submit(viewer, again, id)[0]

    def _submit(self, viewer: Viewer, submission: Submission, retry_of: str | None) -> tuple[RunRecord, bool]:
        # Most refusals are found here, without the write lock.
        checked = self._check(viewer, submission)
        if checked.existing is not None:
            return self.get(viewer, checked.existing), False
        try:
            with self._database.write() as session:
                id = self._insert(session, viewer, checked, retry_of)
        except IntegrityError:
            # The same key came in twice at once, and the other one was first.
            checked = self._check(viewer, submission)
            if checked.existing is None:
                raise
            return self.get(viewer, checked.existing), False
        return self.get(viewer, id), True

    def _check(self, viewer: Viewer, submission: Submission) -> Checked:
        with self._database.read() as session:
            return check(session, viewer, submission, self._limits, self._clock())

    def _insert(self, session: Session, viewer: Viewer, checked: Checked, retry_of: str | None) -> str:
        request, version = checked.request, checked.version
        if request is None or version is None:
            raise ValueError("Only a request that was checked can be stored.")
        problems = Problems()
        agency_to_work_in(session, problems, viewer, request.agency)
        problems.stop()
        still_published(session, request)
        title = version.title
        row = add_run(
            session,
            request,
            self._clock(),
            max_attempts=self._limits.max_attempts,
            retry_of=retry_of,
            words=(title.nb, title.nn, title.en),
        )
        detail: dict[str, object] = {"template": f"{request.template}@{request.version}"}
        if retry_of is not None:
            detail["retry_of"] = retry_of
        log_by(session, viewer, self._clock(), "run.submitted", agency=request.agency, subject=row.id, detail=detail)
        return row.id

    # -- ending one early ------------------------------------------------------------------------------------------
    def cancel(self, viewer: Viewer, id: str) -> RunRecord:
        """End a queued run at once; ask the runner of a running one to stop. An ended run is returned as it is.

        Raise NotFound or Forbidden.
        """
        record = self.progress(viewer, id)
        self._require_submit(viewer, record.agency.orgnr)
        with self._database.write() as session:
            row = session.scalars(select(RunRow).where(col(RunRow.id) == id).with_for_update()).one()
            action = "run.cancelled" if row.state == RunState.QUEUED.value else "run.cancel_requested"
            if self._cancel(session, row):
                session.refresh(row)
                if RunState(row.state).ended and row.requested_by != viewer.name:
                    tell_of_run(session, self._clock(), row)
                log_by(session, viewer, self._clock(), action, agency=row.orgnr, subject=id)
        return self.get(viewer, id)

    def _cancel(self, session: Session, row: RunRow) -> bool:
        state = RunState(row.state)
        values: dict[str, Any] = {"cancel_requested": True}
        if state is RunState.QUEUED:
            values |= {
                "state": RunState.CANCELLED.value,
                "reason": Reason.CANCELLED_BY_USER.value,
                "ended_at": self._clock(),
            }
        elif state is not RunState.RUNNING or row.cancel_requested:
            return False
        this = and_(col(RunRow.id) == row.id, col(RunRow.state) == state.value)
        return changed(session.execute(update(RunRow).where(this).values(**values))) == 1

    @staticmethod
    def _require_submit(viewer: Viewer, orgnr: str) -> None:
        if not may(viewer, Action.SUBMIT, orgnr):
            raise Forbidden(f"{viewer.name} may not start or end runs of agency {orgnr}. Ask one of its coordinators.")

    # -- reading ---------------------------------------------------------------------------------------------------
    def get(self, viewer: Viewer, id: str) -> RunRecord:
        """Return a run with its metrics, figures, tables and findings. Raise NotFound."""
        with self._database.read() as session:
            loaded = self._load(session, viewer, id)
            return run_record(
                loaded,
                metrics=metrics_of(session, [id]).get(id, ()),
                findings=findings_of(session, [id]).get(id, ()),
                figures=figures_of(session, id),
                tables=tables_of(session, id),
            )

    def progress(self, viewer: Viewer, id: str) -> RunRecord:
        """Return a run without its results, with one query: for polling. Raise NotFound."""
        with self._database.read() as session:
            return run_record(self._load(session, viewer, id))

    def notebook(self, viewer: Viewer, id: str) -> bytes:
        """Return the executed notebook, as far as it came. Raise NotFound (also if there is none), BlobDamaged."""
        sha256 = self.progress(viewer, id).notebook_sha256
        if sha256 is None:
            raise NotFound(f"Run {id} has left no notebook.")
        return self._blobs.get(sha256)

    def figure(self, viewer: Viewer, id: str, name: str) -> tuple[FigureInfo, bytes]:
        """Return a figure and its bytes. Raise NotFound, BlobDamaged."""
        with self._database.read() as session:
            self._load(session, viewer, id)
            this = select(FigureRow).where(col(FigureRow.run) == id, col(FigureRow.name) == storable(name))
            row = session.scalars(this).one_or_none()
        if row is None:
            raise NotFound(f"Run {id} has no figure {quote(name)}.")
        return FigureInfo(row.name, row.mime, row.sha256, row.caption, row.alt), self._blobs.get(row.sha256)

    def list(self, viewer: Viewer, filter: RunFilter, *, cursor: str | None = None, limit: int = 50) -> Page[RunRecord]:
        """Return runs with their metrics and findings, newest first.

        ``filter.agency``: organisation number or short name. Raise InvalidInput (bad_cursor, bad_limit, too_long).
        """
        check_limit(limit)
        listing = f"runs {filter!r}"
        after = read_cursor(cursor, listing)
        with self._database.read() as session:
            agency = None if filter.agency is None else find_agency(session, filter.agency)
            where = _where(session, self._database.dialect, filter)
            if where is None or (agency is None and filter.agency is not None):
                return Page(())
            if agency is not None:
                where.append(col(RunRow.orgnr) == agency.orgnr)
            if after is not None:
                where.append(col(RunRow.id) < after)
            lanes = self._lanes(session, viewer, agency)
            ids = session.scalars(_newest(lanes, where, limit + 1)).all()
            shown, more = cut(ids, limit)
            rows = session.execute(run_query().where(col(RunRow.id).in_(shown)).order_by(col(RunRow.id).desc())).all()
            metrics, findings = metrics_of(session, shown), findings_of(session, shown)
        items = tuple(
            run_record(
                (run, agency, title),
                tail="",
                metrics=metrics.get(run.id, ()),
                findings=findings.get(run.id, ()),
            )
            for run, agency, title in rows
        )
        return Page(items, cursor_after(shown[-1], listing) if more else None)

    def _lanes(self, session: Session, viewer: Viewer, agency: Agency | None) -> tuple[ColumnElement[bool], ...]:
        today = self._clock().date()
        shared = session.scalar(select(col(Experiment.id)).where(shared_experiments(viewer, today)).limit(1))
        return run_lanes(viewer, today, agency.orgnr if agency else None, any_shared=shared is not None)

    def _load(self, session: Session, viewer: Viewer, id: str) -> Any:
        seen = visible_runs(viewer, self._clock().date())
        loaded = session.execute(run_query().where(col(RunRow.id) == id, seen)).one_or_none() if is_id(id) else None
        if loaded is None:
            raise NotFound(f"There is no run {quote(id)} that you may see.")
        return loaded


def _where(session: Session, dialect: str, filter: RunFilter) -> list[ColumnElement[bool]] | None:
    """Return the filter's conditions, None if nothing can fulfil them."""
    where: list[ColumnElement[bool]] = []
    if filter.template is not None:
        where.append(col(RunRow.template) == storable(filter.template))
    if filter.state is not None:
        where.append(col(RunRow.state) == filter.state.value)
    if filter.experiment is not None:
        where.append(col(RunRow.experiment) == storable(filter.experiment))
    if filter.sweep is not None:
        where.append(col(RunRow.sweep) == storable(filter.sweep))
    if filter.schedule is not None:
        where.append(col(RunRow.schedule) == storable(filter.schedule))
    typed = search_words(filter.q)
    words = search.words(typed)
    if typed and not words:
        return None  # only signs, such as "%": no run has them as a word
    return where + _having(session, dialect, words)


def _having(session: Session, dialect: str, words: list[str]) -> list[ColumnElement[bool]]:
    """Return the conditions that each word begins a word of the run's document, or one of its agency's names."""
    if not words:
        return []
    agencies = [
        (a.orgnr, search.words((a.orgnr, a.slug, a.name_nb, a.name_nn, a.name_en)))
        for a in session.scalars(select(Agency))
    ]
    id = col(RunRow.id)
    plain: list[str] = []
    where: list[ColumnElement[bool]] = []
    for word in words:
        named = [orgnr for orgnr, names in agencies if any(name.startswith(word) for name in names)]
        if named:
            where.append(or_(col(RunRow.orgnr).in_(named), search.has_words(dialect, [word], id)))
        else:
            plain.append(word)
    return [*where, search.has_words(dialect, plain, id)] if plain else where


def _newest(lanes: tuple[ColumnElement[bool], ...], where: list[ColumnElement[bool]], limit: int) -> Any:
    """Return the query for the newest runs' ids: each lane walks its own index as far as ``limit``, then they merge."""
    id = col(RunRow.id)
    if len(lanes) in (0, 1) or len(lanes) > _MOST_LANES:
        return select(id).where(or_(*lanes) if lanes else id.is_(None), *where).order_by(id.desc()).limit(limit)
    walks = [select(id).where(lane, *where).order_by(id.desc()).limit(limit).subquery() for lane in lanes]
    merged = union(*(select(walk.c.id) for walk in walks)).subquery()
    return select(merged.c.id).order_by(merged.c.id.desc()).limit(limit)
