"""A template's declaration, ``template.toml``: what it is called, what it is about, its parameters and its metrics.

Every text that people see is there in bokmål, nynorsk and English; every default is a value that ``parameters.read``
would accept.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab_templates import parameters
from lab_templates.model import InvalidInput, MetricSpec, ParameterSpec, ParameterType, Problem, Scalar, Text
from lab_templates.text import bad_name, clean_text, quote, valid_name

MAX_BYTES = 64 * 1024
MAX_DOTS = 200  # in one line: the parser's time grows with the square of the parts of a dotted key
NUMERIC = (ParameterType.NUMBER, ParameterType.INTEGER)

_TEMPLATE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?\Z")
_VERSION = re.compile(r"(?:0|[1-9][0-9]{0,5})(?:\.(?:0|[1-9][0-9]{0,5})){2}\Z")


def _clean(value: str) -> str:
    text = clean_text(value)
    if text is None:
        raise ValueError("it holds a control character or a broken one")
    return text.strip()


def _plain(value: object) -> object:
    if isinstance(value, datetime) or not isinstance(value, str | int | float | bool | date | None):
        raise ValueError("it must be text, a number, true, false or a date")  # noqa: TRY004 - what pydantic collects
    return value


def _filled(value: str) -> str:
    if not (text := _clean(value)):
        raise ValueError("it must not be empty")
    return text


def _template_name(value: str) -> str:
    if not _TEMPLATE_NAME.match(value):
        raise ValueError("it must be 1 to 60 of a-z, 0-9 and hyphens, without a hyphen first or last")
    return value


def _version(value: str) -> str:
    if not _VERSION.match(value):
        raise ValueError("it must be three numbers, for example 1.0.0")
    return value


_Short = Annotated[str, AfterValidator(_filled), Field(max_length=200)]
_Long = Annotated[str, AfterValidator(_filled), Field(max_length=2000)]
_Unit = Annotated[str, AfterValidator(_clean), Field(max_length=60)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _ShortText(_Table):
    nb: _Short
    nn: _Short
    en: _Short


class _LongText(_Table):
    nb: _Long
    nn: _Long
    en: _Long


class _Choice(_Table):
    value: Annotated[str, AfterValidator(_filled), Field(max_length=100)]
    label: _ShortText


class _Parameter(_Table):
    name: str
    type: Annotated[ParameterType, Field(strict=False)]
    default: Annotated[Any, AfterValidator(_plain)] = None
    unit: _Unit = ""
    minimum: float | None = None
    maximum: float | None = None
    max_length: Annotated[int, Field(ge=1, le=10_000)] = 1000
    choices: Annotated[list[_Choice], Field(max_length=100)] = []
    label: _ShortText
    help: _LongText | None = None


class _Metric(_Table):
    name: _Short
    unit: _Unit = ""
    better: Literal["higher", "lower"] | None = None
    label: _ShortText


class _Runtime(_Table):
    """``start = "ordinary"`` is for notebooks that must not begin in a process that has imported anything."""

    start: Literal["forked", "ordinary"] = "forked"


class Declaration(_Table):
    """A declaration whose form is right; ``specs`` and ``metric_specs`` give what it declares."""

    name: Annotated[str, AfterValidator(_template_name)]
    version: Annotated[str, AfterValidator(_version)]
    language: Literal["nb", "nn", "en"]
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)]
    data_class: Literal["synthetic", "open", "anonymised"]
    title: _ShortText
    summary: _LongText
    data_source: _LongText
    parameters: Annotated[list[_Parameter], Field(max_length=100)] = []
    metrics: Annotated[list[_Metric], Field(max_length=100)] = []
    runtime: _Runtime = _Runtime()

    def specs(self) -> tuple[ParameterSpec, ...]:
        return tuple(_spec(declared) for declared in self.parameters)

    def metric_specs(self) -> tuple[MetricSpec, ...]:
        return tuple(MetricSpec(m.name, m.unit, m.better, text(m.label)) for m in self.metrics)


def read_declaration(raw: bytes) -> Declaration:
    """Return the declaration. Raise InvalidInput with every problem of its form, or else every problem of its content.

    Codes: file_too_large, bad_declaration, unknown_key, missing_value, bad_name, given_twice, bad_range, bad_default.
    """
    if len(raw) > MAX_BYTES:
        what = f"template.toml is {len(raw)} bytes; at most {MAX_BYTES} are read. Shorten its texts."
        raise InvalidInput((Problem("file_too_large", "template.toml", str(len(raw)), str(MAX_BYTES), what),))
    try:
        written = raw.decode("utf-8")
        if any(line.count(".") > MAX_DOTS for line in written.splitlines()):
            raise _unreadable(f"a line has more than {MAX_DOTS} dots")
        content = tomllib.loads(written)
        declared = Declaration.model_validate(content)
    except UnicodeDecodeError as error:
        raise _unreadable(f"it is not UTF-8 (byte {error.start})") from error
    except ValidationError as error:
        raise InvalidInput(tuple(_form_problems(error))) from error
    except InvalidInput:
        raise
    except (ValueError, RecursionError) as error:  # tomllib's own error is a ValueError, and so is a 5,000-digit number
        fault = "it is nested too deeply" if isinstance(error, RecursionError) else quote(str(error), 200)
        raise _unreadable(fault) from error
    if problems := tuple(_content_problems(declared)):
        raise InvalidInput(problems)
    return declared


def text(declared: _ShortText | _LongText | None) -> Text:
    """Return a declared text as the value of the model; an absent one is empty."""
    return Text() if declared is None else Text(declared.nb, declared.nn, declared.en)


def _spec(declared: _Parameter) -> ParameterSpec:
    default = declared.default
    if declared.type is ParameterType.NUMBER and isinstance(default, int) and not isinstance(default, bool):
        default = float(default) if abs(default) <= parameters.INTEGER_MAX else default
    return ParameterSpec(
        name=declared.name,
        type=declared.type,
        default=default.isoformat() if isinstance(default, date) else default,
        unit=declared.unit,
        minimum=declared.minimum,
        maximum=declared.maximum,
        max_length=declared.max_length,
        choices=tuple(choice.value for choice in declared.choices),
        choice_labels={choice.value: text(choice.label) for choice in declared.choices},
        label=text(declared.label),
        help=text(declared.help),
    )


# -- problems --------------------------------------------------------------------------------------------------------


def _unreadable(fault: str) -> InvalidInput:
    what = f"template.toml cannot be read: {fault}. Correct it; it must be TOML 1.0 in UTF-8."
    return InvalidInput((Problem("bad_declaration", "template.toml", quote(fault), message=what),))


def _form_problems(error: ValidationError) -> Iterator[Problem]:
    for fault in error.errors(include_url=False, include_context=False)[: parameters.MAX_PROBLEMS]:
        steps = (f"[{step + 1}]" if isinstance(step, int) else f".{quote(step)}" for step in fault["loc"])
        place = "".join(steps).removeprefix(".")
        if fault["type"] == "missing":
            what = f"template.toml: {place} is missing. Add it; texts are needed in nb, nn and en."
            yield Problem("missing_value", place, message=what)
        elif fault["type"] == "extra_forbidden":
            yield Problem("unknown_key", place, message=f"template.toml: {place} is no known key. Take it out.")
        else:
            value = quote(fault["input"])
            reason = fault["msg"].removeprefix("Value error, ").replace("Input should", "it should")
            what = f"template.toml: {place}={value} does not fit: {reason}."
            yield Problem("bad_declaration", place, value, message=what)


def _content_problems(declared: Declaration) -> Iterator[Problem]:
    yield from _twice("parameters", [p.name for p in declared.parameters])
    yield from _twice("metrics", [m.name for m in declared.metrics])
    for parameter in declared.parameters:
        yield from _parameter_problems(parameter)


def _twice(where: str, names: Sequence[str]) -> Iterator[Problem]:
    for name in (name for name, count in Counter(names).items() if count > 1):
        what = f"template.toml: {quote(name)} is declared more than once in {where}. Keep one."
        yield Problem("given_twice", quote(name), message=what)


def _parameter_problems(declared: _Parameter) -> Iterator[Problem]:
    name = quote(declared.name)
    if not valid_name(declared.name):
        yield bad_name(declared.name)
    if fault := _range_fault(declared):
        yield Problem("bad_range", name, message=f"template.toml: {name} {fault}.")
    if (declared.type is ParameterType.CHOICE) != bool(declared.choices):
        fault = "is a choice without choices" if not declared.choices else "has choices but is no choice"
        yield Problem("bad_range", name, message=f'template.toml: {name} {fault}. Set type = "choice" and its choices.')
    yield from _twice(f"the choices of {name}", [choice.value for choice in declared.choices])
    if (fault := _default_fault(declared)) is not None:
        yield Problem("bad_default", name, quote(declared.default), message=f"template.toml: default of {fault}")


def _range_fault(declared: _Parameter) -> str | None:
    lowest, highest = declared.minimum, declared.maximum
    limits = [limit for limit in (lowest, highest) if limit is not None]
    if limits and declared.type not in NUMERIC:
        return f"is a {declared.type.value} and cannot have a minimum or maximum. Take them out"
    if not all(math.isfinite(limit) and abs(limit) <= parameters.INTEGER_MAX for limit in limits):
        return "has a minimum or maximum that is not an ordinary number. Give one, or take it out"
    if lowest is not None and highest is not None and lowest > highest:
        return f"has minimum {lowest:g} above its maximum {highest:g}. Swap them"
    if declared.unit and declared.type not in NUMERIC:
        return f"is a {declared.type.value} and cannot have a unit. Take it out"
    return None


def _default_fault(declared: _Parameter) -> str | None:
    """Return what is wrong with the default, or None. A form's leniency (``"0,05"`` for a number) has no place here."""
    default = declared.default
    if default is None:
        return None  # the parameter must then be given for every run
    if isinstance(default, str) and declared.type in (*NUMERIC, ParameterType.BOOLEAN):
        return f"{quote(declared.name)} is text. Write it without quotation marks."
    try:
        kept: Scalar = parameters.read(_spec(declared), _spec(declared).default)
    except InvalidInput as error:
        return str(error)
    wanted = _spec(declared).default
    if kept != wanted or type(kept) is not type(wanted):
        return f"{quote(declared.name)} is not written in its plain form. Write {quote(kept)}."
    return None
