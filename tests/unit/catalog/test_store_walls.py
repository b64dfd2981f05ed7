"""Every way to another agency's data is closed: each kind of viewer against each method of the store.

One agency's data (Skatteetaten's) is filled in; then everybody tries everything. What a method gives or refuses is
compared with one table, so that a new method without a row here, or a hole in an old one, fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import date, timedelta

import pytest

from catalog.access import Action, Forbidden, NotFound, Viewer
from catalog.store import Catalog
from catalog.store.records import AgencyRecord, NewSchedule, RunFilter, RunRecord, SweepSubmission
from experiments.sweeps import SweepRequest
from lab_templates.model import InvalidInput, Text
from tests.unit.catalog.world import NAV, SKATT, SYSTEM, World, submission, template

READ = frozenset({Action.READ})

# Who comes, from outside Skatteetaten or with less than its full rights.
OUTSIDERS: dict[str, Callable[[World], Viewer]] = {
    "a member of another agency": lambda w: w.viewer("kari"),
    "a coordinator of another agency": lambda w: w.viewer("kirsten"),
    "a leader of another agency": lambda w: w.viewer("leif"),
    "a member of both, from the other agency's desk": lambda w: w.viewer("both", desk="nav"),
    "an admin, from the other agency's desk": lambda w: w.viewer("root", desk="nav"),
    "a member of another agency, with a desk token of this one": lambda w: w.viewer("kari", desk="skatteetaten"),
    "somebody from an unknown desk": lambda w: w.viewer("siri", desk="no-such"),
    "a member whose token has no scope": lambda w: w.viewer("siri", actions=frozenset()),
    "a member whose token may submit but not read": lambda w: w.viewer("siri", actions=frozenset({Action.SUBMIT})),
    "somebody without a place in the lab": lambda w: w.viewer("nobody"),
    "a member from tomorrow": lambda w: w.viewer("soon"),
    "a member until yesterday": lambda w: w.viewer("former"),
    "a name that is nobody's": lambda w: w.viewer("siri\x00"),
}
INSIDERS: dict[str, Callable[[World], Viewer]] = {
    "a member": lambda w: w.viewer("siri"),
    "a member, from the agency's desk": lambda w: w.viewer("both", desk="skatteetaten"),
    "a reader": lambda w: w.viewer("siri", actions=READ),
    "a coordinator": lambda w: w.viewer("sara"),
    "an admin": lambda w: w.viewer("root"),
}


class Secrets:
    """What Skatteetaten has: an experiment, a finished run with a figure, a queued one, members."""

    def __init__(self, world: World) -> None:
        today = world.clock().date()
        add = world.catalog.members.add
        add(SYSTEM, person="soon", agency=SKATT, role="coordinator", starts=today + timedelta(days=1))
        add(
            SYSTEM,
            person="former",
            agency=SKATT,
            role="coordinator",
            starts=today - timedelta(days=9),
            ends=today - timedelta(days=1),
        )
        self.experiment = world.experiment(
            "siri", SKATT, title="hemmelig", visibility="lab", embargo_until=date(2030, 1, 1)
        )
        from dataclasses import replace

        from experiments.model import Figure
        from tests.unit.catalog.world import DONE

        run = world.submit("siri", SKATT, experiment=self.experiment.id)
        self.done = world.finished(run, replace(DONE, figures=(Figure("f", "image/png", b"png"),)))
        self.queued = world.submit("siri", SKATT)
        viewer = world.viewer("siri")
        self.sweep = world.catalog.sweeps.submit(viewer, sweep_of(SKATT))[0]
        self.schedule = world.catalog.schedules.add(viewer, NewSchedule("letter", SKATT, "0 7 * * *"))[0]
        self.member = next(m for m in world.catalog.members.list(SYSTEM, agency=SKATT) if m.person == "siri")


def listed(catalog: Catalog, viewer: Viewer) -> dict[str, list[object]]:
    """Return what every listing shows of Skatteetaten."""
    runs = [
        run
        for filter in (
            RunFilter(),
            RunFilter(agency=SKATT),
            RunFilter(agency="skatteetaten"),
            RunFilter(template="letter"),
            RunFilter(q="kortere"),
            RunFilter(q="skatteetaten"),
            RunFilter(q="siri"),
        )
        for run in catalog.runs.list(viewer, filter).items
        if run.agency.orgnr == SKATT
    ]
    experiments = [
        e
        for page in (
            catalog.experiments.list(viewer),
            catalog.experiments.list(viewer, agency=SKATT),
            catalog.experiments.list(viewer, q="hemmelig"),
        )
        for e in page.items
        if e.agency == SKATT
    ]
    return {
        "runs": list(runs),
        "experiments": list(experiments),
        "sweeps": [
            s
            for page in (catalog.sweeps.list(viewer), catalog.sweeps.list(viewer, agency=SKATT))
            for s in page.items
            if s.agency.orgnr == SKATT
        ],
        "schedules": [
            s
            for page in (catalog.schedules.list(viewer), catalog.schedules.list(viewer, agency=SKATT))
            for s in page.items
            if s.agency.orgnr == SKATT
        ],
        "notices": [n for n in catalog.notices.list(viewer).items if n.agency == SKATT and viewer.name != "siri"],
        "agencies": [a for a in catalog.agencies.list(viewer, active_only=False) if a.orgnr == SKATT],
        "events": [e for e in catalog.events.list(viewer, limit=200).items if e.agency == SKATT]
        + list(catalog.events.list(viewer, agency=SKATT).items),
        "members": [m for m in catalog.members.list(viewer) if m.agency == SKATT and m.person != viewer.name],
    }


Try = Callable[[Catalog, Viewer, Secrets], object]
# Every method that takes a viewer and names a thing, tried on Skatteetaten's.
TRIES: dict[str, Try] = {
    "agencies.get": lambda c, v, _: c.agencies.get(v, SKATT),
    "agencies.add": lambda c, v, _: c.agencies.add(v, AgencyRecord("991825827", "digdir", Text(nb="D"))),
    "agencies.change": lambda c, v, _: c.agencies.change(v, SKATT, weight=9),
    "usage.of": lambda c, v, _: c.usage.of(v, SKATT),
    "members.list": lambda c, v, _: c.members.list(v, agency=SKATT) or refuse(),
    "members.add": lambda c, v, _: c.members.add(v, person=v.name.strip("\x00"), agency=SKATT, role="leader"),
    "members.end": lambda c, v, s: c.members.end(v, s.member.id, date(2026, 3, 1)),
    "templates.submit": lambda c, v, _: c.templates.submit(v, template("new")),
    "templates.approve": lambda c, v, _: c.templates.approve(v, "waiting", "1.0.0"),
    "templates.deprecate": lambda c, v, _: c.templates.deprecate(v, "letter", "1.0.0"),
    "experiments.get": lambda c, v, s: c.experiments.get(v, s.experiment.id),
    "experiments.create": lambda c, v, _: c.experiments.create(v, agency=SKATT, title="x"),
    "experiments.change": lambda c, v, s: c.experiments.change(v, s.experiment.id, title="x"),
    "runs.submit": lambda c, v, _: c.runs.submit(v, submission(SKATT)),
    "runs.retry": lambda c, v, s: c.runs.retry(v, s.done.id),
    "runs.cancel": lambda c, v, s: c.runs.cancel(v, s.queued.id),
    "runs.get": lambda c, v, s: c.runs.get(v, s.done.id),
    "runs.progress": lambda c, v, s: c.runs.progress(v, s.done.id),
    "runs.notebook": lambda c, v, s: c.runs.notebook(v, s.done.id),
    "runs.figure": lambda c, v, s: c.runs.figure(v, s.done.id, "f"),
    "sweeps.plan": lambda c, v, _: c.sweeps.plan(v, sweep_of(SKATT)),
    "sweeps.submit": lambda c, v, _: c.sweeps.submit(v, sweep_of(SKATT)),
    "sweeps.get": lambda c, v, s: c.sweeps.get(v, s.sweep.id),
    "sweeps.cancel": lambda c, v, s: c.sweeps.cancel(v, s.sweep.id),
    "sweeps.resume": lambda c, v, s: c.sweeps.resume(v, s.sweep.id),
    "sweep_results.points": lambda c, v, s: c.sweep_results.points(v, s.sweep.id),
    "sweep_results.ranked": lambda c, v, s: c.sweep_results.ranked(v, s.sweep.id),
    "sweep_results.failures": lambda c, v, s: c.sweep_results.failures(v, s.sweep.id),
    "sweep_results.sensitivity": lambda c, v, s: c.sweep_results.sensitivity(v, s.sweep.id),
    "schedules.add": lambda c, v, _: c.schedules.add(v, NewSchedule("letter", SKATT, "0 7 * * *")),
    "schedules.plan": lambda c, v, _: c.schedules.plan(v, NewSchedule("letter", SKATT, "0 7 * * *")),
    "schedules.get": lambda c, v, s: c.schedules.get(v, s.schedule.id),
    "schedules.firings": lambda c, v, s: c.schedules.firings(v, s.schedule.id),
    "schedules.pause": lambda c, v, s: c.schedules.pause(v, s.schedule.id),
    "schedules.resume": lambda c, v, s: c.schedules.resume(v, s.schedule.id),
    "schedules.trigger": lambda c, v, s: c.schedules.trigger(v, s.schedule.id),
    "schedules.remove": lambda c, v, s: c.schedules.remove(v, s.schedule.id),
}
LISTS = {
    "agencies.list", "experiments.list", "runs.list", "events.list", "sweeps.list", "schedules.list", "notices.list",
}  # in ``listed``  # fmt: skip
# One's own and nobody else's, whoever asks: test_api_sweeps, test_store_sweeps and test_web_notices look at them.
OWN = {"notices.get", "notices.unread", "notices.read", "notices.seen", "notices.settings", "notices.choose"}
# What needs an agency's consent before anything is known of it.
NEW = ("runs.submit", "experiments.create", "sweeps.plan", "sweeps.submit", "schedules.add", "schedules.plan")
LAST = (
    "members.end",
    "sweeps.resume",
    "schedules.remove",
    "runs.cancel",
    "templates.deprecate",
)  # they end something, in this order
OPEN_TO_ALL = {"templates.list", "templates.get", "templates.versions"}  # published templates are everybody's
LAB_WIDE = {"templates.submit", "templates.approve", "templates.deprecate"}  # a coordinator's, of whatever agency

MAY: dict[str, set[str]] = {
    "a member": {
        "agencies.get", "usage.of", "members.list", "experiments.get", "experiments.create", "experiments.change",
    }
    | {name for name in TRIES if name.startswith(("runs.", "sweeps.", "sweep_results.", "schedules."))},
    "a reader": {
        "agencies.get", "usage.of", "members.list", "experiments.get", "runs.get", "runs.progress", "runs.notebook",
        "runs.figure", "sweeps.get", "sweep_results.points", "sweep_results.ranked", "sweep_results.failures",
        "sweep_results.sensitivity", "schedules.get", "schedules.firings",
    },
}  # fmt: skip
MAY["a member, from the agency's desk"] = MAY["a member"]
MAY["a coordinator"] = MAY["a member"] | {"members.add", "members.end"} | LAB_WIDE
MAY["an admin"] = set(TRIES)


def sweep_of(agency: str) -> SweepSubmission:
    return SweepSubmission("letter", agency, SweepRequest(grid={"alpha": [0.01, 0.05]}))


def refuse() -> object:
    raise NotFound("An empty listing.")


@pytest.fixture
def secrets(world: World) -> Secrets:
    world.catalog.templates.submit(SYSTEM, template("waiting"))
    return Secrets(world)


def fingerprint(world: World, secrets: Secrets) -> object:
    catalog = world.catalog
    runs: tuple[RunRecord, ...] = catalog.runs.list(SYSTEM, RunFilter()).items
    return (
        catalog.agencies.all(),
        catalog.members.list(SYSTEM),
        catalog.templates.list(SYSTEM, published_only=False),
        catalog.experiments.list(SYSTEM).items,
        runs,
        catalog.sweeps.list(SYSTEM).items,
        catalog.schedules.list(SYSTEM).items,
        catalog.events.list(SYSTEM, limit=200).items,
    )


def test_every_method_has_its_row() -> None:
    def public(part: type) -> set[str]:
        return {
            name
            for name, method in inspect.getmembers(part, inspect.isfunction)
            if not name.startswith("_") and "viewer" in inspect.signature(method).parameters
        }

    from catalog.store.agencies import Agencies
    from catalog.store.events import Events
    from catalog.store.experiments import Experiments
    from catalog.store.members import Members
    from catalog.store.notices import Notices
    from catalog.store.runs import Runs
    from catalog.store.schedules import Schedules
    from catalog.store.sweep_results import SweepResults
    from catalog.store.sweeps import Sweeps
    from catalog.store.templates import Templates
    from catalog.store.usage import Usages

    parts = {"agencies": Agencies, "events": Events, "experiments": Experiments, "members": Members, "runs": Runs}
    parts |= {
        "sweeps": Sweeps,
        "sweep_results": SweepResults,
        "schedules": Schedules,
        "notices": Notices,
        "usage": Usages,
    }
    every = {f"{part}.{name}" for part, cls in {**parts, "templates": Templates}.items() for name in public(cls)}
    assert every == TRIES.keys() | LISTS | OPEN_TO_ALL | OWN


@pytest.mark.parametrize("who", OUTSIDERS)
def test_outsiders_see_and_change_nothing(world: World, secrets: Secrets, who: str) -> None:
    viewer = OUTSIDERS[who](world)
    before = fingerprint(world, secrets)
    assert not any(listed(world.catalog, viewer).values())
    for name, attempt in TRIES.items():
        if name in LAB_WIDE and who == "a coordinator of another agency":
            continue
        with pytest.raises((NotFound, Forbidden, InvalidInput)) as caught:
            attempt(world.catalog, viewer, secrets)
        said = str(caught.value)
        assert "hemmelig" not in said, name
        # What is refused must not tell whether the thing exists.
        if (
            name.partition(".")[0] in ("runs", "experiments", "sweeps", "sweep_results", "schedules")
            and name not in NEW
        ):
            assert caught.type is NotFound, name
        if name in NEW:
            assert isinstance(caught.value, InvalidInput), name
            assert {p.code for p in caught.value.problems} == {"not_a_member"}
    assert fingerprint(world, secrets) == before


@pytest.mark.parametrize("who", INSIDERS)
def test_insiders_do_what_their_role_allows_and_no_more(world: World, secrets: Secrets, who: str) -> None:
    viewer = INSIDERS[who](world)
    seen = listed(world.catalog, viewer)
    assert seen["runs"]
    assert seen["experiments"]
    assert seen["agencies"]
    assert seen["sweeps"]
    assert seen["schedules"]
    assert bool(seen["events"]) == bool(seen["members"]) == (who in ("a coordinator", "an admin"))
    order = sorted(TRIES, key=lambda name: LAST.index(name) if name in LAST else -1)
    for name in order:
        if name in MAY[who]:
            TRIES[name](world.catalog, viewer, secrets)
        else:
            with pytest.raises((Forbidden, NotFound)) as caught:
                TRIES[name](world.catalog, viewer, secrets)
            # A colleague's membership is not for everybody to see; all else may be seen, just not done.
            assert caught.type is Forbidden or name == "members.end"


def test_shared_with_the_lab_means_seen_and_not_touched(world: World, secrets: Secrets) -> None:
    world.catalog.experiments.change(world.viewer("siri"), secrets.experiment.id, embargo_until=None)
    reads = ("experiments.get", "runs.get", "runs.progress", "runs.notebook", "runs.figure")
    for who in (world.viewer("kari"), world.viewer("leif"), world.viewer("both", desk="nav")):
        for name in reads:
            TRIES[name](world.catalog, who, secrets)
        assert {run.id for run in world.catalog.runs.list(who, RunFilter(agency=SKATT)).items} == {secrets.done.id}
        for name in ("runs.retry", "experiments.change"):
            with pytest.raises(Forbidden):
                TRIES[name](world.catalog, who, secrets)
        with pytest.raises(Forbidden):
            world.catalog.runs.cancel(who, secrets.done.id)
        with pytest.raises(NotFound):
            world.catalog.runs.get(who, secrets.queued.id)
    for who in (world.viewer("nobody"), world.viewer("former"), world.viewer("siri", desk="no-such")):
        for name in reads:
            with pytest.raises(NotFound):
                TRIES[name](world.catalog, who, secrets)


def test_waiting_templates_are_seen_by_coordinators_alone(world: World, secrets: Secrets) -> None:
    for name, sees in (("kari", False), ("leif", False), ("nobody", False), ("kirsten", True), ("root", True)):
        listed_names = {t.version.name for t in world.catalog.templates.list(world.viewer(name), published_only=False)}
        assert ("waiting" in listed_names) == sees
        assert "letter" in listed_names
    assert NAV != SKATT
