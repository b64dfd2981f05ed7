"""Text from a sandbox, made safe to keep and to show: what looks the same is the same, nothing steers the reader."""

from __future__ import annotations

import re
import unicodedata

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
# They turn the direction of what follows: a file's name can seem to end in .png, an amount can lose its minus.
_BIDI = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def without_ansi(text: str) -> str:
    """Return the text without terminal colours and other escape sequences."""
    return _ANSI.sub("", text)


def block(text: str, most: int) -> str:
    """Return the text as NFC of at most ``most`` characters: line ends as \\n, no control character but \\n and \\t.

    Bidirectional controls are spelled out (``\\u202e``), lone surrogates replaced.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))
    text = _BIDI.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return unicodedata.normalize("NFC", text)[:most]


def line(text: str, most: int) -> str:
    """Return the text like ``block``, on one line: every run of white space is one blank, none at the ends."""
    return " ".join(block(text, 4 * most + 64).split())[:most].rstrip()
