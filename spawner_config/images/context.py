"""What goes into the images: the project's files and the pinned requirements; and the digest that names them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

PACKAGES = ("spawner_config", "lab_templates", "experiments", "catalog", "hub")
SINGLE_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "jupyterhub_config.py")
_LEFT_OUT = (".pyc", ".pyo", ".mo")  # made anew inside

# A fixed time, so that the same files make the same context. Not 1970: a wheel is a zip, and zip begins in 1980.
_TIME = 1_600_000_000


def project_files(root: Path) -> dict[str, bytes]:
    """Return the files that the project is installed from, by path relative to ``root``, sorted.

    In a git checkout these are the files git knows or would add, so nothing that is ignored (secrets, state) gets in;
    elsewhere, the files of the packages. Raise FileNotFoundError if ``root`` holds no pyproject.toml.
    """
    if not (root / "pyproject.toml").is_file():
        raise FileNotFoundError(f"{root} holds no pyproject.toml: it is not the project's folder.")
    names = _listed_by_git(root)
    if names is None:
        names = [p.relative_to(root).as_posix() for package in PACKAGES for p in (root / package).rglob("*")]
        names += SINGLE_FILES
    wanted = sorted({n for n in names if n.split("/", 1)[0] in PACKAGES or n in SINGLE_FILES})
    return {
        name: (root / name).read_bytes()
        for name in wanted
        if not name.endswith(_LEFT_OUT) and "__pycache__" not in name and (root / name).is_file()
    }


def requirements(root: Path, name: str) -> bytes:
    """Return the pinned requirements ``requirements/<name>.txt``; raise FileNotFoundError if there are none."""
    return (root / "requirements" / f"{name}.txt").read_bytes()


def digest(files: Mapping[str, bytes], *more: str) -> str:
    """Return the SHA-256, in hex, over the names and contents of ``files`` and over ``more``."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{len(name)}:{name}:{len(files[name])}:".encode() + files[name])
    for word in more:
        whole.update(f"+{len(word)}:{word}".encode())
    return whole.hexdigest()


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return the files as a tar. Scripts (``.sh``) are executable."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mtime = _TIME
            entry.mode = 0o755 if name.endswith(".sh") else 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def _listed_by_git(root: Path) -> list[str] | None:
    try:
        listing = subprocess.run(
            ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return [name for name in listing.stdout.decode("utf-8", "surrogateescape").split("\0") if name]
