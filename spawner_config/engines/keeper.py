"""Keeps one local sandbox: its parent process on the host, which outlives the Hub.

It serves the Hub's ports to the sandbox over Unix sockets, lets the proxy in to a desk, writes and rotates the log,
watches the memory, asks the sandbox to end (SIGTERM) or ends it (SIGUSR1; SIGKILL ends both, for a sandbox dies with
its keeper) and leaves ``exit.json``. Standard library only; ``python -m spawner_config.engines.keeper`` in the
sandbox's own folder, with a ``Plan`` as JSON on its standard input: the environment holds tokens and is written
nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from spawner_config.engines import relay

ABOUT, STATE, EXIT, LOG = "about.json", "state.json", "exit.json", "log"
LIMITS = "limits.json"  # memory and CPU as they were changed later
SOCKETS = "hub"  # the folder that is bound into the sandbox, read-only
INLET = "inlet.sock"

_WATCH_SECONDS = 0.25


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that a reader sees all of it or none."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(content))
    draft.replace(path)


class RotatingLog:
    """At most ``limit`` bytes, and as many of what came before in ``log.1``."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._file = path.open("ab", buffering=0)
        self._size = path.stat().st_size

    def write(self, data: bytes) -> None:
        if self._size + len(data) > self._limit and self._size:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab", buffering=0)
            self._size = 0
        self._file.write(data[-self._limit :])
        self._size += min(len(data), self._limit)

    def close(self) -> None:
        self._file.close()


def descendants(pid: int) -> list[int]:
    """Return a process and all below it. A sandbox's orphans become children of its first process: none is missed."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{current}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    waiting += [int(child) for child in children.read_text().split()]
    return found


def memory_of(pids: list[int], limit: int) -> int:
    """Return the bytes that the processes hold. Shared pages are told apart only when it matters: above ``limit``."""
    page = os.sysconf("SC_PAGE_SIZE")
    anonymous = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{pid}/statm").read_text().split()
            anonymous += (int(fields[1]) - int(fields[2])) * page
    if anonymous <= limit:
        return anonymous
    proportional = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Anon:"):
                    proportional += int(line.split()[1]) * 1024
    return proportional or anonymous


def _cores(cpus: float, mine: set[int]) -> set[int]:
    """Return as many of the machine's processors as the limit asks for, rounded up; any of them, so that sandboxes
    spread.
    """
    return set(random.sample(sorted(mine), min(len(mine), math.ceil(cpus))))


def _spread(pids: list[int], cores: set[int]) -> None:
    """Let processes and their threads run on these processors; what they start from now on does so too."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task), cores)


def _first_process(status: int) -> int | None:
    """Wait for bubblewrap to say which process is the sandbox's first, in the host's numbers; None if it never does."""
    said = b""
    while not (found := re.search(rb'"child-pid": *([0-9]+)\s*[,}]', said)):
        more = os.read(status, 4096)
        if not more:
            return None
        said += more
    return int(found[1])


class Keeper:
    def __init__(self, plan: dict[str, Any], folder: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._out_of_memory = False
        self._control = -1
        self._machine: set[int] = set()
        self._first: int | None = None  # the sandbox's first process, as the host numbers it

    async def keep(self) -> None:
        """Start the sandbox, say so, keep it to its end, and write down how it ended."""
        self._machine = os.sched_getaffinity(0)  # before the keeper binds itself
        os.sched_setaffinity(0, _cores(float(self._plan["cpus"]), self._machine))
        log = RotatingLog(self._folder / LOG, int(self._plan["log_bytes"]))
        for port, target in self._plan["forwards"].items():
            await self._serve_hub(int(port), int(target))
        inlet, port = (await self._serve_inlet()) if self._plan["inlet"] else (None, None)
        process, status = await self._launch(inlet)
        self._first = await asyncio.to_thread(_first_process, status)
        if self._first is None:
            sys.exit(f"bubblewrap failed: {(await process.communicate())[0].decode(errors='replace').strip()}")
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ask)
        loop.add_signal_handler(signal.SIGUSR1, self._kill)
        write(
            self._folder / STATE,
            {
                "pid": os.getpid(),
                "start": start_time(os.getpid()),
                "boot": boot_id(),
                "port": port,
                "began": time.time(),
            },
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        watch = asyncio.create_task(self._watch(self._first))
        assert process.stdout is not None  # noqa: S101  (it was asked for)
        with contextlib.closing(log):
            while data := await process.stdout.read(65536):
                log.write(data)
        ended = await process.wait()
        watch.cancel()
        exit_code = 137 if self._out_of_memory else (ended if ended >= 0 else 128 - ended)
        write(self._folder / EXIT, {"exit_code": exit_code, "out_of_memory": self._out_of_memory, "ended": time.time()})

    async def _serve_hub(self, port: int, target: int) -> None:
        path = f"{SOCKETS}/{port}.sock"  # relative: a Unix socket's address has room for 107 characters
        await asyncio.start_unix_server(
            lambda r, w: relay.join(r, w, lambda: asyncio.open_connection("127.0.0.1", target)), path
        )
        os.chmod(path, 0o666)  # noqa: S103  (the folder above is closed to everybody else)

    async def _serve_inlet(self) -> tuple[socket.socket, int]:
        inside = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        inside.bind(INLET)
        inside.listen(128)
        server = await asyncio.start_server(
            lambda r, w: relay.join(r, w, lambda: asyncio.open_unix_connection(INLET)), "127.0.0.1", 0
        )
        return inside, int(server.sockets[0].getsockname()[1])

    async def _launch(self, inlet: socket.socket | None) -> tuple[asyncio.subprocess.Process, int]:
        control_read, self._control = os.pipe()
        status_read, status_write = os.pipe()
        rules = os.open(self._plan["seccomp"], os.O_RDONLY) if self._plan["seccomp"] else None
        passed = [
            control_read,
            status_write,
            *([inlet.fileno()] if inlet else []),
            *([rules] if rules is not None else []),
        ]
        plan = {
            "forwards": {port: f"/run/hub/{port}.sock" for port in self._plan["forwards"]},
            "inlet": inlet.fileno() if inlet else None,
            "inlet_port": self._plan["inlet"],
            "control": control_read,
            "limits": self._plan["limits"],
            "command": self._plan["command"],
        }
        descriptors = {"{status}": str(status_write), "{seccomp}": str(rules)}
        argv = [descriptors.get(word, word) for word in self._plan["argv"]] + [json.dumps(plan)]
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=self._plan["environment"],
            pass_fds=passed,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        for descriptor in (control_read, status_write, rules):
            if descriptor is not None:
                os.close(descriptor)
        if inlet:
            inlet.close()
        return process, status_read

    async def _watch(self, first: int) -> None:
        """End the sandbox if it holds more memory than it may."""
        limit, cpus = int(self._plan["memory"]), float(self._plan["cpus"])
        while True:
            found, more = self._changed(limit, cpus)
            if more != cpus:
                _spread(descendants(first), _cores(more, self._machine))
            limit, cpus = found, more
            held = memory_of(descendants(first), limit)
            if held > limit:
                self._out_of_memory = True
                self._kill()
            await asyncio.sleep(max(_WATCH_SECONDS / 5, _WATCH_SECONDS * (1 - held / limit)))

    def _changed(self, memory: int, cpus: float) -> tuple[int, float]:
        """Return the limits of memory and CPU that hold now: those given, unless they were changed."""
        try:
            limits = json.loads((self._folder / LIMITS).read_text())
        except FileNotFoundError:
            return memory, cpus
        return int(limits["memory"]), float(limits["cpus"])

    def _ask(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._control, b"T")

    def _kill(self) -> None:
        if self._first is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first, signal.SIGKILL)  # the first process of a pid namespace takes all others with it


def main() -> None:
    plan = json.loads(sys.stdin.read())
    asyncio.run(Keeper(plan, Path.cwd()).keep())


if __name__ == "__main__":
    main()
