"""From the catalog's memberships to what the Hub knows of a person: groups, and the desks they may have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol

from catalog.access import Action, Grant, Role, Viewer, may_have_desk
from catalog.store.records import AgencyRecord, MemberRecord
from lab_templates.model import Text

# What the lab does on its own, so that the audit log says so.
SYSTEM = Viewer(name="system", grants=(Grant("", Role.ADMIN),), actions=frozenset(Action), source="hub")


class Agencies(Protocol):
    """What is needed of ``Catalog.agencies``."""

    def all(self) -> tuple[AgencyRecord, ...]: ...


class Members(Protocol):
    """What is needed of ``Catalog.members``."""

    def grants(self, person: str, today: date) -> tuple[Grant, ...]: ...

    def add(
        self, viewer: Viewer, *, person: str, agency: str, role: str, kind: str = ..., starts: date | None = ...
    ) -> MemberRecord: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """One agency in which a person may have a desk; its server is named ``slug``."""

    orgnr: str
    slug: str
    name: Text
    roles: tuple[Role, ...]
    max_desks: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a person stands today. ``current`` is False for somebody without any membership: they may not sign in."""

    person: str
    groups: tuple[str, ...]
    desks: tuple[Desk, ...]

    @property
    def current(self) -> bool:
        return bool(self.groups)

    def desk(self, slug: str) -> Desk | None:
        return next((desk for desk in self.desks if desk.slug == slug), None)


class Directory:
    """Answers for each person from the database, at each question anew. Blocks: an event loop calls it in a thread."""

    def __init__(self, agencies: Agencies, members: Members) -> None:
        self._agencies = agencies
        self._members = members

    def standing(self, person: str, *, today: date | None = None) -> Standing:
        """Return where a person stands on a day: today, as the catalog counts days (UTC), unless given."""
        grants = self._members.grants(person, today or datetime.now(UTC).date())
        agencies = {agency.orgnr: agency for agency in self._agencies.all() if agency.active}
        live = tuple(grant for grant in grants if not grant.agency or grant.agency in agencies)
        return Standing(person, groups_of(live), _desks_of(live, agencies.values()))

    def join(self, person: str, organisations: Iterable[str]) -> None:
        """Make a person a member, from today and in the lab's own name, of each organisation that is an agency here."""
        known = {agency.orgnr for agency in self._agencies.all() if agency.active}
        for orgnr in sorted(known.intersection(organisations)):
            self._members.add(SYSTEM, person=person, agency=orgnr, role=Role.MEMBER, starts=datetime.now(UTC).date())


def groups_of(grants: Iterable[Grant]) -> tuple[str, ...]:
    """Return the Hub groups of these memberships: one for each role, and ``<orgnr>-<role>`` for each place."""
    found = {str(grant.role) for grant in grants}
    found |= {f"{grant.agency}-{grant.role}" for grant in grants if grant.agency}
    return tuple(sorted(found))


def _desks_of(grants: tuple[Grant, ...], agencies: Iterable[AgencyRecord]) -> tuple[Desk, ...]:
    desks = []
    for agency in sorted(agencies, key=lambda a: a.slug):
        roles = tuple(sorted(grant.role for grant in grants if grant.agency == agency.orgnr))
        if may_have_desk(grants, agency.orgnr):
            desks.append(Desk(agency.orgnr, agency.slug, agency.name, roles, agency.max_desks))
    return tuple(desks)
