"""The result of a trivial run, as its runner would send it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbformat.v4 import new_code_cell, new_notebook, new_output, writes

from experiments.record import MIME


def executed(given: Mapping[str, Any]) -> str:
    """Return an executed notebook that records the right answer; ``given`` are its parameters."""
    answer = {
        "kind": "metric",
        "name": "answer",
        "value": 2 * int(given["n"]) + 1,
        "unit": "",
        "ci": None,
        "better": None,
    }
    output = new_output("display_data", data={MIME: answer, "text/plain": "answer"})  # type: ignore[no-untyped-call]
    cell = new_code_cell("record.metric('answer', 2 * n + 1)", execution_count=1, outputs=[output])  # type: ignore[no-untyped-call]
    return str(writes(new_notebook(cells=[cell])))  # type: ignore[no-untyped-call]
