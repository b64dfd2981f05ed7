"""From memberships to groups and desks."""

from datetime import date

from catalog.access import Grant, Role
from catalog.store.records import AgencyRecord
from hub.membership import Directory, groups_of
from lab_templates.model import Text

NAV = AgencyRecord("889640782", "nav", Text("NAV"))
DIGDIR = AgencyRecord("991825827", "digdir", Text("Digdir"), active=False)
BERGEN = AgencyRecord("964338531", "bergen", Text("Bergen kommune"))


class Agencies:
    def all(self) -> tuple[AgencyRecord, ...]:
        return (NAV, DIGDIR, BERGEN)


class Members:
    def __init__(self, *grants: Grant) -> None:
        self.given = grants
        self.asked: list[tuple[str, date]] = []
        self.added: list[tuple[str, str, str]] = []

    def grants(self, person: str, today: date) -> tuple[Grant, ...]:
        self.asked.append((person, today))
        return self.given

    def add(self, viewer: object, *, person: str, agency: str, role: str, **more: object) -> object:
        self.added.append((person, agency, role))
        return None


def test_each_role_is_a_group_and_so_is_each_place_where_it_is_held() -> None:
    grants = (Grant("889640782", Role.MEMBER), Grant("964338531", Role.LEADER), Grant("", Role.ADMIN))
    assert groups_of(grants) == ("889640782-member", "964338531-leader", "admin", "leader", "member")


def test_a_desk_is_for_those_who_work_in_the_agency() -> None:
    grants = (
        Grant("889640782", Role.MEMBER),
        Grant("889640782", Role.LEADER),
        Grant("964338531", Role.LEADER),
        Grant("", Role.ADMIN),
    )
    standing = Directory(Agencies(), Members(*grants)).standing("kari", today=date(2026, 1, 2))
    assert [desk.slug for desk in standing.desks] == ["nav"]
    assert standing.desk("nav") is not None
    assert standing.desk("bergen") is None
    assert standing.desk("") is None


def test_a_closed_agency_gives_nothing() -> None:
    standing = Directory(Agencies(), Members(Grant("991825827", Role.COORDINATOR))).standing("kari")
    assert not standing.current
    assert standing.desks == ()


def test_nobody_without_a_membership_is_current() -> None:
    assert not Directory(Agencies(), Members()).standing("kari").current


def test_joining_adds_the_labs_own_active_agencies_only() -> None:
    members = Members()
    Directory(Agencies(), members).join("kari", {"964338531", "991825827", "971526920"})
    assert members.added == [("kari", "964338531", "member")]
