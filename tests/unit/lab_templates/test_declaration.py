"""Declarations: complete in three languages, consistent, and every fault named with its place."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab_templates.declaration import MAX_BYTES, read_declaration
from lab_templates.model import InvalidInput, ParameterType

Codes = Callable[[Callable[[], object]], list[str]]
GOOD = (Path(__file__).parents[2] / "cases" / "notebooks" / "declaration.toml").read_text(encoding="utf-8")
LABEL = 'label = { nb = "x", nn = "x", en = "x" }'


def changed(old: str, new: str) -> bytes:
    assert old in GOOD
    return GOOD.replace(old, new, 1).encode()


def with_parameter(lines: str) -> bytes:
    return (GOOD + f'\n[[parameters]]\nname = "p"\n{LABEL}\n{lines}\n').encode()


@pytest.mark.parametrize(
    ("old", "new", "code", "field"),
    [
        ('version = "1.0.0"', 'version = "1.0"', "bad_declaration", "version"),
        ('version = "1.0.0"', 'version = "01.0.0"', "bad_declaration", "version"),
        ('version = "1.0.0"', 'version = "1.0.0-rc1"', "bad_declaration", "version"),
        ('version = "1.0.0"', 'version = "1.0.0\\n"', "bad_declaration", "version"),
        ('name = "svarprosent"', 'name = "../evil"', "bad_declaration", "name"),
        ('name = "svarprosent"', 'name = "Svar Prosent"', "bad_declaration", "name"),
        ('name = "svarprosent"', f'name = "{"a" * 61}"', "bad_declaration", "name"),
        ('name = "svarprosent"', "", "missing_value", "name"),
        ('language = "nb"', 'language = "sv"', "bad_declaration", "language"),
        ('data_class = "synthetic"', 'data_class = "personal"', "bad_declaration", "data_class"),
        ("timeout_seconds = 60", "timeout_seconds = 0", "bad_declaration", "timeout_seconds"),
        ("timeout_seconds = 60", "timeout_seconds = true", "bad_declaration", "timeout_seconds"),
        ("timeout_seconds = 60", 'timeout_seconds = "60"', "bad_declaration", "timeout_seconds"),
        (', en = "Response rate"', "", "missing_value", "title.en"),
        ('en = "Response rate"', 'en = " "', "bad_declaration", "title.en"),
        ('en = "Response rate"', 'en = "a\\u0000b"', "bad_declaration", "title.en"),
        ('nn = "Del"', 'sv = "Del"', "missing_value", "parameters[1].label.nn"),
        ('type = "number"', 'type = "complex"', "bad_declaration", "parameters[1].type"),
        ("minimum = 0", 'minimum = "0"', "bad_declaration", "parameters[1].minimum"),
        ("minimum = 0", "minium = 0", "unknown_key", "parameters[1].minium"),
        ("maximum = 1", "maximum = inf", "bad_range", "rate"),
        ("maximum = 1", "maximum = -1", "bad_range", "rate"),
        ("maximum = 1", "maximum = 0.4", "bad_default", "rate"),
        ("default = 0.5", "default = nan", "bad_default", "rate"),
        ("default = 0.5", 'default = "0,5"', "bad_default", "rate"),
        ("default = 0.5", f"default = {2**64}", "bad_default", "rate"),
        ("max_length = 20", "max_length = 3", "bad_default", "label"),
        ("max_length = 20", "minimum = 3", "bad_range", "label"),
        ("max_length = 20", 'unit = "kg"', "bad_range", "label"),
        ('name = "label"', 'name = "class"', "bad_name", "class"),
        ('name = "label"', 'name = "__class__"', "bad_name", "__class__"),
        ('name = "label"', 'name = "rate"', "given_twice", "rate"),
        ('better = "higher"', 'better = "more"', "bad_declaration", "metrics[1].better"),
    ],
)
def test_refused(codes: Codes, old: str, new: str, code: str, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_declaration(changed(old, new))
    assert (code, field) in [(problem.code, problem.field) for problem in refused.value.problems]
    assert all(problem.message.endswith(".") for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ('type = "choice"\ndefault = "a"', "bad_range"),
        (f'type = "choice"\ndefault = "b"\nchoices = [{{ value = "a", {LABEL} }}]', "bad_default"),
        (
            f'type = "choice"\ndefault = "a"\nchoices = [{{ value = "a", {LABEL} }}, {{ value = "a", {LABEL} }}]',
            "given_twice",
        ),
        (f'type = "text"\ndefault = "a"\nchoices = [{{ value = "a", {LABEL} }}]', "bad_range"),
        ('type = "integer"\ndefault = 1.0', "bad_default"),
        ('type = "integer"\ndefault = true', "bad_default"),
        ('type = "boolean"\ndefault = 1', "bad_default"),
        ('type = "boolean"\ndefault = "ja"', "bad_default"),
        ('type = "date"\ndefault = 2026-01-31T10:00:00', "bad_declaration"),
        ('type = "date"\ndefault = "31.1.2026"', "bad_default"),
        ('type = "text"\ndefault = "e\\u0301"', "bad_default"),
    ],
    ids=range(11),
)
def test_parameter_refused(codes: Codes, lines: str, code: str) -> None:
    assert code in codes(lambda: read_declaration(with_parameter(lines)))


@pytest.mark.parametrize(
    ("lines", "default"),
    [
        ('type = "date"\ndefault = 2026-01-31', "2026-01-31"),
        ('type = "date"\ndefault = "2026-01-31"', "2026-01-31"),
        ('type = "number"\ndefault = 1', 1.0),
        ('type = "boolean"\ndefault = false', False),
        ('type = "integer"\nunit = "days"\nminimum = 1', None),
        (f'type = "choice"\ndefault = "a"\nchoices = [{{ value = "a", {LABEL} }}]', "a"),
    ],
    ids=range(6),
)
def test_parameter_accepted(lines: str, default: object) -> None:
    spec = read_declaration(with_parameter(lines)).specs()[-1]
    assert spec.default == default
    assert type(spec.default) is type(default)
    assert spec.label.get("en") == "x"


def test_choices_keep_their_labels() -> None:
    spec = read_declaration(with_parameter(f'type = "choice"\nchoices = [{{ value = "a", {LABEL} }}]')).specs()[-1]
    assert (spec.type, spec.choices, spec.choice_labels["a"].nn) == (ParameterType.CHOICE, ("a",), "x")


@pytest.mark.parametrize(
    "raw",
    [
        b"\xff",
        b"name = ",
        b"a = 1\na = 2",
        b"x = " + b"[" * 5000,
        b"x = " + b"9" * 5000,
        b"\x00",
    ],
    ids=range(6),
)
def test_what_is_no_toml(codes: Codes, raw: bytes) -> None:
    assert set(codes(lambda: read_declaration(raw))) <= {"bad_declaration", "missing_value", "unknown_key"}
    assert codes(lambda: read_declaration(raw))


def test_a_dotted_key_of_thousands_of_parts_is_not_parsed() -> None:
    with pytest.raises(InvalidInput, match="dots"):
        read_declaration(b"a." * 30_000 + b"a = 1")


def test_a_large_one_is_not_read(codes: Codes) -> None:
    assert codes(lambda: read_declaration(b"#" * (MAX_BYTES + 1))) == ["file_too_large"]


@given(st.integers(0, len(GOOD) - 1), st.text(max_size=5))
def test_a_spoilt_declaration_is_read_or_refused(place: int, text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert read_declaration((GOOD[:place] + text + GOOD[place + 1 :]).encode("utf-8", "surrogatepass")).specs()
