from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from catalog.access import Forbidden, NotFound
from catalog.tables import TemplateVersionRow
from lab_templates.model import InvalidInput, TemplateState
from tests.unit.catalog.world import SYSTEM, World, publish, submission, template


def codes(caught: pytest.ExceptionInfo[InvalidInput]) -> set[str]:
    return {problem.code for problem in caught.value.problems}


def test_a_second_person_publishes(world: World) -> None:
    kirsten, sara = world.viewer("kirsten"), world.viewer("sara")
    version = template("survey")
    submitted = world.catalog.templates.submit(kirsten, version)
    assert (submitted.version, submitted.state, submitted.published_by) == (version, TemplateState.SUBMITTED, "kirsten")
    with pytest.raises(Forbidden, match="Another person"):
        world.catalog.templates.approve(kirsten, "survey", "1.0.0")
    with pytest.raises(NotFound):
        world.catalog.templates.get(world.viewer("kari"), "survey")
    with pytest.raises(NotFound):
        world.catalog.templates.get(world.viewer("kari"), "survey", "1.0.0")
    approved = world.catalog.templates.approve(sara, "survey", "1.0.0")
    assert (approved.state, approved.approved_by, approved.approved_at) == (
        TemplateState.PUBLISHED, "sara", world.clock(),
    )  # fmt: skip
    assert world.catalog.templates.get(world.viewer("nobody"), "survey") == approved
    actions = [e.action for e in world.catalog.events.list(SYSTEM, subject="survey@1.0.0").items]
    assert actions == ["template.approved", "template.submitted"]


def test_only_coordinators_outside_a_desk_publish(world: World) -> None:
    world.catalog.templates.submit(world.viewer("kirsten"), template("survey"))
    for viewer in (world.viewer("kari"), world.viewer("leif"), world.viewer("sara", desk="skatteetaten")):
        with pytest.raises(Forbidden):
            world.catalog.templates.submit(viewer, template("other"))
        with pytest.raises(Forbidden):
            world.catalog.templates.approve(viewer, "survey", "1.0.0")
        with pytest.raises(Forbidden):
            world.catalog.templates.deprecate(viewer, "letter", "1.0.0")


def test_versions_are_ordered_by_number_and_the_newest_is_the_default(world: World) -> None:
    for version in ("1.10.0", "1.9.0", "2.0.0"):
        publish(world.catalog, template(version=version))
    world.catalog.templates.submit(world.viewer("kirsten"), template(version="3.0.0"))
    world.catalog.templates.deprecate(SYSTEM, "letter", "2.0.0")
    kari = world.viewer("kari")
    assert [t.version.version for t in world.catalog.templates.list(kari)] == ["1.10.0"]
    assert world.catalog.templates.get(kari, "letter").version.version == "1.10.0"
    assert world.catalog.templates.get(kari, "letter", "2.0.0").state is TemplateState.DEPRECATED
    seen = [t.version.version for t in world.catalog.templates.versions(kari, "letter")]
    assert seen == ["2.0.0", "1.10.0", "1.9.0", "1.0.0"]
    everything = world.catalog.templates.list(world.viewer("kirsten"), published_only=False)
    assert [t.version.version for t in everything] == ["3.0.0", *seen]
    assert world.submit().version == "1.10.0"


def test_a_version_never_changes(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.templates.submit(world.viewer("kirsten"), template(title="Noe annet"))
    assert codes(caught) == {"version_exists"}
    assert world.catalog.templates.get(SYSTEM, "letter").version == template()


def test_a_value_that_is_not_what_its_files_say_is_refused(world: World) -> None:
    for forged in (
        replace(template("a"), digest="sha256:" + "0" * 64),
        replace(template("a"), name="b"),
        replace(template("a"), parameters=()),
        replace(template("a"), readme="other"),
    ):
        with pytest.raises(InvalidInput) as caught:
            world.catalog.templates.submit(world.viewer("kirsten"), forged)
        assert codes(caught) == {"digest_differs"}
    assert len(world.catalog.templates.list(SYSTEM, published_only=False)) == 1


def test_a_state_is_left_once(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.catalog.templates.approve(SYSTEM, "letter", "1.0.0")
    assert codes(caught) == {"not_waiting"}
    assert world.catalog.templates.deprecate(SYSTEM, "letter", "1.0.0").state is TemplateState.DEPRECATED
    with pytest.raises(InvalidInput):
        world.catalog.templates.deprecate(SYSTEM, "letter", "1.0.0")
    with pytest.raises(InvalidInput):
        world.catalog.templates.approve(world.viewer("kirsten"), "letter", "1.0.0")
    with pytest.raises(NotFound):
        world.catalog.templates.approve(SYSTEM, "letter", "9.0.0")
    with pytest.raises(NotFound):
        world.catalog.templates.versions(SYSTEM, "../letter")


def test_one_changed_byte_refuses_to_run_or_to_be_read(world: World) -> None:
    publish(world.catalog, template("sound"))
    with world.catalog._database.write() as session:
        session.execute(update(TemplateVersionRow).where(TemplateVersionRow.name == "letter").values(readme="About it"))
    with pytest.raises(InvalidInput) as caught:
        world.catalog.templates.get(SYSTEM, "letter")
    assert codes(caught) == {"digest_differs"}
    with pytest.raises(InvalidInput) as caught:
        world.catalog.runs.submit(world.viewer("kari"), submission())
    assert codes(caught) == {"digest_differs"}
    assert [t.version.name for t in world.catalog.templates.list(SYSTEM)] == ["sound"]
