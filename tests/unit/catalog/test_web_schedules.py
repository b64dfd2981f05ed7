"""The pages of schedules: made without JavaScript, looked at before they are saved, paused, run by hand, removed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.i18n import translator
from catalog.store.records import NewSchedule, ScheduleRecord
from catalog.web.pages.schedules_times import DAYS, WEEKDAYS, cron_of, form_of, in_words, moments, zones
from experiments.schedules import ScheduleState, next_times
from lab_templates.checks import read_template
from tests.unit.catalog.web_lab import BASE, Page, WebLab, web_lab
from tests.unit.catalog.world import DECLARATION, DONE, NAV, NOTEBOOK, SKATT, SYSTEM, publish, template

GOOD = {
    "template": "letter",
    "version": "1.0.0",
    "rhythm": "weekdays",
    "clock": "07:30",
    "zone": "Europe/Oslo",
    "catch_up": "once",
    "agency": NAV,
    "p-alpha": "0,1",
    "p-office": "Bergen <b>",
    "minutes": "5",
    "title": "Morgen",
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[WebLab]:
    with web_lab(tmp_path) as built:
        yield built


def schedules(lab: WebLab) -> tuple[ScheduleRecord, ...]:
    return lab.world.catalog.schedules.list(SYSTEM).items


def made(lab: WebLab, who: str = "kari", **fields: object) -> ScheduleRecord:
    values = {"template": "letter", "agency": NAV, "cron": "0 7 * * *", **fields}
    return lab.world.catalog.schedules.add(lab.world.viewer(who), NewSchedule(**values))[0]  # type: ignore[arg-type]


def publish_timed(lab: WebLab) -> None:
    """Publish a template with a date ``scheduled_at`` and a date ``since``."""
    declaration = DECLARATION.format(name="timed", version="1.0.0", title="Med tid")
    source = NOTEBOOK
    for name in ("scheduled_at", "since"):
        declaration += (
            f'[[parameters]]\nname = "{name}"\ntype = "date"\ndefault = "2026-01-01"\n'
            f'label = {{ nb = "Felt {name}", nn = "Felt", en = "Field {name}" }}\n'
        )
        source = source.replace(
            b'office = \\"Bergen\\"', b'office = \\"Bergen\\"\\n' + f'{name} = \\"2026-01-01\\"'.encode()
        )
    publish(lab.world.catalog, read_template(source, declaration.encode(), ""))


# -- the form --------------------------------------------------------------------------------------------------------


def test_made_in_three_steps_without_javascript(lab: WebLab) -> None:
    offered = lab.get("/templates/letter").text
    link = re.search(r'href="([^"]*/schedules/new[^"]*)"', offered)
    assert link
    form = lab.get(link[1].replace("&amp;", "&").removeprefix(BASE))
    assert Page(form.text).faults() == []
    looked = lab.post("/schedules/new", {**GOOD, "do": "look"})
    assert looked.status_code == 200
    assert Page(looked.text).faults() == []
    assert schedules(lab) == (), "nothing is saved by looking"
    times = re.findall(r"<li><time [^>]*>([^<]+)</time>", looked.text)
    assert times[:2] == ["Tuesday 3 March 2026 at 07:30", "Wednesday 4 March 2026 at 07:30"]
    assert len(times) == 5
    assert "Bergen &lt;b&gt;" in looked.text
    hidden = {str(i["name"]): str(i["value"]) for i in Page(looked.text).all("input") if i["type"] == "hidden"}
    hidden.pop("csrf")
    again = lab.post("/schedules/new", {**hidden, "do": "change"})
    assert 'value="07:30"' in again.text
    assert 'value="Morgen"' in again.text
    saved = lab.post("/schedules/new", {**hidden, "do": "save"})
    assert saved.status_code == 303
    (schedule,) = schedules(lab)
    assert saved.headers["location"] == f"{BASE}/schedules/{schedule.id}?done=made"
    assert (schedule.cron, schedule.zone, schedule.title, schedule.version) == (
        "30 7 * * 1-5", "Europe/Oslo", "Morgen", None,
    )  # fmt: skip
    assert (schedule.timeout_seconds, schedule.parameters["alpha"], schedule.requested_by) == (300, "0,1", "kari")
    page = lab.get(f"/schedules/{schedule.id}?done=made").text
    assert Page(page).faults() == []
    assert "The schedule is saved and on." in page
    assert "Every weekday at 07:30" in page


def test_saved_twice_is_saved_once(lab: WebLab) -> None:
    looked = lab.post("/schedules/new", {**GOOD, "do": "look"})
    hidden = {str(i["name"]): str(i["value"]) for i in Page(looked.text).all("input") if i["type"] == "hidden"}
    hidden.pop("csrf")
    first, again = (lab.post("/schedules/new", {**hidden, "do": "save"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (303, 303)
    assert first.headers["location"] == again.headers["location"]
    assert len(schedules(lab)) == 1
    other = lab.post("/schedules/new", {**hidden, "title": "Kveld", "do": "save"})
    assert other.status_code == 422
    assert "This form has been sent before with other values." in other.text
    assert Page(other.text).faults() == []
    lab.post(f"/schedules/{schedules(lab)[0].id}/remove")
    removed = lab.post("/schedules/new", {**hidden, "do": "save"})
    assert removed.status_code == 422
    assert "This form has made a schedule, which has been removed since." in removed.text
    # A new look is a new schedule.
    looked_again = Page(lab.post("/schedules/new", {**GOOD, "do": "look"}).text)
    keys = [i["value"] for i in looked_again.all("input") if i.get("name") == "key"]
    assert keys != [hidden["key"]]
    assert lab.post("/schedules/new", {**hidden, "key": str(keys[0]), "do": "save"}).status_code == 303
    assert lab.post("/schedules/new", {**GOOD, "do": "save", "key": "x" * 999}).status_code == 303


def test_every_fault_at_once_and_nothing_lost(lab: WebLab) -> None:
    bad = {
        **GOOD, "rhythm": "weekly", "clock": "25:00", "zone": "Europe/Osl", "catch_up": "never", "agency": "",
        "p-alpha": "9", "minutes": "x", "title": "t" * 300, "do": "save",
    }  # fmt: skip
    response = lab.post("/schedules/new", bad, "both")
    assert response.status_code == 422
    page = Page(response.text)
    assert page.faults() == []
    summary = response.text.split("<ds-error-summary")[1].split("</ds-error-summary>")[0]
    fields = re.findall(r'href="#([^"]+)"', summary)
    assert sorted(fields) == sorted(
        ["day-1", "clock", "zone", "catch_up-once", "agency", "p-alpha", "minutes", "title"]
    )
    assert set(fields) <= set(page.ids())
    assert 'value="25:00"' in response.text
    assert 'value="Europe/Osl"' in response.text
    assert schedules(lab) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rhythm": "own", "cron": "61 * * * *"}, "is not a time that comes again"),
        ({"rhythm": "own", "cron": "0 7 30 2 *"}, "is not a time that comes again"),
        ({"rhythm": "own", "cron": ""}, "is not a time that comes again"),
        ({"rhythm": ""}, "Choose how often it should run."),
        ({"rhythm": "monthly", "monthday": "32"}, "Choose a day of the month."),
        ({"clock": "7"}, "is not a time of day"),
        ({"clock": "12:60"}, "is not a time of day"),
        ({"zone": ""}, "There is no time zone"),
        ({"zone": "../../etc/passwd"}, "There is no time zone"),
        ({"agency": SKATT}, "You are not a member of this agency."),
        ({"experiment": "nothing"}, "The experiment was not found in this agency."),
        ({"time_parameter": "alpha"}, "Field that gets the time"),
        ({"time_parameter": "nothing"}, "Field that gets the time"),
    ],
)
def test_what_cannot_be_a_schedule(lab: WebLab, change: dict[str, str], said: str) -> None:
    for do in ("look", "save"):
        response = lab.post("/schedules/new", {**GOOD, **change, "do": do})
        assert response.status_code == 422
        assert said in response.text.replace("&#39;", "'")
        assert Page(response.text).faults() == []
    assert schedules(lab) == ()


def test_a_template_that_is_not_there(lab: WebLab) -> None:
    assert lab.post("/schedules/new", {**GOOD, "template": "none"}).status_code == 404
    assert lab.get("/schedules/new?template=none").status_code == 404
    assert lab.post("/schedules/new", {**GOOD, "do": "save", "csrf": "forged"}).status_code == 403
    assert lab.get("/schedules/new", "leif").status_code == 403
    assert "Kortere brev" in lab.get("/schedules/new").text


def test_the_parameter_that_gets_the_time(lab: WebLab) -> None:
    publish_timed(lab)
    form = lab.get("/schedules/new?template=timed").text
    assert 'value="scheduled_at" selected' in form
    assert 'value="alpha"' not in form
    sent = {**GOOD, "template": "timed", "p-scheduled_at": "rubbish", "p-since": "2026-02-01"}
    looked = lab.post("/schedules/new", {**sent, "time_parameter": "scheduled_at", "do": "look"}).text
    assert "The time of the run, filled in by the lab" in looked
    lab.post("/schedules/new", {**sent, "time_parameter": "scheduled_at", "follow": "this", "do": "save"})
    (schedule,) = schedules(lab)
    assert (schedule.time_parameter, schedule.version) == ("scheduled_at", "1.0.0")
    assert "scheduled_at" not in schedule.parameters
    lab.post("/schedules/new", {**sent, "p-scheduled_at": "2026-05-05", "time_parameter": "", "do": "save"})
    newest = schedules(lab)[0]
    assert (newest.time_parameter, newest.parameters["scheduled_at"]) == (None, "2026-05-05")


def test_one_like_another(lab: WebLab) -> None:
    first = made(
        lab, cron="15 6 L * *", zone="Asia/Tokyo", catch_up="skip", title="Månedlig", version="1.0.0",
        parameters={"alpha": 0.15}, timeout_seconds=120,
    )  # fmt: skip
    page = Page(lab.get(f"/schedules/new?like={first.id}").text)
    values = {str(i.get("id")): i.get("value") for i in page.all("input")}
    assert (values["clock"], values["zone"], values["title"]) == ("06:15", "Asia/Tokyo", "Månedlig")
    assert (values["p-alpha"], values["minutes"]) == ("0.15", "2")
    checked = {i.get("id") for i in page.all("input") if "checked" in i}
    assert checked == {"rhythm-monthly", "catch_up-skip"}
    assert lab.get(f"/schedules/new?like={first.id}", "siri").status_code == 404


# -- the list and the page -------------------------------------------------------------------------------------------


def test_the_list_says_what_to_do_when_it_is_empty(lab: WebLab) -> None:
    assert "Choose “New schedule”" in lab.get("/schedules").text
    assert "When a team in one of your agencies has made one" in lab.get("/schedules", "leif").text
    made(lab, title="Vår egen")
    assert "Vår egen" not in lab.get("/schedules", "siri").text
    listed = lab.get("/schedules")
    assert Page(listed.text).faults() == []
    assert "Tuesday 3 March 2026 at 07:00" in listed.text
    assert "None yet" in listed.text


def test_what_came_of_its_times(lab: WebLab) -> None:
    schedule = made(lab, cron="0 * * * *", title="Hver time")
    tick = lab.world.catalog.schedules.tick
    (first,) = tick(lab.world.clock() + timedelta(hours=1))
    lab.world.clock.advance(3600)
    lab.world.finished(lab.world.catalog.runs.get(SYSTEM, first.run or ""))
    lab.world.clock.advance(4 * 3600)
    (late,) = tick(lab.world.clock())
    assert late.left_out == 3
    lab.world.clock.advance(90)
    hand = lab.post(f"/schedules/{schedule.id}/trigger")
    run = hand.headers["location"].removeprefix(f"{BASE}/runs/")
    page = lab.get(f"/schedules/{schedule.id}").text
    assert Page(page).faults() == []
    rows = re.findall(r"<tr>\s*<th scope=\"row\">(.*?)</tr>", page, re.S)
    assert len(rows) == 4
    assert "Started by hand" in rows[0]
    assert run in rows[0]
    assert "It also makes up for 3 times that were missed." in rows[1]
    assert "3 times were not run" in rows[2]
    assert "Et kortere brev ga 2,3 prosentpoeng flere svar." in rows[3]
    assert "Started by a schedule" in lab.get(f"/runs/{run}").text
    assert "Waiting" in lab.get("/schedules").text
    assert run in lab.get(f"/runs?schedule={schedule.id}").text
    assert run not in lab.get("/runs?schedule=none").text


def test_a_time_that_may_yet_be_run_is_not_called_missed(lab: WebLab) -> None:
    schedule = made(lab, cron="0 * * * *")
    lab.world.clock.advance(3600 + 60)
    assert "Not run" not in lab.get(f"/schedules/{schedule.id}").text
    lab.world.clock.advance(600)
    assert "Not run" in lab.get(f"/schedules/{schedule.id}").text


def test_pause_resume_remove(lab: WebLab) -> None:
    schedule = made(lab)
    path = f"/schedules/{schedule.id}"
    assert lab.post(f"{path}/pause").status_code == 303
    assert lab.world.catalog.schedules.get(SYSTEM, schedule.id).state is ScheduleState.PAUSED
    paused = lab.get(f"{path}?done=paused").text
    assert "It starts nothing by itself while it is paused." in paused
    lab.post(f"{path}/resume")
    assert lab.world.catalog.schedules.get(SYSTEM, schedule.id).state is ScheduleState.ACTIVE
    asked = lab.get(f"{path}/remove").text
    assert "Remove this schedule?" in asked
    assert schedules(lab), "asking removes nothing"
    assert lab.post(f"{path}/remove").headers["location"] == f"{BASE}/schedules?removed=1"
    assert schedules(lab) == ()
    assert lab.get(path).status_code == 404
    assert lab.post(f"{path}/remove").status_code == 404


def test_why_it_was_stopped(lab: WebLab) -> None:
    schedule = made(lab, "both")
    experiment = lab.world.experiment()
    other = made(lab, experiment=experiment.id)
    member = next(m for m in lab.world.catalog.members.list(SYSTEM, agency=NAV) if m.person == "both")
    lab.world.catalog.members.end(SYSTEM, member.id, lab.world.clock().date() - timedelta(days=1))
    lab.world.catalog.experiments.change(lab.world.viewer("kari"), experiment.id, status="stopped")
    for _ in range(2):
        lab.world.clock.advance(24 * 3600)
        lab.world.catalog.schedules.tick(lab.world.clock())
    page = lab.get(f"/schedules/{schedule.id}").text
    assert "Whoever made it can no longer start runs for the agency." in page
    assert "its runs are started in your name" in page
    assert "The experiment it belongs to is closed." in lab.get(f"/schedules/{other.id}").text
    refused = lab.post(f"/schedules/{other.id}/resume")
    assert refused.status_code == 422
    assert "The experiment is closed. Choose another, or none." in refused.text
    assert lab.post(f"/schedules/{other.id}/trigger").status_code == 422
    assert lab.post(f"/schedules/{schedule.id}/resume").status_code == 303
    assert lab.world.catalog.schedules.get(SYSTEM, schedule.id).requested_by == "kari"


def test_whose_it_is(lab: WebLab) -> None:
    schedule = made(lab)
    path = f"/schedules/{schedule.id}"
    for who in ("siri", "nobody"):
        assert lab.get(path, who).status_code == 404
        assert lab.get(f"{path}/remove", who).status_code == 404
        for act in ("trigger", "pause", "resume", "remove"):
            assert lab.post(f"{path}/{act}", who=who).status_code == 404
    seen = lab.get(path, "leif")
    assert seen.status_code == 200
    assert "/trigger" not in seen.text
    for act in ("trigger", "pause", "remove"):
        assert lab.post(f"{path}/{act}", who="leif").status_code == 403
        assert lab.post(f"{path}/{act}", {"csrf": "forged"}).status_code == 403
    assert lab.get(path, None).status_code == 302
    assert lab.world.catalog.schedules.get(SYSTEM, schedule.id).state is ScheduleState.ACTIVE


def test_an_experiment_names_its_schedules(lab: WebLab) -> None:
    experiment = lab.world.experiment()
    assert "Nothing is run at fixed times" in lab.get(f"/experiments/{experiment.id}").text
    made(lab, experiment=experiment.id, title="Fast")
    assert "Fast" in lab.get(f"/experiments/{experiment.id}").text


@pytest.mark.parametrize("language", ["nb", "nn", "en"])
def test_in_every_language(lab: WebLab, language: str) -> None:
    schedule = made(lab)
    lab.world.catalog.schedules.tick(lab.world.clock() + timedelta(days=3))
    for path in (
        "/schedules", "/schedules/new", "/schedules/new?template=letter", f"/schedules/{schedule.id}",
        f"/schedules/{schedule.id}/remove", "/notices", "/me",
    ):  # fmt: skip
        response = lab.get(path, "kari", language)
        assert response.status_code == 200
        assert Page(response.text).faults() == []


def test_a_template_out_of_use_cannot_be_scheduled(lab: WebLab) -> None:
    publish(lab.world.catalog, template("old"))
    schedule = made(lab, template="old", version="1.0.0")
    lab.world.catalog.templates.deprecate(SYSTEM, "old", "1.0.0")
    form = lab.get(f"/schedules/new?like={schedule.id}")
    assert "cannot be run now" in form.text
    assert lab.post("/schedules/new", {**GOOD, "template": "old", "do": "save"}).status_code == 422


# -- between the form and the expression ------------------------------------------------------------------------------

CLOCKS = st.builds(lambda h, m: f"{h:02}:{m:02}", st.integers(0, 23), st.integers(0, 59))
FORMS = st.one_of(
    st.builds(lambda c, r: {"rhythm": r, "clock": c}, CLOCKS, st.sampled_from(["daily", "weekdays"])),
    st.builds(lambda c, d: {"rhythm": "monthly", "monthday": d, "clock": c}, CLOCKS, st.sampled_from(DAYS)),
    st.builds(
        lambda c, days: {"rhythm": "weekly", "clock": c, **{f"day-{d}": "true" for d in days}},
        CLOCKS,
        st.sets(st.sampled_from(sorted(WEEKDAYS)), min_size=1),
    ),
)


@given(FORMS)
def test_what_the_form_says_can_be_read_back(form: dict[str, str]) -> None:
    cron, problems = cron_of(form)
    assert problems == []
    assert form_of(cron) == form
    assert next_times(cron, "Europe/Oslo", datetime(2026, 1, 1, tzinfo=UTC), 1)
    for language in ("nb", "nn", "en"):
        assert in_words(cron, translator(language))


@given(st.text(max_size=30))
def test_any_expression_can_be_shown(cron: str) -> None:
    choices = form_of(cron)
    assert choices["rhythm"] != "own" or choices["cron"] == cron
    assert in_words(cron, translator("nb"))


@given(st.dictionaries(st.sampled_from(["rhythm", "clock", "monthday", "cron", "day-1"]), st.text(max_size=12)))
def test_any_form_gives_an_expression_or_says_why_not(form: dict[str, str]) -> None:
    cron, problems = cron_of(form)
    assert form.get("rhythm") == "own" or bool(cron) != bool(problems)


def test_in_words() -> None:
    nb, en = translator("nb"), translator("en")
    assert in_words("30 7 * * 1,3,0", nb) == "Hver mandag, onsdag og søndag kl. 07.30"
    assert in_words("0 6 L * *", nb) == "Den siste dagen i hver måned kl. 06.00"
    assert in_words("5 14 15 * *", en) == "On day 15 of every month at 14:05"
    assert in_words("*/5 * * * *", en) == "At the times */5 * * * *"
    assert form_of("0 7 13 * 5")["rhythm"] == "own", "cron means either of the two"


def test_times_across_the_change_to_summer_time() -> None:
    before = datetime(2026, 3, 27, 12, tzinfo=UTC)
    times = next_times("30 7 * * *", "Europe/Oslo", before, 4)
    shown = moments(times, "Europe/Oslo", before, translator("nb"))
    assert [m.text for m in shown] == [
        "lørdag 28. mars 2026 kl. 07.30",
        "søndag 29. mars 2026 kl. 07.30",
        "mandag 30. mars 2026 kl. 07.30",
        "tirsdag 31. mars 2026 kl. 07.30",
    ]
    assert [m.change for m in shown] == ["", "summer", "", ""]
    autumn = datetime(2026, 10, 24, 12, tzinfo=UTC)
    later = moments(next_times("0 7 * * *", "Europe/Oslo", autumn, 1), "Europe/Oslo", autumn, translator("nb"))
    assert [m.change for m in later] == ["winter"]
    assert {"Europe/Oslo", "UTC"} <= set(zones())


def test_the_form_of_a_finished_run_begins_with_its_values(lab: WebLab) -> None:
    run = lab.world.finished(lab.world.submit(parameters={"alpha": 0.07}), DONE)
    assert 'value="0.07"' in lab.get(f"/schedules/new?template=letter&run={run.id}").text
