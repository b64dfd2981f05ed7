"""What a demonstration lab begins with: four real agencies, a login for each role, and the library's templates.

Only ever adds: an agency that was changed, a membership that was ended and a template that was deprecated stay so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from catalog.access import Action, Grant, NotFound, Role, Viewer
from catalog.store import Catalog
from catalog.store.records import AgencyRecord
from hub.membership import SYSTEM
from lab_templates.model import Text
from lab_templates.registry import library


def _agency(orgnr: str, slug: str, nb: str, nn: str, en: str) -> AgencyRecord:
    return AgencyRecord(orgnr, slug, Text(nb, nn, en))


NAV = _agency("889640782", "nav", "NAV", "NAV", "NAV")
SKATTEETATEN = _agency("974761076", "skatteetaten", "Skatteetaten", "Skatteetaten", "The Norwegian Tax Administration")
DIGDIR = _agency(
    "991825827",
    "digdir",
    "Digitaliseringsdirektoratet",
    "Digitaliseringsdirektoratet",
    "The Norwegian Digitalisation Agency",
)
BERGEN = _agency("964338531", "bergen", "Bergen kommune", "Bergen kommune", "The City of Bergen")
AGENCIES = (NAV, SKATTEETATEN, DIGDIR, BERGEN)


@dataclass(frozen=True, slots=True)
class Place:
    person: str
    agency: str
    role: Role


def _places() -> Iterator[Place]:
    yield Place("team", NAV.orgnr, Role.MEMBER)
    yield Place("team", SKATTEETATEN.orgnr, Role.MEMBER)
    for agency in AGENCIES:
        yield Place("coordinator", agency.orgnr, Role.COORDINATOR)
        yield Place("leader", agency.orgnr, Role.LEADER)
    yield Place("admin", "", Role.ADMIN)


PLACES = tuple(_places())
LOGINS = tuple(dict.fromkeys(place.person for place in PLACES))


def seed(catalog: Catalog) -> tuple[str, ...]:
    """Add what is missing and return it in words. Raise InvalidInput if a template is not fit to publish."""
    return (*_agencies(catalog), *_members(catalog), *_templates(catalog))


def _agencies(catalog: Catalog) -> Iterator[str]:
    there = {agency.orgnr for agency in catalog.agencies.all()}
    for agency in AGENCIES:
        if agency.orgnr not in there:
            catalog.agencies.add(SYSTEM, agency)
            yield f"agency {agency.slug}"


def _members(catalog: Catalog) -> Iterator[str]:
    there = {(member.person, member.agency, member.role) for member in catalog.members.list(SYSTEM)}
    today = datetime.now(UTC).date()
    for place in PLACES:
        if (place.person, place.agency, str(place.role)) not in there:
            catalog.members.add(SYSTEM, person=place.person, agency=place.agency, role=place.role, starts=today)
            yield f"{place.person} as {place.role}"


def _templates(catalog: Catalog) -> Iterator[str]:
    coordinator = _viewer("coordinator", Grant(DIGDIR.orgnr, Role.COORDINATOR))
    admin = _viewer("admin", Grant("", Role.ADMIN))
    for version in library():
        try:
            catalog.templates.get(SYSTEM, version.name, version.version)
        except NotFound:
            catalog.templates.submit(coordinator, version)
            catalog.templates.approve(admin, version.name, version.version)
            yield f"template {version.name} {version.version}"


def _viewer(name: str, grant: Grant) -> Viewer:
    return Viewer(name=name, grants=(grant,), actions=frozenset(Action), source="seed")
