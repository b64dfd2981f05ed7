"""What a report takes of an executed notebook: its own words, and the pictures and tables that it did not record."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

import nbformat.v4

_V4: Any = nbformat.v4  # it has no types
RESULT_MIME = "application/vnd.proverom.result+json"
MAX_CELLS = 1000
MAX_CHARACTERS = 24_000_000  # of all that is shown, pictures included; a page beyond that helps nobody
MAX_WORDS = 400_000  # characters of text among them
_SHOWN = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown")


def readable(data: bytes | None) -> Any:
    """Return a new notebook that holds only well-typed Markdown cells and displayable outputs of ``data``.

    Whatever is not understood is left out; code, logs, errors and recorded results (the catalog has those) never come
    along. ``metadata.cut`` says that something was too long to be taken.
    """
    notebook = _V4.new_notebook()
    try:
        cells = json.loads(data or b"{}").get("cells", [])
    except (ValueError, RecursionError, AttributeError):
        return notebook
    room, words = MAX_CHARACTERS, MAX_WORDS
    for cell in cells[:MAX_CELLS] if isinstance(cells, list) else []:
        if not isinstance(cell, dict):
            continue
        kept = _READERS.get(str(cell.get("cell_type")), _nothing)(cell)
        if kept is None:
            continue
        room -= _weight(kept)
        words -= len(kept.source) + sum(len(o.data.get("text/html", "")) for o in kept.get("outputs", ()))
        if room < 0 or words < 0:
            notebook.metadata.cut = True
            break
        notebook.cells.append(kept)
    return notebook


def _text(value: object) -> str | None:
    """Return what nbformat calls a multi-line string: text, or a list of texts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return None


def _markdown(cell: Mapping[str, Any]) -> Any | None:
    source = _text(cell.get("source"))
    if not source or not source.strip():
        return None
    attachments: dict[str, dict[str, str]] = {}
    given = cell.get("attachments")
    for name, bundle in given.items() if isinstance(given, dict) else ():
        if isinstance(bundle, dict):
            attachments[str(name)] = {
                str(mime): text for mime, value in bundle.items() if (text := _text(value)) is not None
            }
    return _V4.new_markdown_cell(source, attachments=attachments)


def _outputs(cell: Mapping[str, Any]) -> Any | None:
    outputs = []
    given = cell.get("outputs")
    for output in given if isinstance(given, list) else []:
        data = output.get("data") if isinstance(output, dict) else None
        if not isinstance(data, dict) or RESULT_MIME in data:
            continue
        for mime in _SHOWN:
            text = _text(data.get(mime))
            if text:
                outputs.append(_V4.new_output("display_data", data={mime: text}))
                break
    return _V4.new_code_cell(outputs=outputs) if outputs else None


def _nothing(_: Mapping[str, Any]) -> None:
    return None


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Any | None]] = {"markdown": _markdown, "code": _outputs}


def _weight(cell: Any) -> int:
    bundles = list(cell.get("attachments", {}).values()) + [output.data for output in cell.get("outputs", [])]
    return len(cell.source) + sum(len(text) for bundle in bundles for text in bundle.values())


def image_bytes(mime: str, text: str) -> bytes:
    """Return an output's image: SVG comes as text, the others as base64; b"" if it is broken."""
    if mime == "image/svg+xml":
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""
