#!/usr/bin/env python3
"""Makes the project ready to use: ``python3 hub/setup.py [--dev]``. Standard library only: nothing is installed yet.

Makes ``.venv``, installs the pinned requirements and the project itself, and fetches the pages' styles and font. What
has not changed since last time is left alone. Exit status 0 done, 1 a step failed (its output says why), 2 this machine
lacks something.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "proverom-setup.json"
OLDEST = (3, 11)


class Lacking(Exception):
    """This machine lacks something; the message says what to type."""


def main(arguments: Sequence[str]) -> int:
    """Make everything ready. Return the exit status."""
    if set(arguments) - {"--dev"}:
        print("Usage: python3 hub/setup.py [--dev]   (--dev adds what the tests need)", file=sys.stderr)
        return 2
    try:
        prepare(dev="--dev" in arguments)
    except Lacking as lacking:
        print(f"\n{lacking}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as failed:
        command = " ".join(str(part) for part in failed.cmd)
        print(f"\nThis failed with status {failed.returncode}: {command}\nIts output is above.", file=sys.stderr)
        return 1
    return 0


def prepare(*, dev: bool) -> None:
    """Bring ``.venv`` to what the pinned requirements say. Raise Lacking, or CalledProcessError of a failed step."""
    if sys.version_info < OLDEST:
        raise Lacking(
            f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed, this is {sys.version.split()[0]}. "
            "Name another one: make lab PYTHON=python3.11"
        )
    wanted = digests()
    if is_current(wanted, dev=dev):
        with step("Everything is installed already"):
            assets()
        return
    with step("Virtual environment"):
        make_venv()
    with step("Installer (uv)"):
        uv = fetch_uv()
    name = "dev" if dev else "server"
    file = PROJECT / "requirements" / f"{name}.txt"
    count = sum(1 for line in file.read_text(encoding="utf-8").splitlines() if line and line[0].isalnum())
    with step(f"{count} pinned packages"):
        install(uv, "--requirement", str(file))
    if shutil.which("npm") is None:
        with step("npm, for the pages' styles"):
            install(uv, "--requirement", str(PROJECT / "requirements" / "npm.txt"))
    with step("The project itself"):
        install(uv, "--no-deps", "--editable", str(PROJECT))
    with step("The pages' styles and font"):
        assets()
    STAMP.write_text(json.dumps({"dev": dev, **wanted}), encoding="utf-8")


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Show what is being done, and how long it took."""
    live = sys.stdout.isatty()
    print(f"  … {text}", end="" if live else "\n", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print(f"\r  ✗ {text}")
        raise
    print(f"{chr(13) if live else ''}  ✓ {text} ({time.monotonic() - started:.1f} s)", flush=True)


def digests() -> dict[str, str]:
    """Return what the environment depends on: this Python, the pinned requirements, the project's own description."""
    found = {"python": sys.version.split()[0]}
    for name in ("requirements/server.txt", "requirements/dev.txt", "pyproject.toml"):
        found[name] = hashlib.sha256((PROJECT / name).read_bytes()).hexdigest()
    return found


def is_current(wanted: dict[str, str], *, dev: bool) -> bool:
    """Say whether ``.venv`` is what ``wanted`` describes; one with the tests' packages also serves without."""
    try:
        found = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        PYTHON.is_file() and {**found, "dev": None} == {**wanted, "dev": None} and (found.get("dev") is True or not dev)
    )


def make_venv() -> None:
    """Make ``.venv`` if it is missing or of another Python; install Debian's venv package for it if this is root."""
    if PYTHON.is_file() and version_of(PYTHON) == sys.version_info[:2]:
        return
    if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode:
        add_debian_venv()
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)


def version_of(python: Path) -> tuple[int, int] | None:
    code = "import sys; print(*sys.version_info[:2])"
    asked = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    parts = asked.stdout.split()
    return (int(parts[0]), int(parts[1])) if asked.returncode == 0 and len(parts) == 2 else None


def add_debian_venv() -> None:
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if shutil.which("apt-get") is None:
        raise Lacking(
            f"This Python ({sys.executable}) makes no virtual environments. Install its venv module, and start again."
        )
    if os.geteuid() != 0:
        raise Lacking(f"Python's venv module is missing. Run: sudo apt-get install -y {package}   Then start again.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", package]
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=True)
        subprocess.run(command, env=environment, check=True)


def fetch_uv() -> list[str]:
    """Return the command that installs packages: uv, which is several times quicker; pip where uv cannot be had."""
    pip = [str(PYTHON), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        subprocess.run([str(PYTHON), "-m", "ensurepip", "--upgrade"], check=True, capture_output=True)
    uv = VENV / "bin" / "uv"
    if not uv.is_file() and subprocess.run([*pip, "install", *quiet, "uv"], check=False).returncode:
        return [*pip, "install", *quiet]
    return [str(uv), "pip", "install", "--quiet", "--python", str(PYTHON)]


def install(command: list[str], *what: str) -> None:
    """Install with uv, and with pip if uv fails: the two reach an index in different ways."""
    environment = {**os.environ, **uv_environment()}
    if subprocess.run([*command, *what], env=environment, cwd=PROJECT, check=False).returncode == 0:
        return
    print("\n    uv could not; trying pip, which takes longer", flush=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", *what], cwd=PROJECT, check=True)


def uv_environment() -> dict[str, str]:
    """Return what pip is set up to use on this machine, in uv's words: uv reads none of pip's settings."""
    listing = subprocess.run([str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for line in listing.stdout.splitlines():
        name, _, value = line.partition("=")
        with contextlib.suppress(ValueError, SyntaxError):
            found[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    words = {
        "UV_DEFAULT_INDEX": found.get("index-url"),
        "UV_INDEX": found.get("extra-index-url"),
        "UV_INDEX_STRATEGY": "unsafe-best-match" if found.get("extra-index-url") else None,  # as pip does
        "UV_FIND_LINKS": found.get("find-links"),
        "UV_INSECURE_HOST": found.get("trusted-host"),
        "SSL_CERT_FILE": found.get("cert"),
    }
    return {name: value for name, value in words.items() if value and name not in os.environ}


def assets() -> None:
    subprocess.run([str(PYTHON), "-m", "hub.assets"], cwd=PROJECT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
