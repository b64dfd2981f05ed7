"""The jupyter_client provisioner ``proverom-forked``: Python kernels are forked, all others start the ordinary way."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from experiments.runner import kernel

FORKED, ORDINARY = "proverom-forked", "local-provisioner"
_LAUNCHER = ["-m", "ipykernel_launcher"]
# ipykernel writes it into its kernelspec for the debugger's sake; no notebook notices.
_WITHOUT_EFFECT = "-Xfrozen_modules=off"


class ForkedProcess:
    """A forked kernel, as ``LocalProvisioner`` treats a ``subprocess.Popen``. Its exit status is known to nobody: 0."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, alive: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._alive = alive
        self._poll = select.poll()
        self._poll.register(alive, select.POLLIN)

    def poll(self) -> int | None:
        """Return None while it lives."""
        if self.returncode is None and self._poll.poll(0):
            self.close()
        return self.returncode

    def close(self) -> None:
        """Know nothing more of it."""
        if self.returncode is None:
            self.returncode = 0
            os.close(self._alive)

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._alive, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class ForkedProvisioner(LocalProvisioner):
    """Lets the worker's seed become the kernel. Whatever a fork cannot be, it starts like ``LocalProvisioner``: kernels
    of other languages, of other environments, with further options, and in a process that has planted no seed.
    """

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the kernel and return its connection; raise KernelNotBorn if a forked one died at its start."""
        arguments = own_arguments(cmd)
        seed = kernel.take() if arguments is not None else None
        if seed is None or arguments is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = ForkedProcess(seed.pid, seed.alive)  # type: ignore[assignment]
        self.pid = self.pgid = seed.pid
        self.cwd = kwargs.get("cwd") or pathlib.Path.cwd()
        environment = kwargs.get("env") or dict(os.environ)
        await seed.grow(arguments, str(self.cwd), environment)
        return self.connection_info


def own_arguments(cmd: Sequence[str]) -> list[str] | None:
    """Return what the command gives to this environment's ipykernel; None if it starts anything else or specially."""
    program, *rest = cmd or [""]
    if rest[:1] == [_WITHOUT_EFFECT]:
        rest = rest[1:]
    if rest[:2] != _LAUNCHER:
        return None
    own = Path(sys.executable)
    named = Path(program).parent == own.parent and Path(program).name.startswith("python")
    return rest[2:] if named else None
