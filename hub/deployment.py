"""What ``up`` has decided and made, for the processes of the lab to find in the state folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hub.keys import write_private


class NotDeployed(Exception):
    """The lab was never started with ``up``; the message says so."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """``engine`` is docker or local. Images are names in the engine; ``local`` has environments, called by one name.

    ``lab`` is the name that everything in the engine goes by: what ``up`` started is stopped by that name.
    """

    engine: str
    sandbox_image: str
    hub_image: str = ""
    lab: str = ""

    @staticmethod
    def path(state: Path) -> Path:
        return state / "hub" / "deployment.json"

    def save(self, state: Path) -> None:
        write_private(self.path(state), asdict(self))

    @classmethod
    def load(cls, state: Path) -> Deployment:
        """Return what the last ``up`` made. Raise NotDeployed if there was none."""
        try:
            return cls(**json.loads(cls.path(state).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError) as error:
            raise NotDeployed(f"There is no lab in {state} ({error}). Start one: proverom up") from None
