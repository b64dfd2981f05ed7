"""run-vs-papermill: from submitting a run to its recorded result, against ``papermill`` on the bare machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import Row, alternating, seconds
from tests.lab import API, NAV, PROJECT, Lab

TEMPLATE = "letter-ab-test"
NOTEBOOK = PROJECT / "lab_templates" / "library" / TEMPLATE / "template.ipynb"
RESULT = "application/vnd.proverom.result+json"


def papermill_environment(work: Path) -> Path:
    """Return the ``bin`` of an environment with papermill and the template's libraries, made if need be.

    An environment of its own is what somebody who uses papermill would have. In one that JupyterLab shares, papermill
    starts up to twice as slowly, which would flatter the lab.
    """
    requirements = PROJECT / "requirements" / "runner.txt"
    stamp = hashlib.sha256(requirements.read_bytes()).hexdigest()
    home = work / "papermill"
    if (home / "stamp").is_file() and (home / "stamp").read_text() == stamp:
        return home / "bin"
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "-qq"]
    subprocess.run([*pip, "-r", str(requirements)], check=True, cwd=PROJECT)
    subprocess.run([*pip, "--no-deps", str(PROJECT)], check=True, cwd=PROJECT)  # experiments.record
    (home / "stamp").write_text(stamp)
    return home / "bin"


def measure(lab: Lab, work: Path, *, repetitions: int, say: Callable[[str], None]) -> Row:
    """Measure the row; raise RuntimeError if the two sides did not come to the same metrics."""
    papermill = papermill_environment(work) / "papermill"
    metrics: dict[str, dict[str, Any]] = {}

    with lab.client("team") as client, tempfile.TemporaryDirectory(dir=work) as folder:
        output = Path(folder) / "executed.ipynb"

        def submit_until_recorded() -> None:
            body = {"template": TEMPLATE, "agency": NAV, "parameters": {}}
            run = client.post(f"{API}/runs", json=body).raise_for_status().json()["id"]
            ended = lab.wait_for_run(client, run)
            if ended["state"] != "succeeded":
                raise RuntimeError(f"Run {run} ended as {ended['state']}: {ended}")
            metrics["ours"] = {m["name"]: m["value"] for m in ended["metrics"]}

        def papermill_command() -> None:
            command = [str(papermill), str(NOTEBOOK), str(output), "--no-progress-bar"]
            subprocess.run(command, check=True, cwd=folder, capture_output=True)

        row = alternating(
            "run-vs-papermill",
            lambda: seconds(submit_until_recorded),
            lambda: seconds(papermill_command),
            repetitions=repetitions,
            say=say,
        )
        metrics["theirs"] = recorded_metrics(output)
    if metrics["ours"] != metrics["theirs"]:
        raise RuntimeError(f"The two sides did not do the same work: {metrics}")
    return row


def recorded_metrics(notebook: Path) -> dict[str, Any]:
    """Return the metrics that an executed notebook carries in its outputs."""
    found: dict[str, Any] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            result = output.get("data", {}).get(RESULT, {})
            if result.get("kind") == "metric":
                found[result["name"]] = result["value"]
    return found
