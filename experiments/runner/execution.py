"""One run in this process: from an assignment to what the Hub is told of it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from experiments.runner import processes
from experiments.runner.engine import ENGINE, INPUT, SCHEME, register, written
from experiments.runner.outputs import OUTPUT_CUT, RESULT_MIME, OutputBudget, Tail, plain, size_of
from experiments.runner.protocol import Report, Task

# After SIGINT a cell has this long to end by itself before everything below the runner is killed.
INTERRUPT_GRACE = 2.0
# papermill notices a dead kernel within a second; after this long it is taken to hang, and the run is reported anyway.
HANG_GRACE = 15.0
_NO_ROOM_FOR = 4 * 1024 * 1024  # what a notebook may hold beside its outputs
# Where libraries write that nobody told where: of an earlier run there is nothing in any of them.
_PLACES = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "IPYTHONDIR": "ipython",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "MPLCONFIGDIR": "matplotlib",
}

NO_CELL = -1

_REASONS = {"timed_out": "time_limit", "cancelled": "cancelled_by_user"}


class Execution:
    """Executes one task with papermill in a thread of its own and can be stopped from outside. It is used once.

    ``home`` is an empty directory of this run's own, with a path short enough for a Unix socket. ``clear`` kills all
    that the run has left alive and returns whether nothing is.
    """

    def __init__(
        self,
        task: Task,
        home: str,
        environment: Mapping[str, str],
        *,
        forked: bool,
        clear: Callable[[], bool] = processes.kill_descendants,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.task = task
        self.notebook: NotebookNode | None = None
        self.budget = OutputBudget(task.output_limit_bytes)
        self.tail = Tail()
        self.stop = threading.Event()
        self._home = Path(home)
        self.sockets = self._home
        self.environment = dict(environment)
        self.forked = forked
        self.clean = False  # after ``run``: it ended by itself, and left nothing in this process or below it
        self._clear = clear
        self._clock = clock
        self._wanted: str | None = None  # timed_out | cancelled, once the run is to stop
        self._wake = threading.Condition()
        self._error: BaseException | None = None
        self._output = f"{SCHEME}{task.run}.ipynb"
        self._over = False
        self._group = 0
        self._total = 0
        self._done = 0
        self._cell: int | None = None
        self._killed_before = processes.out_of_memory_kills()

    # -- what the loop asks for ------------------------------------------------------------------------------------
    def run(self) -> Report:
        """Execute until the end, the time limit or a cancellation; return what happened. Never raise."""
        worker = threading.Thread(target=self._execute, name="execution", daemon=True)
        deadline = self._clock() + self.task.timeout_seconds
        worker.start()
        with self._wake:
            while not self._over and self._wanted is None:
                left = deadline - self._clock()
                if left <= 0:
                    self._wanted = "timed_out"
                else:
                    self._wake.wait(left)
        if not self._over:
            self._stop_kernel()
            worker.join(HANG_GRACE)
        # What the notebook left running would otherwise outlive its run and be there for the next one.
        nothing_left = self._clear()
        self.clean = nothing_left and self._wanted is None and self._ended_by_itself()
        return self._report()

    def _ended_by_itself(self) -> bool:
        return self._over and (self._error is None or isinstance(self._error, PapermillExecutionError))

    @property
    def over(self) -> bool:
        return self._over

    def cancel(self) -> None:
        """Stop the run. A run that has ended already, or is being stopped, stays as it is."""
        with self._wake:
            if self._wanted is None and not self._over:
                self._wanted = "cancelled"
                self._wake.notify_all()

    def progress(self) -> tuple[int, int, str]:
        """Return cells done, cells in all, and the last lines of output."""
        return self._done, self._total, self.tail.read()

    # -- what the engine tells -------------------------------------------------------------------------------------
    def kernel_started(self, group: int) -> None:
        self._group = group

    def cells(self, total: int) -> None:
        self._total = total

    def cell_started(self, index: int) -> None:
        self._cell = index

    def cell_done(self) -> None:
        self._done += 1

    # -- inside ----------------------------------------------------------------------------------------------------
    def _execute(self) -> None:
        register()
        loop = ensure_event_loop()
        source = self._home / INPUT
        work = self._home / "work"
        try:
            for place in (work, *(self._home / name for name in _PLACES.values())):
                place.mkdir(exist_ok=True)
            source.write_text(self.task.notebook, encoding="utf-8")
            papermill.execute_notebook(
                str(source),
                self._output,
                parameters=dict(self.task.parameters),
                engine_name=ENGINE,
                kernel_name=self.task.kernel,
                progress_bar=False,
                log_output=False,
                request_save_on_cell_execute=False,
                autosave_cell_every=0,
                cwd=str(work),
                watch=self,
            )
        except BaseException as error:  # whatever ends the execution is this run's ending
            self._error = error
        finally:
            _close(loop)
            with self._wake:
                self._over = True
                self._wake.notify_all()

    def _stop_kernel(self) -> None:
        """Interrupt the running cell, then kill. The kernel's death ends papermill's waiting."""
        self.stop.set()
        if self._group > 1:
            processes.interrupt(self._group)
        with self._wake:
            self._wake.wait_for(lambda: self._over, INTERRUPT_GRACE)
        if not self._over:
            self._clear()

    def _report(self) -> Report:
        outcome, reason, error = self._outcome()
        return Report(outcome, self._notebook_text(), reason, error)

    def _outcome(self) -> tuple[str, str | None, dict[str, Any] | None]:
        if self._wanted is not None:
            return self._wanted, _REASONS[self._wanted], None
        if self._error is None:
            return "succeeded", None, None
        if isinstance(self._error, PapermillExecutionError):
            return "failed", "cell_failed", self._cell_error(self._error)
        cell = self._cell if self._cell is not None else NO_CELL
        if processes.out_of_memory_kills() > self._killed_before:
            return "failed", "out_of_memory", self._error_at(cell, "MemoryError", "The sandbox's memory was used up.")
        if isinstance(self._error, DeadKernelError):
            message = "The kernel died while this cell was running."
            return "failed", "kernel_died", self._error_at(cell, "DeadKernelError", message)
        name, message = type(self._error).__name__, str(self._error)[:4096]
        # Before the first cell, it was the kernel that did not start; after it, the kernel's messages made no sense.
        reason = "start_failed" if self._cell is None else "kernel_died"
        return "failed", reason, self._error_at(cell, name, message)

    def _cell_error(self, error: PapermillExecutionError) -> dict[str, Any]:
        # papermill puts two marker cells into a failed notebook, so its index is no longer the cell's.
        found = next(
            (
                index
                for index, cell in enumerate(self.notebook.cells if self.notebook else ())
                if cell.cell_type == "code" and cell.source == error.source and _has_error(cell)
            ),
            error.cell_index,
        )
        return {
            "cell": found,
            "name": str(error.ename),
            "message": plain(str(error.evalue)),
            "traceback": plain("\n".join(str(line) for line in error.traceback)),
            "source": str(error.source)[: 64 * 1024],
        }

    def _error_at(self, cell: int, name: str, message: str) -> dict[str, Any]:
        source = ""
        if self.notebook is not None and 0 <= cell < len(self.notebook.cells):
            source = str(self.notebook.cells[cell].source)[: 64 * 1024]
        return {"cell": cell, "name": name, "message": plain(message), "traceback": "", "source": source}

    def _notebook_text(self) -> str:
        """Return the notebook so far as JSON text; the template's own where papermill did not get that far."""
        if self.notebook is None:
            return self.task.notebook
        most = self.task.output_limit_bytes + _NO_ROOM_FOR
        text = written.take(self._output)  # there is one if papermill came to its end
        if text is not None and not self.budget.cut and size_of(text) <= most:
            return text
        for _ in range(5):
            try:
                if self.budget.cut:
                    self.notebook.metadata["proverom"] = {"notices": [OUTPUT_CUT]}
                return fit(self.notebook, most)
            except RuntimeError:
                # Only a papermill that hangs still writes into the notebook: look again when it has paused.
                time.sleep(0.2)
        return self.task.notebook


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """End a loop with all that still waits in it."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()


def fit(notebook: NotebookNode, most: int) -> str:
    """Return the notebook as JSON text of at most about ``most`` bytes of UTF-8: the largest outputs go first."""
    text = _text(notebook)
    if size_of(text) <= most:
        return text
    sized = sorted(
        ((len(json.dumps(out)), RESULT_MIME in out.get("data", {}), cell, out) for cell, out in _outputs(notebook)),
        key=lambda item: (item[1], -item[0]),
    )
    over = size_of(text) - most
    for size, _, cell, output in sized:
        if over <= 0:
            break
        cell.outputs = [kept for kept in cell.outputs if kept is not output]
        over -= size
    notebook.metadata["proverom"] = {"notices": [OUTPUT_CUT]}
    return _text(notebook)


def _text(notebook: NotebookNode) -> str:
    return str(nbformat.writes(notebook))  # type: ignore[no-untyped-call]


def _outputs(notebook: NotebookNode) -> list[tuple[NotebookNode, NotebookNode]]:
    return [(cell, output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def _has_error(cell: NotebookNode) -> bool:
    return any(output.output_type == "error" for output in cell.outputs)


def kernel_environment(environment: Mapping[str, str], home: str) -> dict[str, str]:
    """Return a kernel's environment: ours without anything of the project's, and places of this run's own."""
    kept = {name: value for name, value in environment.items() if not name.startswith(("PROVEROM_", "JUPYTERHUB_"))}
    kept.update({name: os.path.join(home, part) for name, part in _PLACES.items()})
    return kept
