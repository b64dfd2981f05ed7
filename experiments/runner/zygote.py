"""``python -P -m experiments.runner.zygote FD``: the process that all others of a runner are forked from.

It imports what a run needs, once; then it forks a warden for each descriptor that arrives on the socket FD. It keeps to
one thread, has no event loop and no zmq context, and never held the runner's token: it was started without it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.runner import pages, processes

WARM_FILE = "etc/proverom/warm.txt"  # below the environment: one module a line
WARM_VARIABLE = "PROVEROM_RUNNER_WARM"
WARM = ("numpy", "pandas", "matplotlib.pyplot", "scipy.stats", "experiments.record")
# What the runner's own machinery imports only once it is at work.
_MACHINERY = (
    "experiments.runner.warden",
    "experiments.runner.worker",
    "faulthandler",
    "http.server",
    "ipykernel.debugger",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "matplotlib_inline.config",
    "pdb",
    "sqlite3",
    "tornado.platform.asyncio",
    "tornado.queues",
)
PID = struct.Struct("!i")


def main(descriptor: int) -> None:
    """Warm up, say so (the number of threads there are), and fork wardens until the runner is gone."""
    control = socket.socket(fileno=descriptor)
    warm_up()
    # A kernel has the same uid: it must find no way into this process, nor into what is forked from it but kernels.
    processes.close_to_others()
    control.sendall(PID.pack(threads()))
    # Children are collected by the system. What is alive now is left alone by the garbage collector, in every fork:
    # its marks would make a copy of each page.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    pages.enlarge()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        stream = socket.socket(fileno=descriptors[0])
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            control.close()
            _work(stream)
        stream.close()
        control.sendall(PID.pack(pid))


def _work(stream: socket.socket) -> None:
    code = 1
    try:
        from experiments.runner import warden

        code = warden.main(stream)
    finally:
        sys.stderr.flush()
        os._exit(code)


def threads() -> int:
    """Return how many threads this process has; more than one must not be forked."""
    return len(os.listdir("/proc/self/task"))


def warm_list() -> Sequence[str]:
    """Return the modules to import: those of PROVEROM_RUNNER_WARM, else of the environment's own file, else WARM."""
    if (named := os.environ.get(WARM_VARIABLE)) is not None:
        return [name for name in named.replace(",", " ").split() if name]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (Path(sys.prefix) / WARM_FILE).read_text(encoding="utf-8").splitlines()
        return [name for line in lines if (name := line.partition("#")[0].strip())]
    return WARM


def warm_up() -> None:
    """Import everything, and do once what is slow the first time. A module that is not there is named and left out."""
    began = time.monotonic()
    for name in (*_MACHINERY, *warm_list()):
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a template's library does when it is imported
            print(f"{name} is not imported beforehand: {error!r}", file=sys.stderr, flush=True)
    _rehearse_papermill()
    _prepare_kernel()
    _rehearse_figure()
    _rehearse_frame()
    print(f"warm after {time.monotonic() - began:.1f} s, threads: {threads()}", file=sys.stderr, flush=True)


def _rehearse_papermill() -> None:
    """Prepare a small notebook: the schema is compiled, translators and provisioners are found."""
    import nbformat
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.provisioning.factory import KernelProvisionerFactory

    KernelProvisionerFactory.instance()
    KernelSpecManager().find_kernel_specs()
    cell = nbformat.v4.new_code_cell("a = 1", metadata={"tags": ["parameters"]})  # type: ignore[no-untyped-call]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernelspec})  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory(prefix="pr-") as folder:
        source = Path(folder) / "n.ipynb"
        source.write_text(nbformat.writes(book), encoding="utf-8")  # type: ignore[no-untyped-call]
        papermill.execute_notebook(
            str(source), None, parameters={"a": 2}, prepare_only=True, kernel_name="python3", progress_bar=False
        )


def _prepare_kernel() -> None:
    """Make the kernel beforehand, and translate a cell with it. Without that a fork makes its own, only slower."""
    try:
        from experiments.runner import mould

        mould.prepare()
        shell = mould.take().kernel_class.instance().shell  # type: ignore[union-attr]
        compile(shell.transform_cell("%matplotlib inline\na = 1\n!true\na?"), "cell", "exec")
    except Exception as error:
        print(f"the kernel is not made beforehand: {error!r}", file=sys.stderr, flush=True)


def _rehearse_figure() -> None:
    """Draw a figure with text into nothing, as a notebook does: fonts are found and read, each step is done once."""
    if "matplotlib" not in sys.modules:
        return
    from IPython.core.pylabtools import print_figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    axes = FigureCanvasAgg(figure).figure.subplots()
    axes.plot([1, 2, 3], label="a")
    axes.bar([1, 2, 3], [1, 2, 3])
    axes.scatter([1, 2, 3], [1, 2, 3])
    axes.set_title("Prøve 1.23")
    axes.set_xlabel("x")
    axes.legend()
    print_figure(figure, "png", base64=True)  # type: ignore[no-untyped-call]


def _rehearse_frame() -> None:
    """Describe and show a small table in both its forms."""
    if (pandas := sys.modules.get("pandas")) is None:
        return
    frame = pandas.DataFrame({"a": [1.5, 2.5], "b": ["x", "y"]})
    repr(frame.describe())
    frame._repr_html_()
    frame.groupby("b")["a"].mean()


if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)  # what is registered for the end is the forks'
