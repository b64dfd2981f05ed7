"""What a sandbox is: the one isolation policy, for desks and runners alike, for every engine.

An engine translates a ``SandboxSpec``; it never adds a right to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from spawner_config import names

Kind = Literal["desk", "runner"]

MIB = 1024 * 1024

# The uid and gid of everybody inside a sandbox: no name of the host's, never root.
SANDBOX_UID = 1000


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, CPU in cores."""

    memory: int
    cpus: float
    pids: int
    tmp: int = 256 * MIB  # the size of /tmp, a tmpfs
    log: int = 10 * MIB  # the engine rotates a sandbox's log at this size and keeps two


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume: ``source`` is its name in the engine, ``target`` the path inside."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    kind: Kind
    name: str  # the sandbox's own name in the engine, unique on the machine
    lab: str  # the lab it belongs to: every object it makes carries this as a label
    agency: str  # organisation number
    network: str  # the only network it is on
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    volumes: tuple[Volume, ...]
    limits: Limits
    labels: Mapping[str, str] = field(default_factory=dict)
    # The policy. These are fields so that a test and an engine read the same thing; nobody passes other values.
    user: str = f"{SANDBOX_UID}:{SANDBOX_UID}"
    read_only_root: bool = True
    drop_capabilities: tuple[str, ...] = ("ALL",)
    no_new_privileges: bool = True
    ipv6: bool = False
    dns: tuple[str, ...] = ("127.0.0.1",)  # nobody answers there: names outside the agency's network do not resolve


# Where a sandbox's person or run lives; a desk's is a volume, a runner's is a tmpfs.
HOME = "/home/lab"
SHARED = f"{HOME}/felles"

# What a sandbox is told about itself on any engine. A desk's Jupyter keeps its sockets and connection files off the
# volume: the next desk would find those of the last.
BASE_ENVIRONMENT: Mapping[str, str] = {
    "HOME": HOME,
    "USER": "lab",
    "LANG": "C.UTF-8",
    "PATH": "/opt/desk/bin:/opt/runner/bin:/usr/local/bin:/usr/bin:/bin",
    "JUPYTER_PATH": "/opt/runner/share/jupyter",
    "JUPYTER_RUNTIME_DIR": "/tmp/jupyter",  # noqa: S108  (inside the sandbox /tmp is its own tmpfs)
}


def sandbox_spec(
    kind: Kind,
    *,
    lab: str,
    agency: str,
    slug: str,
    name: str,
    image: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    limits: Limits,
    person: str | None = None,
) -> SandboxSpec:
    """Return what a sandbox of this kind may be. A desk names its ``person`` and gets that person's volume; a runner
    has none.

    What ``environment`` says wins over the sandbox's own, but for HOME.
    Raise ValueError if a desk has no person, a runner has one, a limit is not positive, or a name is not one.
    """
    if kind not in ("desk", "runner"):
        raise ValueError(f"kind={kind!r} is no kind of sandbox. Use desk or runner.")
    if kind == "desk" and not person:
        raise ValueError(f"The desk {name!r} has no person. Give the name of whose it is.")
    if kind == "runner" and person is not None:
        raise ValueError(
            f"The runner {name!r} has the person {person!r}. A runner belongs to an agency alone: leave it out."
        )
    if not command:
        raise ValueError(f"The sandbox {name!r} has no command.")
    names.check_container(name)
    for field_name, value in (("memory", limits.memory), ("cpus", limits.cpus), ("pids", limits.pids),
                              ("tmp", limits.tmp), ("log", limits.log)):  # fmt: skip
        if not value > 0 or value == math.inf:
            raise ValueError(f"{field_name}={value} is no limit of a sandbox. Give a positive number.")
    volumes: tuple[Volume, ...] = ()
    labels = names.labels(lab=lab, kind=kind, agency=agency)
    if person is not None:
        volumes = (Volume(names.home_volume(lab, slug, person), HOME), Volume(names.shared_volume(lab, slug), SHARED))
        labels[names.PERSON] = person
    else:
        labels[names.RUNNER] = names.runner_id(lab, name)
    return SandboxSpec(
        kind=kind,
        name=name,
        lab=lab,
        agency=agency,
        network=names.agency_network(lab, slug),
        image=image,
        command=tuple(command),
        environment={**BASE_ENVIRONMENT, **environment, "HOME": HOME},
        volumes=volumes,
        limits=limits,
        labels=labels,
    )
