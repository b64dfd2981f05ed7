"""What the runner makes of real notebooks is what the ``papermill`` command makes of them."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from experiments.model import RunResult, RunState
from experiments.testing import InMemoryRunQueue
from tests.integration.runner_hub import AGENCY, RunnerHub, RunnerProcess

CASES = Path(__file__).parents[1] / "cases" / "conformity"
NOTEBOOKS = sorted(path.stem for path in CASES.glob("*.ipynb"))
PARAMETERS = {"alpha": 0.25, "name": 'a "b" æøå'}
_PASSING = {"start_time", "end_time", "duration", "input_path", "output_path"}
# What a text must hold for the pattern to be looked for: some of them take minutes over a megabyte without a blank.
_VARYING = [
    ("ipykernel_", re.compile(r"(?:/[^\s/]+)*/ipykernel_\d+[/\\]\d+\.py"), "ipykernel_N/N.py"),
    ("0x", re.compile(r"0x[0-9a-f]{6,}"), "0xN"),
    ("<dc:date>", re.compile(r"<dc:date>[^<]*"), "<dc:date>"),
    ("T_", re.compile(r"T_[0-9a-f]{5}"), "T_N"),
    (".json", re.compile(r"\S*/(?:k|kernel-[0-9a-f-]+)\.json"), "CONNECTION"),
]


@dataclass
class Both:
    ours: dict[str, RunResult]
    theirs: dict[str, Any]


def has_parameters(data: bytes) -> bool:
    return any("parameters" in cell["metadata"].get("tags", []) for cell in json.loads(data)["cells"])


def papermill_command(name: str, folder: Path) -> Any:
    """Return what the command makes of a notebook, on the terms on which the runner works."""
    output, work = folder / f"{name}.ipynb", folder / name
    work.mkdir()
    source = CASES / f"{name}.ipynb"
    command = [sys.executable, "-m", "papermill", str(source), str(output), "--no-progress-bar", "--cwd", str(work)]
    if has_parameters(source.read_bytes()):
        (folder / f"{name}.yaml").write_text(json.dumps(PARAMETERS))
        command += ["-f", str(folder / f"{name}.yaml")]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    environment |= {"JUPYTER_PATH": str(CASES), "IPYTHONDIR": str(folder / "ipython")}
    subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    return nbformat.read(output, as_version=4)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    queue = InMemoryRunQueue(lease_seconds=15)
    queue.add_agency(AGENCY, "nav", max_concurrent=10)
    hub = RunnerHub(queue)
    hub.start()
    runs = {}
    for name in NOTEBOOKS:
        data = (CASES / f"{name}.ipynb").read_bytes()
        kernel = json.loads(data)["metadata"]["kernelspec"]["name"]
        parameters = PARAMETERS if has_parameters(data) else {}
        runs[name] = hub.submit(data, parameters=parameters, kernel=kernel, sweep="all").id
    runner = RunnerProcess(hub, tmp_path_factory.mktemp("runner"), hub.open_runner(slots=2, batch_limit=100))
    runner.start(PROVEROM_RUNNER_SLOTS="2", JUPYTER_PATH=str(CASES))
    folder = tmp_path_factory.mktemp("papermill")
    with ThreadPoolExecutor(2) as pool:
        theirs = dict(zip(NOTEBOOKS, pool.map(lambda name: papermill_command(name, folder), NOTEBOOKS), strict=True))
    assert runner.wait(300) == 0, runner.log()
    ours = {}
    for name, run in runs.items():
        result = queue.result(run)
        assert result is not None, name
        ours[name] = result
    yield Both(ours, theirs)
    hub.stop()


def comparable(notebook: Any) -> Any:
    """Return a notebook without what differs between any two executions of it."""
    cells = []
    for cell in notebook.cells:
        metadata = dict(cell.metadata)
        metadata["papermill"] = {k: v for k, v in metadata.get("papermill", {}).items() if k not in _PASSING}
        if "execution" in metadata:
            metadata["execution"] = sorted(metadata["execution"])  # what was timed, not when
        kept: dict[str, Any] = {"type": cell.cell_type, "source": cell.source, "metadata": metadata}
        if re.fullmatch(r"c\d{1,3}", cell.get("id", "")):  # ours; one that nbformat makes has eight characters
            kept["id"] = cell.id
        if cell.cell_type == "code":
            kept |= {"count": cell.execution_count, "outputs": merged(cell.outputs)}
        if "attachments" in cell:
            kept["attachments"] = cell.attachments
        cells.append(kept)
    metadata = dict(notebook.metadata)
    metadata["papermill"] = {k: v for k, v in metadata["papermill"].items() if k not in _PASSING}
    return steady(json.loads(json.dumps({"cells": cells, "metadata": metadata, "minor": notebook.nbformat_minor})))


def merged(outputs: list[Any]) -> list[Any]:
    """Join what one stream said at a stretch: where it is cut depends on the moment."""
    found: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].get("name") == output.name:
            found[-1]["text"] += output.text
        else:
            found.append(dict(output))
    return found


def steady(value: Any) -> Any:
    if isinstance(value, str):
        for part, pattern, instead in _VARYING:
            if part in value:
                value = pattern.sub(instead, value)
        return value
    if isinstance(value, list):
        return [steady(item) for item in value]
    if isinstance(value, dict):
        return {steady(key): steady(item) for key, item in value.items()}
    return value


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_comes_out_as_from_the_papermill_command(both: Both, name: str) -> None:
    ours = nbformat.reads(both.ours[name].notebook.decode(), as_version=4)
    lines = [
        json.dumps(comparable(book), indent=1, ensure_ascii=False, sort_keys=True).splitlines()
        for book in (both.theirs[name], ours)
    ]
    # A short list: pytest would compare a large notebook for minutes.
    different = [line[:300] for line in difflib.unified_diff(*lines, "papermill", "runner", n=1, lineterm="")]
    assert not different, "\n".join(different[:40])


def test_the_cases_are_what_they_are_meant_to_be(both: Both) -> None:
    """A case in which both fail for a reason of the test's own would prove nothing."""
    failed = {name for name, result in both.ours.items() if result.state is not RunState.SUCCEEDED}
    assert failed == {
        "bash-fails",
        "error",
        "error-allowed",  # papermill goes on after it, and then fails all the same
        "inline-kernel-error",
        "no-parameters-cell",
        "other-kernel",
        "syntax-error",
    }
