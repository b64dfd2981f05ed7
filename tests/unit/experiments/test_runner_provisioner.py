"""Which kernels are forked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.runner.provisioner import own_arguments

PYTHON = sys.executable
LAUNCH = ["-m", "ipykernel_launcher", "-f", "k.json"]


@pytest.mark.parametrize("options", [[], ["-Xfrozen_modules=off"]], ids=["plain", "as ipykernel's own kernelspec says"])
@pytest.mark.parametrize("program", [PYTHON, str(Path(PYTHON).parent / "python3")])
def test_this_environments_own_kernel_is_forked(program: str, options: list[str]) -> None:
    assert own_arguments([program, *options, *LAUNCH]) == ["-f", "k.json"]


@pytest.mark.parametrize(
    "command",
    [
        [],
        [PYTHON],
        [PYTHON, "-X", "dev", *LAUNCH],
        [PYTHON, "-Xfrozen_modules=off", "-I", *LAUNCH],
        [PYTHON, "-m", "bash_kernel", "-f", "k.json"],
        ["/elsewhere/bin/python", *LAUNCH],
        [str(Path(PYTHON).parent / "R"), *LAUNCH],
    ],
)
def test_any_other_is_started(command: list[str]) -> None:
    assert own_arguments(command) is None
