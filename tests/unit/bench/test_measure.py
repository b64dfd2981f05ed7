"""The bench's arithmetic: a ratio that can be trusted, from both sides measured in turn."""

from __future__ import annotations

import json
from itertools import chain, repeat
from pathlib import Path

from bench.measure import Row, alternating, machine
from bench.papermill_row import recorded_metrics


def test_the_ratio_says_how_many_times_quicker_the_lab_is() -> None:
    row = Row("x", ours=0.5, theirs=2.0)
    assert row.ratio == 4
    assert row.as_dict() == {"name": "x", "ratio": 4.0, "ours": 0.5, "theirs": 2.0, "unit": "s"}


def test_both_sides_are_measured_in_turn_and_the_first_pair_does_not_count() -> None:
    order: list[str] = []
    mine = chain([100.0], repeat(1.0))
    other = chain([100.0, 2.0, 9.0], repeat(3.0))

    def ours() -> float:
        order.append("ours")
        return next(mine)

    def theirs() -> float:
        order.append("theirs")
        return next(other)

    said: list[str] = []
    row = alternating("x", ours, theirs, repetitions=3, say=said.append)
    assert order == ["ours", "theirs"] * 4
    assert (row.ours, row.theirs) == (1.0, 3.0)
    assert len(said) == 4


def test_the_machine_is_described() -> None:
    found = machine({"docker": "20.10"})
    assert found["cores"]
    assert found["docker"] == "20.10"


def test_metrics_are_read_from_an_executed_notebook(tmp_path: Path) -> None:
    mime = "application/vnd.proverom.result+json"
    outputs = [
        {"data": {mime: {"kind": "metric", "name": "difference", "value": 2.3}}},
        {"data": {mime: {"kind": "finding", "text": "a"}}},
        {"name": "stdout", "text": "x"},
    ]
    path = tmp_path / "executed.ipynb"
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": outputs}]}))
    assert recorded_metrics(path) == {"difference": 2.3}
