"""What a runner keeps of a kernel's output."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from experiments.runner.execution import fit
from experiments.runner.outputs import RESULT_MIME, Admission, OutputBudget, Tail, plain

KIB = 1024


def stream(text: str) -> dict[str, Any]:
    return {"msg_type": "stream", "content": {"name": "stdout", "text": text}}


def display(data: dict[str, Any]) -> dict[str, Any]:
    return {"msg_type": "display_data", "content": {"data": data, "metadata": {}}}


# -- the tail --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([], ""),
        (["a\n", "b"], "a\nb"),
        (["\x1b[31mrød\x1b[0m\n\n\n"], "rød"),
        (["10 %\r", "50 %\r", "100 %\n"], "100 %"),
        (["x\r\n", "y\r\n"], "x\ny"),
        (["\x1b]0;title\x07ok"], "ok"),
    ],
)
def test_the_tail_shows_what_a_terminal_would(pieces: list[str], shown: str) -> None:
    tail = Tail()
    for piece in pieces:
        tail.add(piece)
    assert tail.read() == shown


def test_the_tail_is_twenty_lines() -> None:
    tail = Tail()
    for i in range(100):
        tail.add(f"{i}\n")
    assert tail.read().split("\n") == [str(i) for i in range(80, 100)]


@given(st.lists(st.text(max_size=3000), max_size=8))
def test_the_tail_is_at_most_four_kilobytes_of_utf8(pieces: list[str]) -> None:
    tail = Tail()
    for piece in pieces:
        tail.add(piece)
    assert len(tail.read().encode()) <= 4096


def test_plain_text_is_left_alone() -> None:
    assert plain("[31m æøå \\x1b") == "[31m æøå \\x1b"


# -- the budget ------------------------------------------------------------------------------------------------------
def test_a_stream_is_shortened_then_dropped() -> None:
    budget = OutputBudget(100 * KIB)
    first, second, third = stream("a" * 60 * KIB), stream("b" * 60 * KIB), stream("c")
    assert budget.admit(first, 0) is Admission.WHOLE
    assert budget.admit(second, 0) is Admission.SHORTENED
    assert budget.admit(third, 1) is Admission.NOTHING
    assert len(first["content"]["text"]) == 60 * KIB
    assert 10 * KIB < len(second["content"]["text"]) < 16 * KIB


def test_a_stream_is_not_cut_inside_a_letter() -> None:
    message = stream("æ" * 100 * KIB)
    assert OutputBudget(100 * KIB).admit(message, 0) is Admission.SHORTENED
    assert set(message["content"]["text"]) == {"æ"}


def test_a_flood_leaves_room_for_records() -> None:
    budget = OutputBudget(100 * KIB)
    budget.admit(stream("a" * 200 * KIB), 0)
    assert budget.admit(display({"text/html": "x"}), 1) is Admission.NOTHING
    assert budget.admit(display({RESULT_MIME: {"kind": "finding", "text": "x"}}), 1) is Admission.WHOLE
    assert budget.admit(display({RESULT_MIME: {"kind": "figure", "data": "x" * 100 * KIB}}), 1) is Admission.NOTHING


def test_what_is_cleared_is_given_back() -> None:
    budget = OutputBudget(100 * KIB)
    for _ in range(10):
        assert budget.admit(display({"image/png": "x" * 60 * KIB}), 0) is Admission.WHOLE
        budget.admit({"msg_type": "clear_output", "content": {"wait": True}}, 0)


def test_a_display_that_is_updated_counts_once() -> None:
    budget = OutputBudget(100 * KIB)
    update = {
        "msg_type": "update_display_data",
        "content": {"data": {"text/plain": "x" * KIB}, "transient": {"display_id": "bar"}},
    }
    assert {budget.admit(update, 0) for _ in range(1000)} == {Admission.WHOLE}


def test_empty_outputs_are_not_free() -> None:
    budget = OutputBudget(100 * KIB)
    kept = [budget.admit(stream(""), 0) for _ in range(1000)]
    assert Admission.NOTHING in kept


def test_an_error_is_always_kept_and_shortened() -> None:
    budget = OutputBudget(KIB)
    error = {"msg_type": "error", "content": {"ename": "E" * 999, "evalue": "v" * 10**6, "traceback": ["t" * 10**6]}}
    assert budget.admit(error, 0) is Admission.WHOLE
    assert sum(len(str(value)) for value in error["content"].values()) < 80 * KIB


def test_a_notice_is_due_once_for_each_cell() -> None:
    budget = OutputBudget(KIB)
    assert [budget.first_cut(0), budget.first_cut(0), budget.first_cut(1)] == [True, False, True]
    assert budget.cut


# -- the notebook that is sent ---------------------------------------------------------------------------------------
def test_a_notebook_that_fits_is_sent_as_it_is() -> None:
    book = new_notebook(cells=[new_code_cell("1", outputs=[new_output("stream", text="a" * KIB)])])
    assert fit(book, 100 * KIB) == nbformat.writes(book)


def test_of_one_that_does_not_the_largest_outputs_go_and_records_stay() -> None:
    outputs = [
        new_output("stream", text="small"),
        new_output("stream", text="\x00" * 50 * KIB),  # six bytes each in JSON
        new_output("display_data", {RESULT_MIME: {"kind": "finding", "text": "kept"}}),
    ]
    text = fit(new_notebook(cells=[new_code_cell("1", outputs=outputs)]), 100 * KIB)
    assert len(text) <= 100 * KIB
    book = nbformat.reads(text, as_version=4)
    assert [out.output_type for out in book.cells[0].outputs] == ["stream", "display_data"]
    assert book.metadata.proverom.notices == ["output_cut"]
