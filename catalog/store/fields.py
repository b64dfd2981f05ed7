"""Reading the fields that people type: each reader returns the value as it is kept, or notes what is wrong with it."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import date, datetime

from stdnum.no import fodselsnummer, orgnr

from lab_templates.model import InvalidInput, Problem
from lab_templates.text import clean_text, quote

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,18}[a-z0-9])?\Z")
# A network of the lab is called proverom-<lab>-<slug>; these two are the lab's own.
# An address as mail servers of today take it: no quoted parts, no comments, no address literals.
_MAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}\Z"
)
_RESERVED_SLUGS = frozenset({"edge", "hub"})
_PERSON = re.compile(r"[^\s/\\:?#&%\"'<>]{1,255}\Z")


class Problems:
    """Collects everything that is wrong with an input, so that it is said at once."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, code: str, field: str, value: object, message: str, limit: str = "") -> None:
        self._found.append(Problem(code, field, quote(value), limit, message))

    def extend(self, error: InvalidInput) -> None:
        self._found.extend(error.problems)

    def __bool__(self) -> bool:
        return bool(self._found)

    def stop(self) -> None:
        """Raise InvalidInput if anything was noted."""
        if self._found:
            raise InvalidInput(tuple(self._found))


def storable(text: str, longest: int | None = None) -> str:
    """Return text that every database takes: no NUL and no half characters, at most ``longest`` characters."""
    whole = text if longest is None else text[:longest]
    return whole.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def one_problem(code: str, field: str, value: object, message: str, limit: str = "") -> InvalidInput:
    """Return the error for an input with one thing wrong."""
    return InvalidInput((Problem(code, field, quote(value), limit, message),))


def text(problems: Problems, field: str, raw: object, longest: int, *, required: bool = True) -> str:
    """Return text as NFC without surrounding space. Notes missing_value, wrong_type, too_long, bad_text."""
    if not isinstance(raw, str):
        problems.add("wrong_type", field, raw, f"{field} is {quote(raw)} and no text. Give text.", "text")
        return ""
    if len(raw) > 4 * longest + 4:
        cleaned: str | None = raw  # much too long whatever it holds: not worth normalising
    else:
        cleaned = clean_text(raw)
    if cleaned is None:
        problems.add("bad_text", field, raw, f"{field} holds a control character or a broken one. Type it anew.")
        return ""
    cleaned = cleaned.strip()
    if not cleaned and required:
        problems.add("missing_value", field, "", f"{field} is empty. Give it.")
    if len(cleaned) > longest:
        what = f"{field} is {len(cleaned)} characters long; at most {longest} are allowed. Shorten it."
        problems.add("too_long", field, len(cleaned), what, str(longest))
    return cleaned


def organisation_number(problems: Problems, raw: object) -> str:
    """Return the nine digits of a Norwegian organisation number. Notes bad_orgnr."""
    try:
        number = str(orgnr.validate(raw if isinstance(raw, str) else ""))
    except Exception:
        number = ""
    # The check digit of nine zeros is right, but nobody has that number.
    if number.isascii() and len(number) == 9 and number != "000000000":
        return number
    what = f"{quote(raw)} is not a Norwegian organisation number. Give its nine digits, for example 991825827."
    problems.add("bad_orgnr", "orgnr", raw, what)
    return ""


def slug(problems: Problems, raw: object) -> str:
    """Return an agency's short name. Notes bad_slug."""
    if isinstance(raw, str) and _SLUG.match(raw) and raw not in _RESERVED_SLUGS:
        return raw
    reserved = isinstance(raw, str) and raw in _RESERVED_SLUGS
    what = f"slug={quote(raw)} " + (
        "is a name of the lab's own. Choose another."
        if reserved
        else "must be 1 to 20 lowercase letters a-z, digits and hyphens, with no hyphen first or last."
    )
    problems.add("bad_slug", "slug", raw, what)
    return ""


def person(problems: Problems, raw: object) -> str:
    """Return a Hub user name as the Hub keeps it, in lower case. Notes bad_person, national_id."""
    name = unicodedata.normalize("NFC", raw).strip().lower() if isinstance(raw, str) and len(raw) <= 1000 else ""
    if not _PERSON.match(name) or clean_text(name) is None or any(unicodedata.category(c) == "Cf" for c in name):
        what = (
            f"{quote(raw)} cannot be a user name: 1 to 255 characters, no spaces and none of / \\ : ? # & % \" ' < >."
        )
        problems.add("bad_person", "person", raw, what)
        return ""
    if name == "system":
        problems.add("bad_person", "person", raw, "'system' is the lab's own name in its log. Use another.")
    if name.isascii() and name.isdigit() and fodselsnummer.is_valid(name):
        what = "The user name is a national identity number. Use another identifier, such as an e-mail address."
        problems.add("national_id", "person", "…", what)
    return name


def choice(problems: Problems, field: str, raw: object, allowed: tuple[str, ...]) -> str:
    """Return one of the allowed words. Notes not_a_choice."""
    if isinstance(raw, str) and raw in allowed:
        return str(raw)
    words = ", ".join(allowed)
    problems.add("not_a_choice", field, raw, f"{field}={quote(raw)} is not allowed. Use one of: {words}.", words)
    return allowed[0]


def whole(problems: Problems, field: str, raw: object, lowest: int, highest: int) -> int:
    """Return a whole number within limits (inclusive). Notes wrong_type, below_minimum, above_maximum."""
    if isinstance(raw, bool) or not isinstance(raw, int):
        problems.add("wrong_type", field, raw, f"{field}={quote(raw)} is not a whole number. Give one.", "integer")
        return lowest
    if raw < lowest:
        what = f"{field}={quote(raw)} is below its minimum {lowest}. Raise it."
        problems.add("below_minimum", field, raw, what, str(lowest))
    if raw > highest:
        what = f"{field}={quote(raw)} is above its maximum {highest}. Lower it."
        problems.add("above_maximum", field, raw, what, str(highest))
    return raw


def number(problems: Problems, field: str, raw: object, lowest: float, highest: float) -> float:
    """Return a number within limits (inclusive). Notes wrong_type, below_minimum, above_maximum."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        problems.add("wrong_type", field, raw, f"{field}={quote(raw)} is not a number. Give one.", "number")
        return lowest
    if raw < lowest:
        what = f"{field}={quote(raw)} is below its minimum {lowest:g}. Raise it."
        problems.add("below_minimum", field, raw, what, f"{lowest:g}")
    if raw > highest:
        what = f"{field}={quote(raw)} is above its maximum {highest:g}. Lower it."
        problems.add("above_maximum", field, raw, what, f"{highest:g}")
    return float(raw)


def mail_address(problems: Problems, field: str, raw: object) -> str:
    """Return an e-mail address, "" for none. Notes bad_mail."""
    text = raw.strip() if isinstance(raw, str) and len(raw) <= 1000 else ""
    if raw == "" or (len(text) <= 254 and _MAIL.match(text)):
        return text
    what = f"{quote(raw)} is no e-mail address. Write it like kari.nordmann@example.no, or leave it empty."
    problems.add("bad_mail", field, raw, what)
    return ""


def day(problems: Problems, field: str, raw: object) -> date | None:
    """Return a date or None. Notes not_a_date."""
    if raw is None or (isinstance(raw, date) and not isinstance(raw, datetime)):
        return raw
    what = f"{field}={quote(raw)} is not a date. Write it as year-month-day, for example 2026-01-31."
    problems.add("not_a_date", field, raw, what)
    return None
