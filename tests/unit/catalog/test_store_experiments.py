from __future__ import annotations

from datetime import date, timedelta

import pytest

from catalog.access import Forbidden, NotFound
from lab_templates.model import InvalidInput
from tests.unit.catalog.world import NAV, SKATT, SYSTEM, T0, World

TODAY = T0.date()


def codes(caught: pytest.ExceptionInfo[InvalidInput]) -> set[str]:
    return {problem.code for problem in caught.value.problems}


def test_an_experiment_is_created_read_and_changed(world: World) -> None:
    kari = world.viewer("kari")
    created = world.experiment(title=" Kortere bre\u0300v ", summary="Hva skjer?", agency="nav")
    assert (created.title, created.agency, created.status, created.created_by) == (
        "Kortere br\u00e8v", NAV, "draft", "kari",
    )  # fmt: skip
    world.submit(experiment=created.id)
    world.submit(experiment=created.id)
    changed = world.catalog.experiments.change(kari, created.id, status="registered", visibility="lab", language="nn")
    assert (changed.status, changed.visibility, changed.language, changed.runs) == ("registered", "lab", "nn", 2)
    assert world.catalog.experiments.get(kari, created.id) == changed
    actions = [e.action for e in world.catalog.events.list(SYSTEM, subject=created.id).items]
    assert actions == ["experiment.changed", "experiment.created"]


def test_everything_wrong_is_said_at_once_and_nothing_is_stored(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.experiments.create(
            world.viewer("kari"),
            agency=SKATT,
            title="",
            summary="x" * 20_001,
            language="no",
            visibility="all",
            embargo_until="tomorrow",
        )
    assert codes(caught) == {"not_a_member", "missing_value", "too_long", "not_a_choice", "not_a_date"}
    assert world.catalog.experiments.list(SYSTEM).items == ()
    own = world.experiment()
    with pytest.raises(InvalidInput) as caught:
        world.catalog.experiments.change(world.viewer("kari"), own.id, agency=SKATT, status="done", title=5)
    assert codes(caught) == {"unknown_field", "not_a_choice", "wrong_type"}
    assert world.catalog.experiments.get(SYSTEM, own.id) == own


@pytest.mark.parametrize(
    ("visibility", "embargo", "seen"),
    [
        ("agency", None, False),
        ("lab", None, True),
        ("public", None, True),
        ("lab", TODAY + timedelta(days=1), False),
        ("lab", TODAY, True),
        ("public", date(2020, 1, 1), True),
    ],
)
def test_others_see_what_is_shared_after_its_embargo(
    world: World, visibility: str, embargo: date | None, seen: bool
) -> None:
    created = world.experiment(visibility=visibility, embargo_until=embargo)
    siri = world.viewer("siri")
    assert [e.id for e in world.catalog.experiments.list(siri).items] == ([created.id] if seen else [])
    if seen:
        assert world.catalog.experiments.get(siri, created.id).id == created.id
        with pytest.raises(Forbidden):
            world.catalog.experiments.change(siri, created.id, title="Mitt")
    else:
        with pytest.raises(NotFound):
            world.catalog.experiments.get(siri, created.id)
        with pytest.raises(NotFound):
            world.catalog.experiments.change(siri, created.id, title="Mitt")
    world.clock.advance(24 * 3600)
    assert bool(world.catalog.experiments.list(siri).items) == (visibility != "agency")
    assert world.catalog.experiments.list(world.viewer("nobody")).items == ()


def test_readers_neither_create_nor_change(world: World) -> None:
    own = world.experiment()
    leif = world.viewer("leif")
    with pytest.raises(Forbidden):
        world.catalog.experiments.create(leif, agency=NAV, title="X")
    with pytest.raises(Forbidden):
        world.catalog.experiments.change(leif, own.id, title="X")


def test_a_desk_works_in_its_agency_but_shares_nothing(world: World) -> None:
    desk = world.viewer("both", desk="nav")
    own = world.catalog.experiments.create(desk, agency=NAV, title="X")
    assert world.catalog.experiments.change(desk, own.id, title="Y").title == "Y"
    with pytest.raises(Forbidden, match="desk"):
        world.catalog.experiments.change(desk, own.id, visibility="lab")
    with pytest.raises(Forbidden, match="desk"):
        world.catalog.experiments.create(desk, agency=NAV, title="X", visibility="public")
    world.catalog.experiments.change(world.viewer("both"), own.id, visibility="lab", embargo_until=date(2030, 1, 1))
    with pytest.raises(Forbidden, match="desk"):
        world.catalog.experiments.change(desk, own.id, embargo_until=None)
    with pytest.raises(InvalidInput) as caught:
        world.catalog.experiments.create(desk, agency=SKATT, title="X")
    assert codes(caught) == {"not_a_member"}


SEARCHES = [
    ("åse", ["ÅSE spør"]),
    ("ÅSE", ["ÅSE spør"]),
    ("spør åse", ["ÅSE spør"]),
    ("100%", ["100% svar"]),
    ("%", ["100% svar"]),
    ("_", ["under_strek"]),
    ("sum", ["under_strek", "100% svar"]),
    ("' OR 1=1--", []),
    ("\\", []),
    ("", ["under_strek", "100% svar", "ÅSE spør"]),
    ("\x00", ["under_strek", "100% svar", "ÅSE spør"]),
    ("\ud800", []),
]


def test_search_takes_every_sign_as_it_is(world: World) -> None:
    world.experiment(title="ÅSE spør")
    world.experiment(title="100% svar", summary="Sum")
    world.experiment(title="under_strek", summary="summer")
    kari = world.viewer("kari")
    found = {q: [e.title for e in world.catalog.experiments.list(kari, q=q).items] for q, _ in SEARCHES}
    assert found == dict(SEARCHES)


def test_pages_follow_each_other(world: World) -> None:
    ids = [world.experiment(title=f"E{i}").id for i in range(7)][::-1]
    kari = world.viewer("kari")
    first = world.catalog.experiments.list(kari, limit=3)
    world.experiment(title="later")
    second = world.catalog.experiments.list(kari, limit=3, cursor=first.next)
    third = world.catalog.experiments.list(kari, limit=3, cursor=second.next)
    assert [e.id for page in (first, second, third) for e in page.items] == ids
    assert third.next is None
    assert world.catalog.experiments.list(kari, agency="nav", limit=200).next is None
    assert world.catalog.experiments.list(kari, agency=SKATT).items == ()
    assert world.catalog.experiments.list(kari, agency="none").items == ()
    with pytest.raises(InvalidInput) as caught:
        world.catalog.experiments.list(kari, q="x" * 201)
    assert codes(caught) == {"too_long"}
