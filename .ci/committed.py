"""Refuse what belongs to one machine or one network: a path, a package registry's address, a private package source.

It knows these from the machine it runs on (this checkout's path, the user's home, pip's, npm's and apt's settings), so
nothing has to be listed here; a small rest of public registries is refused everywhere. Exit status 1 and one line for
each finding.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent

# Written with a class of one letter, so that this file passes its own check.
PUBLIC_REGISTRIES = (
    r"[p]ypi\.(org|python\.org)",
    r"files\.[p]ythonhosted\.org",
    r"registry\.[n]pmjs\.org",
    r"registry\.[y]arnpkg\.com",
    r"deb\.[d]ebian\.org",
    r"(archive|security)\.[u]buntu\.com",
    r"registry-1\.[d]ocker\.io",
)
MACHINE_PATHS = (
    r"(?<![\w.])/home/(?!lab\b)[a-z]\w*",
    r"(?<![\w.])/Users/\w+",
    r"(?<![\w./])/root/\w",
)
PACKAGE_SOURCES = r"^\s*(--(extra-)?index-url|--find-links|--trusted-host|-i|-f)\b"


def run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60).stdout
    except FileNotFoundError:
        return ""


def words_of_this_machine() -> set[str]:
    """Return this checkout's path, the home directory, and every host and folder that packages come from here."""
    words = {str(ROOT), str(Path.home())}
    settings = run(sys.executable, "-m", "pip", "config", "list")
    settings += "\n".join(v for k, v in os.environ.items() if re.match(r"(PIP|UV|NPM_CONFIG)_", k, re.IGNORECASE))
    for path in (
        Path.home() / ".npmrc",
        *Path("/etc/apt").glob("sources.list*"),
        *Path("/etc/apt/sources.list.d").glob("*"),
    ):
        if path.is_file():
            settings += "\n" + path.read_text(errors="replace")
    for address in re.findall(r"(?:https?|file)://[^\s'\"]+", settings):
        parts = urlsplit(address)
        words.add(parts.hostname or parts.path)
    words.update(re.findall(r"(?<![\w:/.])/(?:opt|srv|data|var)/[\w./-]+", settings))
    return {w.rstrip("/") for w in words if len(w.rstrip("/")) > len("/root")}


def main() -> int:
    own = "|".join(re.escape(w) + r"(?!\w)" for w in sorted(words_of_this_machine()))
    pattern = re.compile("|".join((own, *PUBLIC_REGISTRIES, *MACHINE_PATHS)))
    sources = re.compile(PACKAGE_SOURCES)
    findings = []
    for name in run("git", "ls-files", "-z").split("\0"):
        path = ROOT / name
        if not name or not path.is_file():
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(lines, 1):
            if match := pattern.search(line):
                findings.append(f"{name}:{number}: {match[0]} belongs to one machine or network; take it out.")
            elif name.startswith("requirements") and sources.search(line):
                findings.append(f"{name}:{number}: {line.strip()} ties everybody to one package source; take it out.")
    print("\n".join(findings) or "Nothing of one machine or network is committed.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
