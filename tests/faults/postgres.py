"""A PostgreSQL that waits for its disk as it does in production, and a proxy before it that cuts connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import subprocess
from pathlib import Path

DATABASE = "catalog"
_SOCKET = ".s.PGSQL.5432"


class Postgres:
    """A cluster in ``folder`` (which the user postgres may enter), reached over a Unix socket in it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self.folder = programs, folder
        self._data = folder / "data"
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)

    def create(self) -> None:
        self._call("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self.start()
        self._call("createdb", "-h", str(self.folder), "-U", "postgres", DATABASE)

    def start(self) -> None:
        options = (
            f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c shared_buffers=32MB"
            " -c max_connections=150 -c max_wal_size=64MB -c min_wal_size=32MB -c fsync=on -c synchronous_commit=on"
        )
        log = str(self.folder / "log")
        self._call("pg_ctl", "-D", str(self._data), "-w", "-t", "60", "-l", log, "-o", options, "start")

    def stop_at_once(self) -> None:
        """End it as a crash would: nothing is written out, and the next start recovers from the log."""
        self._call("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def end(self) -> None:
        if (self._data / "postmaster.pid").exists():
            with contextlib.suppress(RuntimeError):
                self.stop_at_once()

    def pids(self) -> list[int]:
        """Return the postmaster and its children."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]

    @property
    def url(self) -> str:
        return url_at(self.folder)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def _call(self, program: str, *arguments: str) -> None:
        # A file and no pipe: the server inherits it, and a pipe would then never close.
        with (self.folder / f"{program}.out").open("wb") as output:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                user="postgres",
                group="postgres",
                extra_groups=[],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            said = (self.folder / f"{program}.out").read_text(errors="replace")
            raise RuntimeError(f"{program} ended with {done.returncode}: {said}")


def url_at(folder: Path) -> str:
    return f"postgresql+psycopg://postgres@/{DATABASE}?host={folder}"


# -- the proxy -------------------------------------------------------------------------------------------------------


class _Proxy:
    """SIGUSR1: cut the next connection that commits once its COMMIT is done; SIGUSR2: as soon as it has been sent.

    Each cut is a line in ``cuts``.
    """

    def __init__(self, before: Path, behind: Path, cuts: Path) -> None:
        self._before, self._behind, self._cuts = before, behind, cuts
        self._armed = ""

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._arm, "done")
        loop.add_signal_handler(signal.SIGUSR2, self._arm, "sent")
        path = self._before / _SOCKET
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, str(path))
        await server.serve_forever()

    def _arm(self, how: str) -> None:
        self._armed = how

    async def _accept(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        try:
            server_in, server_out = await asyncio.open_unix_connection(str(self._behind / _SOCKET))
        except OSError:
            client_out.close()
            return
        cut = asyncio.Event()

        async def forth() -> None:
            while data := await client_in.read(65536):
                committing = b"COMMIT" in data and self._armed
                if committing:
                    how, self._armed = self._armed, ""
                    cut.set()
                server_out.write(data)
                await server_out.drain()
                if committing:
                    if how == "done":
                        await asyncio.sleep(0.005)  # until ``back`` has stopped reading
                        await asyncio.wait_for(server_in.read(65536), 20)
                    with self._cuts.open("a") as file:
                        file.write(f"{how}\n")
                    return

        async def back() -> None:
            while not cut.is_set() and (data := await server_in.read(65536)):
                client_out.write(data)
                await client_out.drain()

        async def backwards() -> None:
            # The answer to a COMMIT that is to be cut must be left for ``forth`` to read.
            reading = asyncio.create_task(back())
            cutting = asyncio.create_task(cut.wait())
            await asyncio.wait({reading, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if cut.is_set():
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await reading
                await asyncio.sleep(30)
            cutting.cancel()

        tasks = {asyncio.create_task(forth()), asyncio.create_task(backwards())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in (client_out, server_out):
                # No farewell: a connection that is cut says nothing.
                writer.transport.abort()


def serve_proxy(before: str, behind: str, cuts: str) -> None:
    """Stand between the folder ``before`` and PostgreSQL's socket in ``behind`` until killed."""
    asyncio.run(_Proxy(Path(before), Path(behind), Path(cuts)).serve())
