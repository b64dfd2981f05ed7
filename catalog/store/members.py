"""Memberships: who belongs to which agency, as what, from when until when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session
from sqlmodel import col

from catalog.access import (
    Action,
    Forbidden,
    Grant,
    NotFound,
    Role,
    Viewer,
    is_admin,
    may,
    require,
    require_admin,
    require_anywhere,
    visible_members,
)
from catalog.store import fields
from catalog.store.agencies import find_agency
from catalog.store.database import Database
from catalog.store.events import log_by
from catalog.store.fields import Problems, one_problem, storable
from catalog.store.ids import new_id
from catalog.store.records import MemberRecord
from catalog.tables import Agency, Membership

ROLES = tuple(role.value for role in Role)
KINDS = ("employed", "seconded")


def _current(today: date) -> ColumnElement[bool]:
    ends = col(Membership.ends)
    return and_(col(Membership.starts) <= today, or_(ends.is_(None), ends >= today))


class Members:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def grants(self, person: str, today: date) -> tuple[Grant, ...]:
        """Return what a person's memberships allow on a day; a closed agency's allow nothing. Unchecked: for login."""
        with self._database.read() as session:
            return current_grants(session, person, today)

    def viewer(
        self, name: str, *, actions: frozenset[Action], confined_to: str | None = None, source: str = "api"
    ) -> Viewer:
        """Return who asks: the person's memberships as they are now, and what the token allows.

        ``confined_to`` is the short name of the agency that a desk's token belongs to. One that is unknown leaves the
        viewer nothing at all.
        """
        name = storable(name, 255)
        with self._database.read() as session:
            grants = current_grants(session, name, self._clock().date())
            if confined_to is None:
                return Viewer(name, grants, actions, None, source)
            agency = find_agency(session, confined_to)
            if agency is None or not agency.active:
                return Viewer(name, (), frozenset(), "", source)
            return Viewer(name, grants, actions, agency.orgnr, source)

    def list(self, viewer: Viewer, agency: str | None = None) -> tuple[MemberRecord, ...]:
        """Return memberships, also ended ones: one's own, as coordinator the own agencies', as admin all.

        ``agency`` (organisation number or short name) narrows to one. Raise NotFound if the viewer has no place there.
        """
        query = select(Membership).where(visible_members(viewer))
        with self._database.read() as session:
            if agency is not None:
                row = find_agency(session, agency)
                require(viewer, Action.READ, row.orgnr if row else agency)
                query = query.where(col(Membership.orgnr) == (row.orgnr if row else agency))
            rows = session.scalars(query.order_by(col(Membership.person), col(Membership.id)))
            return tuple(_record(row) for row in rows)

    def add(
        self,
        viewer: Viewer,
        *,
        person: str,
        agency: str,
        role: str,
        kind: str = "employed",
        starts: date | None = None,
        ends: date | None = None,
    ) -> MemberRecord:
        """Add a membership; ``starts`` is today unless given, both dates are inclusive.

        Admins of the lab (``role`` admin, ``agency`` "") are added by admins alone, members of an agency by its
        coordinators too. Raise NotFound, Forbidden or InvalidInput: bad_person, national_id, not_a_choice,
        not_a_date, ends_before_start, unknown_agency, agency_closed, admin_has_no_agency, already_member.
        """
        problems = Problems()
        today = self._clock().date()
        with self._database.write() as session:
            row = find_agency(session, agency) if isinstance(agency, str) and agency else None
            orgnr = row.orgnr if row else agency if isinstance(agency, str) else "?"
            _require_manager(viewer, orgnr)
            member = Membership(
                id=new_id(),
                person=fields.person(problems, person),
                orgnr=orgnr,
                role=fields.choice(problems, "role", role, ROLES),
                kind=fields.choice(problems, "kind", kind, KINDS),
                starts=fields.day(problems, "starts", starts) or today,
                ends=fields.day(problems, "ends", ends),
                created_at=self._clock(),
            )
            _check_place(problems, member, row)
            problems.stop()
            _refuse_overlap(session, member)
            session.add(member)
            session.flush()
            detail = {"role": member.role, "kind": member.kind, "starts": str(member.starts), "ends": _day(member.ends)}
            log_by(
                session,
                viewer,
                self._clock(),
                "membership.added",
                agency=orgnr,
                subject=member.person,
                detail={"id": member.id, **detail},
            )
            return _record(member)

    def end(self, viewer: Viewer, id: str, on: date) -> MemberRecord:
        """Let ``on`` be a membership's last day; yesterday ends it at once. Whoever may add it may end it.

        Raise NotFound, Forbidden or InvalidInput: not_a_date, ends_before_start (more than a day), already_ended,
        last_admin.
        """
        problems = Problems()
        last_day = fields.day(problems, "on", on)
        with self._database.write() as session:
            seen = (
                select(Membership).where(col(Membership.id) == storable(id), visible_members(viewer)).with_for_update()
            )
            member = session.scalars(seen).one_or_none()
            if member is None:
                raise NotFound("There is no such membership that you may see.")
            _require_manager(viewer, member.orgnr)
            problems.stop()
            if last_day is None:
                raise one_problem("missing_value", "on", "", "on is empty. Give the membership's last day.")
            self._check_ending(session, member, last_day)
            member.ends = last_day
            session.flush()
            log_by(
                session,
                viewer,
                self._clock(),
                "membership.ended",
                agency=member.orgnr,
                subject=member.person,
                detail={"id": member.id, "ends": str(last_day)},
            )
            return _record(member)

    def _check_ending(self, session: Session, member: Membership, on: date) -> None:
        today = self._clock().date()
        if member.ends is not None and member.ends < today:
            raise one_problem("already_ended", "id", member.id, f"This membership ended on {member.ends} already.")
        if (member.starts - on).days > 1:
            what = f"The last day {on} is before the first, {member.starts}. Give a later one."
            raise one_problem("ends_before_start", "on", on, what, str(member.starts))
        if member.role != Role.ADMIN.value:
            return
        admins = select(col(Membership.id)).where(
            col(Membership.role) == Role.ADMIN.value, col(Membership.ends).is_(None), col(Membership.id) != member.id
        )
        if not session.scalars(admins.with_for_update()).all():
            what = f"{member.person} is the lab's last admin without an end date. Add another admin first."
            raise one_problem("last_admin", "id", member.id, what)


def current_grants(session: Session, person: str, today: date) -> tuple[Grant, ...]:
    query = (
        select(Membership)
        .outerjoin(Agency, col(Agency.orgnr) == col(Membership.orgnr))
        .where(col(Membership.person) == storable(person), _current(today))
        .where(or_(col(Membership.orgnr) == "", col(Agency.active)))
        .order_by(col(Membership.orgnr), col(Membership.role))
    )
    return tuple(Grant(row.orgnr, Role(row.role), row.ends) for row in session.scalars(query))


def _require_manager(viewer: Viewer, orgnr: str) -> None:
    """Raise unless the viewer handles this agency's memberships ("" for the lab's admins)."""
    if not orgnr:
        require_admin(viewer, "change who administers the lab")
    elif not is_admin(viewer):
        require_anywhere(viewer, Action.READ, "change memberships")
        if may(viewer, Action.READ, orgnr) and not may(viewer, Action.PUBLISH, orgnr):
            raise Forbidden(f"{viewer.name} may not change agency {orgnr}'s memberships. Ask one of its coordinators.")
        require(viewer, Action.PUBLISH, orgnr)


def _check_place(problems: Problems, member: Membership, agency: Agency | None) -> None:
    if (member.role == Role.ADMIN.value) != (not member.orgnr):
        what = "An admin belongs to the whole lab: give role admin without an agency, or another role with one."
        problems.add("admin_has_no_agency", "role", member.role, what)
    elif member.orgnr and agency is None:
        problems.add("unknown_agency", "agency", member.orgnr, f"There is no agency {member.orgnr}. Add it first.")
    elif agency is not None and not agency.active:
        problems.add("agency_closed", "agency", member.orgnr, f"Agency {member.orgnr} is closed. Open it first.")
    if member.ends is not None and member.ends < member.starts:
        what = f"The last day {member.ends} is before the first, {member.starts}. Give a later one."
        problems.add("ends_before_start", "ends", member.ends, what, str(member.starts))


def _refuse_overlap(session: Session, member: Membership) -> None:
    # Two coordinators adding the same person at once queue up here, so that the second sees the first's row.
    session.execute(select(col(Agency.orgnr)).where(col(Agency.orgnr) == member.orgnr).with_for_update())
    same = select(Membership).where(
        col(Membership.person) == member.person,
        col(Membership.orgnr) == member.orgnr,
        col(Membership.role) == member.role,
        or_(col(Membership.ends).is_(None), col(Membership.ends) >= member.starts),
    )
    if member.ends is not None:
        same = same.where(col(Membership.starts) <= member.ends)
    if (other := session.scalars(same).first()) is not None:
        until = f"until {other.ends}" if other.ends else "without an end date"
        what = f"{member.person} is {member.role} there from {other.starts} {until} already. End that first."
        raise one_problem("already_member", "person", member.person, what)


def _day(value: date | None) -> str | None:
    return None if value is None else str(value)


def _record(row: Membership) -> MemberRecord:
    return MemberRecord(row.id, row.person, row.orgnr, row.role, row.kind, row.starts, row.ends, row.created_at)
