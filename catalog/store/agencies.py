"""Agencies: who takes part in the lab, under which short name, with which share of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import NotFound, Viewer, require_admin, visible_agencies
from catalog.store import fields
from catalog.store.database import Database
from catalog.store.events import log_by
from catalog.store.fields import Problems, storable
from catalog.store.records import AgencyRecord
from catalog.store.stopping import stop_schedules
from catalog.tables import Agency, RunRow, ScheduleRow
from experiments.model import Reason, RunState
from experiments.schedules import StopReason
from lab_templates.model import Text
from lab_templates.text import quote

NAME_LENGTH = 200
MOST_SWEEP_RUNS = 1_000_000
_QUOTAS = ("weight", "max_desks", "max_concurrent_runs", "max_sweep_runs", "max_memory", "max_cpus")
_CHANGEABLE = ("name", "active", *_QUOTAS)
_MIB = 1024 * 1024


def agency_record(row: Agency) -> AgencyRecord:
    """Return an agency's row as the value that leaves the store."""
    return AgencyRecord(
        orgnr=row.orgnr,
        slug=row.slug,
        name=Text(row.name_nb, row.name_nn, row.name_en),
        active=row.active,
        weight=row.weight,
        max_desks=row.max_desks,
        max_concurrent_runs=row.max_concurrent_runs,
        max_sweep_runs=row.max_sweep_runs,
        max_memory=row.max_memory,
        max_cpus=row.max_cpus,
    )


def find_agency(session: Session, orgnr_or_slug: str) -> Agency | None:
    """Return the agency of this organisation number or short name, unchecked; None if there is none."""
    wanted = storable(orgnr_or_slug).replace(" ", "")
    column = Agency.orgnr if wanted.isascii() and wanted.isdigit() and len(wanted) == 9 else Agency.slug
    return session.scalars(select(Agency).where(col(column) == wanted)).one_or_none()


class Agencies:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def list(self, viewer: Viewer, *, active_only: bool = True) -> tuple[AgencyRecord, ...]:
        """Return the agencies that the viewer belongs to (all of them to an admin), by short name."""
        query = select(Agency).where(visible_agencies(viewer)).order_by(col(Agency.slug))
        if active_only:
            query = query.where(col(Agency.active))
        with self._database.read() as session:
            return tuple(agency_record(row) for row in session.scalars(query))

    def get(self, viewer: Viewer, orgnr_or_slug: str) -> AgencyRecord:
        """Return one agency that the viewer belongs to. Raise NotFound."""
        with self._database.read() as session:
            row = find_agency(session, orgnr_or_slug)
            seen = select(col(Agency.orgnr)).where(visible_agencies(viewer))
            if row is None or session.scalar(seen.where(col(Agency.orgnr) == row.orgnr)) is None:
                raise _no_agency(orgnr_or_slug)
            return agency_record(row)

    def by_slug(self, slug: str) -> AgencyRecord | None:
        """Return the agency of this short name, active or not. Unchecked: for the Hub."""
        with self._database.read() as session:
            row = session.scalars(select(Agency).where(col(Agency.slug) == storable(slug))).one_or_none()
            return None if row is None else agency_record(row)

    def all(self) -> tuple[AgencyRecord, ...]:
        """Return every agency, by short name, the closed ones too. Unchecked: for the Hub and the dispatcher."""
        with self._database.read() as session:
            return tuple(agency_record(row) for row in session.scalars(select(Agency).order_by(col(Agency.slug))))

    def add(self, viewer: Viewer, agency: AgencyRecord) -> AgencyRecord:
        """Add an agency. Raise Forbidden, or InvalidInput with everything that is wrong.

        Codes: bad_orgnr, bad_slug, missing_value, too_long, bad_text, wrong_type, below_minimum, above_maximum,
        orgnr_taken, slug_taken.
        """
        require_admin(viewer, "add an agency")
        problems = Problems()
        checked = replace(
            _checked(problems, agency),
            orgnr=fields.organisation_number(problems, agency.orgnr),
            slug=fields.slug(problems, agency.slug),
        )
        problems.stop()
        try:
            with self._database.write() as session:
                _refuse_taken(session, checked)
                session.add(_row(checked, self._clock()))
                session.flush()
                detail = {"slug": checked.slug, "name": checked.name.nb}
                log_by(
                    session,
                    viewer,
                    self._clock(),
                    "agency.added",
                    agency=checked.orgnr,
                    subject=checked.orgnr,
                    detail=detail,
                )
        except IntegrityError:  # somebody added it between the look and the insert
            with self._database.read() as session:
                _refuse_taken(session, checked)
            raise
        return checked

    def change(self, viewer: Viewer, orgnr: str, **changes: Any) -> AgencyRecord:
        """Change ``name`` (a Text), ``active``, or a quota: ``weight``, ``max_desks``, ``max_concurrent_runs``,
        ``max_sweep_runs``, ``max_memory``, ``max_cpus`` (None for the last two: no limit).

        Closing an agency ends its queued runs, asks its running ones to stop and stops its schedules, in the same
        transaction. Raise
        NotFound, Forbidden or InvalidInput (as ``add``; unknown_field).
        """
        self.get(viewer, orgnr)
        require_admin(viewer, "change an agency")
        problems = Problems()
        for name in changes.keys() - set(_CHANGEABLE):
            what = f"{quote(name)} of an agency cannot be changed. These can: {', '.join(_CHANGEABLE)}."
            problems.add("unknown_field", quote(name), name, what)
        problems.stop()
        with self._database.write() as session:
            row = session.scalars(select(Agency).where(col(Agency.orgnr) == orgnr).with_for_update()).one_or_none()
            if row is None:
                raise _no_agency(orgnr)
            before = agency_record(row)
            after = _checked(problems, replace(before, **changes))
            problems.stop()
            if after == before:
                return before
            row.name_nb, row.name_nn, row.name_en = after.name.nb, after.name.nn, after.name.en
            row.active = after.active
            for name in _QUOTAS:
                setattr(row, name, getattr(after, name))
            session.flush()
            if before.active and not after.active:
                _stop_runs(session, orgnr, self._clock())
                stop_schedules(session, col(ScheduleRow.orgnr) == orgnr, StopReason.AGENCY_CLOSED, self._clock())
            detail = {k: _plain(getattr(after, k)) for k in _CHANGEABLE if getattr(after, k) != getattr(before, k)}
            log_by(session, viewer, self._clock(), "agency.changed", agency=orgnr, subject=orgnr, detail=detail)
        return after


def _no_agency(wanted: str) -> NotFound:
    return NotFound(f"There is no agency {quote(wanted)!r} that you belong to.")


def _plain(value: object) -> object:
    return {"nb": value.nb, "nn": value.nn, "en": value.en} if isinstance(value, Text) else value


def _checked(problems: Problems, agency: AgencyRecord) -> AgencyRecord:
    """Return the agency with its fields as they are kept (its number and short name are looked at elsewhere)."""
    name = agency.name if isinstance(agency.name, Text) else Text()
    if not isinstance(agency.active, bool):
        problems.add("wrong_type", "active", agency.active, "active is neither true nor false. Give one.", "boolean")
    return AgencyRecord(
        orgnr=agency.orgnr,
        slug=agency.slug,
        name=Text(
            fields.text(problems, "name_nb", name.nb, NAME_LENGTH),
            fields.text(problems, "name_nn", name.nn, NAME_LENGTH, required=False),
            fields.text(problems, "name_en", name.en, NAME_LENGTH, required=False),
        ),
        active=agency.active,
        weight=fields.whole(problems, "weight", agency.weight, 1, 100),
        max_desks=fields.whole(problems, "max_desks", agency.max_desks, 0, 10_000),
        max_concurrent_runs=fields.whole(problems, "max_concurrent_runs", agency.max_concurrent_runs, 0, 10_000),
        max_sweep_runs=fields.whole(problems, "max_sweep_runs", agency.max_sweep_runs, 1, MOST_SWEEP_RUNS),
        max_memory=None
        if agency.max_memory is None
        else fields.whole(problems, "max_memory", agency.max_memory, 256 * _MIB, 2**50),
        max_cpus=None if agency.max_cpus is None else fields.number(problems, "max_cpus", agency.max_cpus, 0.1, 10_000),
    )


def _refuse_taken(session: Session, agency: AgencyRecord) -> None:
    problems = Problems()
    for column, field, code in ((Agency.orgnr, "orgnr", "orgnr_taken"), (Agency.slug, "slug", "slug_taken")):
        value = getattr(agency, field)
        if session.scalar(select(col(Agency.orgnr)).where(col(column) == value)) is not None:
            what = f"There is an agency with {field} {value} already. Change that one, or give another {field}."
            problems.add(code, field, value, what)
    problems.stop()


def _row(agency: AgencyRecord, now: datetime) -> Agency:
    return Agency(
        orgnr=agency.orgnr,
        slug=agency.slug,
        name_nb=agency.name.nb,
        name_nn=agency.name.nn,
        name_en=agency.name.en,
        active=agency.active,
        weight=agency.weight,
        max_desks=agency.max_desks,
        max_concurrent_runs=agency.max_concurrent_runs,
        max_sweep_runs=agency.max_sweep_runs,
        max_memory=agency.max_memory,
        max_cpus=agency.max_cpus,
        created_at=now,
    )


def _stop_runs(session: Session, orgnr: str, now: datetime) -> None:
    """Nobody could see or cancel the runs of a closed agency, so they are ended with it."""
    of_agency = col(RunRow.orgnr) == orgnr
    queued, running = col(RunRow.state) == RunState.QUEUED.value, col(RunRow.state) == RunState.RUNNING.value
    ended = {"state": RunState.CANCELLED.value, "reason": Reason.CANCELLED_BY_USER.value, "ended_at": now}
    session.execute(update(RunRow).where(of_agency, running).values(cancel_requested=True))
    session.execute(update(RunRow).where(of_agency, queued).values(cancel_requested=True, **ended))
