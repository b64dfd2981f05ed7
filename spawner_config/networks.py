"""The rules of an agency's network: no way out, no gateway, no IPv6, and of everything outside only the Hub on it.

The rules as values; ``engines.docker`` carries them out. What proves the wall is a scan from inside
(tests/integration/test_docker_engine.py), never an option: an engine that does not know one ignores it without a word.

A bridge without an address still leaves one door ajar: a process that binds its socket to the interface and forbids
routing makes the kernel ask for any address by ARP, the host answers for all of its own, and so a datagram gets into
the host, though no answer gets out. ``guard_command`` shuts it on the host's side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spawner_config import names

HUB_ALIAS = "hub"
HUB_PORTS = (8000, 8081)  # the proxy and the Hub's API: all that answers on an agency's network

_INHIBIT = "com.docker.network.bridge.inhibit_ipv4"


def network_arguments(*, lab: str, agency: str) -> dict[str, Any]:
    """Return what an agency's network is created with, as docker-py's ``networks.create`` takes it (the name apart)."""
    return {
        "driver": "bridge",
        "internal": True,
        "enable_ipv6": False,
        "attachable": False,
        "check_duplicate": True,
        "options": {_INHIBIT: "true"},
        "labels": names.labels(lab=lab, kind="network", agency=agency),
    }


def problems(attributes: Mapping[str, Any], *, lab: str, agency: str) -> tuple[str, ...]:
    """Return what keeps a network, as the engine describes it, from being that agency's wall; () if nothing."""
    labels = attributes.get("Labels") or {}
    options = attributes.get("Options") or {}
    found = []
    if labels.get(names.LAB) != lab or labels.get(names.AGENCY) != agency:
        found.append(
            f"it is labelled lab {labels.get(names.LAB)!r}, agency {labels.get(names.AGENCY)!r}, "
            f"not {lab!r}, {agency!r}"
        )
    if attributes.get("Driver") != "bridge":
        found.append(f"its driver is {attributes.get('Driver')!r}, not 'bridge'")
    if attributes.get("Internal") is not True:
        found.append("it has a way out (it is not internal)")
    if attributes.get("EnableIPv6"):
        found.append("it has IPv6")
    if options.get(_INHIBIT) != "true":
        found.append("the host has an address on it")
    return tuple(found)


def bridge_interface(attributes: Mapping[str, Any]) -> str:
    """Return the name of the network's interface on the host."""
    options = attributes.get("Options") or {}
    return str(options.get("com.docker.network.bridge.name") or f"br-{str(attributes['Id'])[:12]}")


def guard_command(interface: str) -> tuple[str, ...]:
    """Return the command that, in the host's network namespace with NET_ADMIN, drops all that comes from this bridge to
    the host.

    Running it again changes nothing. What sandboxes and the Hub say to each other stays on the bridge and is not
    touched.
    """
    script = (
        'for tables in iptables ip6tables; do $tables -w 10 -C INPUT -i "$1" -j DROP 2>/dev/null '
        '|| $tables -w 10 -I INPUT 1 -i "$1" -j DROP || exit 1; done'
    )
    return ("/bin/sh", "-c", script, "guard", interface)
