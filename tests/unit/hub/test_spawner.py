"""Desks: who is let in, what the sandbox is told, and what people read meanwhile."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.spawner import Spawner

from hub.spawner import DeskRefused, DeskSpawner, LocalDeskSpawner
from spawner_config.sandbox import MIB, Limits


class Networks:
    """An engine of which a desk asks only for its network."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []

    def ensure_network(self, network: str, *, lab: str, agency: str) -> None:
        self.made.append((network, agency))


def desk(
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Any] = DeskSpawner,
    name: str = "nav",
    person: str = "kari",
    **traits: Any,
) -> Any:
    monkeypatch.setattr(Spawner, "get_env", lambda _: {"JUPYTERHUB_API_TOKEN": "t", "PORT": 8888})
    monkeypatch.setattr(kind, "name", name, raising=False)
    return kind(
        user=SimpleNamespace(name=person),
        lab="lab",
        image="proverom/sandbox:1",
        limits=Limits(memory=512 * MIB, cpus=1, pids=100),
        engine=Networks(),
        agency_of={"nav": "889640782"}.get,
        may_start=lambda who, _slug: "Nei." if who == "ola" else None,
        **traits,
    )


@pytest.mark.parametrize("kind", [DeskSpawner, LocalDeskSpawner])
async def test_a_desk_is_the_persons_at_that_agency(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk(monkeypatch, kind)
    await made.prepare()
    assert made.engine.made == [("proverom-lab-nav", "889640782")]
    spec = made.desk_spec(["jupyterhub-singleuser"])
    assert (spec.kind, spec.agency, spec.network) == ("desk", "889640782", "proverom-lab-nav")
    assert spec.name == "proverom-lab-desk-nav-kari"
    assert spec.image == "proverom/sandbox:1"
    assert spec.environment["PROVEROM_URL"] == "http://hub:8000/services/catalog/"
    assert spec.environment["PROVEROM_AGENCY"] == "889640782"
    assert spec.environment["PORT"] == "8888"
    assert [volume.source for volume in spec.volumes] == ["proverom-lab-home-nav-kari", "proverom-lab-shared-nav"]


@pytest.mark.parametrize(
    ("name", "person", "says"),
    [
        ("", "kari", "Velg en virksomhet"),
        ("edge", "kari", "«edge»"),
        ("skatt", "kari", "«skatt»"),
        ("nav", "ola", "Nei."),
    ],
)
async def test_a_refusal_says_why_and_makes_nothing(
    name: str, person: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk(monkeypatch, name=name, person=person)
    with pytest.raises(DeskRefused) as caught:
        await made.prepare()
    assert says in caught.value.jupyterhub_message
    assert caught.value.status_code == 403
    assert made.engine.made == []


@pytest.mark.parametrize("name", ["", "edge", "næv"])
async def test_a_name_that_no_agency_can_have_is_a_desk_that_does_not_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk(monkeypatch, name=name).object_name == "proverom-lab-no-desk"
    local = desk(monkeypatch, LocalDeskSpawner, name=name)
    assert await local.poll() == 0
    await local.stop()


async def test_nobody_may_start_a_desk_until_a_rule_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeskSpawner, "name", "nav", raising=False)
    made = DeskSpawner(user=SimpleNamespace(name="kari"), lab="lab", agency_of=lambda _: "889640782", engine=Networks())
    with pytest.raises(DeskRefused, match="No rule"):
        await made.prepare()


@pytest.mark.parametrize("language", ["nb", "nn", "en"])
async def test_each_stage_is_told_once_and_in_order(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk(monkeypatch, language=language)
    told = []
    async for event in made.progress():
        told.append(event)
        made._stage = {1: "sandbox", 2: "jupyterlab"}.get(len(told), made._stage)
    assert [event["progress"] for event in told] == [10, 30, 60]
    assert len({event["message"] for event in told}) == 3
