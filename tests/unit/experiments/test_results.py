"""What a sandbox sends, read with distrust."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.model import CellError, Metric, Reason, RunnerReport, RunResult, RunState
from experiments.results import RESULT_MIME, BadResult, ResultLimits, read

PNG = (
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 4, 3, 8, 2, 0, 0, 0)
    + bytes(4)
    + zlib.compress(b"x" * 40)
)
SVG = b'<?xml version="1.0"?>\n<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "x.dtd">\n<svg xmlns="x"><path/></svg>\n'


def cell(*outputs: dict[str, Any], source: str = "1", number: int = 0) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": 1,
        "id": f"c{number}",
        "metadata": {},
        "outputs": list(outputs),
        "source": source,
    }


def output(record: object) -> dict[str, Any]:
    return {"output_type": "display_data", "data": {RESULT_MIME: record, "text/plain": "x"}, "metadata": {}}


def failure(name: str = "ValueError", value: str = "no") -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": value, "traceback": ["\x1b[31mTraceback\x1b[0m", "line"]}


def book(*cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    for number, each in enumerate(cells):
        each["id"] = f"c{number}"
    return {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5} | changes


def report(notebook: object, outcome: str = "succeeded", **fields: Any) -> RunnerReport:
    data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
    return RunnerReport(outcome, data, **fields)


def of(*records: object) -> RunResult:
    return read(report(book(cell(*map(output, records)))))


# -- what is no result -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no JSON"),
        (b'{"cells": [', "no JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "deeper"),
        (b"[" * 100_000, "deeper"),
        (b'{"nbformat": ' + b"9" * 5000 + b"}", "no JSON"),
        (book(nbformat=3), "nbformat=3"),
        (book(nbformat=99), "nbformat=99"),
        (book(nbformat=True), "nbformat=True"),
        (book(nbformat_minor=-1), "nbformat_minor"),
        (book(nbformat_minor="5"), "nbformat_minor"),
        (book(cells={}), "no list"),
        (book(metadata=[]), "not valid"),
        (book({"cell_type": "magic", "metadata": {}, "source": ""}), "not valid"),
        (book(cell({"output_type": "display_data"})), "not valid"),
        (book(*[cell() for _ in range(5001)]), "5001 cells"),
        (book(metadata={"x": json.loads("[" * 200 + "]" * 200)}), "deeper"),
    ],
)
def test_what_is_no_notebook_is_refused_in_one_sentence(data: object, says: str) -> None:
    with pytest.raises(BadResult, match=says) as caught:
        read(report(data))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_two_cells_with_one_id_are_refused() -> None:
    notebook = book(cell(), cell())
    notebook["cells"][1]["id"] = "c0"
    with pytest.raises(BadResult, match="same id"):
        read(report(notebook))


def test_size_is_capped() -> None:
    with pytest.raises(BadResult, match="at most 50"):
        read(report(book()), limits=ResultLimits(notebook=50))


@pytest.mark.parametrize("outcome", ["", "queued", "running", "SUCCEEDED", "done", "succeeded\n", "æ" * 1000])
def test_an_unknown_outcome_is_refused(outcome: str) -> None:
    with pytest.raises(BadResult, match="outcome="):
        read(report(book(), outcome))


# -- outcomes --------------------------------------------------------------------------------------------------------
def test_a_plain_success() -> None:
    notebook = json.dumps(book(cell())).encode()
    assert read(report(notebook)) == RunResult(RunState.SUCCEEDED, notebook, cells=(1, 1))


def test_an_error_in_a_cell_is_no_success() -> None:
    result = read(report(book(cell(), cell(failure(), source="f(x)"))))
    assert (result.state, result.reason, result.notices) == (
        RunState.FAILED,
        Reason.CELL_FAILED,
        ("outcome_corrected",),
    )
    assert result.error == CellError(1, "ValueError", "no", "Traceback\nline", "f(x)")


@pytest.mark.parametrize(("value", "state"), [("", "succeeded"), ("0", "succeeded"), ("3", "failed")])
def test_leaving_with_zero_is_a_success(value: str, state: str) -> None:
    assert read(report(book(cell(failure("SystemExit", value))))).state.value == state


@pytest.mark.parametrize(
    ("outcome", "reason", "kept"),
    [
        ("failed", "kernel_died", Reason.KERNEL_DIED),
        ("failed", "out_of_memory", Reason.OUT_OF_MEMORY),
        ("failed", "start_failed", Reason.START_FAILED),
        ("failed", "bad_result", Reason.BAD_RESULT),
        ("failed", "runner_lost", Reason.KERNEL_DIED),
        ("failed", "nonsense", Reason.KERNEL_DIED),
        ("failed", None, Reason.KERNEL_DIED),
        ("timed_out", "cell_failed", Reason.TIME_LIMIT),
        ("cancelled", "kernel_died", Reason.CANCELLED_BY_USER),
        ("succeeded", "cell_failed", None),
    ],
)
def test_a_runner_gives_only_reasons_it_can_know(outcome: str, reason: str | None, kept: Reason | None) -> None:
    result = read(report(book(cell()), outcome, reason=reason))
    assert (result.state.value, result.reason) == (outcome, kept)


@pytest.mark.parametrize(
    ("name", "message", "reason"),
    [
        ("MemoryError", "", "out_of_memory"),
        ("_ArrayMemoryError", "Unable to allocate 8.00 TiB for an array", "out_of_memory"),
        ("OSError", "[Errno 12] Cannot allocate memory", "out_of_memory"),
        ("OSError", "[Errno 28] No space left on device: '/tmp/x'", "no_space"),
        ("OSError", "[Errno 24] Too many open files: '/dev/null'", "too_many_files"),
        ("BlockingIOError", "[Errno 11] Resource temporarily unavailable", "too_many_processes"),
        ("RuntimeError", "can't start new thread", "too_many_processes"),
        ("StdinNotImplementedError", "raw_input was called", "asked_for_input"),
        ("ValueError", "[Errno 28] No space left on device", "cell_failed"),
        ("OSError", "the file says [Errno 28]", "cell_failed"),
        ("OSError", "[Errno 2] No such file or directory", "cell_failed"),
    ],
)
@pytest.mark.parametrize("outcome", ["failed", "succeeded"])
def test_what_the_sandbox_lacked_is_said_in_the_labs_words(name: str, message: str, reason: str, outcome: str) -> None:
    result = read(report(book(cell(failure(name, message))), outcome))
    assert (result.state, result.reason) == (RunState.FAILED, Reason(reason))


def test_the_error_is_cut_and_cleaned() -> None:
    told = {
        "cell": 0,
        "name": "E\x00\n" * 200,
        "message": "\x1b[31mno\x07\r\nwhy",
        "traceback": "t" * 10**6,
        "source": 7,
    }
    error = read(report(book(cell()), "failed", error=told)).error
    assert error is not None
    assert error.message == "no\nwhy"
    assert len(error.name) <= 200
    assert "\x00" not in error.name
    assert len(error.traceback) == 64 * 1024
    assert error.source == ""


@pytest.mark.parametrize("index", [-2, 1, 10**30, True, "0", None, 1.5])
def test_an_error_in_no_cell_is_not_believed(index: object) -> None:
    assert read(report(book(cell()), "failed", error={"cell": index, "name": "E"})).error is None
    found = read(report(book(cell(failure())), "failed", error={"cell": index, "name": "E"})).error
    assert found is not None
    assert (found.cell, found.name) == (0, "ValueError")


def test_a_start_that_failed_has_no_cell() -> None:
    error = read(
        report(book(cell()), "failed", reason="start_failed", error={"cell": -1, "name": "NoSuchKernel"})
    ).error
    assert error == CellError(-1, "NoSuchKernel", "")


def test_provenance_in_the_notebook_is_not_read() -> None:
    forged = {"run": "other", "template_digest": "sha256:0", "image_digest": "sha256:1", "attempt": 9, "notices": ["x"]}
    result = read(report(book(cell(output({"kind": "provenance", **forged})), metadata={"proverom": forged})))
    assert result == RunResult(RunState.SUCCEEDED, result.notebook, cells=(1, 1))


def test_the_runners_own_notice_is_kept() -> None:
    assert read(report(book(metadata={"proverom": {"notices": ["output_cut", "<b>"]}}))).notices == ("output_cut",)


def test_a_notebook_that_is_no_strict_json_is_made_so() -> None:
    text = json.dumps(book(cell(), metadata={"x": "PLACE", "y": 1.0})).replace('"PLACE"', r'[NaN, "\ud800", "æ"]')
    result = read(report(text.encode()))
    assert json.loads(result.notebook, parse_constant=pytest.fail)["metadata"]["x"] == [None, "?", "æ"]


# -- metrics ---------------------------------------------------------------------------------------------------------
def metric(**changes: object) -> dict[str, object]:
    return {"kind": "metric", "name": "m", "value": 1} | changes


@pytest.mark.parametrize(
    ("value", "kept", "flag"),
    [
        (2.5, 2.5, None),
        (-3, -3.0, None),
        ("nan", None, "nan"),
        ("inf", None, "inf"),
        ("-inf", None, "-inf"),
        (10**400, None, "inf"),
        (-(10**400), None, "-inf"),
    ],
)
def test_a_metrics_value(value: object, kept: float | None, flag: str | None) -> None:
    assert of(metric(value=value)).metrics == (Metric("m", kept, flag=flag),)


def test_a_number_beyond_all_floats_is_infinite() -> None:
    data = json.dumps(book(cell(output(metric(value=7))))).replace('"value": 7', '"value": 1e400').encode()
    assert read(report(data)).metrics == (Metric("m", None, flag="inf"),)


@pytest.mark.parametrize("value", [None, True, "2.5", "NaN", [], {}, ""])
def test_a_metric_without_a_number_is_none(value: object) -> None:
    result = of(metric(value=value), metric(name="good"))
    assert [m.name for m in result.metrics] == ["good"]
    assert result.notices == ("bad_record",)


@pytest.mark.parametrize(
    ("ci", "kept"),
    [(None, (None, None)), ([1, 2.5], (1.0, 2.5)), (["nan", 1], (None, None)), ([None, 1], (None, None))],
)
def test_an_interval(ci: object, kept: tuple[float | None, float | None]) -> None:
    [found] = of(metric(ci=ci, unit="pp", better="lower")).metrics
    assert (found.ci_low, found.ci_high, found.unit, found.better) == (*kept, "pp", "lower")


@pytest.mark.parametrize(
    "bad",
    [{"ci": [2, 1]}, {"ci": [1]}, {"ci": "1-2"}, {"ci": [True, 1]}, {"better": "more"}, {"unit": 5}, {"name": ""},
     {"name": None}, {"name": " \x00\n"}, {"name": "x" * 201}, {"name": "x" * 10**6}, {"kind": 7}, {"kind": None}],
)  # fmt: skip
def test_a_bad_metric_leaves_a_notice(bad: dict[str, object]) -> None:
    result = of(metric(**bad))
    assert (result.metrics, result.notices) == ((), ("bad_record",))


def test_of_the_same_name_the_last_one_counts() -> None:
    result = of(metric(name="é"), metric(name="b"), metric(name="e\u0301", value=9))
    assert [(m.name, m.value) for m in result.metrics] == [("é", 9.0), ("b", 1.0)]


def test_too_many_records_are_dropped() -> None:
    result = of(*[metric(name=f"m{i}") for i in range(300)], {"kind": "finding", "text": "kept"})
    assert len(result.metrics) == 200
    assert result.notices == ("records_dropped",)
    assert result.findings == ("kept",)


def test_text_cannot_steer_its_reader() -> None:
    result = of({"kind": "finding", "text": "a\u202egnp.exe\x00\x1b\r\nb\tc\ud800"})
    assert result.findings == ("a\\u202egnp.exe\nb\tc\ufffd",)


def test_unknown_kinds_are_left_alone() -> None:
    result = of({"kind": "hologram", "name": "x"})
    assert result == RunResult(RunState.SUCCEEDED, result.notebook, cells=(1, 1))


@pytest.mark.parametrize("record", ["text", 7, [], [metric()], {}, True])
def test_what_is_no_record_leaves_a_notice(record: object) -> None:
    assert of(record).notices == ("bad_record",)


# -- figures and tables ----------------------------------------------------------------------------------------------
def figure(data: bytes, mime: str = "image/png") -> dict[str, object]:
    encoded = base64.encodebytes(data).decode()
    return {"kind": "figure", "name": "f", "mime": mime, "data": encoded, "caption": "Svar", "alt": "Søyler"}


@pytest.mark.parametrize(
    ("data", "mime"), [(PNG, "image/png"), (SVG, "image/svg+xml"), (b"<svg></svg>", "image/svg+xml")]
)
def test_a_figure(data: bytes, mime: str) -> None:
    [found] = of(figure(data, mime)).figures
    assert (found.data, found.mime, found.caption, found.alt) == (data, mime, "Svar", "Søyler")


@pytest.mark.parametrize(
    ("record", "notice"),
    [
        (figure(b"GIF89a"), "bad_record"),
        (figure(PNG[:20]), "bad_record"),
        (figure(b""), "bad_record"),
        (figure(SVG), "bad_record"),
        (figure(PNG, "image/svg+xml"), "bad_record"),
        (figure(PNG, "text/html"), "bad_record"),
        (figure(b"<html><svg></svg>", "image/svg+xml"), "bad_record"),
        (figure(b'<!DOCTYPE svg [<!ENTITY a "b">]><svg></svg>', "image/svg+xml"), "bad_record"),
        (figure(b"<svg>\xff</svg>", "image/svg+xml"), "bad_record"),
        (figure(PNG) | {"data": "not base64!"}, "bad_record"),
        (figure(PNG) | {"data": "iVBORw0KGgo"}, "bad_record"),
        (figure(PNG) | {"data": None}, "bad_record"),
        (figure(PNG + bytes(6 * 1024 * 1024)), "figure_too_big"),
        (figure(PNG[:16] + struct.pack(">II", 50_000, 50_000) + PNG[24:]), "figure_too_big"),
    ],
)  # fmt: skip
def test_what_is_no_figure(record: object, notice: str) -> None:
    result = of(record)
    assert (result.figures, result.notices) == ((), (notice,))


def table(columns: object, rows: object) -> dict[str, object]:
    return {"kind": "table", "name": "t", "columns": columns, "rows": rows}


def test_a_table() -> None:
    [found] = of(table(["kontor", 2024], [["Bergen", 1], [None, 2.5], [True, 2**70], ["=HYPERLINK()", -1]])).tables
    assert found.columns == ("kontor", "2024")
    assert found.rows == (("Bergen", 1), (None, 2.5), (True, str(2**70)), ("=HYPERLINK()", -1))


@pytest.mark.parametrize(
    "record",
    [table([], []), table("ab", []), table(["a"], {}), table(["a"], [[1, 2]]), table(["a"], [1]), table(["a"], [[[]]]),
     table([["a"]], []), table(["a"] * 101, [])],
)  # fmt: skip
def test_what_is_no_table(record: object) -> None:
    result = of(record)
    assert (result.tables, result.notices) == ((), ("bad_record",))


def test_a_long_table_is_cut() -> None:
    result = of(table(["a"], [[i] for i in range(2001)]))
    assert (len(result.tables[0].rows), result.notices) == (2000, ("table_cut",))


# -- anything at all -------------------------------------------------------------------------------------------------
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
keys = ["kind", "name", "value", "unit", "ci", "better", "mime", "data", "caption", "alt", "columns", "rows", "text"]
kinds = st.sampled_from(["metric", "figure", "table", "finding"])
records = st.builds(
    lambda kind, rest: {"name": "x"} | rest | {"kind": kind}, kinds, st.dictionaries(st.sampled_from(keys), values)
)


def safe(text: str) -> bool:
    return not any((ord(c) < 32 and c not in "\n\t") or 0xD800 <= ord(c) < 0xE000 or c == "\u202e" for c in text)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(records | values, max_size=6))
def test_any_records_become_safe_values(given_records: list[object]) -> None:
    result = of(*given_records)
    for found in result.metrics:
        assert found.value is None or math.isfinite(found.value)
        assert safe(found.name + found.unit)
    for text in result.findings:
        assert safe(text)
    for each in result.tables:
        assert all(len(row) == len(each.columns) for row in each.rows)
        json.dumps(each.rows, allow_nan=False)


@settings(deadline=None)
@given(st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(BadResult):
        read(report(data))


def test_a_notebook_made_to_be_slow_is_refused_by_the_validator_that_stops_at_the_first_fault() -> None:
    outputs = [{"output_type": "bad"} for _ in range(20_000)]
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "source": "", "outputs": outputs}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    with pytest.raises(BadResult, match="is not valid") as refused:
        read(RunnerReport("succeeded", json.dumps(notebook).encode()))
    assert len(str(refused.value)) < 400


def test_cells_are_counted_as_code_that_was_executed_without_an_error() -> None:
    def code(source: str, count: int | None, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        return {"cell_type": "code", "id": f"c{len(source)}", "metadata": {}, "execution_count": count,
                "source": source, "outputs": outputs}  # fmt: skip

    error = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    cells = [code("1", 1, []), code("22", 2, [error]), code("333", None, []), code("", None, [])]
    text = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Text"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [text, *cells]}
    assert read(RunnerReport("failed", json.dumps(notebook).encode())).cells == (1, 3)
