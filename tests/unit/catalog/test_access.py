"""The one gate: scopes, grants, confinement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.access import (
    ROLE_ACTIONS,
    Action,
    Forbidden,
    Grant,
    NotFound,
    Role,
    TokenPower,
    Viewer,
    agencies_for,
    is_admin,
    may,
    may_anywhere,
    may_have_desk,
    require,
    require_admin,
    require_anywhere,
    scope,
    system,
    token_power,
)

NAV, SKATT = "889640782", "974761076"
ALL = frozenset(Action)


def viewer(*grants: Grant, actions: frozenset[Action] = ALL, confined_to: str | None = None) -> Viewer:
    return Viewer("kari", grants, actions, confined_to)


def test_scopes_and_actions_are_two_ways_to_say_one_thing() -> None:
    assert scope(Action.SUBMIT) == "custom:catalog:submit"
    assert scope(Action.READ, server="kari/nav") == "custom:catalog:read!server=kari/nav"
    assert token_power("kari", (scope(action) for action in Action)) == TokenPower(ALL)


def test_a_desk_is_for_those_who_work_there() -> None:
    assert may_have_desk((Grant(NAV, Role.LEADER), Grant(NAV, Role.MEMBER)), NAV)
    assert may_have_desk((Grant(NAV, Role.COORDINATOR),), NAV)
    assert not may_have_desk((Grant(NAV, Role.MEMBER),), SKATT)
    assert not may_have_desk((Grant("", Role.ADMIN), Grant(NAV, Role.LEADER)), NAV)


def test_a_desks_token_is_confined_to_its_agency() -> None:
    scopes = ["access:servers!server=kari/nav", *(scope(a, server="kari/nav") for a in (Action.READ, Action.SUBMIT))]
    assert token_power("kari", scopes) == TokenPower(frozenset({Action.READ, Action.SUBMIT}), "nav")


@pytest.mark.parametrize(
    ("scopes", "wanted"),
    [
        (["custom:catalog:read!user=kari"], TokenPower(frozenset({Action.READ}))),
        (["custom:catalog:read", "custom:catalog:submit!server=kari/nav"], TokenPower(frozenset({Action.READ}))),
        (["custom:catalog:read", "custom:catalog:submit!group=nav"], TokenPower(frozenset({Action.READ}))),
    ],
)
def test_a_scope_without_a_filter_holds_wherever_the_owner_belongs(scopes: list[str], wanted: TokenPower) -> None:
    assert token_power("kari", scopes) == wanted


@pytest.mark.parametrize(
    "scopes",
    [
        ["custom:catalog:read!server=kari/nav", "custom:catalog:read!server=kari/skatteetaten"],
        ["custom:catalog:read!server=kari/"],
        ["custom:catalog:read!server=kari"],
        ["custom:catalog:read!user=ola"],
        ["custom:catalog:read!server=ola/nav"],
        ["custom:catalog:submit!group=nav"],
        ["custom:catalog:read!"],
        ["custom:catalog:readall"],
        ["custom:catalog:"],
        ["Custom:catalog:read"],
        ["read:users", "self", "admin-ui"],
        [],
    ],
)
def test_an_odd_token_has_no_power(scopes: list[str]) -> None:
    assert token_power("kari", scopes) == TokenPower()


@given(st.lists(st.text(max_size=40)))
def test_scopes_may_be_anything(scopes: list[str]) -> None:
    assert token_power("kari", scopes).actions <= ALL


@pytest.mark.parametrize("role", [Role.MEMBER, Role.COORDINATOR, Role.LEADER])
@pytest.mark.parametrize("action", list(Action))
def test_a_role_reaches_its_own_agency_only(role: Role, action: Action) -> None:
    who = viewer(Grant(NAV, role))
    assert may(who, action, NAV) == (action in ROLE_ACTIONS[role])
    assert not may(who, action, SKATT)
    assert not is_admin(who)


def test_an_admin_reaches_every_agency_unless_the_token_says_less() -> None:
    assert agencies_for(viewer(Grant("", Role.ADMIN)), Action.ADMINISTER) is None
    reader = viewer(Grant("", Role.ADMIN), actions=frozenset({Action.READ}))
    assert agencies_for(reader, Action.READ) is None
    assert agencies_for(reader, Action.SUBMIT) == frozenset()
    assert not is_admin(reader)


def test_a_member_grant_without_an_agency_reaches_nothing() -> None:
    assert agencies_for(viewer(Grant("", Role.MEMBER)), Action.READ) == frozenset()
    assert agencies_for(viewer(Grant(NAV, Role.ADMIN)), Action.READ) == frozenset({NAV})


def test_confinement_takes_and_never_gives() -> None:
    both = (Grant(NAV, Role.MEMBER), Grant(SKATT, Role.COORDINATOR))
    assert agencies_for(viewer(*both), Action.READ) == frozenset({NAV, SKATT})
    assert agencies_for(viewer(*both, confined_to=NAV), Action.READ) == frozenset({NAV})
    assert agencies_for(viewer(*both, confined_to=NAV), Action.PUBLISH) == frozenset()
    assert agencies_for(viewer(Grant(NAV, Role.MEMBER), confined_to=SKATT), Action.READ) == frozenset()
    admin = viewer(Grant("", Role.ADMIN), confined_to=NAV)
    assert agencies_for(admin, Action.READ) == frozenset({NAV})
    assert not is_admin(admin)
    assert not may_anywhere(viewer(*both, confined_to=SKATT), Action.PUBLISH)
    assert may_anywhere(viewer(*both), Action.PUBLISH)


def test_a_token_without_scopes_reaches_nothing() -> None:
    assert agencies_for(viewer(Grant("", Role.ADMIN), actions=frozenset()), Action.READ) == frozenset()


def test_require_tells_the_unseen_from_the_forbidden() -> None:
    leader = viewer(Grant(NAV, Role.LEADER))
    require(leader, Action.READ, NAV)
    with pytest.raises(Forbidden):
        require(leader, Action.SUBMIT, NAV)
    with pytest.raises(NotFound):
        require(leader, Action.READ, SKATT)
    with pytest.raises(NotFound):
        require(leader, Action.SUBMIT, SKATT)
    with pytest.raises(Forbidden):
        require_anywhere(leader, Action.PUBLISH, "publish")
    with pytest.raises(Forbidden):
        require_admin(leader, "add")
    require_admin(system("test"), "add")


ROLES = st.sampled_from(list(Role))
GRANTS = st.lists(st.builds(Grant, st.sampled_from([NAV, SKATT, ""]), ROLES), max_size=4)
ACTIONS = st.frozensets(st.sampled_from(list(Action)))


@given(GRANTS, ACTIONS, st.sampled_from([NAV, SKATT]), st.sampled_from(list(Action)))
def test_a_confined_viewer_can_never_do_more(
    grants: list[Grant], actions: frozenset[Action], confined: str, action: Action
) -> None:
    free, desk = viewer(*grants, actions=actions), viewer(*grants, actions=actions, confined_to=confined)
    for agency in (NAV, SKATT):
        assert not may(desk, action, agency) or may(free, action, agency)
        assert not may(desk, action, agency) or agency == confined
    assert not is_admin(desk)
    assert not may(free, action, NAV) or action in actions
