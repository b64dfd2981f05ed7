"""The runner's papermill engine: papermill executes, this watches.

papermill keeps charge of parameters, order, outputs and metadata. The engine adds what its client lacks: progress per
cell, a cap on outputs, a way to stop, and kernels that talk over Unix sockets (for TCP ports kernels race: papermill
#511).
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from queue import Empty
from typing import Any, Protocol

import nbformat
import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.iorw import papermill_io

from experiments.runner.outputs import Admission, OutputBudget, Tail, cut_notice
from experiments.runner.provisioner import FORKED, ORDINARY, ForkedProcess

ENGINE = "proverom"
SCHEME = "proverom:"
INPUT = "template.ipynb"
SKIP_TAG = "skip-execution"  # nbclient's default
LISTEN_AGAIN = 10.0  # seconds
FIRST_PAUSE = 0.5  # seconds; a kernel that was forked has bound its sockets before it is asked


class Stopped(Exception):
    """The run was told to stop: no further cell is started."""


class Watch(Protocol):
    """What an execution gives its engine, and reads while the engine is at work."""

    notebook: NotebookNode | None
    budget: OutputBudget
    tail: Tail
    sockets: Path  # a directory with a short path: a Unix socket's is at most 107 bytes
    environment: dict[str, str]  # the kernel's
    forked: bool  # whether a Python kernel is forked
    stop: threading.Event

    def kernel_started(self, group: int) -> None: ...

    def cells(self, total: int) -> None: ...

    def cell_started(self, index: int) -> None: ...

    def cell_done(self) -> None: ...


def counts(cell: NotebookNode) -> bool:
    """Return whether a cell is one of the "k of n" that a person is told: code that will be executed."""
    skipped = SKIP_TAG in cell.metadata.get("tags", [])
    return bool(cell.cell_type == "code" and cell.source.strip() and not skipped)


class ReadyClient(AsyncKernelClient):
    """A client that is ready when the kernel's outputs are heard, and not some rounds of waiting later.

    It opens the two channels that nbclient uses: nobody here answers a kernel's questions, and its death is seen by
    its parent, which needs no heartbeat.
    """

    def start_channels(self, *_unused: Any, **_also: Any) -> None:
        """Open the channels for requests and for outputs."""
        super().start_channels(shell=True, iopub=True, stdin=False, hb=False, control=False)  # noqa: S604 - a channel

    async def _async_wait_for_ready(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - jupyter_client's
        """Return when the kernel has answered and its outputs arrive; raise RuntimeError if it dies or stays silent."""
        end = time.monotonic() + (timeout or 3600.0)
        pause = FIRST_PAUSE
        while True:
            asked = self.kernel_info()
            # The status messages that go with the answer tell that the subscription has reached the kernel.
            if await self._heard(asked, pause):
                break
            if not await self._async_is_alive():
                raise RuntimeError("Kernel died before replying to kernel_info")
            if time.monotonic() > end:
                raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")
            pause = min(2 * pause, 1.0)
        while True:
            with contextlib.suppress(Empty):
                reply = await self.shell_channel.get_msg(timeout=max(0.0, end - time.monotonic()))
                if reply["msg_type"] == "kernel_info_reply":
                    self._handle_kernel_info_reply(reply)
                if reply["parent_header"].get("msg_id") == asked:
                    return
                continue
            raise RuntimeError(f"Kernel didn't respond in {timeout} seconds")

    wait_for_ready = _async_wait_for_ready

    async def _heard(self, asked: str, seconds: float) -> bool:
        """Return whether the kernel says within ``seconds`` that it is done with what was asked."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(Empty):
                said = await self.iopub_channel.get_msg(timeout=left)
                idle = said["msg_type"] == "status" and said["content"].get("execution_state") == "idle"
                if idle and said["parent_header"].get("msg_id") == asked:
                    return True
        return False


class SocketKernelManager(AsyncKernelManager):
    """Kernels on Unix sockets, whose single messages are capped: a bigger one is not received at all.

    How the kernel comes into being is the provisioner's business (jupyter_client's own seam).
    """

    largest_message: int = 0

    def client(self, **_unused: Any) -> Any:
        # One context for all runs of a worker: it has two threads. What it is told holds for the sockets to come.
        context = zmq.asyncio.Context.instance()
        context.setsockopt(zmq.MAXMSGSIZE, self.largest_message or -1)
        # A kernel that has still to bind its sockets is met 10 ms later, and not 100.
        context.setsockopt(zmq.RECONNECT_IVL, 10)
        return ReadyClient(
            **self.get_connection_info(session=True), connection_file=self.connection_file, parent=self, context=context
        )


class WatchedClient(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, watched."""

    def __init__(self, nb_man: Any, watch: Watch, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self._watch = watch
        self._idle: set[int] = set()

    def create_kernel_manager(self) -> Any:
        provisioners = KernelProvisionerFactory.instance()
        provisioners.default_provisioner_name = FORKED if self._watch.forked else ORDINARY
        manager = SocketKernelManager(kernel_name=self.kernel_name, config=self.config, transport="ipc")
        manager.connection_file = str(self._watch.sockets / "k.json")
        manager.ip = str(self._watch.sockets / "k")
        manager.largest_message = 2 * self._watch.budget.limit
        self.km = manager
        return manager

    def start_new_kernel(self, **kwargs: Any) -> None:
        if self._watch.stop.is_set():
            raise Stopped
        super().start_new_kernel(env=self._watch.environment, **kwargs)
        provisioner = self.km.provisioner
        self._watch.kernel_started(int(getattr(provisioner, "pgid", None) or getattr(provisioner, "pid", None) or 0))

    def _cleanup_kernel(self) -> None:
        """Close what this process holds of the kernel, which lives on: all of a run is killed by its warden."""
        if self.kc is not None:
            self.kc.stop_channels()
        process = getattr(self.km.provisioner, "process", None) if self.km is not None else None
        if isinstance(process, ForkedProcess):
            process.close()

    def execute_cell(self, cell: NotebookNode, cell_index: int, *args: Any, **kwargs: Any) -> Any:
        if self._watch.stop.is_set():
            raise Stopped
        self._watch.cell_started(cell_index)
        try:
            done = super().execute_cell(cell, cell_index, *args, **kwargs)
        except CellExecutionError as error:
            if not any(output.output_type == "error" for output in cell.outputs):
                # A kernel that has run out of something can fail to show what it ran into; its answer still names it.
                told = {"output_type": "error", "ename": error.ename, "evalue": error.evalue, "traceback": []}
                cell.outputs.append(nbformat.from_dict(told))  # type: ignore[no-untyped-call]
            raise
        if counts(cell):
            self._watch.cell_done()
            if cell_index not in self._idle:
                # The kernel's last messages never came: one of them was larger than a message may be.
                self._note_cut(cell, cell_index)
                run_sync(self._listen_again)()
        return done

    async def _listen_again(self) -> None:
        """Connect to the kernel's outputs anew; the next cell's would be lost otherwise.

        A socket gives up its connection for good over a message that is too large.
        """
        self.kc.iopub_channel.close()
        self.kc._iopub_channel = None  # the client makes another one when it is asked for it
        end = time.monotonic() + LISTEN_AGAIN
        while time.monotonic() < end:
            self.kc.kernel_info()  # its status messages are what is listened for
            with contextlib.suppress(Empty):
                await self.kc.iopub_channel.get_msg(timeout=0.5)
                return

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        admission = self._watch.budget.admit(msg, cell_index)
        kind, content = msg["msg_type"], msg["content"]
        if kind == "status" and content.get("execution_state") == "idle":
            self._idle.add(cell_index)
        if kind == "stream" and admission is not Admission.NOTHING:
            self._watch.tail.add(str(content.get("text", "")))
        output = None
        if admission is not Admission.NOTHING:
            output = super().process_message(msg, cell, cell_index)
        if admission is not Admission.WHOLE:
            self._note_cut(cell, cell_index)
        return output

    def _note_cut(self, cell: NotebookNode, cell_index: int) -> None:
        if self._watch.budget.first_cut(cell_index):
            notice = cut_notice(self._watch.budget.limit)
            output = {"output_type": "stream", "name": "stderr", "text": notice}
            cell.outputs.append(nbformat.from_dict(output))  # type: ignore[no-untyped-call]
            self._watch.tail.add(notice)


class WatchedEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's engine seam: ``execute_notebook(..., engine_name=ENGINE, watch=...)``."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, watch: Watch, start_timeout: int = 60, **_unused: Any
    ) -> Any:
        """Execute the notebook; raise what papermill's own engine raises, and Stopped."""
        watch.notebook = nb_man.nb
        # What papermill notes of paths is about this worker's own, which are nobody's business.
        nb_man.nb.metadata.papermill.update(input_path=INPUT, output_path=None)
        watch.cells(sum(counts(cell) for cell in nb_man.nb.cells))
        client = WatchedClient(
            nb_man,
            watch,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            timeout=None,
            # Messages that never came are noted in the notebook; they don't fail the cell.
            raise_on_iopub_timeout=False,
        )
        return client.execute()


class Written:
    """papermill's handler (its own seam) for executed notebooks that stay in memory: ``papermill_io``, SCHEME.

    Threads may share it.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def write(self, text: str, path: str) -> None:
        """Keep what papermill writes under a path."""
        self._texts[path] = text

    def take(self, path: str) -> str | None:
        """Return, once, what was written last under a path; None if nothing was."""
        return self._texts.pop(path, None)

    def pretty_path(self, path: str) -> str:
        return path


written = Written()


def register() -> None:
    """Make the engine known to papermill, and where it writes to. Doing so twice is no error."""
    papermill_engines.register(ENGINE, WatchedEngine)
    if (SCHEME, written) not in papermill_io._handlers:
        papermill_io.register(SCHEME, written)
