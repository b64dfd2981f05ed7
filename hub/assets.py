"""Fetches the pages' styles and font from the npm registry: ``python -m hub.assets``.

Nothing of theirs is in the project.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from hub.settings import PROJECT, SettingsError, load_settings

SOURCE = PROJECT / "catalog" / "web" / "assets"


class AssetsUnavailable(Exception):
    """The packages could not be fetched; the message says why and what to do."""


def node_folder(state: Path) -> Path:
    """Return the folder whose ``node_modules`` holds the packages."""
    return state / "node"


def fetch_assets(state: Path) -> bool:
    """Bring ``node_folder`` to what the lock file says. Return whether that took anything; raise AssetsUnavailable."""
    folder = node_folder(state)
    names = ("package.json", "package-lock.json")
    wanted = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in names)).hexdigest()
    stamp = folder / "fetched"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and (folder / "node_modules").is_dir():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(SOURCE / name, folder / name)
    stamp.unlink(missing_ok=True)
    _npm(folder)
    stamp.write_text(wanted, encoding="utf-8")
    return True


def npm_command() -> tuple[str, ...] | None:
    """Return the npm of this machine, or the one that the set-up installed; None if there is neither."""
    beside = Path(sysconfig.get_path("scripts")) / "npm"
    found = shutil.which("npm") or (str(beside) if beside.is_file() else None)
    return (found,) if found else None


def _npm(folder: Path) -> None:
    npm = npm_command()
    if npm is None:
        raise AssetsUnavailable("There is no npm. Run: make setup   (or install your system's npm package)")
    # Scripts of packages are not run: styles and fonts need none.
    command = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    environment = {**os.environ, "PATH": f"{Path(npm[0]).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise AssetsUnavailable(
            f"The pages' styles could not be fetched from the npm registry:\n{said}\nStart again when it answers."
        )


def main() -> int:
    """Fetch the packages for the lab that the settings name. Return the exit status."""
    try:
        fetch_assets(load_settings().state)
    except (AssetsUnavailable, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
