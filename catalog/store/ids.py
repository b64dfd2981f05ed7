"""Identifiers: ULIDs, which sort by the time they were made, also within one millisecond of one process."""

from __future__ import annotations

import re

from ulid import ULID

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")


def new_id() -> str:
    """Return a new identifier of 26 characters."""
    return str(ULID())


def is_id(value: object) -> bool:
    """Return whether this could be an identifier of ours. Anything else is not worth a query."""
    return isinstance(value, str) and _ULID.match(value) is not None
