"""Schedules in the store: fired once for each time, caught up as chosen, stopped when their ground is gone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select
from sqlmodel import col

from catalog.access import Forbidden, NotFound
from catalog.store.records import NewSchedule, RunFilter, ScheduleRecord
from catalog.tables import Event, Firing, RunRow, ScheduleRow
from experiments.notices import NoticeKind
from experiments.schedules import MOST_CAUGHT_UP, CatchUp, ScheduleState, StopReason
from lab_templates.checks import read_template
from lab_templates.model import InvalidInput
from tests.unit.catalog.world import DECLARATION, NAV, NOTEBOOK, SKATT, SYSTEM, T0, World, publish, template

HOURLY = "0 * * * *"


def new(cron: str = HOURLY, **fields: object) -> NewSchedule:
    values: dict[str, object] = {"template": "letter", "agency": NAV, "cron": cron, "zone": "Europe/Oslo", **fields}
    return NewSchedule(**values)  # type: ignore[arg-type]


def add(world: World, cron: str = HOURLY, who: str = "kari", **fields: object) -> ScheduleRecord:
    return world.catalog.schedules.add(world.viewer(who), new(cron, **fields))[0]


def rows(world: World, table: type, *where: object) -> int:
    with world.catalog._database.read() as session:
        return session.scalar(select(func.count()).select_from(table).where(*where)) or 0  # type: ignore[arg-type]


def fired(world: World, schedule: ScheduleRecord) -> list[datetime]:
    return sorted(f.scheduled_at for f in world.catalog.schedules.firings(SYSTEM, schedule.id, limit=200))


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 2, hour, minute, tzinfo=UTC)


def publish_timed(world: World, kind: str) -> None:
    """Publish a template with a parameter ``scheduled_at`` of a type."""
    declaration = DECLARATION.format(name=f"timed-{kind}", version="1.0.0", title="Med tid")
    default = '"2026-01-01"'
    extra = (
        f'[[parameters]]\nname = "scheduled_at"\ntype = "{kind}"\ndefault = {default}\n'
        'label = { nb = "Tid", nn = "Tid", en = "Time" }\n'
    )
    source = NOTEBOOK.replace(b'office = \\"Bergen\\"', b'office = \\"Bergen\\"\\nscheduled_at = \\"2026-01-01\\"')
    publish(world.catalog, read_template(source, (declaration + extra).encode(), ""))


def test_a_time_fires_when_it_has_come_and_never_again(world: World) -> None:
    schedule = add(world, parameters={"alpha": 0.1})
    assert schedule.next[:2] == (at(10), at(11))
    tick = world.catalog.schedules.tick
    assert tick(at(9, 59)) == ()
    world.clock.advance(3600)
    (firing,) = tick(at(10))
    assert tick(at(10)) == ()
    assert tick(at(10, 59)) == ()
    run = world.catalog.runs.get(world.viewer("kari"), firing.run or "")
    assert (run.requested_by, run.schedule, run.parameters["alpha"]) == ("kari", schedule.id, 0.1)
    (again,) = tick(at(11))
    assert (firing.scheduled_at, again.scheduled_at) == (at(10), at(11))
    assert fired(world, schedule) == [at(10), at(11)]
    assert rows(world, RunRow) == 2
    assert world.catalog.schedules.get(SYSTEM, schedule.id).last_at == at(11)


# -- sent twice -------------------------------------------------------------------------------------------------------


def test_a_used_key_gives_the_schedule_it_made(world: World) -> None:
    asked = new(parameters={"alpha": "0,1"}, title=" Morgen ", timeout_seconds="60", idempotency_key="k1")
    first, created = world.catalog.schedules.add(world.viewer("both"), asked)
    again, anew = world.catalog.schedules.add(world.viewer("both"), replace(asked, title="Morgen", timeout_seconds=60))
    assert (again, created, anew) == (first, True, False)
    assert rows(world, Event, col(Event.action) == "schedule.added") == 1
    # Another person's key is another key, and so is none.
    for who, key in (("kari", "k1"), ("both", "k2"), ("both", None), ("both", None)):
        assert world.catalog.schedules.add(world.viewer(who), replace(asked, idempotency_key=key))[1]
    assert rows(world, ScheduleRow) == 5


def test_a_key_sent_many_times_at_once_makes_one(world: World) -> None:
    gate = threading.Barrier(6)
    viewer = world.viewer("kari")

    def once(_: int) -> tuple[str, bool]:
        gate.wait()
        record, created = world.catalog.schedules.add(viewer, new(idempotency_key="k"))
        return record.id, created

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(once, range(6)))
    assert len({id for id, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert rows(world, ScheduleRow) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"cron": "0 8 * * *"},
        {"cron": "rubbish"},
        {"zone": "UTC"},
        {"title": "Another"},
        {"parameters": {"alpha": 0.2}},
        {"version": "1.0.0"},
        {"template": "other"},
        {"experiment": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
        {"timeout_seconds": 60},
        {"timeout_seconds": "x"},
        {"time_parameter": "office"},
        {"catch_up": "all"},
        {"agency": SKATT},
    ],
)
def test_a_used_key_with_another_request_is_refused(world: World, fields: dict[str, object]) -> None:
    add(world, who="both", parameters={"alpha": 0.1}, idempotency_key="k")
    other = new(**{"parameters": {"alpha": 0.1}, "idempotency_key": "k", **fields})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as caught:
        world.catalog.schedules.add(world.viewer("both"), other)
    assert [p.code for p in caught.value.problems] == ["idempotency_key_reused"]
    assert rows(world, ScheduleRow) == 1


def test_a_used_key_still_gives_its_schedule_when_nothing_new_could_be_made(world: World) -> None:
    publish_timed(world, "date")
    asked = new(template="timed-date", idempotency_key="k")
    first, _ = world.catalog.schedules.add(world.viewer("kari"), asked)
    assert first.time_parameter == "scheduled_at"
    world.catalog.templates.deprecate(SYSTEM, "timed-date", "1.0.0")
    assert world.catalog.schedules.add(world.viewer("kari"), asked) == (first, False)
    with pytest.raises(InvalidInput):
        world.catalog.schedules.add(world.viewer("kari"), replace(asked, idempotency_key="k2"))
    with pytest.raises(InvalidInput) as caught:
        world.catalog.schedules.add(world.viewer("siri"), asked)
    assert next(p.code for p in caught.value.problems) == "not_a_member"
    world.catalog.schedules.remove(world.viewer("kari"), first.id)
    with pytest.raises(InvalidInput) as gone:
        world.catalog.schedules.add(world.viewer("kari"), asked)
    assert [p.code for p in gone.value.problems] == ["schedule_removed"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\x00b", 5])
def test_a_key_that_cannot_be_one_is_told_with_all_the_rest(world: World, key: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        add(world, "rubbish", idempotency_key=key)
    assert {p.code for p in caught.value.problems} == {"bad_idempotency_key", "bad_cron"}


def test_whoever_takes_over_a_schedule_does_not_take_its_key(world: World) -> None:
    schedule = add(world, who="both", idempotency_key="k")
    mine = add(world, "0 8 * * *", who="kari", idempotency_key="k")
    member = next(m for m in world.catalog.members.list(SYSTEM, agency=NAV) if m.person == "both")
    world.catalog.members.end(SYSTEM, member.id, world.clock().date() - timedelta(days=1))
    world.catalog.schedules.tick(at(10))
    resumed = world.catalog.schedules.resume(world.viewer("kari"), schedule.id)
    assert (resumed.state, resumed.requested_by) == (ScheduleState.ACTIVE, "kari")
    assert add(world, "0 8 * * *", who="kari", idempotency_key="k").id == mine.id


# -- their times -----------------------------------------------------------------------------------------------------


def test_many_dispatchers_fire_a_time_once(world: World) -> None:
    schedules = [add(world) for _ in range(3)]
    gate = threading.Barrier(6)

    def tick(_: int) -> int:
        gate.wait()
        return len(world.catalog.schedules.tick(at(10)))

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(tick, range(6))) == 3
    assert [fired(world, s) for s in schedules] == [[at(10)]] * 3
    assert rows(world, RunRow) == 3


@pytest.mark.parametrize(
    ("policy", "hours", "left_out"),
    [(CatchUp.ONCE, [13], 3), (CatchUp.ALL, [10, 11, 12, 13], 0), (CatchUp.SKIP, [], None)],
)
def test_what_was_missed_is_made_up_for_as_chosen(
    world: World, policy: CatchUp, hours: list[int], left_out: int | None
) -> None:
    schedule = add(world, catch_up=policy.value)
    made = world.catalog.schedules.tick(at(13, 30))
    assert fired(world, schedule) == [at(hour) for hour in hours]
    if left_out is not None:
        assert made[-1].left_out == left_out
    assert [f.scheduled_at for f in world.catalog.schedules.tick(at(14))] == [at(14)]


def test_a_time_that_is_hardly_late_is_no_missed_one(world: World) -> None:
    schedule = add(world, catch_up="skip")
    world.catalog.schedules.tick(at(10, 2))
    assert fired(world, schedule) == [at(10)]


def test_catching_up_has_an_end(world: World) -> None:
    schedule = add(world, "* * * * *", catch_up="all")
    year = T0 + timedelta(days=365)
    made = world.catalog.schedules.tick(year)
    assert len(made) == MOST_CAUGHT_UP
    assert made[-1].scheduled_at == year
    assert fired(world, schedule)[0] == year - timedelta(minutes=MOST_CAUGHT_UP - 1)
    assert made[-1].left_out > 0


def test_the_scheduled_time_reaches_the_notebook(world: World) -> None:
    publish_timed(world, "text")
    publish_timed(world, "date")
    text = add(world, "30 0 * * *", template="timed-text")
    day = add(world, "30 0 * * *", template="timed-date", catch_up="all", time_parameter="scheduled_at")
    world.catalog.schedules.tick(datetime(2026, 3, 2, 23, 31, tzinfo=UTC))
    (first,) = world.catalog.runs.list(SYSTEM, RunFilter(schedule=text.id)).items
    (second,) = world.catalog.runs.list(SYSTEM, RunFilter(schedule=day.id)).items
    assert first.parameters["scheduled_at"] == "2026-03-03T00:30:00+01:00"
    assert second.parameters["scheduled_at"] == "2026-03-03"  # the day there, though not yet in UTC


def test_a_parameter_that_cannot_hold_the_time_is_refused(world: World) -> None:
    for name, code in (("alpha", "wrong_type"), ("office", "wrong_type"), ("when", "unknown_parameter")):
        with pytest.raises(InvalidInput) as caught:
            add(world, time_parameter=name)
        assert code in {p.code for p in caught.value.problems}


def test_a_pinned_version_stays_and_an_open_one_follows(world: World) -> None:
    pinned, follows = add(world, version="1.0.0"), add(world)
    publish(world.catalog, template(version="1.1.0"))
    world.catalog.schedules.tick(at(10))
    versions = {r.schedule: r.version for r in world.catalog.runs.list(SYSTEM, RunFilter()).items}
    assert versions == {pinned.id: "1.0.0", follows.id: "1.1.0"}


def test_by_hand_once_a_second_also_while_paused(world: World) -> None:
    schedule = add(world)
    schedules, viewer = world.catalog.schedules, world.viewer("kirsten")
    schedules.pause(viewer, schedule.id)
    first = schedules.trigger(viewer, schedule.id)
    assert schedules.trigger(viewer, schedule.id) == first
    world.clock.advance(1)
    assert schedules.trigger(viewer, schedule.id).run != first.run
    assert world.catalog.runs.get(viewer, first.run or "").requested_by == "kari"
    assert schedules.tick(at(12)) == ()  # paused


def test_a_paused_schedule_makes_up_for_nothing(world: World) -> None:
    schedule = add(world, catch_up="all")
    viewer = world.viewer("kari")
    assert world.catalog.schedules.pause(viewer, schedule.id).next == ()
    world.clock.advance(5 * 3600)
    assert world.catalog.schedules.resume(viewer, schedule.id).next[0] == at(15)
    assert world.catalog.schedules.tick(at(14, 30)) == ()


def stopped(world: World, schedule: ScheduleRecord) -> StopReason | None:
    record = world.catalog.schedules.get(SYSTEM, schedule.id)
    assert record.state is ScheduleState.STOPPED
    assert record.next == ()
    later = world.catalog.schedules.tick(world.clock() + timedelta(days=9))
    assert schedule.id not in {firing.schedule for firing in later}
    assert rows(world, Event, col(Event.action) == "schedule.stopped", col(Event.subject) == schedule.id) == 1
    return record.stop_reason


def test_a_closed_agency_stops_its_schedules(world: World) -> None:
    schedule, paused = add(world), add(world)
    world.catalog.schedules.pause(world.viewer("kari"), paused.id)
    world.catalog.agencies.change(SYSTEM, NAV, active=False)
    assert stopped(world, schedule) is StopReason.AGENCY_CLOSED
    assert stopped(world, paused) is StopReason.AGENCY_CLOSED
    world.catalog.agencies.change(SYSTEM, NAV, active=True)
    assert world.catalog.schedules.resume(world.viewer("kari"), schedule.id).state is ScheduleState.ACTIVE


@pytest.mark.parametrize("status", ["published", "stopped"])
def test_a_closed_experiment_stops_its_schedules(world: World, status: str) -> None:
    experiment = world.experiment()
    schedule, other = add(world, experiment=experiment.id), add(world)
    world.catalog.experiments.change(world.viewer("kari"), experiment.id, status=status)
    assert stopped(world, schedule) is StopReason.EXPERIMENT_CLOSED
    assert world.catalog.schedules.get(SYSTEM, other.id).state is ScheduleState.ACTIVE
    with pytest.raises(InvalidInput):
        world.catalog.schedules.resume(world.viewer("kari"), schedule.id)
    with pytest.raises(InvalidInput):
        add(world, experiment=experiment.id)


def test_a_requester_who_left_stops_it_and_a_colleague_takes_over(world: World) -> None:
    schedule = add(world)
    (member,) = (m for m in world.catalog.members.list(SYSTEM, agency=NAV) if m.person == "kari")
    world.catalog.members.end(SYSTEM, member.id, (T0 - timedelta(days=1)).date())
    assert world.catalog.schedules.tick(at(10)) == ()
    assert stopped(world, schedule) is StopReason.REQUESTER_LEFT
    taken = world.catalog.schedules.resume(world.viewer("kirsten"), schedule.id)
    assert (taken.state, taken.requested_by, taken.stop_reason) == (ScheduleState.ACTIVE, "kirsten", None)


def test_a_withdrawn_template_stops_it(world: World) -> None:
    schedule = add(world)
    world.catalog.templates.deprecate(world.viewer("kirsten"), "letter", "1.0.0")
    world.catalog.schedules.tick(at(10))
    assert stopped(world, schedule) is StopReason.TEMPLATE_WITHDRAWN
    (notice,) = world.catalog.notices.list(world.viewer("kari")).items
    assert (notice.kind, notice.subject, notice.detail["reason"]) == (
        NoticeKind.SCHEDULE,
        schedule.id,
        "template_withdrawn",
    )


def test_a_newer_version_that_does_not_take_the_values_stops_it(world: World) -> None:
    schedule = add(world, parameters={"office": "Bergen"})
    declaration = DECLARATION.format(name="letter", version="2.0.0", title="Nytt")
    narrow = declaration.replace("max_length = 20", "max_length = 3").replace('default = "Bergen"', 'default = "Bø"')
    source = NOTEBOOK.replace(b'office = \\"Bergen\\"', 'office = \\"Bø\\"'.encode())
    publish(world.catalog, read_template(source, narrow.encode(), ""))
    world.catalog.schedules.tick(at(10))
    assert stopped(world, schedule) is StopReason.INVALID_PARAMETERS


def test_a_quota_that_no_run_fits_into_stops_it_and_says_so(world: World) -> None:
    schedule = add(world)
    world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=0)
    assert world.catalog.schedules.tick(at(10)) == ()
    assert stopped(world, schedule) is StopReason.QUOTA_TOO_SMALL
    with pytest.raises(InvalidInput):
        world.catalog.schedules.resume(world.viewer("kari"), schedule.id)
    world.catalog.agencies.change(SYSTEM, NAV, max_concurrent_runs=1)
    assert world.catalog.schedules.resume(world.viewer("kari"), schedule.id).state is ScheduleState.ACTIVE


def test_who_may_what(world: World) -> None:
    schedule = add(world)
    schedules = world.catalog.schedules
    with pytest.raises(Forbidden):
        add(world, who="leif")
    with pytest.raises(InvalidInput):
        add(world, who="siri")
    assert schedules.get(world.viewer("leif"), schedule.id).id == schedule.id
    for call in (schedules.pause, schedules.resume, schedules.trigger, schedules.remove):
        with pytest.raises(Forbidden):
            call(world.viewer("leif"), schedule.id)
        for stranger in ("siri", "nobody"):
            with pytest.raises(NotFound):
                call(world.viewer(stranger), schedule.id)
    assert schedules.list(world.viewer("siri")).items == ()


def test_what_is_removed_is_gone_and_its_runs_are_not(world: World) -> None:
    schedule = add(world)
    world.catalog.schedules.tick(at(10))
    world.catalog.schedules.remove(world.viewer("kari"), schedule.id)
    assert world.catalog.schedules.tick(at(15)) == ()
    with pytest.raises(NotFound):
        world.catalog.schedules.get(SYSTEM, schedule.id)
    assert len(world.catalog.runs.list(SYSTEM, RunFilter(schedule=schedule.id)).items) == 1
    assert rows(world, Firing) == 1


def test_one_schedule_that_fails_does_not_hold_up_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, good = add(world), add(world)
    tick_one = world.catalog.schedules._tick_one

    def failing(session: object, id: str, now: datetime) -> object:
        if id == broken.id:
            raise RuntimeError("half-way")
        return tick_one(session, id, now)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(world.catalog.schedules, "_tick_one", failing)
        assert [f.schedule for f in world.catalog.schedules.tick(at(10))] == [good.id]
    assert "half-way" in caplog.text
    assert [f.schedule for f in world.catalog.schedules.tick(at(10))] == [broken.id]
