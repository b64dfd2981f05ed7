"""Keyset paging: a cursor says after which row to go on, so a page costs the same however deep it lies."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TypeVar

from catalog.store.ids import is_id
from lab_templates.model import InvalidInput, Problem
from lab_templates.text import quote

MAX_LIMIT = 200

T = TypeVar("T")


def check_limit(limit: int) -> int:
    """Return the page's length if it is 1 to ``MAX_LIMIT``. Raise InvalidInput (bad_limit)."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        what = f"limit={quote(limit)} is not a whole number from 1 to {MAX_LIMIT}. Give one."
        raise InvalidInput((Problem("bad_limit", "limit", quote(limit), str(MAX_LIMIT), what),))
    return limit


def _stamp(listing: str) -> str:
    return hashlib.sha256(listing.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def cursor_after(last: str, listing: str) -> str:
    """Return the cursor of the page after row ``last`` of ``listing`` (its name and its filters, in words).

    It holds nothing but that: whoever makes one up sees no row that he may not see, for each page asks anew.
    """
    return base64.urlsafe_b64encode(f"1.{_stamp(listing)}.{last}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, listing: str) -> str | None:
    """Return the row that a cursor of this very listing goes on after. Raise InvalidInput (bad_cursor)."""
    if cursor is None:
        return None
    try:
        decoded = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        version, stamp, last = decoded.split(".")
    except ValueError:
        version = stamp = last = ""
    if version != "1" or stamp != _stamp(listing) or not is_id(last):
        what = f"cursor={quote(cursor)} does not belong to this listing. Take 'next' of a page with the same filters."
        raise InvalidInput((Problem("bad_cursor", "cursor", quote(cursor), message=what),))
    return last


def cut(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """Return at most ``limit`` of the ``limit + 1`` rows that were asked for, and whether more follow."""
    return rows[:limit], len(rows) > limit
