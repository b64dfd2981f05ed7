"""Makes the local engine's two environments, ``runner`` and ``desk``: the same requirements as the sandbox image, as
folders.

They are used only inside a sandbox, where they lie at /opt/runner and /opt/desk, so their scripts say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from spawner_config.engines.base import EngineError
from spawner_config.images import context
from spawner_config.images.progress import Progress, silent
from spawner_config.images.site import Site

ENVIRONMENTS = ("runner", "desk")
_STAMP = "made-of.json"


def build_local_environments(state: Path, root: Path, *, site: Site, progress: Progress = silent) -> Path:
    """Make what is missing or out of date of ``state/env/{runner,desk}`` and return ``state/env``.

    A new environment takes its place only when it is whole. Raise EngineError with the end of the installer's output.
    """
    folder = state.resolve() / "env"
    folder.mkdir(parents=True, exist_ok=True)
    files = context.project_files(root)
    project = context.digest(files)
    for number, name in enumerate(ENVIRONMENTS):
        place = folder / name
        locked = context.digest({name: context.requirements(root, name)}, sys.version)
        stamp = _stamp(place)
        done = number / len(ENVIRONMENTS)
        if stamp.get("requirements") != locked:
            progress(f"Installing the {name} environment", done)
            _make(place, root, name, site, files)
        elif stamp.get("project") != project:
            progress(f"Updating the project in the {name} environment", done)
            _add_project(place, place, files, site)
        else:
            continue
        (place / _STAMP).write_text(json.dumps({"requirements": locked, "project": project}))
    progress("The sandbox environments are ready", 1.0)
    return folder


def environments_digest(folder: Path) -> str:
    """Return "sha256:<hex>" over what both environments were made of; raise FileNotFoundError if one is missing."""
    whole = hashlib.sha256()
    for name in ENVIRONMENTS:
        whole.update(f"{name}:".encode() + (folder / name / _STAMP).read_bytes())
    return f"sha256:{whole.hexdigest()}"


def _make(place: Path, root: Path, name: str, site: Site, files: dict[str, bytes]) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=place.parent))
    try:
        _run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(draft)], site)
        requirements = root / "requirements" / f"{name}.txt"
        # The file is complete; what it leaves out is left out on purpose (requirements/overrides.txt).
        _run([*_installer(draft), "--no-deps", "--requirement", str(requirements)], site)
        inside = f"/opt/{name}"
        kernels = draft / "share" / "jupyter" / "kernels"
        if name == "runner":
            python = draft / "bin" / "python"
            _run([str(python), "-m", "ipykernel", "install", "--prefix", str(draft), "--name", "python3",
                  "--display-name", "Python 3"], site)  # fmt: skip
            _say_where(kernels.rglob("kernel.json"), draft, inside)
        else:  # a desk's kernels are the runner's, so that a notebook finds there what a run will find
            shutil.rmtree(kernels, ignore_errors=True)
        _add_project(draft, place, files, site)
        draft.chmod(0o755)
        if place.exists():
            old = Path(tempfile.mkdtemp(prefix=f".old-{name}-", dir=place.parent))
            place.rename(old / name)
            draft.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            draft.rename(place)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _add_project(draft: Path, place: Path, files: dict[str, bytes], site: Site) -> None:
    with tempfile.TemporaryDirectory(prefix="proverom-project-") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _run([*_installer(draft), "--no-deps", "--force-reinstall", folder], site)
    _say_where(
        (p for p in (draft / "bin").iterdir() if p.is_file() and not p.is_symlink()), draft, f"/opt/{place.name}"
    )


def _installer(environment: Path) -> list[str]:
    """Return uv, several times faster, where this machine has it; else pip."""
    beside = Path(sys.prefix) / "bin" / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    python = str(environment / "bin" / "python")
    if uv:
        return [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
    return [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--compile",
    ]


def _run(command: Sequence[str], site: Site) -> None:
    extra = {"UV_LINK_MODE": "copy", **{name: value for name, value in site.build_args().items() if value}}
    if site.index_url:
        extra["UV_DEFAULT_INDEX"] = site.index_url
    if site.extra_index_url:
        extra |= {"UV_INDEX": site.extra_index_url, "UV_INDEX_STRATEGY": "unsafe-best-match"}
    if site.trusted_host:
        extra["UV_INSECURE_HOST"] = site.trusted_host
    if site.ca_bundle is not None:
        extra |= {"SSL_CERT_FILE": str(site.ca_bundle), "PIP_CERT": str(site.ca_bundle)}
    # Handed on, not read: what the installers look for there is theirs.
    done = subprocess.run(list(command), capture_output=True, text=True, check=False, env={**os.environ, **extra})
    if done.returncode != 0:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise EngineError(f"{' '.join(command[:4])} failed with status {done.returncode}:\n{end}")


def _say_where(paths: Iterable[Path], draft: Path, inside: str) -> None:
    """Replace the folder an environment was made in by the one it will lie at, in the given text files."""
    made = str(draft).encode()
    for path in paths:
        content = path.read_bytes()
        if made in content and b"\0" not in content:
            path.write_bytes(content.replace(made, inside.encode()))


def _stamp(place: Path) -> dict[str, str]:
    try:
        stamp: dict[str, str] = json.loads((place / _STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp
