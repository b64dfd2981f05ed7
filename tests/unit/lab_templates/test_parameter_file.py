"""Parameter files: every case in tests/cases/parameters, and that no text can do anything but be read or refused."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab_templates.model import InvalidInput
from lab_templates.parameter_file import MAX_FILE_BYTES, parse_yaml

Codes = Callable[[Callable[[], object]], list[str]]
CASES = Path(__file__).parents[2] / "cases" / "parameters"
EXPECTED: dict[str, str] = tomllib.loads((CASES / "expected.toml").read_text(encoding="utf-8"))


def test_every_case_is_listed() -> None:
    assert set(EXPECTED) == {path.name for path in CASES.iterdir()} - {"expected.toml"}


@pytest.mark.parametrize(("name", "code"), EXPECTED.items())
def test_case(codes: Codes, name: str, code: str) -> None:
    raw = (CASES / name).read_bytes()
    assert codes(lambda: parse_yaml(raw))[:1] == ([code] if code else [])


def test_values_stay_as_they_were_written() -> None:
    raw = parse_yaml(
        "alpha: 0,05\nland: NO\noctal: 010\ntime: 12:30\nquoted: 'null'\nnothing:\n# note\nlong: >\n  a\n  b\n"
    )
    assert raw == {
        "alpha": "0,05",
        "land": "NO",
        "octal": "010",
        "time": "12:30",
        "quoted": "null",
        "nothing": None,
        "long": "a b\n",
    }


def test_json_is_read_too() -> None:
    assert parse_yaml('{"alpha": 0.05, "title": "a: b", "on": true, "none": null}') == {
        "alpha": "0.05",
        "title": "a: b",
        "on": "true",
        "none": None,
    }


def test_the_line_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"alias \(& or \*\) in line 2"):
        parse_yaml("a: 1\nb: *x\n")


def test_all_problems_at_once(codes: Codes) -> None:
    assert codes(lambda: parse_yaml("a: [1]\nb b: 2\nc: 1\nc: 2\nd: {}\n")) == [
        "wrong_type",
        "bad_name",
        "given_twice",
        "wrong_type",
    ]


def test_a_large_file_is_not_read(codes: Codes) -> None:
    assert codes(lambda: parse_yaml("a" * (MAX_FILE_BYTES + 1))) == ["file_too_large"]
    assert codes(lambda: parse_yaml("".join(f"a{i}: 1\n" for i in range(1001)))) == ["bad_file"]


@given(st.text(alphabet=st.sampled_from(list("ab: -?[]{}&*!|>'\"#%@\n\t,~=<\\0é\ud800"))) | st.text() | st.binary())
@example("a: !!python/object:os.system x")
@example("--- a\n...\n")
@example("%YAML 1.1\n---\na: 1")
def test_any_text_is_read_or_refused(text: str | bytes) -> None:
    try:
        raw = parse_yaml(text)
    except InvalidInput:
        return
    assert all(isinstance(name, str) and (value is None or isinstance(value, str)) for name, value in raw.items())
