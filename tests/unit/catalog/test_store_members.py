from __future__ import annotations

from datetime import date, timedelta

import pytest

from catalog.access import Forbidden, Grant, NotFound, Role, is_admin
from lab_templates.model import InvalidInput
from tests.unit.catalog.world import NAV, SKATT, SYSTEM, T0, World

TODAY = T0.date()
DAY = timedelta(days=1)


def codes(caught: pytest.ExceptionInfo[InvalidInput]) -> set[str]:
    return {problem.code for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("starts", "ends", "holds"),
    [
        (None, None, True),
        (TODAY, TODAY, True),
        (TODAY - 9 * DAY, TODAY - DAY, False),
        (TODAY + DAY, None, False),
        (TODAY - DAY, TODAY, True),
    ],
)
def test_a_membership_holds_from_its_first_day_to_its_last(
    world: World, starts: date | None, ends: date | None, holds: bool
) -> None:
    world.catalog.members.add(SYSTEM, person="ny", agency=NAV, role="member", kind="seconded", starts=starts, ends=ends)
    expected = (Grant(NAV, Role.MEMBER, ends),) if holds else ()
    assert world.catalog.members.grants("ny", TODAY) == expected
    assert world.viewer("ny").grants == expected


def test_a_secondee_loses_everything_the_day_after(world: World) -> None:
    run = world.submit("kari")
    world.catalog.members.add(SYSTEM, person="gjest", agency=NAV, role="member", kind="seconded", ends=TODAY)
    assert world.catalog.runs.get(world.viewer("gjest"), run.id).id == run.id
    world.clock.advance(24 * 3600)
    with pytest.raises(NotFound):
        world.catalog.runs.get(world.viewer("gjest"), run.id)
    with pytest.raises(InvalidInput) as caught:
        world.submit("gjest")
    assert codes(caught) == {"not_a_member"}


def test_a_person_is_kept_as_the_hub_keeps_it(world: World) -> None:
    added = world.catalog.members.add(SYSTEM, person=" A\u030ase@NAV.no ", agency="nav", role="member")
    assert (added.person, added.agency) == ("åse@nav.no", NAV)


@pytest.mark.parametrize(
    ("person", "code"),
    [
        ("", "bad_person"),
        ("a b", "bad_person"),
        ("a/b", "bad_person"),
        ("x" * 256, "bad_person"),
        ("a\x00", "bad_person"),
        ("a\u202eb", "bad_person"),
        ("<img>", "bad_person"),
        (5, "bad_person"),
        ("System", "bad_person"),
        ("15076500565", "national_id"),
    ],
)
def test_odd_user_names_are_refused(world: World, person: object, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.members.add(SYSTEM, person=person, agency=NAV, role="member")  # type: ignore[arg-type]
    assert codes(caught) == {code}
    assert "15076500565" not in str(caught.value) + str(caught.value.problems)


def test_everything_wrong_is_said_at_once(world: World) -> None:
    before = world.catalog.members.list(SYSTEM)
    with pytest.raises(InvalidInput) as caught:
        world.catalog.members.add(
            SYSTEM, person="", agency="971526920", role="chief", kind="x", starts="2026-01-01", ends=T0
        )  # type: ignore[arg-type]
    assert codes(caught) == {"bad_person", "not_a_choice", "not_a_date", "unknown_agency"}
    with pytest.raises(InvalidInput) as caught:
        world.catalog.members.add(SYSTEM, person="x", agency=NAV, role="admin", ends=TODAY - DAY)
    assert codes(caught) == {"admin_has_no_agency", "ends_before_start"}
    assert world.catalog.members.list(SYSTEM) == before


def test_the_same_membership_is_not_held_twice_at_a_time(world: World) -> None:
    add = world.catalog.members.add
    with pytest.raises(InvalidInput) as caught:
        add(SYSTEM, person="kari", agency=NAV, role="member")
    assert codes(caught) == {"already_member"}
    assert add(SYSTEM, person="kari", agency=NAV, role="coordinator").role == "coordinator"
    add(SYSTEM, person="ny", agency=NAV, role="member", starts=TODAY, ends=TODAY + 5 * DAY)
    assert add(SYSTEM, person="ny", agency=NAV, role="member", starts=TODAY + 6 * DAY).ends is None


def test_coordinators_handle_their_agency_and_no_more(world: World) -> None:
    kirsten = world.viewer("kirsten")
    added = world.catalog.members.add(kirsten, person="ny", agency=NAV, role="coordinator")
    assert added in world.catalog.members.list(kirsten, agency=NAV)
    assert {m.agency for m in world.catalog.members.list(kirsten)} == {NAV}
    with pytest.raises(NotFound):
        world.catalog.members.add(kirsten, person="ny", agency=SKATT, role="member")
    with pytest.raises(NotFound):
        world.catalog.members.list(kirsten, agency=SKATT)
    with pytest.raises(Forbidden):
        world.catalog.members.add(kirsten, person="ny", agency="", role="admin")
    with pytest.raises(InvalidInput):
        world.catalog.members.add(kirsten, person="ny", agency=NAV, role="admin")
    siri = next(m for m in world.catalog.members.list(SYSTEM, agency=SKATT) if m.person == "siri")
    with pytest.raises(NotFound):
        world.catalog.members.end(kirsten, siri.id, TODAY)
    assert world.catalog.members.end(kirsten, added.id, TODAY - DAY).ends == TODAY - DAY


def test_others_handle_none(world: World) -> None:
    own = next(m for m in world.catalog.members.list(SYSTEM) if m.person == "kari")
    for viewer in (
        world.viewer("kari"),
        world.viewer("leif"),
        world.viewer("kirsten", desk="nav"),
        world.viewer("root", desk="nav"),
    ):
        with pytest.raises(Forbidden):
            world.catalog.members.add(viewer, person="ny", agency=NAV, role="member")
    with pytest.raises(Forbidden):
        world.catalog.members.end(world.viewer("kari"), own.id, TODAY)
    assert [m.id for m in world.catalog.members.list(world.viewer("kari"))] == [own.id]
    assert world.catalog.members.list(world.viewer("nobody")) == ()


def test_an_ended_membership_stays_ended_and_is_logged(world: World) -> None:
    kari = next(m for m in world.catalog.members.list(SYSTEM) if m.person == "kari")
    world.catalog.members.end(SYSTEM, kari.id, TODAY - DAY)
    assert world.viewer("kari").grants == ()
    with pytest.raises(InvalidInput) as caught:
        world.catalog.members.end(SYSTEM, kari.id, TODAY)
    assert codes(caught) == {"already_ended"}
    (event,) = [e for e in world.catalog.events.list(SYSTEM).items if e.action == "membership.ended"]
    assert (event.subject, event.agency) == ("kari", NAV)
    siri = next(m for m in world.catalog.members.list(SYSTEM) if m.person == "siri")
    with pytest.raises(InvalidInput) as caught:
        world.catalog.members.end(SYSTEM, siri.id, TODAY - 2 * DAY)
    assert codes(caught) == {"ends_before_start"}
    with pytest.raises(NotFound):
        world.catalog.members.end(SYSTEM, "nothing", TODAY)


def test_the_last_admin_stays(world: World) -> None:
    root = next(m for m in world.catalog.members.list(SYSTEM) if m.person == "root")
    with pytest.raises(InvalidInput) as caught:
        world.catalog.members.end(SYSTEM, root.id, TODAY)
    assert codes(caught) == {"last_admin"}
    world.catalog.members.add(world.viewer("root"), person="root2", agency="", role="admin")
    world.catalog.members.end(world.viewer("root2"), root.id, TODAY - DAY)
    assert not is_admin(world.viewer("root"))
    assert is_admin(world.viewer("root2"))


def test_a_desk_of_an_unknown_agency_reaches_nothing(world: World) -> None:
    for name in ("root", "kari"):
        viewer = world.viewer(name, desk="no-such")
        assert (viewer.grants, viewer.actions, viewer.confined_to) == ((), frozenset(), "")
