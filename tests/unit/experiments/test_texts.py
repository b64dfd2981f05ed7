"""Text from a sandbox, made safe."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.texts import block, line, without_ansi


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("æøå 😀", "æøå 😀"),
        ("e\u0301", "é"),
        ("a\r\nb\rc\td", "a\nb\nc\td"),
        ("a\x00b\x1bc\x7fd\x9be", "abcde"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\ud800", "\ufffd"),
    ],
)
def test_a_block(given: str, kept: str) -> None:
    assert block(given, 100) == kept


def test_a_line_is_one_line() -> None:
    assert line("  a\n\tb\u00a0c  ", 100) == "a b c"
    assert line("ab cd", 3) == "ab"


def test_colours_go() -> None:
    assert without_ansi("\x1b[0;31mE\x1b[0m: \x1b]8;;http://x\x07no\x1b]8;;\x07") == "E: no"


@given(st.text(alphabet=st.characters(), max_size=300), st.integers(0, 200))
def test_any_text_is_safe_short_and_stays_what_it_is(text: str, most: int) -> None:
    for made in (block(text, most), line(text, most)):
        assert len(made) <= most
        made.encode()
        assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in made)
    assert "\n" not in line(text, most)
    assert block(block(text, 2000), 2000) == block(text, 2000)
