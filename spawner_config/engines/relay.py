"""What runs first inside a local sandbox: it joins the sandbox's own loopback to the Hub's two ports, and starts the
command.

The sandbox has no network but a loopback of its own. The relay listens on it and hands each connection to a Unix socket
that ``keeper`` serves outside; connections to the desk come in by a listening Unix socket that it has inherited. (A TCP
socket of the host's must never get in here: whoever holds one can shut it down and connect it anew, to anything on the
host.)

Standard library only, and run by its path, so that the sandbox needs nothing of the project:
``relay.py '<Plan as JSON>'``. It exits as the command does, 128 + n if signal n ended it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable

_CHUNK = 256 * 1024
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(ConnectionError, OSError, RuntimeError):
        if sink.can_write_eof():
            sink.write_eof()


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connect: Connect) -> None:
    """Carry bytes both ways between an accepted connection and a new one, until both sides have ended."""
    try:
        there_reader, there_writer = await connect()
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
    finally:
        for end in (writer, there_writer):
            end.close()


def _set_limits(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        which = getattr(resource, name)
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


async def _forward(port: int, path: str) -> None:
    await asyncio.start_server(lambda r, w: join(r, w, lambda: asyncio.open_unix_connection(path)), "127.0.0.1", port)


async def run(plan: dict[str, object]) -> int:
    """Serve the forwards of ``plan`` and run its command to its end; return the exit status."""
    loop = asyncio.get_running_loop()
    forwards: dict[str, str] = plan["forwards"]  # type: ignore[assignment]
    for outside, path in forwards.items():
        await _forward(int(outside), path)
    if plan["inlet"] is not None:
        inlet = socket.socket(fileno=int(str(plan["inlet"])))
        port = int(str(plan["inlet_port"]))
        await asyncio.start_unix_server(
            lambda r, w: join(r, w, lambda: asyncio.open_connection("127.0.0.1", port)), sock=inlet
        )
    command: list[str] = plan["command"]  # type: ignore[assignment]
    child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    control = int(str(plan["control"]))

    def obey() -> None:
        """A byte asks the command to end; the end of the pipe says that nobody keeps this sandbox any more."""
        asked = os.read(control, 1)
        with contextlib.suppress(ProcessLookupError):
            child.terminate() if asked else child.kill()
        if not asked:
            loop.remove_reader(control)

    loop.add_reader(control, obey)
    status = await child.wait()
    return status if status >= 0 else 128 - status


def main() -> None:
    plan = json.loads(sys.argv[1])
    _set_limits(plan["limits"])
    try:
        status = asyncio.run(run(plan))
    except OSError as problem:
        print(f"the sandbox could not start: {problem}", file=sys.stderr)
        status = 127
    os._exit(status)  # whatever the command has left running ends with the sandbox: wait for nothing


if __name__ == "__main__":
    main()
