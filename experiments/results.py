"""Reads what a sandbox sent, with distrust: what is no result is refused, what is one is cut down to what it may be.

Nothing here is provenance. Who, when, with which template, image and attempt is the server's own knowledge; a notebook
that claims any of it is not asked.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import nbformat
from nbformat.validator import get_validator

from experiments.model import (
    NO_CELL,
    CellError,
    Figure,
    Metric,
    Reason,
    RunnerReport,
    RunResult,
    RunState,
    Scalar,
    Table,
)
from experiments.texts import block, line, without_ansi

RESULT_MIME = "application/vnd.proverom.result+json"
MIB = 1024 * 1024

# Machine words; the pages hold their wording.
OUTPUT_CUT = "output_cut"  # the runner cut the notebook's output
RECORDS_DROPPED = "records_dropped"  # more records than may be
BAD_RECORD = "bad_record"  # a record that is none
FIGURE_TOO_BIG = "figure_too_big"
TABLE_CUT = "table_cut"
OUTCOME_CORRECTED = "outcome_corrected"  # said to have succeeded, with an error in a cell

# What a runner may say of an ending. That a runner was lost is seen from outside only.
_REASONS_OF_FAILURE = {
    reason.value: reason
    for reason in (
        Reason.CELL_FAILED,
        Reason.KERNEL_DIED,
        Reason.OUT_OF_MEMORY,
        Reason.START_FAILED,
        Reason.BAD_RESULT,
    )
}
_FLAGS = {"nan": "nan", "inf": "inf", "-inf": "-inf"}
# What a cell's error says about the sandbox rather than about the template's own logic: the error's name, and a part of
# its message. The first that fits counts.
_PLAINER = (
    (Reason.ASKED_FOR_INPUT, re.compile(r"StdinNotImplementedError"), re.compile("")),
    (Reason.OUT_OF_MEMORY, re.compile(r"MemoryError|_ArrayMemoryError"), re.compile("")),
    (Reason.OUT_OF_MEMORY, re.compile(r"OSError"), re.compile(r"\[Errno 12\]")),
    (Reason.NO_SPACE, re.compile(r"OSError"), re.compile(r"\[Errno (?:28|122)\]")),
    (Reason.TOO_MANY_FILES, re.compile(r"OSError"), re.compile(r"\[Errno 24\]")),
    (Reason.TOO_MANY_PROCESSES, re.compile(r"BlockingIOError"), re.compile(r"\[Errno 11\] Resource temporarily")),
    (Reason.TOO_MANY_PROCESSES, re.compile(r"RuntimeError"), re.compile(r"can't start new thread")),
)
_PNG = b"\x89PNG\r\n\x1a\n"
_SVG = re.compile(r"\A\ufeff?\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*(?:<!DOCTYPE svg[^\[>]*>\s*)?"
                  r"(?:<!--.*?-->\s*)*<svg[\s>/]", re.DOTALL)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResultLimits:
    """The most a result may hold. Sizes in bytes, texts in characters."""

    notebook: int = 48 * MIB
    depth: int = 100
    cells: int = 5_000
    records: int = 200  # of each kind
    figure: int = 5 * MIB
    figure_pixels: int = 50_000_000
    columns: int = 100
    rows: int = 2_000
    name: int = 200
    unit: int = 60
    scalar: int = 2_000
    text: int = 4_000
    message: int = 4_096
    traceback: int = 64 * 1024


class BadResult(ValueError):
    """What came is no result. The message says what is wrong with it, in one sentence."""


def read(report: RunnerReport, *, limits: ResultLimits | None = None) -> RunResult:
    """Return what the report holds, made safe; raise BadResult if it is no result at all.

    A run has succeeded only if no cell of its notebook holds an error, a ``sys.exit(0)`` excepted: that is papermill's
    own rule. A report that says otherwise becomes ``failed`` with the notice ``outcome_corrected``. Of records with the
    same name the last one counts. Text is NFC, without control characters; bidirectional controls are spelled out.
    """
    limits = limits or ResultLimits()
    try:
        state = RunState(report.outcome)
    except ValueError:
        state = RunState.QUEUED
    if not state.ended:
        known = "succeeded, failed, timed_out, cancelled"
        raise BadResult(f"outcome={str(report.outcome)[:40]!r} is none of {known}.")
    data, notebook = _notebook(report.notebook, limits)
    cells: list[dict[str, Any]] = notebook["cells"]
    notices: dict[str, None] = dict.fromkeys(_notices(notebook))
    error = None
    if state in (RunState.SUCCEEDED, RunState.FAILED):
        error = _found_error(cells, limits)
    if state is RunState.SUCCEEDED and error is not None:
        state = RunState.FAILED
        notices[OUTCOME_CORRECTED] = None
        reason: Reason | None = Reason.CELL_FAILED
    elif state is RunState.FAILED:
        reason = _REASONS_OF_FAILURE.get(str(report.reason))
        if reason is None:
            reason = Reason.CELL_FAILED if error else Reason.KERNEL_DIED
        error = _reported_error(report.error, len(cells), limits) or error
    else:
        reason = {RunState.TIMED_OUT: Reason.TIME_LIMIT, RunState.CANCELLED: Reason.CANCELLED_BY_USER}.get(state)
    if reason is Reason.CELL_FAILED and error is not None:
        reason = _plainer(error)
    records = _Records(limits, notices)
    for record in _records(cells):
        records.add(record)
    return RunResult(
        state=state,
        notebook=data,
        reason=reason,
        error=error,
        metrics=tuple(records.metrics.values()),
        figures=tuple(records.figures.values()),
        tables=tuple(records.tables.values()),
        findings=tuple(records.findings),
        cells=_counted(cells),
        notices=tuple(notices),
    )


def _counted(cells: list[dict[str, Any]]) -> tuple[int, int]:
    """Return how many code cells were executed to their end, and how many hold code."""
    code = [cell for cell in cells if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
    done = sum(
        1
        for cell in code
        if cell.get("execution_count") and all(output.get("output_type") != "error" for output in cell["outputs"])
    )
    return done, len(code)


# -- the notebook ----------------------------------------------------------------------------------------------------
def _notebook(data: bytes, limits: ResultLimits) -> tuple[bytes, dict[str, Any]]:
    """Return the notebook's bytes (JSON that any reader takes: no NaN, no lone surrogate) and what they hold."""
    if len(data) > limits.notebook:
        raise BadResult(f"The notebook has {len(data)} bytes; at most {limits.notebook} are taken.")
    constants: list[str] = []
    try:
        text = data.decode("utf-8")
        found = json.loads(text, parse_constant=constants.append)
    except UnicodeDecodeError as error:
        raise BadResult(f"The notebook is not UTF-8: byte {error.start}.") from None
    except RecursionError:
        raise BadResult(f"The notebook is nested deeper than {limits.depth} levels.") from None
    except ValueError as error:
        raise BadResult(f"The notebook is no JSON: {str(error)[:200]}.") from None
    if not isinstance(found, dict):
        raise BadResult("The notebook is no JSON object.")
    if _deeper_than(found, limits.depth):
        raise BadResult(f"The notebook is nested deeper than {limits.depth} levels.")
    if found.get("nbformat") != 4 or isinstance(found.get("nbformat"), bool):
        raise BadResult(f"nbformat={str(found.get('nbformat'))[:20]} is not read here, only 4.")
    cells = found.get("cells")
    if not isinstance(cells, list):
        raise BadResult("The notebook's cells are no list.")
    if len(cells) > limits.cells:
        raise BadResult(f"The notebook has {len(cells)} cells; at most {limits.cells} are taken.")
    _validate(found)
    if constants or "\\ud" in text or "\\uD" in text:
        data = json.dumps(found, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    return data, found


def _validate(notebook: dict[str, Any]) -> None:
    minor = notebook.get("nbformat_minor")
    if isinstance(minor, bool) or not isinstance(minor, int) or minor < 0:
        raise BadResult(f"nbformat_minor={str(minor)[:20]} is no version number.")
    newest = min(minor, nbformat.current_nbformat_minor)
    # Not nbformat.validate(): that one repairs what it validates, and then something else is stored than was checked.
    # The fast validator stops at the first fault; the explaining one takes minutes over a notebook made to be slow.
    validator = get_validator(4, newest, relax_add_props=True, name="fastjsonschema")  # type: ignore[no-untyped-call]
    try:
        validator.validate(notebook)
    except nbformat.ValidationError as error:
        fault = (str(getattr(error, "message", "") or error).splitlines() or [""])[0][:300]
        raise BadResult(f"The notebook is not valid: {fault}") from None
    except Exception as error:
        # Whatever a validator trips over is a notebook that other readers will trip over too.
        raise BadResult(f"The notebook cannot be validated: {type(error).__name__}.") from None
    ids = [cell["id"] for cell in notebook["cells"] if "id" in cell]
    if len(ids) != len(set(ids)):
        raise BadResult("Two of the notebook's cells have the same id.")


def _deeper_than(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth):
        level = [
            item
            for holder in level
            for item in (holder.values() if isinstance(holder, dict) else holder if isinstance(holder, list) else ())
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def _notices(notebook: Mapping[str, Any]) -> Iterator[str]:
    """Yield the notices that the runner left in the metadata, the known ones only."""
    ours = notebook["metadata"].get("proverom")
    said = ours.get("notices") if isinstance(ours, dict) else None
    if isinstance(said, list) and OUTPUT_CUT in said:
        yield OUTPUT_CUT


def _found_error(cells: list[dict[str, Any]], limits: ResultLimits) -> CellError | None:
    """Return the notebook's first error output, None if there is none that counts."""
    for index, cell in enumerate(cells):
        for output in cell.get("outputs", ()):
            if output.get("output_type") != "error":
                continue
            if output.get("ename") == "SystemExit" and output.get("evalue") in ("", "0"):
                continue
            told = {
                "cell": index,
                "name": output.get("ename"),
                "message": output.get("evalue"),
                "traceback": "\n".join(str(part) for part in output.get("traceback") or ()),
                "source": "".join(cell.get("source") or ""),
            }
            return _reported_error(told, len(cells), limits)
    return None


def _plainer(error: CellError) -> Reason:
    """Return what a failed cell ran into, in words of the lab, where its error says so."""
    for reason, name, message in _PLAINER:
        if name.fullmatch(error.name) and message.match(error.message):
            return reason
    return Reason.CELL_FAILED


def _reported_error(told: Mapping[str, object] | None, cells: int, limits: ResultLimits) -> CellError | None:
    """Return the error as told, cut and cleaned; None if nothing usable was told."""
    if not isinstance(told, Mapping):
        return None
    cell = told.get("cell")
    if isinstance(cell, bool) or not isinstance(cell, int) or not NO_CELL <= cell < cells:
        return None

    def text(key: str, most: int) -> str:
        value = told.get(key)
        return block(without_ansi(value[: 4 * most]), most) if isinstance(value, str) else ""

    name = line(str(told.get("name") or "Error"), limits.name) or "Error"
    return CellError(
        cell=cell,
        name=name,
        message=text("message", limits.message),
        traceback=text("traceback", limits.traceback),
        source=text("source", limits.traceback),
    )


# -- the records -----------------------------------------------------------------------------------------------------
def _records(cells: list[dict[str, Any]]) -> Iterator[object]:
    for cell in cells:
        for output in cell.get("outputs", ()):
            data = output.get("data")
            if output.get("output_type") in ("display_data", "execute_result") and isinstance(data, dict):
                record = data.get(RESULT_MIME)
                if record is not None:
                    yield record


class _Unfit(Exception):
    """A record that cannot be kept; the argument is its notice."""


@dataclass
class _Records:
    limits: ResultLimits
    notices: dict[str, None]
    metrics: dict[str, Metric] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def add(self, record: object) -> None:
        """Keep one record; what cannot be kept leaves a notice. Kinds that are not known here are left alone."""
        kind = record.get("kind") if isinstance(record, dict) else None
        if not isinstance(record, dict) or not isinstance(kind, str):
            self.notices[BAD_RECORD] = None
            return
        try:
            if kind == "metric":
                self._keep(self.metrics, self._metric(record))
            elif kind == "figure":
                self._keep(self.figures, self._figure(record))
            elif kind == "table":
                self._keep(self.tables, self._table(record))
            elif kind == "finding":
                self._finding(record)
        except _Unfit as unfit:
            self.notices[str(unfit)] = None

    def _keep(self, kept: dict[str, Any], thing: Metric | Figure | Table) -> None:
        if thing.name not in kept and len(kept) >= self.limits.records:
            raise _Unfit(RECORDS_DROPPED)
        kept[thing.name] = thing

    def _name(self, record: Mapping[str, object]) -> str:
        name = record.get("name")
        if not isinstance(name, str) or len(name) > 4 * self.limits.name:
            raise _Unfit(BAD_RECORD)
        cleaned = line(name, self.limits.name + 1)
        if not cleaned or len(cleaned) > self.limits.name:
            raise _Unfit(BAD_RECORD)
        return cleaned

    def _text(self, record: Mapping[str, object], key: str, most: int) -> str:
        value = record.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _Unfit(BAD_RECORD)
        return block(value[: 4 * most], most)

    def _metric(self, record: Mapping[str, object]) -> Metric:
        value, flag = _number(record.get("value"))
        low, high = self._interval(record.get("ci"))
        better = record.get("better")
        if better not in (None, "higher", "lower"):
            raise _Unfit(BAD_RECORD)
        unit = self._text(record, "unit", self.limits.unit)
        return Metric(
            self._name(record), value, line(unit, self.limits.unit), low, high, str(better or "") or None, flag
        )

    @staticmethod
    def _interval(given: object) -> tuple[float | None, float | None]:
        if given is None:
            return None, None
        if not isinstance(given, list) or len(given) != 2:
            raise _Unfit(BAD_RECORD)
        if None in given:  # JSON has no NaN: a bound that could not be computed
            return None, None
        low, high = _number(given[0])[0], _number(given[1])[0]
        if low is None or high is None:
            return None, None
        if low > high:
            raise _Unfit(BAD_RECORD)
        return low, high

    def _figure(self, record: Mapping[str, object]) -> Figure:
        given, mime = record.get("data"), record.get("mime")
        if not isinstance(given, str):
            raise _Unfit(BAD_RECORD)
        if len(given) > self.limits.figure * 3 // 2:
            raise _Unfit(FIGURE_TOO_BIG)
        try:
            data = base64.b64decode("".join(given.split()), validate=True)
        except (binascii.Error, ValueError):
            raise _Unfit(BAD_RECORD) from None
        if len(data) > self.limits.figure:
            raise _Unfit(FIGURE_TOO_BIG)
        if mime == "image/png":
            _check_png(data, self.limits.figure_pixels)
        elif mime == "image/svg+xml":
            _check_svg(data)
        else:
            raise _Unfit(BAD_RECORD)
        caption = self._text(record, "caption", self.limits.text)
        return Figure(self._name(record), str(mime), data, caption, self._text(record, "alt", self.limits.text))

    def _table(self, record: Mapping[str, object]) -> Table:
        columns, rows = record.get("columns"), record.get("rows")
        if not isinstance(columns, list) or not isinstance(rows, list) or not 1 <= len(columns) <= self.limits.columns:
            raise _Unfit(BAD_RECORD)
        if not all(isinstance(column, str | int | float) for column in columns):
            raise _Unfit(BAD_RECORD)
        names = tuple(line(str(column)[: 4 * self.limits.name], self.limits.name) for column in columns)
        kept = tuple(self._row(row, len(names)) for row in rows[: self.limits.rows])
        table = Table(self._name(record), names, kept, self._text(record, "caption", self.limits.text))
        if len(rows) > self.limits.rows:
            self.notices[TABLE_CUT] = None
        return table

    def _row(self, row: object, width: int) -> tuple[Scalar, ...]:
        if not isinstance(row, list) or len(row) != width:
            raise _Unfit(BAD_RECORD)
        return tuple(self._scalar(value) for value in row)

    def _scalar(self, value: object) -> Scalar:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return block(value[: 4 * self.limits.scalar], self.limits.scalar)
        if isinstance(value, int):
            # Browsers and SQL know integers of 64 bits at most; as text the digits stay what they were.
            return value if -(2**53) <= value <= 2**53 else str(value)
        if isinstance(value, float):
            return _number(value)[0]
        raise _Unfit(BAD_RECORD)

    def _finding(self, record: Mapping[str, object]) -> None:
        text = self._text(record, "text", self.limits.text).strip()
        if not text:
            raise _Unfit(BAD_RECORD)
        if text in self.findings:
            return
        if len(self.findings) >= self.limits.records:
            raise _Unfit(RECORDS_DROPPED)
        self.findings.append(text)


def _number(value: object) -> tuple[float | None, str | None]:
    """Return (value, None), or (None, flag) for NaN and the infinities, in words or as numbers no float can hold."""
    if isinstance(value, str) and value in _FLAGS:
        return None, _FLAGS[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unfit(BAD_RECORD)
    try:
        number = float(value)
    except OverflowError:
        return None, "inf" if value > 0 else "-inf"
    if number != number:
        return None, "nan"
    if number in (float("inf"), float("-inf")):
        return None, "inf" if number > 0 else "-inf"
    return number, None


def _check_png(data: bytes, pixels: int) -> None:
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 33:
        raise _Unfit(BAD_RECORD)
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if width * height == 0:
        raise _Unfit(BAD_RECORD)
    if width * height > pixels:
        raise _Unfit(FIGURE_TOO_BIG)


def _check_svg(data: bytes) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _Unfit(BAD_RECORD) from None
    # An entity can be made of ten others, and so on: a small file that fills the memory of whoever reads it.
    if not _SVG.match(text[:20_000]) or "<!ENTITY" in text or "</svg>" not in text[-200:]:
        raise _Unfit(BAD_RECORD)
