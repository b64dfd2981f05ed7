"""The rules of an agency's network."""

from __future__ import annotations

from typing import Any

import pytest

from spawner_config import names, networks

ORGNR = "889640782"


def as_the_engine_says_it() -> dict[str, Any]:
    asked = networks.network_arguments(lab="lab", agency=ORGNR)
    return {
        "Name": "proverom-lab-nav",
        "Id": "0123456789abcdef" * 4,
        "Driver": asked["driver"],
        "Internal": asked["internal"],
        "EnableIPv6": asked["enable_ipv6"],
        "Options": asked["options"],
        "Labels": asked["labels"],
    }


def test_the_network_that_is_asked_for_is_the_wall() -> None:
    assert networks.problems(as_the_engine_says_it(), lab="lab", agency=ORGNR) == ()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("Internal", False, "way out"),
        ("EnableIPv6", True, "IPv6"),
        ("Options", {}, "address"),
        ("Options", None, "address"),
        ("Driver", "macvlan", "macvlan"),
        ("Labels", {names.LAB: "lab", names.AGENCY: "974761076"}, "974761076"),
        ("Labels", None, "labelled"),
    ],
)
def test_a_network_with_a_hole_is_known_by_it(field: str, value: Any, says: str) -> None:
    (problem,) = networks.problems({**as_the_engine_says_it(), field: value}, lab="lab", agency=ORGNR)
    assert says in problem


def test_the_guard_is_for_that_networks_interface_alone() -> None:
    interface = networks.bridge_interface(as_the_engine_says_it())
    assert interface == "br-0123456789ab"
    assert networks.guard_command(interface)[-1] == interface
