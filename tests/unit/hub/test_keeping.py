"""A process that is killed is replaced at once; one that ends is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

SCRIPT = """
import os, sys, time
from hub.keeping import keep_alive
keep_alive(lambda: None, pause=0.01)
print(os.getpid(), flush=True)
line = sys.stdin.readline()
sys.exit(int(line or 0))
"""


@pytest.fixture
def kept() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0
    )
    yield process
    process.kill()
    process.communicate()


def said_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout
    return int(process.stdout.readline())


def test_what_is_killed_is_replaced(kept: subprocess.Popen[str]) -> None:
    first = said_pid(kept)
    os.kill(first, signal.SIGKILL)
    second = said_pid(kept)
    assert len({first, second, kept.pid}) == 3
    os.kill(second, signal.SIGSEGV)
    assert said_pid(kept) not in (first, second)


def test_an_end_is_passed_on(kept: subprocess.Popen[str]) -> None:
    said_pid(kept)
    assert kept.stdin
    kept.stdin.write("7\n")
    assert kept.wait(20) == 7


def test_who_asks_it_to_end_is_obeyed(kept: subprocess.Popen[str]) -> None:
    child = said_pid(kept)
    kept.send_signal(signal.SIGTERM)
    assert kept.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
