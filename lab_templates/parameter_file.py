"""A parameter file: one flat YAML mapping of names to single values, read without constructing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import yaml

from lab_templates.model import InvalidInput, Problem
from lab_templates.text import bad_name, given_twice, quote, valid_name

MAX_FILE_BYTES = 64 * 1024
MAX_FILE_VALUES = 1000
MAX_DEPTH = 10
MAX_PROBLEMS = 100


def parse_yaml(text: str | bytes) -> dict[str, object]:
    """Return the raw values of a parameter file: one flat YAML (or JSON) mapping of names to single values.

    Values stay the text that was written (``NO`` a country, ``0,05`` a number), for ``bind`` to read; an unquoted
    ``null`` or ``~`` or nothing is None. The file is read event by event and nothing is constructed, so tags, anchors
    and aliases are refused before they could do anything.

    Raise InvalidInput: file_too_large, bad_file, bad_name, given_twice, wrong_type.
    """
    size = len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else len(text)
    if size > MAX_FILE_BYTES:
        what = f"The parameter file is {size} bytes; at most {MAX_FILE_BYTES} are read."
        raise InvalidInput((Problem("file_too_large", value=str(size), limit=str(MAX_FILE_BYTES), message=what),))
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        return _flat_mapping(yaml.parse(decoded, Loader=yaml.SafeLoader))
    except UnicodeDecodeError as error:
        raise _bad_file(f"it is not UTF-8 (byte {error.start})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise _bad_file(_yaml_fault(error)) from error


def _flat_mapping(events: Iterator[yaml.Event]) -> dict[str, object]:
    problems: list[Problem] = []
    raw: dict[str, object] = {}
    depth, documents = 0, 0
    name: str | None = None
    for event in events:
        _refuse_machinery(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _bad_file("it holds more than one document (---)", event)
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:  # not only useless: the parser's time grows with the square of the depth
                raise _bad_file("it is nested", event)
            if depth == 2 and name is not None:
                problems.append(_nested(name))
                name = None
            elif depth == 2 or (depth == 1 and not isinstance(event, yaml.MappingStartEvent)):
                raise _bad_file("it is not a mapping of names to values", event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent) and depth == 0 and event.value:
            raise _bad_file("it is not a mapping of names to values", event)
        elif isinstance(event, yaml.ScalarEvent) and depth == 1 and name is None:
            name = event.value
            problems.extend(_name_problems(name, raw))
        elif isinstance(event, yaml.ScalarEvent) and depth == 1 and name is not None:
            raw[name] = None if event.implicit[0] and event.value in ("", "~", "null") else event.value
            name = None
        if len(raw) > MAX_FILE_VALUES or len(problems) >= MAX_PROBLEMS:
            break
    if len(raw) > MAX_FILE_VALUES:
        raise _bad_file(f"it has more than {MAX_FILE_VALUES} values")
    if problems:
        raise InvalidInput(tuple(problems))
    return raw


def _name_problems(name: str, raw: Mapping[str, object]) -> tuple[Problem, ...]:
    if not valid_name(name):
        return (bad_name(name),)
    return (given_twice(name),) if name in raw else ()


def _refuse_machinery(event: yaml.Event) -> None:
    """Refuse what YAML has beyond data: anchors and aliases (a bomb of them fits in a few lines), and tags."""
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
        raise _bad_file("it uses an anchor or alias (& or *)", event)
    if getattr(event, "tag", None) is not None:
        raise _bad_file(f"it uses the tag {quote(getattr(event, 'tag', ''))}", event)


def _nested(name: str) -> Problem:
    what = f"{quote(name)} has a list or a nested value. A parameter has one value, for example alpha: 0,05."
    return Problem("wrong_type", quote(name), message=what)


def _bad_file(fault: str, event: yaml.Event | None = None) -> InvalidInput:
    mark = event.start_mark if event is not None else None
    where = f" in line {mark.line + 1}" if mark is not None else ""
    what = f"The parameter file cannot be used: {fault}{where}. Write one name: value on each line, and nothing else."
    return InvalidInput((Problem("bad_file", value=quote(fault), message=what),))


def _yaml_fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is no YAML"
    return quote(problem) + (f" in line {mark.line + 1}" if mark is not None else "")
