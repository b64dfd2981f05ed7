"""The ground of the end-to-end tests: the machine around the lab, as an attacker inside would see it."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.lab import wait_until


class Canary:
    """A listener on every address of this machine. It says how many have reached it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self._socket.getsockname()[1]
        self.hits = 0
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.hits += 1
            connection.close()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which close alone does not
        self._socket.close()
        self._thread.join(timeout=5)


@pytest.fixture(scope="module")
def canary() -> Iterator[Canary]:
    made = Canary()
    try:
        with socket.create_connection(("127.0.0.1", made.port), timeout=5):
            pass  # a canary that nobody can hit would prove nothing
        wait_until(lambda: made.hits == 1, seconds=5, what="the canary's own test")
        yield made
    finally:
        made.close()


def host_addresses() -> list[str]:
    """Return every IPv4 address of this machine, its ends of the engine's networks included, but the loopback."""
    said = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout
    return [address for address in said.split() if ":" not in address]
