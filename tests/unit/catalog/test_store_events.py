from __future__ import annotations

import pytest

from lab_templates.model import InvalidInput
from tests.unit.catalog.world import NAV, SKATT, SYSTEM, World


def test_what_happens_elsewhere_is_added(world: World) -> None:
    world.catalog.events.add("kari", "desk.started", agency=NAV, subject="kari/nav", source="hub", detail={"a": 1})
    (event,) = world.catalog.events.list(SYSTEM, subject="kari/nav").items
    assert (event.person, event.action, event.agency, event.source, event.detail, event.at) == (
        "kari", "desk.started", NAV, "hub", {"a": 1}, world.clock(),
    )  # fmt: skip


def test_odd_text_is_kept_within_bounds(world: World) -> None:
    world.catalog.events.add("x\x00" * 300, "login.refused", subject="\ud800" * 999, source="y" * 99)
    event = world.catalog.events.list(SYSTEM, limit=1).items[0]
    assert (len(event.person), len(event.subject), len(event.source)) == (255, 255, 60)


def test_the_log_is_paged_newest_first(world: World) -> None:
    everything = world.catalog.events.list(SYSTEM, limit=200).items
    seen: list[str] = []
    cursor = None
    while True:
        page = world.catalog.events.list(SYSTEM, limit=4, cursor=cursor)
        seen += [event.id for event in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == [event.id for event in everything]
    assert seen == sorted(seen, reverse=True)
    with pytest.raises(InvalidInput):
        world.catalog.events.list(SYSTEM, limit=4, cursor="x")


def test_coordinators_read_their_own_agencies_log(world: World) -> None:
    assert {e.agency for e in world.catalog.events.list(world.viewer("kirsten"), limit=200).items} == {NAV}
    assert world.catalog.events.list(world.viewer("kirsten"), agency=SKATT).items == ()
    for name in ("kari", "leif", "nobody"):
        assert world.catalog.events.list(world.viewer(name)).items == ()
    assert world.catalog.events.list(world.viewer("kirsten", desk="skatteetaten")).items == ()
    assert world.catalog.events.list(world.viewer("root", desk="nav")).items != ()
