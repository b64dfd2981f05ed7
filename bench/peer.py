"""The other side: papermill as somebody uses it who has no lab, in an environment of its own on the bare machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.lab import PROJECT

RESULT = "application/vnd.proverom.result+json"


@dataclass(frozen=True, slots=True)
class Peer:
    """``bin`` is the environment's; ``folder`` is where executed notebooks go."""

    bin: Path
    folder: Path

    @property
    def python(self) -> str:
        return str(self.bin / "python")

    def papermill(self, notebook: Path, output: str = "executed.ipynb", **parameters: object) -> Path:
        """Run the papermill command and return the executed notebook. Raise CalledProcessError."""
        given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
        command = [str(self.bin / "papermill"), str(notebook), output, "--no-progress-bar", *given]
        subprocess.run(command, check=True, cwd=self.folder, capture_output=True)
        return self.folder / output

    def sweep(self, notebook: Path, parameter: str, values: range, *, at_a_time: int) -> dict[int, Path]:
        """Run the papermill command for each value, ``at_a_time`` of them, with xargs. Raise CalledProcessError."""
        papermill = str(self.bin / "papermill")
        each = [papermill, str(notebook), f"{parameter}-{{}}.ipynb", "--no-progress-bar", "-p", parameter, "{}"]
        subprocess.run(
            ["xargs", f"-P{at_a_time}", "-I{}", *each],
            input="\n".join(map(str, values)),
            text=True,
            check=True,
            cwd=self.folder,
            capture_output=True,
        )
        return {value: self.folder / f"{parameter}-{value}.ipynb" for value in values}

    def script(self, code: str) -> dict[str, Any]:
        """Run ``python -c`` and return the JSON object of its last line. Raise CalledProcessError."""
        done = subprocess.run([self.python, "-c", code], check=True, cwd=self.folder, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def environment(work: Path) -> Path:
    """Return the ``bin`` of an environment with papermill and the templates' libraries, made if need be.

    An environment of its own is what somebody who uses papermill would have. In one that JupyterLab shares, papermill
    starts up to twice as slowly, which would flatter the lab.
    """
    requirements = PROJECT / "requirements" / "runner.txt"
    recording = PROJECT / "experiments" / "record.py"
    stamp = hashlib.sha256(requirements.read_bytes() + recording.read_bytes()).hexdigest()
    home = work / "papermill"
    if (home / "stamp").is_file() and (home / "stamp").read_text() == stamp:
        return home / "bin"
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "-qq"]
    subprocess.run([*pip, "-r", str(requirements)], check=True, cwd=PROJECT)
    subprocess.run([*pip, "--no-deps", str(PROJECT)], check=True, cwd=PROJECT)  # experiments.record
    (home / "stamp").write_text(stamp)
    return home / "bin"


def recorded_metrics(notebook: Path) -> dict[str, Any]:
    """Return the metrics that an executed notebook carries in its outputs."""
    found: dict[str, Any] = {}
    for cell in _cells(notebook.read_bytes()):
        for output in cell.get("outputs", []):
            result = output.get("data", {}).get(RESULT, {})
            if result.get("kind") == "metric":
                found[result["name"]] = result["value"]
    return found


def cell_seconds(notebook: bytes) -> float:
    """Return how long the cells of a notebook took that papermill has executed: their ends less their beginnings."""
    told = [cell["metadata"].get("papermill", {}) for cell in _cells(notebook)]
    return sum(_seconds(t["start_time"], t["end_time"]) for t in told if t.get("start_time") and t.get("end_time"))


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _cells(notebook: bytes) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(notebook)["cells"]
    return cells
