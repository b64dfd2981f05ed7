"""A template's notebook as it may be published: read with distrust, checked in form, never executed.

Bytes come from whoever may submit a template. Every cap is checked before the work it caps.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import nbformat
from nbformat.validator import get_validator

from lab_templates.model import InvalidInput, Problem
from lab_templates.text import quote

MAX_BYTES = 10 * 1024 * 1024
MAX_CELLS = 1000
MAX_DEPTH = 100
NEWEST_MINOR = 5
MAX_EXPLAINED = 64 * 1024  # bytes: the validator with the good sentences takes half a minute for some megabytes

_ARCHIVES = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_KEPT_PROBLEMS = 20  # of one kind, in a notebook of up to MAX_CELLS cells


def read_notebook(raw: bytes) -> Mapping[str, Any]:
    """Return the notebook's JSON, of format 4 and valid. Raise InvalidInput with the first thing that hides all others.

    Codes: file_too_large, not_a_notebook, bad_json, too_deep, bad_text, bad_format, no_cells, too_many_cells,
    duplicate_ids, bad_notebook.
    """
    content = _json(raw)
    _check_strings(content)
    if not isinstance(content, dict):
        _refuse("not_a_notebook", "The file is JSON, but no notebook. Submit the .ipynb file.")
    major, minor = content.get("nbformat"), content.get("nbformat_minor")
    if type(major) is not int or type(minor) is not int or major != 4 or not 0 <= minor <= NEWEST_MINOR:
        shown = f"{quote(major)}.{quote(minor)}"
        what = f"The notebook has format {shown}; 4.0 to 4.{NEWEST_MINOR} can be used. Save it anew from JupyterLab."
        _refuse("bad_format", what, shown)
    cells = content.get("cells")
    if not isinstance(cells, list):
        _refuse("bad_notebook", "The notebook's cells are no list. Save it anew from JupyterLab.")
    if not cells:
        _refuse("no_cells", "The notebook has no cells. Add the cells of the experiment.")
    if len(cells) > MAX_CELLS:
        what = f"The notebook has {len(cells)} cells; at most {MAX_CELLS} are allowed. Split it into several templates."
        _refuse("too_many_cells", what, str(len(cells)), str(MAX_CELLS))
    if not all(isinstance(cell, dict) for cell in cells):
        _refuse(
            "bad_notebook", "The notebook has something that is no cell among its cells. Save it anew from JupyterLab."
        )
    if minor >= 5 and not all("id" in cell for cell in cells):
        _refuse("bad_notebook", "The notebook has a cell without an id. Save it anew from JupyterLab.")
    ids = Counter(cell["id"] for cell in cells if isinstance(cell.get("id"), str))
    if twice := [quote(name) for name, count in ids.items() if count > 1]:
        what = f"More than one cell has the id {twice[0]}. Save the notebook anew from JupyterLab."
        _refuse("duplicate_ids", what, ", ".join(twice[:5]))
    if (fault := _format_fault(content, minor, explain=len(raw) <= MAX_EXPLAINED)) is not None:
        _refuse("bad_notebook", f"The notebook breaks its format: {fault}. Save it anew from JupyterLab.", fault)
    return content


def check_cells(notebook: Mapping[str, Any], known_kernels: Sequence[str]) -> Iterator[Problem]:
    """Yield what a valid notebook must not have as a template.

    Codes: unknown_kernel, no_language, no_parameters_cell, two_parameters_cells, bad_parameters_cell,
    has_outputs, bad_attachment.
    """
    yield from _kernel_problems(notebook, known_kernels)
    tagged = [index for index, cell in enumerate(notebook["cells"]) if "parameters" in tags(cell)]
    if not tagged:
        what = "No cell is tagged parameters. Put the defaults in one code cell and give it that tag."
        yield Problem("no_parameters_cell", message=what)
    elif len(tagged) > 1:
        places = ", ".join(str(index + 1) for index in tagged)
        what = f"Cells {places} are all tagged parameters. Keep the tag on one of them."
        yield Problem("two_parameters_cells", value=places, limit="1", message=what)
    elif notebook["cells"][tagged[0]]["cell_type"] != "code":
        what = f"Cell {tagged[0] + 1} is tagged parameters but holds no code. Put the tag on the code cell."
        yield Problem("bad_parameters_cell", value=str(tagged[0] + 1), message=what)
    yield from _output_problems(notebook["cells"])
    yield from _attachment_problems(notebook["cells"])


def parameters_source(notebook: Mapping[str, Any]) -> str | None:
    """Return the source of the one code cell tagged ``parameters``; None if there is not exactly one."""
    tagged = [cell for cell in notebook["cells"] if "parameters" in tags(cell)]
    return source(tagged[0]) if len(tagged) == 1 and tagged[0]["cell_type"] == "code" else None


def kernel(notebook: Mapping[str, Any]) -> str:
    """Return the name of the notebook's kernel, empty if it names none."""
    return str(_kernelspec(notebook).get("name") or "")


def language(notebook: Mapping[str, Any]) -> str:
    """Return the programming language, found where papermill finds it; empty if it is not given."""
    info = notebook["metadata"].get("language_info")
    named = info.get("name") if isinstance(info, dict) else None
    return str(named or _kernelspec(notebook).get("language") or "")


def source(cell: Mapping[str, Any]) -> str:
    """Return a cell's source as one text (the format allows a list of lines)."""
    written = cell["source"]
    return written if isinstance(written, str) else "".join(written)


def tags(cell: Mapping[str, Any]) -> Sequence[str]:
    """Return a cell's tags."""
    found = cell["metadata"].get("tags", ())
    return found if isinstance(found, list) else ()


# -- reading ---------------------------------------------------------------------------------------------------------


def _refuse(code: str, message: str, value: str = "", limit: str = "") -> NoReturn:
    raise InvalidInput((Problem(code, "notebook", value, limit, message),))


def _json(raw: bytes) -> object:
    if len(raw) > MAX_BYTES:
        what = f"The notebook is {len(raw)} bytes; at most {MAX_BYTES} are allowed. Clear its outputs and attachments."
        _refuse("file_too_large", what, str(len(raw)), str(MAX_BYTES))
    if not raw.strip():
        _refuse("not_a_notebook", "The notebook file is empty. Submit the .ipynb file.")
    for start, kind in _ARCHIVES.items():
        if raw.startswith(start):
            _refuse("not_a_notebook", f"The file is a {kind} archive. Unpack it and submit the .ipynb file.", kind)
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        _refuse("bad_text", f"The notebook is not UTF-8 (byte {error.start}). Save it anew from JupyterLab.")
    except RecursionError:
        _refuse_depth()
    except ValueError as error:
        fault = quote(str(error), 200)
        _refuse("bad_json", f"The notebook is no whole JSON: {fault}. Save it anew from JupyterLab.", fault)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


def _refuse_depth() -> NoReturn:
    what = f"The notebook is nested more than {MAX_DEPTH} levels deep. Clear its metadata and outputs."
    _refuse("too_deep", what, limit=str(MAX_DEPTH))


def _format_fault(content: object, minor: int, *, explain: bool) -> str | None:
    """Return how a notebook breaks nbformat's schema, None if it does not."""
    try:
        get_validator(4, minor, name="fastjsonschema").validate(content)  # type: ignore[no-untyped-call]
    except (nbformat.ValidationError, RecursionError) as error:
        fault = str(getattr(error, "message", "") or "it is nested too deeply")
    else:
        return None
    if explain:
        try:
            nbformat.validate(content, version=4, version_minor=minor)
        except (nbformat.ValidationError, RecursionError, TypeError) as error:
            fault = str(getattr(error, "message", "") or fault)
    return quote(fault, 200)


def _check_strings(content: object) -> None:
    """Walk the whole tree without recursion; refuse depth, NUL and half characters, which nothing can store."""
    waiting: list[tuple[object, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            _refuse_depth()
        if isinstance(value, dict):
            waiting.extend((key, depth + 1) for key in value)
            waiting.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            waiting.extend((inner, depth + 1) for inner in value)
        elif isinstance(value, str) and not _whole(value):
            what = f"The notebook holds NUL or a broken character, in {quote(value)}. Take it out."
            _refuse("bad_text", what, quote(value))


def _whole(value: str) -> bool:
    try:
        return b"\x00" not in value.encode("utf-8")
    except UnicodeEncodeError:
        return False


# -- checking --------------------------------------------------------------------------------------------------------


def _kernelspec(notebook: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = notebook["metadata"].get("kernelspec")
    return spec if isinstance(spec, dict) else {}


def _kernel_problems(notebook: Mapping[str, Any], known_kernels: Sequence[str]) -> Iterator[Problem]:
    name, known = kernel(notebook), ", ".join(known_kernels)
    if name not in known_kernels:
        shown = f"wants the kernel {quote(name)}" if name else "names no kernel"
        what = f"The notebook {shown}; the lab has {known}. Choose one of them in JupyterLab and save."
        yield Problem("unknown_kernel", "notebook", quote(name), known, what)
    if not language(notebook):
        what = "The notebook does not say its programming language. Open it with its kernel in JupyterLab and save."
        yield Problem("no_language", "notebook", message=what)


def _output_problems(cells: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    kept = [
        index + 1
        for index, cell in enumerate(cells)
        if cell["cell_type"] == "code" and (cell["outputs"] or cell["execution_count"] is not None)
    ]
    if kept:
        places = ", ".join(map(str, kept[:_KEPT_PROBLEMS]))
        what = f"Results of an earlier run are left in cells {places}. Clear all outputs and save."
        yield Problem("has_outputs", "notebook", places, message=what)
    injected = [index + 1 for index, cell in enumerate(cells) if "injected-parameters" in tags(cell)]
    if injected:
        what = f"Cell {injected[0]} was put in by papermill in an earlier run. Delete it."
        yield Problem("has_outputs", "notebook", str(injected[0]), message=what)


def _attachment_problems(cells: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    found = 0
    for index, cell in enumerate(cells):
        for name, bundle in cell.get("attachments", {}).items():
            if found < _KEPT_PROBLEMS and (
                not _plain_file_name(name) or not all(m.startswith("image/") for m in bundle)
            ):
                found += 1
                what = f"The attachment {quote(name)} in cell {index + 1} is no image with a plain name. Rename it."
                yield Problem("bad_attachment", "notebook", quote(name), message=what)


def _plain_file_name(name: str) -> bool:
    return 0 < len(name) <= 200 and name.isprintable() and name[0] != "." and not set(name) & set("/\\:")
