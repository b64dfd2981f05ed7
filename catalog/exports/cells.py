"""Cells that a spreadsheet shows and never runs."""

from __future__ import annotations

import unicodedata

# What makes a spreadsheet take text for a formula, in any of its widths (OWASP: CSV injection).
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object, *, decimal_comma: bool = False) -> str:
    """Return one cell as text. Numbers stay numbers; text that would be a formula gets an apostrophe in front."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        text = repr(value)
        return text.replace(".", ",") if decimal_comma and isinstance(value, float) else text
    text = str(value).replace("\x00", "\ufffd")
    first = unicodedata.normalize("NFKC", text.lstrip(" \u00a0\u200b\ufeff")[:1])
    return f"'{text}" if text.startswith(_STARTS) or first.startswith(_STARTS) else text
