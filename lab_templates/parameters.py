"""Raw values to ``Parameters``, or every problem at once.

Raw values come as JSON (typed), or as text from a form, ``-p name=value`` or a parameter file. Text is read as
a Norwegian writes it: ``0,05``, ``10 000``, ``ja``; ``0.05`` means the same. Nothing is ever evaluated, and what passes
``bind`` is within the template's declaration.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime

from lab_templates.model import (
    InvalidInput,
    Parameters,
    ParameterSpec,
    ParameterType,
    Problem,
    Scalar,
    TemplateVersion,
)
from lab_templates.parameter_file import parse_yaml
from lab_templates.text import bad_name, clean_text, given_twice, quote, valid_name

__all__ = ["MAX_PROBLEMS", "bind", "bind_timeout", "parse_pairs", "parse_yaml", "read"]

MAX_PROBLEMS = 100  # a reader's patience, and a cap on what hostile input can make us say
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1  # what every database and kernel language can hold

# A number as text: groups of three digits may be set apart by a space (an ordinary, no-break, thin or narrow one).
_GROUPED = r"[+-]?(?:[0-9]{1,3}(?:[ \u00a0\u2009\u202f][0-9]{3})+|[0-9]+)"
_INTEGER = re.compile(_GROUPED + r"\Z")
_NUMBER = re.compile(rf"(?:{_GROUPED}(?:[.,][0-9]*)?|[+-]?[.,][0-9]+)(?:[eE][+-]?[0-9]{{1,6}})?\Z")
_SPACES = re.compile(r"[ \u00a0\u2009\u202f]")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_LONGEST_NUMBER = 64
_NOT_FINITE = frozenset({"nan", "inf", "infinity"})
_BOOLEANS = {
    **dict.fromkeys(("true", "on", "1", "ja", "yes", "sann"), True),
    **dict.fromkeys(("false", "off", "0", "nei", "no", "usann"), False),
}


def bind(version: TemplateVersion, raw: Mapping[str, object]) -> Parameters:
    """Return a value of its declared type for every declared parameter; an absent one gets its default.

    Dates are ISO text (``2026-01-31``), text is NFC with ``\\n`` as line ends. Raise InvalidInput with every
    problem (at most ``MAX_PROBLEMS``): bad_name, unknown_parameter, missing_value, wrong_type, not_finite,
    below_minimum, above_maximum, not_a_choice, too_long, bad_text, not_a_date.
    """
    if not isinstance(raw, Mapping):
        raise InvalidInput(
            (Problem("wrong_type", value=quote(raw), message="The parameters are not names with values."),)
        )
    problems: list[Problem] = []
    values: dict[str, Scalar] = {}
    for name in raw:
        if len(problems) >= MAX_PROBLEMS:
            break
        if not isinstance(name, str) or version.parameter(name) is None:
            problems.append(_unwanted(version, name))
    for spec in version.parameters:
        try:
            values[spec.name] = read(spec, raw[spec.name]) if spec.name in raw else _default(spec)
        except InvalidInput as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidInput(tuple(problems[:MAX_PROBLEMS]))
    return Parameters(values)


def read(spec: ParameterSpec, raw: object) -> Scalar:
    """Return ``raw`` as a value of ``spec``'s type and within its limits. Raise InvalidInput with its one problem."""
    if raw is None or (isinstance(raw, str) and spec.type is not ParameterType.TEXT and not raw.strip()):
        raise InvalidInput((_missing(spec),))
    return _READERS[spec.type](spec, raw)


def parse_pairs(pairs: Sequence[str]) -> dict[str, object]:
    """Return ``name=value`` pairs, as typed after ``-p``, as raw values. The value may hold further ``=``.

    Raise InvalidInput with every problem: bad_pair (no ``=``), bad_name, given_twice.
    """
    problems: list[Problem] = []
    raw: dict[str, object] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        name = name.strip()
        if not separator:
            what = f"{quote(pair)} has no equals sign. Write it as name=value, for example -p alpha=0,05."
            problems.append(Problem("bad_pair", value=quote(pair), message=what))
        elif not valid_name(name):
            problems.append(bad_name(name))
        elif name in raw:
            problems.append(given_twice(name))
        else:
            raw[name] = value
    if problems:
        raise InvalidInput(tuple(problems[:MAX_PROBLEMS]))
    return raw


def bind_timeout(raw: object, maximum: int) -> int:
    """Return a time limit in whole seconds, 1 to ``maximum``. Raise InvalidInput (bad_timeout) for anything else."""
    seconds: int | None = None
    if isinstance(raw, int) and not isinstance(raw, bool):
        seconds = raw
    elif isinstance(raw, float) and math.isfinite(raw) and raw == int(raw):
        seconds = int(raw)
    elif isinstance(raw, str) and len(raw) <= _LONGEST_NUMBER and _INTEGER.match(raw.strip()):
        seconds = int(_SPACES.sub("", raw.strip()))
    if seconds is None or not 1 <= seconds <= maximum:
        what = f"The time limit {quote(raw)} is not a whole number of seconds from 1 to {maximum}. Give one."
        raise InvalidInput((Problem("bad_timeout", "timeout_seconds", quote(raw), str(maximum), what),))
    return seconds


# -- one reader per type ---------------------------------------------------------------------------------------------


def _number(spec: ParameterSpec, raw: object) -> float:
    if isinstance(raw, bool):
        raise _wrong_type(spec, raw)
    if isinstance(raw, int) and abs(raw) > INTEGER_MAX:
        raise InvalidInput((_outside(spec, raw, INTEGER_MIN if raw < 0 else INTEGER_MAX, above=raw > 0),))
    if isinstance(raw, str):
        value = _float_from_text(spec, raw.strip())
    elif isinstance(raw, int | float):
        value = float(raw)
    else:
        raise _wrong_type(spec, raw)
    if not math.isfinite(value):
        raise InvalidInput((_not_finite(spec, raw),))
    _within(spec, value, raw)
    return value + 0.0  # minus nought becomes nought: they would be two values of one parameter in the catalog


def _float_from_text(spec: ParameterSpec, text: str) -> float:
    if text.lower().lstrip("+-") in _NOT_FINITE:
        return math.nan
    if len(text) > _LONGEST_NUMBER or not _NUMBER.match(text):
        raise _wrong_type(spec, text)
    return float(_SPACES.sub("", text).replace(",", "."))


def _integer(spec: ParameterSpec, raw: object) -> int:
    if isinstance(raw, bool):
        raise _wrong_type(spec, raw)
    if isinstance(raw, int):
        value = raw
    elif isinstance(raw, float):
        if not math.isfinite(raw):
            raise InvalidInput((_not_finite(spec, raw),))
        if raw != int(raw):
            raise _wrong_type(spec, raw)
        value = int(raw)
    elif isinstance(raw, str):
        text = raw.strip()
        if text.lower().lstrip("+-") in _NOT_FINITE:
            raise InvalidInput((_not_finite(spec, raw),))
        if len(text) > _LONGEST_NUMBER or not _INTEGER.match(text):
            raise _wrong_type(spec, raw)
        value = int(_SPACES.sub("", text))
    else:
        raise _wrong_type(spec, raw)
    _within(spec, value, raw)
    return value


def _boolean(spec: ParameterSpec, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in _BOOLEANS:
        return _BOOLEANS[raw.strip().lower()]
    raise _wrong_type(spec, raw)


def _text(spec: ParameterSpec, raw: object) -> str:
    if not isinstance(raw, str):
        raise _wrong_type(spec, raw)
    # NFC can make text longer, but never by more than three times: refuse a giant before working on it.
    text = clean_text(raw) if len(raw) <= 4 * spec.max_length + 4 else raw
    if text is None:
        what = f"{spec.name} holds a control character or a broken one. Type the text anew without it."
        raise InvalidInput((Problem("bad_text", spec.name, quote(raw), message=what),))
    if len(text) > spec.max_length:
        what = f"{spec.name} is {len(text)} characters long; at most {spec.max_length} are allowed. Shorten it."
        raise InvalidInput((Problem("too_long", spec.name, str(len(text)), str(spec.max_length), what),))
    return text


def _choice(spec: ParameterSpec, raw: object) -> str:
    wanted = unicodedata.normalize("NFC", raw).strip() if isinstance(raw, str) and len(raw) <= 1000 else None
    if wanted is None or wanted not in spec.choices:
        allowed = ", ".join(spec.choices)
        what = f"{spec.name}={quote(raw)} is not one of its choices. Use one of: {allowed}."
        raise InvalidInput((Problem("not_a_choice", spec.name, quote(raw), allowed, what),))
    return wanted


def _date(spec: ParameterSpec, raw: object) -> str:
    if isinstance(raw, date) and not isinstance(raw, datetime):
        return raw.isoformat()
    try:
        if isinstance(raw, str) and _DATE.match(raw.strip()):
            return date.fromisoformat(raw.strip()).isoformat()
    except ValueError:
        pass  # the 30th of February: falls through to the same sentence as other text
    what = f"{spec.name}={quote(raw)} is not a date. Write it as year-month-day, for example 2026-01-31."
    raise InvalidInput((Problem("not_a_date", spec.name, quote(raw), message=what),))


_READERS: Mapping[ParameterType, Callable[[ParameterSpec, object], Scalar]] = {
    ParameterType.NUMBER: _number,
    ParameterType.INTEGER: _integer,
    ParameterType.BOOLEAN: _boolean,
    ParameterType.TEXT: _text,
    ParameterType.CHOICE: _choice,
    ParameterType.DATE: _date,
}

# -- what is said about a value --------------------------------------------------------------------------------------

_WANTED = {
    ParameterType.NUMBER: "a number, for example 0,05 or 0.05",
    ParameterType.INTEGER: "a whole number, for example 12",
    ParameterType.BOOLEAN: "a yes or no: true or false",
    ParameterType.TEXT: "text",
}


def _wrong_type(spec: ParameterSpec, raw: object) -> InvalidInput:
    what = f"{spec.name}={quote(raw)} is not {_WANTED[spec.type]}. Give one."
    return InvalidInput((Problem("wrong_type", spec.name, quote(raw), spec.type.value, what),))


def _not_finite(spec: ParameterSpec, raw: object) -> Problem:
    what = f"{spec.name}={quote(raw)} is not a finite number. Give an ordinary number."
    return Problem("not_finite", spec.name, quote(raw), message=what)


def _within(spec: ParameterSpec, value: float, raw: object) -> None:
    lowest, highest = spec.minimum, spec.maximum
    if spec.type is ParameterType.INTEGER:
        lowest = INTEGER_MIN if lowest is None else max(lowest, INTEGER_MIN)
        highest = INTEGER_MAX if highest is None else min(highest, INTEGER_MAX)
    if lowest is not None and value < lowest:
        raise InvalidInput((_outside(spec, raw, lowest, above=False),))
    if highest is not None and value > highest:
        raise InvalidInput((_outside(spec, raw, highest, above=True),))


def _outside(spec: ParameterSpec, raw: object, limit: float, *, above: bool) -> Problem:
    side, advice = ("above its maximum", "Lower it") if above else ("below its minimum", "Raise it")
    shown = f"{limit:.15g}" if isinstance(limit, float) else str(limit)
    unit = f" {spec.unit}" if spec.unit else ""
    what = f"{spec.name}={quote(raw)} is {side} {shown}{unit}. {advice}, or use another version of the template."
    return Problem("above_maximum" if above else "below_minimum", spec.name, quote(raw), shown, what)


def _missing(spec: ParameterSpec) -> Problem:
    what = f"{spec.name} has no value. Give {_WANTED.get(spec.type, 'one')}"
    what += "." if spec.default is None else f", or leave {spec.name} out to use {quote(spec.default)}."
    return Problem("missing_value", spec.name, message=what)


def _default(spec: ParameterSpec) -> Scalar:
    if spec.default is None:
        raise InvalidInput((_missing(spec),))
    return spec.default


def _unwanted(version: TemplateVersion, name: object) -> Problem:
    if not isinstance(name, str) or not valid_name(name):
        return bad_name(name)
    known = [spec.name for spec in version.parameters]
    near = difflib.get_close_matches(name, known, n=1)
    advice = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(known) or 'no parameters'}."
    what = f"{version.name} {version.version} has no parameter {name}. {advice}"
    return Problem("unknown_parameter", name, limit=", ".join(known), message=what)
