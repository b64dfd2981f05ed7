"""One run, from submitting it until its result is recorded: against the papermill command, and against plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.lab import LETTER, BenchLab, notebook, source
from bench.measure import Bound, Row, alternating, seconds
from bench.peer import Peer, cell_seconds, recorded_metrics

Say = Callable[[str], None]

# What plain Python does instead of recording, and where no notebook is there to show a figure.
_RECORD = "from experiments import record"
_PLAIN_RECORD = (
    "import io, json\n"
    "found = {}\n"
    "class record:\n"
    "    metric = staticmethod(lambda name, value: found.__setitem__(name, float(value)))"
)
_SHOW = "plt.show()"
_PLAIN_SHOW = 'plt.savefig(io.BytesIO(), bbox_inches="tight")'


def run_vs_papermill(lab: BenchLab, peer: Peer, *, repetitions: int, say: Say) -> Row:
    """Raise RuntimeError if the two sides did not come to the same metrics."""
    name = "run-vs-papermill"
    found: dict[str, dict[str, Any]] = {}

    def ours() -> float:
        lab.settle()
        return seconds(lambda: found.__setitem__("ours", metrics_of(lab.run("letter-ab-test"))))

    def theirs() -> float:
        took = seconds(lambda: peer.papermill(LETTER))
        found["theirs"] = recorded_metrics(peer.folder / "executed.ipynb")
        return took

    both = alternating(name, ours, theirs, repetitions=repetitions, say=say)
    require_same(name, found)
    return Row(name, *both, bound=Bound(least=1))


def warm_overhead(lab: BenchLab, peer: Peer, *, repetitions: int, say: Say) -> Row:
    """What a run costs beside its own cells. Raise RuntimeError if the two sides did not come to the same metrics."""
    name = "warm-overhead"
    found: dict[str, dict[str, Any]] = {}

    def ours() -> float:
        lab.settle()
        ended: dict[str, Any] = {}
        took = seconds(lambda: ended.update(lab.run("bench-trivial", number=7)))
        found["ours"] = metrics_of(ended)
        return took - cell_seconds(lab.executed(ended["id"]))

    def theirs() -> float:
        took = seconds(lambda: peer.papermill(notebook("trivial"), number=7))
        executed = peer.folder / "executed.ipynb"
        found["theirs"] = recorded_metrics(executed)
        return took - cell_seconds(executed.read_bytes())

    both = alternating(name, ours, theirs, repetitions=repetitions, say=say)
    require_same(name, found)
    return Row(name, *both, sense="ours / theirs", bound=Bound(most=0.25))


def run_vs_python(lab: BenchLab, peer: Peer, *, repetitions: int, say: Say) -> Row:
    """Raise RuntimeError if the two sides did not come to the same metrics."""
    name, code = "run-vs-python", script(source("scientific"))
    found: dict[str, dict[str, Any]] = {}

    def ours() -> float:
        lab.settle()
        return seconds(lambda: found.__setitem__("ours", metrics_of(lab.run("bench-scientific"))))

    def theirs() -> float:
        return seconds(lambda: found.__setitem__("theirs", peer.script(code)))

    both = alternating(name, ours, theirs, repetitions=repetitions, say=say)
    require_same(name, found)
    return Row(name, *both, bound=Bound(least=1))


def script(cells: list[str]) -> str:
    """Return the cells as one script that prints its metrics as JSON, with the figure drawn to nowhere.

    Raise ValueError for cells that do not record, or do not show a figure, in the one way that is known here.
    """
    code = "\n".join(cells)
    if code.count(_RECORD) != 1 or code.count(_SHOW) != 1:
        raise ValueError(f"The cells must hold {_RECORD!r} and {_SHOW!r} once each.")
    return code.replace(_RECORD, _PLAIN_RECORD).replace(_SHOW, _PLAIN_SHOW) + "\nprint(json.dumps(found))"


def metrics_of(run: dict[str, Any]) -> dict[str, Any]:
    return {metric["name"]: metric["value"] for metric in run["metrics"]}


def require_same(name: str, found: dict[str, Any]) -> None:
    """Raise RuntimeError if the two sides found something else, or nothing: then they did not do the same work."""
    if not found["ours"] or found["ours"] != found["theirs"]:
        raise RuntimeError(f"{name}: the two sides did not do the same work: {found}")
