"""The one isolation policy."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from spawner_config import names
from spawner_config.sandbox import MIB, Limits, SandboxSpec, Volume, sandbox_spec

LIMITS = Limits(memory=512 * MIB, cpus=1.0, pids=100)


def desk(**changes: Any) -> SandboxSpec:
    given: dict[str, Any] = {
        "kind": "desk",
        "lab": "lab",
        "agency": "889640782",
        "slug": "nav",
        "name": names.desk_container("lab", "nav", "kari"),
        "image": "image:1",
        "command": ["jupyterhub-singleuser"],
        "environment": {"JUPYTERHUB_API_TOKEN": "t"},
        "limits": LIMITS,
        "person": "kari",
    }
    given.update(changes)
    return sandbox_spec(given.pop("kind"), **given)


def runner(**changes: Any) -> SandboxSpec:
    return desk(**{"kind": "runner", "name": names.runner_container("lab", "r1"), "person": None, **changes})


def test_both_kinds_get_the_same_walls() -> None:
    policy = ("user", "read_only_root", "drop_capabilities", "no_new_privileges", "ipv6", "dns", "network")
    for field in policy:
        assert getattr(desk(), field) == getattr(runner(), field)
    assert desk().user == "1000:1000"
    assert desk().read_only_root
    assert desk().drop_capabilities == ("ALL",)
    assert desk().no_new_privileges
    assert not desk().ipv6


def test_a_desk_has_its_persons_volume_and_its_agencys_and_no_other() -> None:
    assert desk().volumes == (
        Volume("proverom-lab-home-nav-kari", "/home/lab"),
        Volume("proverom-lab-shared-nav", "/home/lab/felles"),
    )
    assert runner().volumes == ()


def test_a_sandbox_is_labelled_with_what_it_is() -> None:
    assert desk().labels == {
        names.LAB: "lab",
        names.KIND: "desk",
        names.AGENCY: "889640782",
        names.PERSON: "kari",
    }
    assert runner().labels[names.RUNNER] == "r1"


def test_home_cannot_be_moved_by_the_environment() -> None:
    spec = desk(environment={"HOME": "/etc", "LANG": "nb_NO.UTF-8"})
    assert spec.environment["HOME"] == "/home/lab"
    assert spec.environment["LANG"] == "nb_NO.UTF-8"


@pytest.mark.parametrize("field", ["memory", "cpus", "pids", "tmp", "log"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_limit_that_is_none_is_refused_with_its_name_and_value(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}"):
        desk(limits=dataclasses.replace(LIMITS, **{field: value}))


@pytest.mark.parametrize(
    ("make", "changes", "says"),
    [
        (desk, {"person": None}, "no person"),
        (desk, {"person": ""}, "no person"),
        (runner, {"person": "kari"}, "belongs to an agency alone"),
        (runner, {"name": "something"}, "no runner's"),
        (desk, {"kind": "server"}, "no kind of sandbox"),
        (desk, {"command": []}, "no command"),
        (desk, {"name": "../../etc"}, "cannot name a sandbox"),
        (desk, {"slug": "edge"}, "cannot name an agency"),
    ],
)
def test_what_is_no_sandbox_is_refused(make: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make(**changes)
