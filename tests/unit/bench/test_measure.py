"""The bench's arithmetic: a ratio that can be trusted, from both sides measured in turn."""

from __future__ import annotations

import json
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import ROWS, arguments, report, write
from bench.kernel_row import kernels, pss
from bench.lab import source
from bench.measure import Bound, Row, alternating, machine, merged
from bench.peer import cell_seconds, recorded_metrics
from bench.run_rows import require_same, script


def test_the_ratio_is_that_of_the_rows_own_sense() -> None:
    assert Row("x", 0.5, 2.0).ratio == 4
    assert Row("x", 0.5, 2.0, sense="ours / theirs").ratio == 0.25
    assert Row("x", 3.0, None, sense="ours").ratio == 3


def test_a_row_is_written_with_what_was_measured_beside_it() -> None:
    row = Row("x", 0.5, 2.0, beside={"listing_s": 0.12345})
    assert row.as_dict() == {
        "name": "x",
        "ratio": 4.0,
        "ours": 0.5,
        "theirs": 2.0,
        "unit": "s",
        "beside": {"listing_s": 0.123},
    }
    assert Row("x", 3.0, None, sense="ours").as_dict()["theirs"] is None
    assert "beside" not in Row("x", 0.5, 2.0).as_dict()


@pytest.mark.parametrize(
    ("bound", "ratio", "kept"),
    [
        (Bound(least=10), 9.99, False),
        (Bound(least=10), 10, True),
        (Bound(most=0.25), 0.25, True),
        (Bound(most=0.25), 0.2506, False),
        (Bound(), 1e9, True),
    ],
)
def test_a_bound_is_kept_up_to_and_including_itself(bound: Bound, ratio: float, kept: bool) -> None:
    assert Row("x", ratio, None, sense="ours", bound=bound).kept is kept


def test_a_ratio_is_judged_as_it_is_written_down() -> None:
    row = Row("x", 0.25001, None, sense="ours", bound=Bound(most=0.25))
    assert row.as_dict()["ratio"] == 0.25
    assert row.kept


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
    assert alternating("x", ours, theirs, repetitions=3, say=said.append) == (1.0, 3.0)
    assert order == ["ours", "theirs"] * 4
    assert len(said) == 4


def test_the_machine_is_described() -> None:
    found = machine({"docker": "20.10"})
    assert found["cores"]
    assert found["docker"] == "20.10"


# -- which rows ------------------------------------------------------------------------------------------------------


def test_rows_that_are_not_measured_stay_as_they_were_and_all_keep_their_order() -> None:
    before = [{"name": "b", "ratio": 1}, {"name": "gone", "ratio": 2}, {"name": "a", "ratio": 3}]
    assert merged(before, [{"name": "b", "ratio": 9}], ["a", "b", "c"]) == [
        {"name": "a", "ratio": 3},
        {"name": "b", "ratio": 9},
    ]


def test_results_are_written_among_those_of_before(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write(path, [Row("kernel-pss", 1.0, 4.0, "MiB", "ours / theirs"), Row("sweep-trivial", 9.0, 1.0)], {"cores": 2})
    write(path, [Row("kernel-pss", 1.0, 2.0, "MiB", "ours / theirs")], {"cores": 4})
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["machine"] == {"cores": 4}
    assert [(row["name"], row["ratio"]) for row in found["results"]] == [("sweep-trivial", 0.111), ("kernel-pss", 0.5)]


def test_results_that_cannot_be_read_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("{")
    assert write(path, [Row("kernel-pss", 1.0, 4.0)], {})["results"] == [Row("kernel-pss", 1.0, 4.0).as_dict()]


def test_rows_are_chosen_by_name_and_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert arguments(["kernel-pss"]).rows == ["kernel-pss"]
    assert arguments([]).rows == []
    with pytest.raises(SystemExit):
        arguments(["kernel-psss"])
    assert "kernel-psss" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        arguments(["--repetitions", "0"])


def test_the_rows_that_were_promised_are_there() -> None:
    promised = (
        "run-vs-papermill desk-vs-docker-run sweep-scientific sweep-trivial warm-overhead run-vs-python kernel-pss "
        "submit-10000 claim-at-1m"
    )
    assert set(promised.split()) <= set(ROWS)


def test_a_bound_that_is_not_kept_is_said() -> None:
    rows = [Row("kept", 1.0, 4.0, bound=Bound(least=1)), Row("not", 4.0, 1.0, bound=Bound(least=1)), Row("free", 1, 1)]
    assert list(report(rows).columns[-1].cells) == ["kept", "NOT KEPT", ""]


# -- reading what was measured ---------------------------------------------------------------------------------------


def notebook(*cells: dict[str, Any]) -> bytes:
    return json.dumps({"cells": list(cells)}).encode()


def test_metrics_are_read_from_an_executed_notebook(tmp_path: Path) -> None:
    mime = "application/vnd.proverom.result+json"
    outputs = [
        {"data": {mime: {"kind": "metric", "name": "difference", "value": 2.3}}},
        {"data": {mime: {"kind": "finding", "text": "a"}}},
        {"name": "stdout", "text": "x"},
    ]
    path = tmp_path / "executed.ipynb"
    path.write_bytes(notebook({"cell_type": "markdown"}, {"cell_type": "code", "outputs": outputs}))
    assert recorded_metrics(path) == {"difference": 2.3}


def test_the_cells_own_time_is_what_papermill_noted() -> None:
    def cell(start: str | None, end: str | None) -> dict[str, Any]:
        return {"metadata": {"papermill": {"start_time": start, "end_time": end}}}

    executed = notebook(
        cell("2026-11-23T21:24:26.500000", "2026-11-23T21:24:26.750000"),
        cell("2026-11-23T21:24:59.900000+00:00", "2026-11-23T21:25:00.400000+00:00"),
        cell("2026-11-23T21:25:01", None),
        {"metadata": {}},
    )
    assert cell_seconds(executed) == 0.75


def test_kernels_are_what_a_warden_has_beside_its_worker() -> None:
    runner, zygote, keeper = (10, 1), (11, 10), (12, 10)
    first, second = [(20, 11), (21, 20), (22, 20)], [(30, 11), (31, 30), (32, 30)]
    a_cells_own_child = (33, 32)
    assert kernels([runner, zygote, keeper, *first, *second, a_cells_own_child]) == [(22, 21), (32, 31)]
    assert kernels([runner, zygote, (20, 11), (21, 20)]) == []


def test_pss_is_read_in_mebibytes() -> None:
    assert pss("55d0-7fff ---p 00000000 00:00 0 [rollup]\nRss: 9999 kB\nPss:  2048 kB\nPss_Dirty: 1 kB\n") == 2
    with pytest.raises(ValueError, match="Pss"):
        pss("Rss: 1 kB\n")


# -- the same work on both sides -------------------------------------------------------------------------------------


def test_sides_that_found_something_else_or_nothing_are_refused() -> None:
    require_same("x", {"ours": {"a": 1.0}, "theirs": {"a": 1.0}})
    for ours, theirs in (({"a": 1.0}, {"a": 1.1}), ({}, {}), ({1: {}}, {2: {}})):
        with pytest.raises(RuntimeError, match="same work"):
            require_same("x", {"ours": ours, "theirs": theirs})


def test_plain_python_does_the_notebooks_work_and_says_its_metrics(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    exec(compile(script(source("scientific")), "script", "exec"), {"__name__": "script"})  # noqa: S102
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() == {"slope", "spread"}
    assert found["slope"] == pytest.approx(2.5, abs=0.3)


def test_a_notebook_that_plain_python_could_not_do_is_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        script(["from experiments import record"])
