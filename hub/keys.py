"""The lab's secrets: made once, kept in one file that nobody else can read."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


class KeysDamaged(Exception):
    """The secrets file is there but not whole; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Each is 32 random bytes in hex. Service tokens open the Hub's API with that service's role and nothing else."""

    cookie_secret: str
    proxy_password: str
    catalog_token: str
    culler_token: str
    catalog_secret: str


def load_keys(state: Path) -> Keys:
    """Return the lab's secrets, made at the first call. Raise KeysDamaged if the file is not whole."""
    path = state / "secrets.json"
    names = [field.name for field in fields(Keys)]
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {}
    except (OSError, ValueError) as error:
        raise KeysDamaged(
            f"{path} cannot be read ({error}). Restore it, or delete it: everybody then signs in again."
        ) from None
    if not isinstance(found, dict) or not all(isinstance(found.get(name, ""), str) for name in names):
        raise KeysDamaged(f"{path} is damaged. Restore it, or delete it: everybody then signs in again.")
    keys = Keys(**{name: found.get(name) or secrets.token_hex(32) for name in names})
    if asdict(keys) != found:
        write_private(path, asdict(keys))
    return keys


def write_private(path: Path, data: Mapping[str, Any] | str) -> None:
    """Replace a file at once with JSON (or the text given) that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(data if isinstance(data, str) else json.dumps(data, indent=1))
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
