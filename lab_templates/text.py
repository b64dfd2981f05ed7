"""What may stand in a name and in a text, and how a value is shown in an error."""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from keyword import iskeyword

from lab_templates.model import Problem

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}\Z")


def valid_name(name: object) -> bool:
    """Return whether a parameter may be called this: 1-60 ASCII letters, digits, `_`; a letter first; no keyword.

    Stricter than Python: it must be a name in every kernel's language, and a leading underscore is for machinery.
    """
    return isinstance(name, str) and _NAME.match(name) is not None and not iskeyword(name)


def quote(value: object, longest: int = 80) -> str:
    """Return a value for an error message: short, on one line, hidden and direction-turning characters escaped."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1024:
        return f"a number of {value.bit_length()} bits"
    if not isinstance(value, str | int | float | bool | date | None):
        return f"a value of type {type(value).__name__}"
    text = value if isinstance(value, str) else str(value)
    shown = "".join(_visible(c) for c in text[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def clean_text(value: str) -> str | None:
    """Return text as NFC with ``\\n`` line ends; None if it holds NUL, a control character or half a character."""
    text = unicodedata.normalize("NFC", value.replace("\r\n", "\n").replace("\r", "\n"))
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
        return None
    return text


def _visible(character: str) -> str:
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return f"\\u{ord(character):04x}" if hidden else character


def bad_name(name: object) -> Problem:
    """Return the problem of a name that fails ``valid_name``."""
    what = f'"{quote(name)}" cannot name a parameter. Use letters a-z, digits and _, a letter first, and no keyword.'
    return Problem("bad_name", quote(name), quote(name), message=what)


def given_twice(name: str) -> Problem:
    """Return the problem of a parameter with two values."""
    return Problem("given_twice", name, message=f"{name} is given more than once. Keep one of the values.")
