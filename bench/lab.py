"""The bench's own lab: the lab as it is installed, with the bench's templates, used through its HTTP API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import httpx

from tests.lab import API, NAV, PROJECT, Lab, own_lab

TEMPLATES = Path(__file__).resolve().parent / "templates"
LETTER = PROJECT / "lab_templates" / "library" / "letter-ab-test" / "template.ipynb"
PERSON = "team"
AT_A_TIME = 8  # runs of the agency: all that the lab has room for, for nobody else is there
_OPEN = frozenset({"queued", "running"})
_LONGEST_SWEEP = 600.0
_READY_SECONDS = 30.0


def notebook(template: str) -> Path:
    """Return the notebook of one of the bench's own templates."""
    return TEMPLATES / template / "template.ipynb"


def source(template: str) -> list[str]:
    """Return the code of a template's cells."""
    cells = json.loads(notebook(template).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@dataclass(frozen=True, slots=True)
class BenchLab:
    """``client`` is signed in as a member of the agency; ``engine`` is a Docker client."""

    lab: Lab
    client: httpx.Client
    engine: Any

    def run(self, template: str, **parameters: object) -> dict[str, Any]:
        """Submit a run and return it as recorded. Raise RuntimeError unless it has succeeded."""
        body = {"template": template, "agency": NAV, "parameters": parameters}
        run = self.client.post(f"{API}/runs", json=body).raise_for_status().json()["id"]
        ended = self.lab.wait_for_run(self.client, run)
        if ended["state"] != "succeeded":
            raise RuntimeError(f"Run {run} ended as {ended['state']}: {ended}")
        return ended

    def executed(self, run: str) -> bytes:
        """Return a run's executed notebook."""
        return self.client.get(f"{API}/runs/{run}/notebook").raise_for_status().content

    def submit_sweep(self, template: str, **grid: object) -> str:
        """Submit a sweep over a grid and return its id."""
        body = {"template": template, "agency": NAV, "grid": grid}
        sweep: str = self.client.post(f"{API}/sweeps", json=body).raise_for_status().json()["id"]
        return sweep

    def wait_for_sweep(self, sweep: str) -> None:
        """Return once every run of the sweep is recorded. Raise RuntimeError if one did not succeed."""
        deadline = time.monotonic() + _LONGEST_SWEEP
        while time.monotonic() < deadline:
            for state in self._sweep_states(sweep):
                if state["state"] == "succeeded":
                    return
                if state["state"] not in _OPEN:
                    failed = self.client.get(f"{API}/runs", params={"sweep": sweep, "state": "failed"}).json()["items"]
                    raise RuntimeError(f"Sweep {sweep} ended as {state['state']}: {state['counts']}. {failed[:1]}")
        raise RuntimeError(f"Sweep {sweep} did not end within {_LONGEST_SWEEP:.0f} s.\n{self.lab.log()}")

    def sweep_metrics(self, sweep: str, parameter: str) -> dict[Any, dict[str, float]]:
        """Return the metrics of a sweep's runs by the value of the parameter that varies."""
        page = self.client.get(f"{API}/sweeps/{sweep}/points").raise_for_status().json()
        return {point["parameters"][parameter]: point["metrics"] for point in page["items"]}

    def cancel_sweep(self, sweep: str) -> None:
        self.client.post(f"{API}/sweeps/{sweep}/cancel").raise_for_status()

    def settle(self) -> None:
        """Wait until a runner waits, warm, that has done nothing yet, and nothing else of the lab is at work.

        That is the state that somebody meets who uses the lab every now and then. Where it does not come about within
        half a minute the measurement goes on: a lab that keeps no runner warm is measured as it is.
        """
        deadline = time.monotonic() + _READY_SECONDS
        before: dict[str, int] = {}
        while time.monotonic() < deadline:
            now = {c.id: _cpu_ticks(c) for c in self.runners()}
            fresh = [c for c in self.runners() if _untouched(c)]
            if fresh and now.keys() == before.keys() and all(now[id] - before[id] <= 1 for id in now):
                return
            before = now
            time.sleep(0.5)

    def runners(self) -> list[Any]:
        """Return the containers of the lab's runners."""
        labels = [f"no.proverom.lab={self.lab.name}", "no.proverom.kind=runner"]
        found: list[Any] = self.engine.containers.list(filters={"label": labels})
        return found

    def _sweep_states(self, sweep: str) -> Iterator[dict[str, Any]]:
        try:
            with self.client.stream("GET", f"{API}/sweeps/{sweep}/events") as stream:
                stream.raise_for_status()
                for line in stream.iter_lines():
                    if line.startswith("data:") and line.removeprefix("data:").strip().startswith("{"):
                        yield json.loads(line.removeprefix("data:"))
        except (httpx.ReadTimeout, httpx.RemoteProtocolError):
            return


@contextmanager
def bench_lab(name: str, *templates: str, at_a_time: int = AT_A_TIME, **settings: str) -> Iterator[BenchLab]:
    """Start a lab with these templates published, and end it. ``settings``: ``section__name=value``."""
    engine = docker.from_env(timeout=120)
    try:
        with own_lab(name, "docker", **settings) as lab:
            for template in templates:
                lab.proverom("templates", "publish", str(TEMPLATES / template), "--as", "coordinator")
                lab.proverom("templates", "approve", f"bench-{template}@1.0.0", "--as", "admin")
            limit = str(at_a_time)
            lab.proverom("agencies", "change", "nav", "--max-concurrent-runs", limit, "--as", "admin")
            with lab.client(PERSON) as client:
                yield BenchLab(lab, client, engine)
    finally:
        engine.close()


def processes(container: Any) -> list[tuple[int, int]]:
    """Return (pid, parent's pid) of each process in a container, as this machine numbers them."""
    try:
        listed = container.top(ps_args="-eo pid,ppid")
    except docker.errors.APIError:  # it has ended meanwhile
        return []
    return [(int(row[0]), int(row[1])) for row in listed["Processes"] or ()]


def _untouched(container: Any) -> bool:
    """Say whether a runner lives that has not begun with any run."""
    try:
        return b"starting" not in container.logs()
    except docker.errors.APIError:  # it is being removed
        return False


def _cpu_ticks(container: Any) -> int:
    return sum(_ticks_of(pid) for pid, _ in processes(container))


def _ticks_of(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
