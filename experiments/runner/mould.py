"""The Python kernel as far as it can be made before there is a process for it: made once in the zygote, forked with it.

What is made beforehand has no socket, no thread, no event loop and no key: ipykernel makes these in the
fork, by its own code. What would be the same in all forks and must not be is made anew there (``_be_finished``).
"""

from __future__ import annotations

import os
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import zmq
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.history import HistoryManager
from IPython.paths import get_ipython_dir
from tornado.ioloop import IOLoop
from traitlets import DottedObjectName, Type
from traitlets.config import Config

from experiments.runner.iopub import Sender
from experiments.runner.kernel import INLINE

_IN_MEMORY = ":memory:"
_NO_HISTORY_FILE = f"--HistoryManager.hist_file={_IN_MEMORY}"  # nbclient's own wish for each kernel it starts


class _NoThread:
    """Stands where ipykernel has a thread for subshells or for control, and is false like None.

    None itself will not do: a cell with ``await`` asks it for the thread that executes, and whatever is sent to the
    control channel is read in the loop it names (ipykernel 7.4).
    """

    def __init__(self) -> None:
        self.parent_thread = threading.current_thread()
        self.io_loop = IOLoop.current()

    def __bool__(self) -> bool:
        return False

    def start(self) -> None:
        """Start nothing."""


class PreparedKernel(IPythonKernel):
    """ipykernel's kernel, which exists before its sockets do."""

    unfinished = False
    history: HistoryManager  # in memory: nobody asks for it after the run, so it needs no file and no thread

    @property
    def _supports_kernel_subshells(self) -> bool:
        return bool(self.shell_channel_thread)

    @classmethod
    def instance(cls, **given: Any) -> Any:
        """Return the one kernel of this process; one that was made beforehand gets here what it was made without."""
        made = super().instance(**given)
        if made.unfinished and "shell_stream" in given:
            made._be_finished(given)
        return made

    def _be_finished(self, given: dict[str, Any]) -> None:
        self.unfinished = False
        for name, value in given.items():
            if value is not None:
                setattr(self, name, value)
        self.ident = str(uuid.uuid4())
        self._stdout, self._stderr = sys.stdout, sys.stderr
        if hasattr(self, "debugger"):
            self.debugger = self.debugger_class(
                self.log,
                self.debugpy_stream,
                self._publish_debug_event,
                self.debug_shell_socket,
                self.session,
                self._kernel_modules,
                self.debug_just_my_code,
                self.filter_internal_frames,
            )
        self._finish_shell(self.shell)

    def _finish_shell(self, shell: Any) -> None:
        shell.ipython_dir = get_ipython_dir()
        shell.profile_dir = self.profile_dir
        shell.starting_dir = os.getcwd()
        shell.save_sys_module_state()
        shell.init_sys_modules()
        shell.history_manager = self.history
        shell.configurables.append(self.history)
        with self.history.db as database:
            began = datetime.now().isoformat(" ")  # noqa: DTZ005 - as IPython writes it
            database.execute("UPDATE sessions SET start = ?", (began,))
        shell.init_user_ns()
        shell.sys_excepthook = sys.excepthook
        if session_name := os.environ.get("JPY_SESSION_NAME"):
            shell.user_ns["__session__"] = session_name
        shell.displayhook.session = shell.display_pub.session = self.session
        shell.displayhook.pub_socket = shell.display_pub.pub_socket = self.iopub_socket
        shell.displayhook.topic = self._topic("execute_result")  # type: ignore[no-untyped-call]


class PreparedApp(IPKernelApp):
    """ipykernel's application, which has read the system's configuration and made its kernel beforehand."""

    kernel_class = Type(PreparedKernel, klass="ipykernel.kernelbase.Kernel").tag(config=True)  # type: ignore[assignment]
    outstream_class = DottedObjectName("experiments.runner.iopub.Stream").tag(config=True)
    prepared = False
    shows_figures = False  # its shell knows of matplotlib's inline backend

    def prepare(self) -> None:
        """Do all of ``initialize`` that a fork can inherit. Called once, in the process that is forked from."""
        paths = list(self.config_file_paths)
        super().parse_command_line([])
        super().init_profile_dir()  # type: ignore[no-untyped-call]
        super().init_config_files()  # type: ignore[no-untyped-call]
        super().load_config_file()  # type: ignore[no-untyped-call]
        # The shell looks whether it has such a section, and else makes one of its own for tqdm's sake.
        self.update_config(Config({"IPKernelApp": {"connection_file": ""}}))
        with _no_history():
            kernel = PreparedKernel.instance(parent=self, log=self.log, profile_dir=self.profile_dir, user_ns=None)
        kernel.history = HistoryManager(shell=kernel.shell, parent=kernel.shell, hist_file=_IN_MEMORY)
        kernel.unfinished = True
        if "matplotlib.pyplot" in sys.modules and os.environ.get("MPLBACKEND") in (None, "", INLINE):
            # Importing the backend hooks it into the shell. Any other one, a kernel finds by itself.
            sys.modules.pop(INLINE.removeprefix("module://"), None)
            sys.modules["matplotlib"].rcParams["backend"] = INLINE
            sys.modules["matplotlib.pyplot"].switch_backend(INLINE)
            self.shows_figures = True
        # Else a record is made of every message, and thrown away by the handler: here, in each worker, in each kernel.
        self.log.setLevel(self.log_level)
        self.config_file_paths = paths
        self.profile_dir = None
        self._modules = set(sys.modules)
        self.prepared = True

    def become(self, arguments: Sequence[str], parent: int) -> None:
        """Be the kernel of this process, a fork of the one that prepared it."""
        self.parent_handle = parent
        self.ipython_dir = get_ipython_dir()
        self.initialize(list(arguments))  # type: ignore[no-untyped-call]

    def parse_command_line(self, argv: Any = None) -> None:
        """Take what every kernel gets here without building a parser; all else by the parser."""
        given = list(argv or ())
        if not self.prepared or given[:1] != ["-f"] or given[2:] not in ([], [_NO_HISTORY_FILE]):
            super().parse_command_line(argv)
            return
        self.argv = given
        self.extra_args = []
        self.cli_config = Config({"IPKernelApp": {"connection_file": given[1]}})
        if given[2:]:
            self.cli_config.HistoryManager.hist_file = _IN_MEMORY
        # Of all that was made with this configuration, the application alone reads the one value that is new.
        self.config.merge(self.cli_config)
        self.connection_file = given[1]

    def init_control(self, context: Any) -> None:
        """Bind the socket for control, and have no thread between the sockets and the one that executes.

        One thread would be for subshells, and nobody asks for these: each request would go through two sockets more.
        The other would answer while a cell runs, and nobody asks for that: a run is interrupted by a signal.
        """
        if not self.prepared:
            super().init_control(context)  # type: ignore[no-untyped-call]
            return
        self.control_socket = context.socket(zmq.ROUTER)
        self.control_socket.linger = 1000
        self._apply_curve_server_options(self.control_socket)
        self.control_port = self._bind_socket(self.control_socket, self.control_port)  # type: ignore[no-untyped-call]
        self.control_socket.router_handover = 1
        self.debugpy_socket = context.socket(zmq.STREAM)
        self.control_thread = self.shell_channel_thread = _NoThread()

    def init_iopub(self, context: Any) -> None:
        """Bind the socket for outputs; the thread that sends them starts when it is needed."""
        if not self.prepared:
            super().init_iopub(context)  # type: ignore[no-untyped-call]
            return
        socket = context.socket(zmq.XPUB)
        socket.linger = 1000
        self._apply_curve_server_options(socket)
        self.iopub_port = self._bind_socket(socket, self.iopub_port)  # type: ignore[no-untyped-call]
        self.configure_tornado_logger()  # type: ignore[no-untyped-call]
        self.iopub_thread = Sender(socket, self.session)
        self.iopub_socket = self.iopub_thread.background_socket

    def init_heartbeat(self) -> None:
        """Leave it away where nobody listens: our worker sees its child's death, and the heart's beat is a context
        with three threads.
        """
        if not self.prepared:
            super().init_heartbeat()  # type: ignore[no-untyped-call]

    def init_code(self) -> None:
        """Run what is configured to be run at the start. Mostly that is nothing, and the modules are known."""
        first = (self.exec_lines, self.exec_files, self.code_to_run, self.file_to_run, self.module_to_run)
        if not self.prepared or any(first) or os.environ.get("PYTHONSTARTUP") or not self.hide_initial_ns:
            super().init_code()  # type: ignore[no-untyped-call]
            return
        shell: Any = self.shell
        shell.user_ns_hidden.update(shell.user_ns)
        # To list them again would write to each module's name, and copy a page for most of them.
        shell._sys_modules_keys = self._modules

    def load_config_file(self, *how: Any, **also: Any) -> None:
        """Leave it where it was done beforehand: a run's own profile is empty."""
        if not self.prepared:
            super().load_config_file(*how, **also)  # type: ignore[no-untyped-call]


def prepare() -> None:
    """Make this process's kernel as far as it goes; change nothing else in it that others would notice."""
    kept = sys.excepthook, sys.displayhook, sys.modules["__main__"]
    try:
        PreparedApp.instance().prepare()
    except BaseException:
        for made in (ZMQInteractiveShell, PreparedKernel, PreparedApp):
            made.clear_instance()
        raise
    finally:
        sys.excepthook, sys.displayhook, sys.modules["__main__"] = kept


def take() -> PreparedApp | None:
    """Return the application that was prepared; None if there is none."""
    app = PreparedApp._instance
    return app if isinstance(app, PreparedApp) and app.prepared else None


@contextmanager
def _no_history() -> Iterator[None]:
    """Let shells be made without a history: it has a thread, and a database in the run's own profile."""
    ZMQInteractiveShell.init_history = lambda _shell: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del ZMQInteractiveShell.init_history
