"""Starting and stopping the lab: what ``proverom up``, ``down`` and ``logs`` do.

The Hub runs as a container of its own on a Docker Engine, and as a process in the background on the ``local`` engine
(``hub.lab_docker``, ``hub.lab_local``); all that is decided once is decided here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import httpx

from hub.assets import AssetsUnavailable, fetch_assets
from hub.deployment import Deployment, NotDeployed
from hub.keys import KeysDamaged, load_keys, write_private
from hub.lab_docker import INSIDE, DockerBackend
from hub.lab_local import LocalBackend
from hub.passwords import PasswordFile, new_password
from hub.seed import LOGINS
from hub.settings import Settings
from hub.tokens import TokenRefused, mint_token, token_lives
from spawner_config.engines.base import EngineError, EngineUnreachable

START_SECONDS = 180
LEAST_FREE = 2 * 1024**3


class LabError(Exception):
    """The lab could not be started or stopped; the message says what, which, and what to do next."""


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of work. ``detail`` says how far a long one has come, ``share`` from 0 to 1 where that is known."""

    name: str
    text: str
    state: Literal["started", "progress", "done", "skipped"] = "started"
    seconds: float = 0.0
    detail: str = ""
    share: float | None = None


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that answers. ``logins`` are names and passwords, empty unless it is a demonstration."""

    address: str
    engine: str
    logins: Mapping[str, str] = field(default_factory=dict)
    already_running: bool = False
    notices: tuple[str, ...] = ()


class Backend(Protocol):
    """What differs between the engines."""

    engine: str

    def prepare(self, progress: Callable[[str, float | None], None]) -> Deployment:
        """Make the images or environments that are missing. Raise EngineError."""

    def start(self, deployment: Deployment) -> bool:
        """Start the Hub unless it runs as it should already; return whether anything was started. Raise EngineError."""

    def alive(self) -> bool:
        """Say whether the Hub is still running."""

    def last_words(self) -> str:
        """Return the end of the Hub's log."""

    def logs(self, *, follow: bool) -> Iterator[str]: ...

    def stop(self, progress: Callable[[str], None]) -> None:
        """End the Hub, every sandbox and every network of the lab. What people made stays. Raise EngineError."""

    def erase(self) -> None:
        """Remove the volumes too. Raise EngineError."""

    def notices(self) -> tuple[str, ...]:
        """Return what people should know of this lab, in words."""


def up(settings: Settings, progress: Progress = silent) -> Lab:
    """Start the lab, or find it running, and return when it answers. Safe to repeat: it keeps everything.

    Raise LabError with what to do next.
    """
    try:
        with _step(progress, "check", "Checking this machine"):
            _check_room(settings.state)
            _check_name(settings)
            backend = choose_backend(settings)
        settings = settings.with_engine(backend.engine)
        with _step(progress, "assets", "Fetching the pages' styles and font") as done:
            done(fetch_assets(settings.state))
        with _step(
            progress, "images", "Building the sandboxes" if backend.engine == "local" else "Building the images"
        ):
            deployment = replace(backend.prepare(_detail(progress, "images")), lab=settings.lab.name)
        with _step(progress, "state", "Preparing the lab's state") as done:
            done(_write_state(settings, deployment))
        with _step(progress, "hub", "Starting the Hub") as done:
            started = backend.start(deployment)
            _wait_until_healthy(settings, backend)
            done(started)
        logins: dict[str, str] = {}
        if settings.lab.demo and settings.login.kind == "demo":
            with _step(progress, "logins", "Preparing the logins") as done:
                logins, made = _prepare_logins(settings)
                done(made)
    except (EngineError, AssetsUnavailable, KeysDamaged, TokenRefused) as error:
        raise LabError(str(error)) from error
    except OSError as error:
        raise LabError(
            f"{settings.state} cannot be used: {error}. Make room or rights there, then start again."
        ) from error
    return Lab(settings.url, backend.engine, logins, not started, backend.notices())


def down(settings: Settings, progress: Progress = silent) -> bool:
    """Stop the lab: the Hub, every sandbox, every network. Return whether there was one. What was made in it stays.

    Raise LabError.
    """
    if not Deployment.path(settings.state).is_file():
        return False
    try:
        backend = _deployed_backend(settings)
        with _step(progress, "stop", "Stopping the lab"):
            backend.stop(lambda text: _detail(progress, "stop")(text, None))
    except EngineError as error:
        raise LabError(str(error)) from error
    return True


def erase(settings: Settings, progress: Progress = silent) -> None:
    """Stop the lab and remove all that was ever made in it: files, catalog, logins. Raise LabError."""
    if Deployment.path(settings.state).is_file():
        down(settings, progress)
        try:
            with _step(progress, "erase", "Removing files and catalog"):
                _deployed_backend(settings).erase()
        except EngineError as error:
            raise LabError(str(error)) from error
    for name in ("hub", "env", "blobs", "node", "sandboxes", "volumes"):
        shutil.rmtree(settings.state / name, ignore_errors=True)
    for name in (
        "secrets.json",
        "logins.json",
        "lab.log",
        "catalog.sqlite",
        "catalog.sqlite-wal",
        "catalog.sqlite-shm",
    ):
        (settings.state / name).unlink(missing_ok=True)


def logs(settings: Settings, *, follow: bool = False) -> Iterator[str]:
    """Yield what the Hub and its services write, in pieces. Raise LabError if there is no lab."""
    if not Deployment.path(settings.state).is_file():
        raise LabError(f"There is no lab in {settings.state}. Start one: proverom up")
    try:
        yield from _deployed_backend(settings).logs(follow=follow)
    except EngineError as error:
        raise LabError(str(error)) from error


def choose_backend(settings: Settings) -> Backend:
    """Return how this lab runs: as the settings say, and for ``auto`` with Docker where an engine answers.

    A lab that runs already keeps its engine. Raise EngineUnreachable if the settings ask for Docker and none answers.
    """
    if settings.engine.kind == "local":
        return LocalBackend(settings)
    try:
        return DockerBackend(settings)
    except EngineUnreachable:
        if settings.engine.kind == "docker":
            raise
        return LocalBackend(settings)


def _deployed_backend(settings: Settings) -> Backend:
    deployed = Deployment.load(settings.state)
    return choose_backend(settings.with_engine(deployed.engine).with_lab(deployed.lab or settings.lab.name))


def _check_name(settings: Settings) -> None:
    """Raise LabError if the state folder is another lab's: two Hubs would write the same files."""
    try:
        deployed = Deployment.load(settings.state)
    except NotDeployed:
        return
    if deployed.lab not in ("", settings.lab.name):
        raise LabError(
            f"{settings.state} holds the lab {deployed.lab!r}, but lab.name={settings.lab.name!r}. "
            f"Set lab.name to {deployed.lab!r}, or lab.state to a folder of this lab's own."
        )


def _check_room(state: Path) -> None:
    """Raise OSError if the state folder cannot be written, LabError if its disk is nearly full."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    probe = state / ".writable"
    probe.write_bytes(b"")
    probe.unlink()
    free = shutil.disk_usage(state).free
    if free < LEAST_FREE:
        raise LabError(
            f"Only {free / 1024**3:.1f} GiB are free where {state} is; {LEAST_FREE / 1024**3:.0f} GiB are needed. "
            "Make room, or set lab.state to another disk."
        )


def _write_state(settings: Settings, deployment: Deployment) -> bool:
    """Keep what the Hub needs in the state folder. Return whether anything changed."""
    load_keys(settings.state)
    deployment.save(settings.state)
    path = settings.state / "hub" / "settings.json"
    text = settings.inside(INSIDE).dump() if settings.engine.kind == "docker" else settings.dump()
    if settings.lab.demo and settings.login.kind == "demo":
        _make_passwords(settings)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    write_private(path, text)
    return True


def _wait_until_healthy(settings: Settings, backend: Backend) -> None:
    """Return when the catalog answers through the proxy. Raise LabError with the log's end if that never comes."""
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5, trust_env=False) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"{settings.url}/services/catalog/health").status_code == httpx.codes.OK:
                    return
            if not backend.alive():
                raise LabError(f"The Hub ended while it was starting. Its last words:\n{backend.last_words()}")
            time.sleep(0.2)
    raise LabError(
        f"The lab does not answer at {settings.url} after {START_SECONDS} s. Its last words:\n{backend.last_words()}"
    )


def _prepare_logins(settings: Settings) -> tuple[dict[str, str], bool]:
    """Return each login's password, and whether any token had to be made; all of it is in ``logins.json``."""
    path = settings.state / "logins.json"
    known = read_logins(settings.state)
    changed = known.get("url") != settings.url
    logins = dict(known.get("logins", {}))
    with httpx.Client(base_url=settings.url, timeout=30, trust_env=False) as client:
        for login in LOGINS:
            entry = logins.get(login, {})
            if not token_lives(client, entry.get("token", "")):
                token = mint_token(client, login, entry["password"], days=settings.hub.token_days)
                logins[login] = {"password": entry["password"], "token": token}
                changed = True
    if changed:
        write_private(path, {"url": settings.url, "logins": logins})
    return {login: logins[login]["password"] for login in LOGINS}, changed


def read_logins(state: Path) -> dict[str, Any]:
    """Return what ``logins.json`` holds, {} if there is none or it is damaged."""
    try:
        data = json.loads((state / "logins.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) and isinstance(data.get("logins"), dict) else {}


def _make_passwords(settings: Settings) -> None:
    known = read_logins(settings.state)
    logins = dict(known.get("logins", {}))
    missing = {login: new_password() for login in LOGINS if not logins.get(login, {}).get("password")}
    if missing:
        logins |= {login: {"password": password, "token": ""} for login, password in missing.items()}
        write_private(settings.state / "logins.json", {"url": settings.url, "logins": logins})
    passwords = PasswordFile(settings.state / "hub" / "passwords.json")
    passwords.add({login: entry["password"] for login, entry in logins.items() if not passwords.has(login)})


@contextlib.contextmanager
def _step(progress: Progress, name: str, text: str) -> Iterator[Callable[[bool], None]]:
    """Tell ``progress`` of a step's beginning and end; the value is called with False if there was nothing to do."""
    did = [True]
    started = time.monotonic()
    progress(Step(name, text))
    yield lambda anything: did.__setitem__(0, anything)
    progress(Step(name, text, "done" if did[0] else "skipped", time.monotonic() - started))


def _detail(progress: Progress, name: str) -> Callable[[str, float | None], None]:
    return lambda text, share: progress(Step(name, text, "progress", detail=text, share=share))
