from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from catalog.access import Action, Forbidden, NotFound
from catalog.store import open_catalog
from catalog.store.records import RunFilter
from experiments.model import Reason, RunState
from lab_templates.model import InvalidInput
from tests.unit.catalog.world import DONE, NAV, NOTEBOOK, SKATT, SYSTEM, World, publish, submission, template


def codes(caught: pytest.ExceptionInfo[InvalidInput]) -> set[str]:
    assert all(problem.message for problem in caught.value.problems)
    return {problem.code for problem in caught.value.problems}


def everything(world: World, **filters: Any) -> list[str]:
    return [run.id for run in world.catalog.runs.list(SYSTEM, RunFilter(**filters), limit=200).items]


# -- asking for a run ----------------------------------------------------------------------------------------------


def test_a_submission_becomes_a_queued_run(world: World) -> None:
    experiment = world.experiment()
    run = world.submit(parameters={"alpha": "0,1"}, experiment=experiment.id, timeout_seconds="90")
    assert (run.state, run.attempt, run.max_attempts, run.timeout_seconds) == (RunState.QUEUED, 0, 3, 90)
    assert dict(run.parameters) == {"alpha": 0.1, "office": "Bergen"}
    assert (run.agency.slug, run.template, run.version, run.template_title.nb) == (
        "nav", "letter", "1.0.0", "Kortere brev",
    )  # fmt: skip
    assert (run.template_digest, run.requested_by, run.experiment) == (template().digest, "kari", experiment.id)
    assert (run.started_at, run.ended_at, run.deadline_at, run.created_at) == (None, None, None, world.clock())
    assert world.catalog.runs.get(world.viewer("leif"), run.id) == run
    (logged,) = world.catalog.events.list(SYSTEM, subject=run.id).items
    assert (logged.action, logged.person, logged.agency, logged.source) == ("run.submitted", "kari", NAV, "api")


def test_the_agency_may_be_named_by_its_short_name(world: World) -> None:
    assert world.submit(agency="nav").agency.orgnr == NAV


def test_the_templates_own_time_limit_holds_unless_another_is_given(world: World) -> None:
    assert world.submit().timeout_seconds == 600
    assert world.submit(timeout_seconds=1).timeout_seconds == 1


@pytest.mark.parametrize(
    ("quota", "field"),
    [
        ({"max_concurrent_runs": 0}, "max_concurrent_runs=0"),
        ({"max_memory": 2**30}, "max_memory=1073741824"),
        ({"max_cpus": 0.5}, "max_cpus=0.5"),
    ],
)
def test_what_could_never_start_is_refused_at_once(
    world: World, tmp_path: Path, quota: dict[str, float], field: str
) -> None:
    world.catalog.agencies.change(SYSTEM, NAV, **quota)
    limits = replace(world.catalog.limits, memory=2**31, cpus=1.0)
    catalog = open_catalog(world.url, str(tmp_path), limits=limits, clock=world.clock)
    with pytest.raises(InvalidInput) as caught:
        catalog.runs.submit(world.viewer("kari"), submission())
    catalog.close()
    assert codes(caught) == {"quota_too_small"}
    assert field in str(caught.value.problems[0].message)
    assert everything(world) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"template": "nothing"}, {"unknown_template"}),
        ({"version": "9.9.9"}, {"unknown_template"}),
        ({"template": "../letter"}, {"unknown_template"}),
        ({"template": "letter-evil"}, {"unknown_template"}),
        ({"template": 5}, {"unknown_template"}),
        ({"template": "waiting"}, {"not_published"}),
        ({"template": "waiting", "version": "1.0.0"}, {"not_published"}),
        (
            {"parameters": {"alpha": 9, "office": "x" * 21, "beta": 1}},
            {"above_maximum", "too_long", "unknown_parameter"},
        ),
        ({"parameters": {"__class__": 1}}, {"bad_name"}),
        ({"parameters": []}, {"wrong_type"}),
        ({"timeout_seconds": 3601}, {"bad_timeout"}),
        ({"timeout_seconds": 0}, {"bad_timeout"}),
        ({"timeout_seconds": -1}, {"bad_timeout"}),
        ({"timeout_seconds": float("nan")}, {"bad_timeout"}),
        ({"timeout_seconds": True}, {"bad_timeout"}),
        ({"experiment": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}, {"unknown_experiment"}),
        ({"experiment": "' OR 1=1--"}, {"unknown_experiment"}),
        ({"idempotency_key": ""}, {"bad_idempotency_key"}),
        ({"idempotency_key": "x" * 256}, {"bad_idempotency_key"}),
        ({"idempotency_key": "a\x00b"}, {"bad_idempotency_key"}),
        ({"agency": "991825827"}, {"not_a_member"}),
        ({"agency": SKATT}, {"not_a_member"}),
        ({"agency": "<img>"}, {"not_a_member"}),
        ({"agency": None}, {"not_a_member"}),
        (
            {"agency": SKATT, "parameters": {"alpha": "x"}, "timeout_seconds": 0, "experiment": "x"},
            {"not_a_member", "wrong_type", "bad_timeout", "unknown_experiment"},
        ),
    ],
)
def test_bad_submissions_get_every_error_at_once_and_no_row(
    world: World, fields: dict[str, Any], expected: set[str]
) -> None:
    world.catalog.templates.submit(world.viewer("kirsten"), template("waiting"))
    wanted = {"agency": NAV, **fields}
    with pytest.raises(InvalidInput) as caught:
        world.catalog.runs.submit(world.viewer("kari"), submission(**wanted))
    assert codes(caught) == expected
    assert everything(world) == []
    assert [e for e in world.catalog.events.list(SYSTEM).items if e.action.startswith("run.")] == []


def test_an_experiment_of_another_agency_is_not_to_be_used(world: World) -> None:
    theirs = world.experiment("siri", SKATT, visibility="lab")
    assert world.catalog.experiments.get(world.viewer("kari"), theirs.id)
    with pytest.raises(InvalidInput) as caught:
        world.submit(experiment=theirs.id)
    assert codes(caught) == {"unknown_experiment"}


def test_a_closed_agency_starts_nothing(world: World) -> None:
    world.catalog.agencies.change(SYSTEM, NAV, active=False)
    with pytest.raises(InvalidInput) as caught:
        world.catalog.runs.submit(SYSTEM, submission())
    assert codes(caught) == {"agency_closed"}


def test_a_deprecated_version_starts_nothing(world: World) -> None:
    world.catalog.templates.deprecate(SYSTEM, "letter", "1.0.0")
    for version in (None, "1.0.0"):
        with pytest.raises(InvalidInput) as caught:
            world.submit(version=version)
        assert codes(caught) == {"not_published"}


def test_readers_may_not_start_runs(world: World) -> None:
    with pytest.raises(Forbidden):
        world.submit("leif")
    with pytest.raises(Forbidden):
        world.catalog.runs.submit(world.viewer("kari", actions=frozenset({Action.READ})), submission())


# -- the same submission twice -------------------------------------------------------------------------------------


def test_a_used_key_gives_the_same_run(world: World) -> None:
    kari = world.viewer("kari")
    first, created = world.catalog.runs.submit(kari, submission(idempotency_key="k1"))
    again, created_again = world.catalog.runs.submit(
        kari, submission(idempotency_key="k1", parameters={"alpha": "0.10"}, version="1.0.0", timeout_seconds=600)
    )
    assert (again, created, created_again) == (first, True, False)
    publish(world.catalog, template(version="2.0.0"))  # "the newest" is still the version that the run has
    world.catalog.templates.deprecate(SYSTEM, "letter", "1.0.0")
    assert world.catalog.runs.submit(kari, submission(idempotency_key="k1"))[0].id == first.id
    other, created = world.catalog.runs.submit(world.viewer("kirsten"), submission(idempotency_key="k1"))
    assert created
    assert other.id != first.id


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"alpha": 0.2}},
        {"parameters": {"alpha": "x"}},
        {"timeout_seconds": 5},
        {"timeout_seconds": "x"},
        {"template": "other"},
        {"version": "2.0.0"},
        {"agency": SKATT},
        {"experiment": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
    ],
)
def test_a_used_key_with_another_request_is_refused(world: World, fields: dict[str, Any]) -> None:
    both = world.viewer("both")
    world.catalog.runs.submit(both, submission(idempotency_key="k1"))
    with pytest.raises(InvalidInput) as caught:
        world.catalog.runs.submit(both, submission(**{"agency": NAV, "idempotency_key": "k1", **fields}))
    assert codes(caught) == {"idempotency_key_reused"}
    assert len(everything(world)) == 1


# -- cancel and retry ----------------------------------------------------------------------------------------------


def test_a_queued_run_is_cancelled_at_once_and_once(world: World) -> None:
    run = world.submit()
    world.clock.advance(5)
    cancelled = world.catalog.runs.cancel(world.viewer("kirsten"), run.id)
    assert (cancelled.state, cancelled.reason, cancelled.ended_at) == (
        RunState.CANCELLED, Reason.CANCELLED_BY_USER, world.clock(),
    )  # fmt: skip
    world.clock.advance(5)
    assert world.catalog.runs.cancel(world.viewer("kari"), run.id) == cancelled
    actions = [e.action for e in world.catalog.events.list(SYSTEM, subject=run.id).items]
    assert actions == ["run.cancelled", "run.submitted"]


def test_a_running_run_is_asked_to_stop_once(world: World) -> None:
    run = world.submit()
    world.claim("r1")
    for _ in range(2):
        asked = world.catalog.runs.cancel(world.viewer("kari"), run.id)
        assert (asked.state, asked.cancel_requested) == (RunState.RUNNING, True)
    actions = [e.action for e in world.catalog.events.list(SYSTEM, subject=run.id).items]
    assert actions.count("run.cancel_requested") == 1


def test_an_ended_run_is_left_as_it_is(world: World) -> None:
    done = world.finished(world.submit())
    assert world.catalog.runs.cancel(world.viewer("kari"), done.id) == done


def test_a_retry_is_a_new_run_of_the_same_request(world: World) -> None:
    run = world.submit(parameters={"alpha": 0.2}, timeout_seconds=77, idempotency_key="k")
    with pytest.raises(InvalidInput) as caught:
        world.catalog.runs.retry(world.viewer("kari"), run.id)
    assert codes(caught) == {"not_ended"}
    world.catalog.runs.cancel(world.viewer("kari"), run.id)
    publish(world.catalog, template(version="2.0.0"))
    again = world.catalog.runs.retry(world.viewer("kirsten"), run.id)
    assert again.id != run.id
    assert (again.retry_of, again.state, again.requested_by) == (run.id, RunState.QUEUED, "kirsten")
    assert (again.parameters, again.timeout_seconds, again.version) == (run.parameters, 77, "1.0.0")
    with pytest.raises(Forbidden):
        world.catalog.runs.retry(world.viewer("leif"), run.id)
    with pytest.raises(Forbidden):
        world.catalog.runs.cancel(world.viewer("leif"), again.id)


# -- reading -------------------------------------------------------------------------------------------------------


def test_a_run_without_results_has_no_files(world: World) -> None:
    run = world.submit()
    with pytest.raises(NotFound):
        world.catalog.runs.notebook(SYSTEM, run.id)
    done = world.finished(run)
    assert world.catalog.runs.notebook(SYSTEM, done.id) == NOTEBOOK
    for name in ("", "nothing", "../x", "\x00", "a\ud800"):
        with pytest.raises(NotFound):
            world.catalog.runs.figure(SYSTEM, run.id, name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(id=st.text(max_size=40) | st.sampled_from(["../", "%2e%2e%2f", "' OR 1=1--", "\ud800", "0" * 26]))
def test_any_other_id_is_not_found(world: World, id: str) -> None:
    for read in (world.catalog.runs.get, world.catalog.runs.progress, world.catalog.experiments.get):
        with pytest.raises(NotFound):
            read(SYSTEM, id)


def test_filters_narrow(world: World) -> None:
    publish(world.catalog, template("survey"))
    experiment = world.experiment()
    a = world.submit(experiment=experiment.id)
    b = world.submit("siri", SKATT)
    c = world.submit(template="survey")
    world.catalog.runs.cancel(SYSTEM, c.id)
    assert everything(world) == [c.id, b.id, a.id]
    assert everything(world, agency=NAV) == everything(world, agency="nav") == [c.id, a.id]
    assert everything(world, template="letter") == [b.id, a.id]
    assert everything(world, state=RunState.CANCELLED) == [c.id]
    assert everything(world, experiment=experiment.id) == [a.id]
    assert everything(world, agency=NAV, template="letter", state=RunState.QUEUED) == [a.id]
    for nothing in ("none", "' OR 1=1--", "%", "x\x00", "\ud800", ""):
        for field in ("agency", "template", "experiment"):
            assert everything(world, **{field: nothing}) == []


SEARCHES = [
    ("kortere", "ab"),
    ("KORTERE", "ab"),
    ("kort", "ab"),
    ("ortere", ""),
    ("tre", "a"),
    ("forskjell", "a"),
    ("kari", "a"),
    ("siri", "b"),
    ("skatteetaten", "b"),
    ("velferds", "a"),
    ("velferds kortere", "a"),
    ("skatteetaten kari", ""),
    ("sma\u030aord", "a"),
    ("smaord", ""),
    ("2,3", "a"),
    ("2.3", "a"),
    ("A/B-test", "a"),
    ("%", ""),
    ("_", ""),
    ("*", ""),
    ('"kortere', "ab"),
    ("kortere*", "ab"),
    ("NOT kari", ""),
    ("' OR 1=1--", ""),
    ("kortere) OR (x", ""),
    ("words:kortere", ""),
    ("a & !b | c:*", ""),
    ("", "ab"),
    ("   ", "ab"),
    ("\x00", "ab"),
    ("\ud800", ""),
    ("letter", "ab"),
    ("974761076", "b"),
]


def test_search_finds_words_and_takes_every_sign_as_it_is(world: World) -> None:
    a, b = world.submit(), world.submit("siri", SKATT)
    text = "Ingen forskjell på 2,3 <b>tre</b>: SMÅORD i A/B-test"
    world.finished(a, replace(DONE, findings=(text, "Andre")))
    names = {a.id: "a", b.id: "b"}
    found = {q: "".join(sorted(names[id] for id in everything(world, q=q))) for q, _ in SEARCHES}
    assert found == dict(SEARCHES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(q=st.text(max_size=60))
def test_no_search_breaks(world: World, q: str) -> None:
    world.catalog.runs.list(world.viewer("both"), RunFilter(q=q))


def test_pages_follow_each_other_for_every_kind_of_viewer(world: World) -> None:
    shared = world.experiment("siri", SKATT, visibility="lab")
    ids: dict[str, list[str]] = {"kari": [], "both": [], "root": []}
    for i in range(12):
        nav, skatt = world.submit().id, world.submit("siri", SKATT, experiment=shared.id if i % 3 == 0 else None).id
        ids["root"] += [nav, skatt]
        ids["both"] += [nav, skatt]
        ids["kari"] += [nav, skatt] if i % 3 == 0 else [nav]
    for name, expected in ids.items():
        seen: list[str] = []
        cursor = None
        while True:
            page = world.catalog.runs.list(world.viewer(name), RunFilter(), cursor=cursor, limit=5)
            seen += [run.id for run in page.items]
            cursor = page.next
            if cursor is None:
                break
        assert seen == expected[::-1]


@pytest.mark.parametrize("limit", [0, -1, 201, True, 2.5, "10", None])
def test_a_page_has_a_sensible_length(world: World, limit: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.runs.list(SYSTEM, RunFilter(), limit=limit)
    assert codes(caught) == {"bad_limit"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(cursor=st.text(max_size=80))
def test_a_made_up_cursor_is_refused(world: World, cursor: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.runs.list(SYSTEM, RunFilter(), cursor=cursor)
    assert codes(caught) == {"bad_cursor"}


def test_a_cursor_belongs_to_its_filters(world: World) -> None:
    for _ in range(3):
        world.submit()
    cursor = world.catalog.runs.list(SYSTEM, RunFilter(agency=NAV), limit=1).next
    assert cursor is not None
    world.catalog.runs.list(SYSTEM, RunFilter(agency=NAV), limit=1, cursor=cursor)
    for listing in (RunFilter(), RunFilter(agency=SKATT)):
        with pytest.raises(InvalidInput):
            world.catalog.runs.list(SYSTEM, listing, cursor=cursor)
    with pytest.raises(InvalidInput):
        world.catalog.experiments.list(SYSTEM, cursor=cursor)
    with pytest.raises(InvalidInput):
        world.catalog.runs.list(SYSTEM, RunFilter(agency=NAV), cursor=cursor[:-2] + "AA")


def test_a_listing_asks_the_same_number_of_questions_however_long_it_is(world: World) -> None:
    def questions() -> int:
        asked: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            asked.append(statement)

        event.listen(world.catalog._database.engine, "before_cursor_execute", note)
        page = world.catalog.runs.list(SYSTEM, RunFilter())
        event.remove(world.catalog._database.engine, "before_cursor_execute", note)
        assert all(run.metrics and run.findings for run in page.items)
        return len(asked)

    world.finished(world.submit())
    few = questions()
    for _ in range(20):
        world.finished(world.submit())
    assert questions() == few <= 7
