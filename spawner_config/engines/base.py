"""What an engine must do. Adding one: see docs/architecture.md, "An engine"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from spawner_config.sandbox import Limits, SandboxSpec


class EngineError(Exception):
    """The engine could not do it; the message says what, which object, and what to do next."""


class EngineUnreachable(EngineError):
    """No engine answers. Nothing is known about its sandboxes: they must not be taken for dead."""


@dataclass(frozen=True, slots=True)
class SandboxStatus:
    """One sandbox as the engine sees it."""

    name: str
    kind: str
    agency: str
    labels: Mapping[str, str]
    running: bool
    exit_code: int | None
    out_of_memory: bool
    started_at: datetime | None


class Engine(Protocol):
    """Every call blocks; callers that must not block use a thread. All calls are safe to repeat."""

    name: str  # docker | swarm | local

    def check(self) -> str:
        """Return the engine's version in words; raise EngineUnreachable."""

    def ensure_network(self, network: str, *, lab: str, agency: str) -> None:
        """Make the agency's network if it is missing, and let the Hub (and nothing else) be reached on it."""

    def start(self, spec: SandboxSpec) -> None:
        """Create and start the sandbox. A sandbox of that name that exists already is left as it is."""

    def resize(self, name: str, limits: Limits) -> None:
        """Give a running sandbox other limits of memory and CPU; what else it has stays. Raise EngineError if it is
        gone, or holds more than it is to have.
        """

    def stop(self, name: str, *, grace_seconds: float = 2.0) -> None:
        """SIGTERM, then SIGKILL after the grace. An absent sandbox is no error."""

    def remove(self, name: str) -> None:
        """Remove the sandbox, by force if it runs. Named volumes stay. An absent sandbox is no error."""

    def sandboxes(self, *, lab: str, kind: str | None = None) -> Sequence[SandboxStatus]:
        """Return every sandbox of this lab, running or not. Raise EngineUnreachable rather than return too few."""

    def logs(self, name: str, *, tail: int = 200) -> str:
        """Return the last lines a sandbox wrote, "" if it is gone."""

    def image_digest(self, image: str) -> str:
        """Return "sha256:<hex>" of an image; raise EngineError if there is none of that name."""
