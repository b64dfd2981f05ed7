"""What a kernel puts out: how much of it is kept, and the last lines for the person who waits."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

RESULT_MIME = "application/vnd.proverom.result+json"
OUTPUT_CUT = "output_cut"

_TAIL_LINES = 20
_TAIL_BYTES = 4096
_TRACEBACK_CHARACTERS = 64 * 1024
_MESSAGE_CHARACTERS = 4096
# What the notebook's format adds to each output; it keeps a million empty outputs from being free.
_OVERHEAD = 200
# Streams and displays may use this part of the limit: a flood leaves room for what the notebook records.
_ORDINARY_PART = 0.75
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def plain(text: str) -> str:
    """Return the text without terminal colours and other escape sequences."""
    return _ANSI.sub("", text)


def cut_notice(limit: int) -> str:
    size = f"{limit / 1048576:g} MiB"
    return f"\n[Prøverom: utdata er kuttet her, grensen er {size} · output was cut here, the limit is {size}]\n"


class Tail:
    """The last lines of a run's output. One thread adds, another reads."""

    def __init__(self) -> None:
        self._text = ""
        self._lock = threading.Lock()

    def add(self, text: str) -> None:
        with self._lock:
            self._text = (self._text + text[-4 * _TAIL_BYTES :])[-4 * _TAIL_BYTES :]

    def read(self) -> str:
        """Return at most 20 lines and 4 KB of UTF-8, as a terminal would show them after the last line."""
        with self._lock:
            text = self._text
        lines = plain(text).replace("\r\n", "\n").split("\n")
        # A progress bar writes over its own line after each carriage return.
        shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        while shown and not shown[-1].strip():
            shown.pop()
        data = "\n".join(shown[-_TAIL_LINES:]).encode("utf-8", "replace")
        return data[-_TAIL_BYTES:].decode("utf-8", "ignore")


class Admission(Enum):
    WHOLE = auto()
    SHORTENED = auto()
    NOTHING = auto()


class OutputBudget:
    """Decides on each message of a kernel how much of it is kept, so that a run's outputs stay below ``limit`` bytes.

    What a notebook clears it gets back. Records (``RESULT_MIME``) may use the whole limit, all else three quarters.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.cut = False
        self._cells: dict[int, int] = {}
        self._displays: dict[str, int] = {}
        self._comms = 0
        self._told: set[int] = set()

    @property
    def used(self) -> int:
        return sum(self._cells.values()) + sum(self._displays.values())

    def admit(self, message: Mapping[str, Any], cell: int) -> Admission:
        """Return how much of the message may be kept; shorten a stream or an error that is too long in place."""
        kind, content = message["msg_type"], message["content"]
        if kind == "clear_output":
            self._cells[cell] = 0
            return Admission.WHOLE
        if kind == "error":
            _shorten_error(content)
            return Admission.WHOLE
        if kind == "stream":
            return self._admit_stream(content, cell)
        keep = True
        if kind in ("display_data", "execute_result"):
            keep = self._admit_display(content, cell)
        elif kind == "update_display_data":
            keep = self._admit_update(content)
        elif kind.startswith("comm"):
            keep = self._admit_comm(message)
        return Admission.WHOLE if keep else Admission.NOTHING

    def first_cut(self, cell: int) -> bool:
        """Return True once for each cell of which something was cut: its notice is due."""
        self.cut = True
        fresh = cell not in self._told
        self._told.add(cell)
        return fresh

    def _room(self, *, record: bool = False) -> int:
        return int(self.limit * (1.0 if record else _ORDINARY_PART)) - self.used

    def _admit_stream(self, content: dict[str, Any], cell: int) -> Admission:
        text = str(content.get("text", ""))
        size, room = size_of(text), self._room() - _OVERHEAD
        if room <= 0:
            return Admission.NOTHING
        if size > room:
            content["text"] = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
        self._cells[cell] = self._cells.get(cell, 0) + min(size, room) + _OVERHEAD
        return Admission.SHORTENED if size > room else Admission.WHOLE

    def _admit_display(self, content: Mapping[str, Any], cell: int) -> bool:
        data = content.get("data") or {}
        size = size_of(data) + size_of(content.get("metadata") or {}) + _OVERHEAD
        if size > self._room(record=RESULT_MIME in data):
            return False
        self._cells[cell] = self._cells.get(cell, 0) + size
        return True

    def _admit_update(self, content: Mapping[str, Any]) -> bool:
        display = str((content.get("transient") or {}).get("display_id"))
        size = size_of(content.get("data") or {})
        before = self._displays.get(display, 0)
        if size - before > self._room():
            return False
        self._displays[display] = max(size, before)
        return True

    def _admit_comm(self, message: Mapping[str, Any]) -> bool:
        size = size_of(message["content"]) + sum(len(part) for part in message.get("buffers") or ())
        if self._comms + size > self.limit // 4:
            return False
        self._comms += size
        return True


def size_of(value: object) -> int:
    """Return how many bytes of UTF-8 a text is, or all that a JSON value holds, without its punctuation."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return sum(size_of(key) + size_of(item) for key, item in value.items())
    return len(json.dumps(value, ensure_ascii=False))


def _shorten_error(content: dict[str, Any]) -> None:
    content["ename"] = str(content.get("ename", ""))[:200]
    content["evalue"] = _middle_out(str(content.get("evalue", "")), _MESSAGE_CHARACTERS)
    lines = content.get("traceback")
    text = "\n".join(str(line) for line in lines) if isinstance(lines, list) else str(lines or "")
    if len(text) > _TRACEBACK_CHARACTERS:
        content["traceback"] = _middle_out(text, _TRACEBACK_CHARACTERS).split("\n")


def _middle_out(text: str, most: int) -> str:
    """Return the text, or its start and end where it is longer than ``most``: an error's end says what happened."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} […] {text[-most // 2 :]}"
