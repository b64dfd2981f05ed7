from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.access import Forbidden, NotFound
from catalog.store import fields
from catalog.store.fields import Problems
from catalog.store.records import AgencyRecord
from lab_templates.model import InvalidInput, Text
from tests.unit.catalog.world import NAV, SKATT, SYSTEM, World, agency

DIGDIR = "991825827"


def codes(caught: pytest.ExceptionInfo[InvalidInput]) -> set[str]:
    assert all(problem.message.endswith((".", ">")) for problem in caught.value.problems)
    return {problem.code for problem in caught.value.problems}


@pytest.mark.parametrize("typed", ["991825827", "991 825 827", " 991825827\n", "９９１８２５８２７"])
def test_an_agency_is_added_and_found_by_number_and_by_short_name(world: World, typed: str) -> None:
    added = world.catalog.agencies.add(SYSTEM, agency(typed, "digdir", "Digitaliseringsdirektoratet"))
    assert added.orgnr == DIGDIR
    assert world.catalog.agencies.get(SYSTEM, DIGDIR) == added
    assert world.catalog.agencies.get(SYSTEM, "digdir") == added
    assert world.catalog.agencies.by_slug("digdir") == added
    assert world.catalog.agencies.by_slug("none") is None
    assert [a.slug for a in world.catalog.agencies.all()] == ["digdir", "nav", "skatteetaten"]
    events = world.catalog.events.list(SYSTEM, agency=DIGDIR).items
    assert [(e.action, e.person, e.source) for e in events] == [("agency.added", "system", "test")]


def test_names_are_kept_in_one_unicode_form(world: World) -> None:
    record = AgencyRecord(DIGDIR, "digdir", Text(nb="  Ba\u030at og fly ", nn="Ba\u030at", en=""))
    assert world.catalog.agencies.add(SYSTEM, record).name == Text("Båt og fly", "Båt", "")


@pytest.mark.parametrize(
    "number", ["000000000", "991825828", "99182582", "9918258277", "", "abc", None, 991825827, "<img>"]
)
def test_an_organisation_number_must_be_real(world: World, number: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.agencies.add(SYSTEM, agency(number, "x", "X"))  # type: ignore[arg-type]
    assert codes(caught) == {"bad_orgnr"}


@pytest.mark.parametrize(
    "slug", ["", "-nav", "nav-", "NAV", "næring", "a" * 21, "a b", "a_b", "nav\n", "hub", "edge", "../x", "a.b", 5]
)
def test_a_short_name_must_fit_where_it_is_used(world: World, slug: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.agencies.add(SYSTEM, agency(DIGDIR, slug, "X"))  # type: ignore[arg-type]
    assert codes(caught) == {"bad_slug"}


def test_everything_wrong_is_said_at_once_and_nothing_is_stored(world: World) -> None:
    bad = AgencyRecord(
        "1", "A B", Text(nb="", nn="x" * 201, en="\x00"), weight=0, max_desks=-1, max_concurrent_runs=10**9
    )
    with pytest.raises(InvalidInput) as caught:
        world.catalog.agencies.add(SYSTEM, bad)
    expected = {"bad_orgnr", "bad_slug", "missing_value", "too_long", "bad_text", "below_minimum", "above_maximum"}
    assert codes(caught) == expected
    assert len(world.catalog.agencies.all()) == 2


def test_a_number_and_a_short_name_are_taken_once(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.agencies.add(SYSTEM, agency(NAV, "skatteetaten", "X"))
    assert codes(caught) == {"orgnr_taken", "slug_taken"}


def test_only_admins_add_and_change(world: World) -> None:
    for name in ("kari", "kirsten", "leif", "nobody"):
        with pytest.raises(Forbidden):
            world.catalog.agencies.add(world.viewer(name), agency(DIGDIR, "digdir", "X"))
    with pytest.raises(Forbidden):
        world.catalog.agencies.add(world.viewer("root", desk="nav"), agency(DIGDIR, "digdir", "X"))
    with pytest.raises(Forbidden):
        world.catalog.agencies.change(world.viewer("kirsten"), NAV, weight=9)
    with pytest.raises(NotFound):
        world.catalog.agencies.change(world.viewer("siri"), NAV, weight=9)
    assert world.catalog.agencies.change(world.viewer("root"), NAV, weight=9).weight == 9


def test_a_change_is_checked_and_logged(world: World) -> None:
    before = world.catalog.agencies.get(SYSTEM, NAV)
    changed = world.catalog.agencies.change(SYSTEM, NAV, name=Text("Nav", "Nav", "NAV"), max_concurrent_runs=7)
    assert changed == replace(before, name=Text("Nav", "Nav", "NAV"), max_concurrent_runs=7)
    assert world.catalog.agencies.get(SYSTEM, NAV) == changed
    (event,) = [e for e in world.catalog.events.list(SYSTEM, agency=NAV).items if e.action == "agency.changed"]
    assert event.detail == {"name": {"nb": "Nav", "nn": "Nav", "en": "NAV"}, "max_concurrent_runs": 7}
    world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=7)
    assert len([e for e in world.catalog.events.list(SYSTEM, agency=NAV).items if e.action == "agency.changed"]) == 1
    with pytest.raises(InvalidInput) as caught:
        world.catalog.agencies.change(SYSTEM, NAV, slug="other")
    assert codes(caught) == {"unknown_field"}
    with pytest.raises(InvalidInput) as caught:
        world.catalog.agencies.change(SYSTEM, NAV, weight="9", active="no")
    assert codes(caught) == {"wrong_type"}
    with pytest.raises(NotFound):
        world.catalog.agencies.change(SYSTEM, DIGDIR, weight=1)


def test_a_closed_agency_is_listed_on_request_and_opens_again(world: World) -> None:
    world.catalog.agencies.change(SYSTEM, NAV, active=False)
    assert [a.orgnr for a in world.catalog.agencies.list(SYSTEM)] == [SKATT]
    assert {a.orgnr for a in world.catalog.agencies.list(SYSTEM, active_only=False)} == {NAV, SKATT}
    assert world.viewer("kari").grants == ()
    assert world.viewer("kari", desk="nav").actions == frozenset()
    world.catalog.agencies.change(SYSTEM, NAV, active=True)
    assert [g.agency for g in world.viewer("kari").grants] == [NAV]


@given(st.text() | st.none() | st.integers() | st.binary())
def test_any_input_gives_a_value_or_a_problem(raw: object) -> None:
    for reader in (fields.organisation_number, fields.slug, fields.person):
        problems = Problems()
        value = reader(problems, raw)
        assert bool(problems) != bool(value) or (reader is fields.person and value)
