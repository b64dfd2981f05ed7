"""The small lab behind its API on a real socket, for the client and the command line."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from tests.unit.catalog.api_lab import ApiLab, api_lab


@contextlib.contextmanager
def served(migrated: Path, folder: Path) -> Iterator[tuple[ApiLab, str]]:
    """Give the lab and its address."""
    with api_lab(migrated, folder) as lab, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(lab.app, log_level="error", lifespan="off", timeout_graceful_shutdown=2))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield lab, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
