"""The runner and the processes below it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runner import processes

LOOK = """
import os
try:
    print(b"SECRET" in open(f"/proc/{os.getppid()}/environ", "rb").read())
except OSError:
    print("shut")
"""
PARENT = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
import processes
if sys.argv[2] == "shielded":
    processes.shield()
os.environ.pop("TOKEN")
print(subprocess.run([sys.executable, "-c", sys.argv[3]], capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.parametrize(("shielded", "seen"), [("open", "True"), ("shielded", "shut")])
def test_a_child_of_the_same_uid_cannot_read_what_the_runner_was_started_with(shielded: str, seen: str) -> None:
    """Without the shield it can: the variable is gone from os.environ, and still in /proc."""
    place = Path(processes.__file__).read_bytes()
    directory = Path("/tmp") / f"pr-test-{os.getpid()}-{shielded}"
    directory.mkdir(mode=0o755)
    try:
        (directory / "processes.py").write_bytes(place)
        root = os.geteuid() == 0
        # Root reads everything, so it becomes nobody, whose interpreter must be outside of root's home.
        python = shutil.which("python3", path="/usr/bin:/usr/local/bin") if root else sys.executable
        if python is None:
            pytest.skip("needs a Python that every user can run. Get it: sudo apt-get install python3")
        done = subprocess.run(
            [python, "-c", PARENT, str(directory), shielded, LOOK],
            env={"TOKEN": "SECRET", "PYTHONDONTWRITEBYTECODE": "1"},
            user=65534 if root else None,
            group=65534 if root else None,
            extra_groups=[] if root else None,
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        shutil.rmtree(directory)
    assert done.stdout.strip() == seen


DAEMONS = """
import os, sys, time
from experiments.runner import processes
processes.shield()
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            os.write(write, b"x")
            time.sleep(600)
    os._exit(0)
for _ in range(3):
    os.read(read, 1)
before = len(processes.descendants())
print(before >= 3, processes.kill_descendants(), processes.descendants())
"""


def test_daemons_that_left_their_parent_are_found_and_killed() -> None:
    project = Path(processes.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", DAEMONS], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True True set()"


def test_an_interrupt_of_a_group_that_is_gone_is_no_error() -> None:
    done = subprocess.Popen(["true"], start_new_session=True)
    done.wait()
    processes.interrupt(done.pid)


def test_memory_kills_are_a_number() -> None:
    assert processes.out_of_memory_kills() >= 0
