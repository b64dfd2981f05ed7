"""What a sandbox is: the one isolation policy, for desks and runners alike, for every engine.

An engine translates a ``SandboxSpec``; it never adds a right to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

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
    """Return what a sandbox of this kind may be. A desk names its ``person`` and gets that person's volume; a runner has none.

    Raise ValueError if a desk has no person, a runner has one, or a limit is not positive.
    """
    raise NotImplementedError
