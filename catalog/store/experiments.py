"""Experiments: the learning records that runs hang below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import Action, Forbidden, NotFound, Viewer, agencies_for, require, visible_experiments
from catalog.store import fields
from catalog.store.agencies import find_agency
from catalog.store.database import Database
from catalog.store.events import log_by
from catalog.store.fields import Problems, one_problem
from catalog.store.ids import is_id, new_id
from catalog.store.paging import check_limit, cursor_after, cut, read_cursor
from catalog.store.records import ExperimentRecord, Page
from catalog.store.stopping import stop_schedules
from catalog.tables import Experiment, RunRow, ScheduleRow
from experiments.schedules import StopReason
from lab_templates.model import LANGUAGES
from lab_templates.text import quote

VISIBILITIES = ("agency", "lab", "public")
STATUSES = ("draft", "registered", "running", "analysed", "published", "stopped")
CLOSED_STATUSES = ("published", "stopped")  # nothing is started for such an experiment by itself any more
LONGEST_QUERY = 200
_CHANGEABLE = ("title", "summary", "language", "visibility", "embargo_until", "status")


def search_words(q: str | None) -> list[str]:
    """Return the words of a query. Raise InvalidInput (too_long)."""
    if q is not None and len(q) > LONGEST_QUERY:
        what = f"The search is {len(q)} characters long; at most {LONGEST_QUERY} are allowed. Shorten it."
        raise one_problem("too_long", "q", len(q), what, str(LONGEST_QUERY))
    return (q or "").replace("\x00", " ").encode("utf-8", "replace").decode().split()


class Experiments:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def list(
        self,
        viewer: Viewer,
        *,
        agency: str | None = None,
        q: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[ExperimentRecord]:
        """Return experiments, newest first; every word of ``q`` must occur in the title or the summary.

        Raise InvalidInput: bad_cursor, bad_limit, too_long.
        """
        check_limit(limit)
        listing = f"experiments {agency!r} {q!r}"
        after = read_cursor(cursor, listing)
        query = select(Experiment).where(visible_experiments(viewer, self._clock().date()))
        for word in search_words(q):
            columns = (col(Experiment.title), col(Experiment.summary))
            query = query.where(or_(*(func.lower(c).contains(word.lower(), autoescape=True) for c in columns)))
        if after is not None:
            query = query.where(col(Experiment.id) < after)
        with self._database.read() as session:
            if agency is not None:
                row = find_agency(session, agency)
                query = query.where(col(Experiment.orgnr) == (row.orgnr if row else ""))
            rows = session.scalars(query.order_by(col(Experiment.id).desc()).limit(limit + 1)).all()
            shown, more = cut(rows, limit)
            counts = _run_counts(session, [row.id for row in shown])
        items = tuple(_record(row, counts.get(row.id, 0)) for row in shown)
        return Page(items, cursor_after(shown[-1].id, listing) if more else None)

    def get(self, viewer: Viewer, id: str) -> ExperimentRecord:
        """Return one experiment. Raise NotFound."""
        with self._database.read() as session:
            row = find_experiment(session, viewer, id, self._clock())
            if row is None:
                raise _no_experiment(id)
            return _record(row, _run_counts(session, [id]).get(id, 0))

    def create(
        self,
        viewer: Viewer,
        *,
        agency: str,
        title: str,
        summary: str = "",
        language: str = "nb",
        visibility: str = "agency",
        embargo_until: object = None,
    ) -> ExperimentRecord:
        """Create a draft. Raise Forbidden, or InvalidInput with everything that is wrong.

        Codes: not_a_member, agency_closed, missing_value, too_long, bad_text, wrong_type, not_a_choice, not_a_date.
        """
        problems = Problems()
        values: dict[str, Any] = {
            "title": title,
            "summary": summary,
            "language": language,
            "visibility": visibility,
            "embargo_until": embargo_until,
        }
        checked = _checked(problems, values)
        with self._database.write() as session:
            orgnr = agency_to_work_in(session, problems, viewer, agency)
            problems.stop()
            if checked["visibility"] != "agency":
                _refuse_desk(viewer)
            row = Experiment(id=new_id(), orgnr=orgnr, created_by=viewer.name, created_at=self._clock(), **checked)
            session.add(row)
            session.flush()
            log_by(session, viewer, self._clock(), "experiment.created", agency=orgnr, subject=row.id)
            return _record(row, 0)

    def change(self, viewer: Viewer, id: str, **changes: Any) -> ExperimentRecord:
        """Change ``title``, ``summary``, ``language``, ``visibility``, ``embargo_until`` or ``status``.

        Raise NotFound, Forbidden or InvalidInput (as ``create``; unknown_field).
        """
        problems = Problems()
        for name in changes.keys() - set(_CHANGEABLE):
            what = f"{quote(name)} of an experiment cannot be changed. These can: {', '.join(_CHANGEABLE)}."
            problems.add("unknown_field", quote(name), name, what)
        checked = _checked(problems, {k: v for k, v in changes.items() if k in _CHANGEABLE})
        with self._database.write() as session:
            row = find_experiment(session, viewer, id, self._clock())
            if row is None:
                raise _no_experiment(id)
            if not _may_change(viewer, row.orgnr):
                raise Forbidden(f"{viewer.name} may not change an experiment of agency {row.orgnr}.")
            problems.stop()
            moved = {k: v for k, v in checked.items() if getattr(row, k) != v}
            if moved.keys() & {"visibility", "embargo_until"}:
                _refuse_desk(viewer)
            for name, value in moved.items():
                setattr(row, name, value)
            session.flush()
            if moved.get("status") in CLOSED_STATUSES:
                this = col(ScheduleRow.experiment) == id
                stop_schedules(session, this, StopReason.EXPERIMENT_CLOSED, self._clock())
            if moved:
                detail = {k: str(v) if v is not None else None for k, v in moved.items() if k != "summary"}
                log_by(
                    session,
                    viewer,
                    self._clock(),
                    "experiment.changed",
                    agency=row.orgnr,
                    subject=id,
                    detail=detail | {"fields": sorted(moved)},
                )
            return _record(row, _run_counts(session, [id]).get(id, 0))


def find_experiment(session: Session, viewer: Viewer, id: str, now: datetime) -> Experiment | None:
    """Return the row of an experiment that the viewer may see, else None."""
    if not is_id(id):
        return None
    query = select(Experiment).where(col(Experiment.id) == id, visible_experiments(viewer, now.date()))
    return session.scalars(query).one_or_none()


def agency_to_work_in(session: Session, problems: Problems, viewer: Viewer, agency: object) -> str:
    """Return the organisation number of an open agency where the viewer may submit, and keep it open meanwhile.

    Notes not_a_member (also for an agency that does not exist: the two are not told apart) and agency_closed. Raise
    Forbidden if the viewer belongs there but may only read.
    """
    row = find_agency(session, agency) if isinstance(agency, str) else None
    reads = row is not None and _reads(viewer, row.orgnr)
    if row is None or not reads:
        what = f"You are not a member of agency {quote(agency)}. Choose one of your own, or ask its coordinator."
        problems.add("not_a_member", "agency", agency, what)
        return ""
    require(viewer, Action.SUBMIT, row.orgnr)
    session.refresh(row, with_for_update={"read": True})
    if not row.active:
        what = f"Agency {row.orgnr} is closed, so nothing new starts for it. Ask the lab's administrators to open it."
        problems.add("agency_closed", "agency", row.orgnr, what)
    return row.orgnr


def _reads(viewer: Viewer, orgnr: str) -> bool:
    allowed = agencies_for(viewer, Action.READ)
    return allowed is None or orgnr in allowed


def _may_change(viewer: Viewer, orgnr: str) -> bool:
    allowed = agencies_for(viewer, Action.SUBMIT)
    return allowed is None or orgnr in allowed


def _refuse_desk(viewer: Viewer) -> None:
    """Raise Forbidden for a desk: its code need not be its owner's, and sharing opens the agency's data."""
    if viewer.confined_to is not None:
        raise Forbidden("A desk cannot share an experiment with other agencies. Do it on the lab's pages.")


def _checked(problems: Problems, values: Mapping[str, Any]) -> dict[str, Any]:
    readers: dict[str, Callable[[Any], Any]] = {
        "title": lambda v: fields.text(problems, "title", v, 300),
        "summary": lambda v: fields.text(problems, "summary", v, 20_000, required=False),
        "language": lambda v: fields.choice(problems, "language", v, LANGUAGES),
        "visibility": lambda v: fields.choice(problems, "visibility", v, VISIBILITIES),
        "embargo_until": lambda v: fields.day(problems, "embargo_until", v),
        "status": lambda v: fields.choice(problems, "status", v, STATUSES),
    }
    return {name: readers[name](value) for name, value in values.items()}


def _run_counts(session: Session, ids: list[str]) -> dict[str, int]:
    if not ids:
        return {}
    run_experiment = col(RunRow.experiment)
    query = select(run_experiment, func.count()).where(run_experiment.in_(ids)).group_by(run_experiment)
    return {str(id): count for id, count in session.execute(query)}


def _no_experiment(id: object) -> NotFound:
    return NotFound(f"There is no experiment {quote(id)} that you may see.")


def _record(row: Experiment, runs: int) -> ExperimentRecord:
    return ExperimentRecord(
        id=row.id,
        agency=row.orgnr,
        title=row.title,
        summary=row.summary,
        language=row.language,
        visibility=row.visibility,
        embargo_until=row.embargo_until,
        status=row.status,
        created_by=row.created_by,
        created_at=row.created_at,
        runs=runs,
    )
