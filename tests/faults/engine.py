"""A Docker Engine of the suite's own, in a network namespace of its own, that can be killed without harm to others."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

from spawner_config.images import context
from spawner_config.images.build import SANDBOX, Images, build_images, ensure_base, image_files
from spawner_config.images.site import Site

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = "proverom-faults:runner"
GATEWAY = "172.30.255.1"  # of docker0: how a container on it reaches this namespace
_SITE = "opt/runner/lib/python3.11/site-packages"
# A runner of trivial notebooks needs none of these, and every sandbox of the suite is started from this image.
_LEFT_OUT = (
    *("opt/desk", "proc", "sys", "dev", "var/cache", "var/lib/apt", "usr/share/doc", "usr/share/locale"),
    *(
        f"{_SITE}/{name}"
        for name in (
            *("scipy", "scipy.libs", "pandas", "matplotlib", "statsmodels", "numpy", "numpy.libs", "PIL"),
            *("pillow.libs", "fontTools", "causaldata", "experiments"),
        )
    ),
)


def until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.05) -> Any:
    """Return the condition's first true value; raise TimeoutError naming ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return value


def wait_for_death(pid: int, seconds: float) -> bool:
    """Return whether a process, a child or not, is dead within ``seconds``."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], max(0.0, seconds))[0])
    finally:
        os.close(descriptor)


def in_namespace(name: str) -> list[str]:
    """Return what a command begins with to run in a network namespace. (``ip netns exec`` would hide the cgroups.)"""
    return ["nsenter", f"--net=/run/netns/{name}"]


class OwnEngine:
    """``kill`` and ``start`` again; ``guard`` is held by whoever must not be disturbed by that."""

    def __init__(self, folder: Path) -> None:
        """The caller runs inside the namespace already."""
        self._folder = folder
        self.socket = folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self.guard = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, live_restore: bool = False) -> None:
        """Start the engine and wait until it answers. Raise TimeoutError with its last words if it does not."""
        command = [
            *("dockerd", "--data-root", str(self._folder / "docker"), "--exec-root", str(self._folder / "exec")),
            *("--host", self.host, "--pidfile", str(self._folder / "dockerd.pid"), "--bip", f"{GATEWAY}/24"),
            *("--default-address-pool", "base=172.29.0.0/16,size=24", *(["--live-restore"] if live_restore else [])),
        ]
        log = self._folder / "dockerd.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            until(self.answers, 60, "dockerd")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {log.read_text(errors='replace')[-2000:]}") from None

    def answers(self) -> bool:
        client = None
        with contextlib.suppress(DockerException, OSError):
            client = self.client(timeout=10)
            return bool(client.ping())
        if client is not None:
            client.close()
        return False

    def client(self, timeout: int = 60) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.host, version="1.41", timeout=timeout)

    def kill(self) -> None:
        """Kill the engine, and wait until it and its containerd are gone; containers and their shims live on."""
        assert self._process
        children = _children(self._process.pid)
        self._process.kill()
        self._process.wait()
        for child in children:
            if not wait_for_death(child, 5):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                wait_for_death(child, 5)
        # Killed with its parent, it may not have been collected yet, and dockerd would wait for the dead one.
        (self._folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def end(self) -> None:
        """End the engine with all that it runs."""
        if self._process is None:
            return
        with contextlib.suppress(DockerException, OSError):
            client = self.client()
            for container in client.containers.list(all=True, ignore_removed=True):
                with contextlib.suppress(DockerException):
                    container.remove(force=True, v=True)
            client.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
            return
        self.kill()

    def load_image(self) -> None:
        """Give the engine the sandbox's image, without the desk and the scientific libraries, with today's runner.

        The libraries come from the machine's engine: from the image of this very state of the project if it is there,
        or else from the newest one, for only the libraries are taken from it; one is built if there is none.
        """
        source = docker.from_env(timeout=600)
        try:
            found = _sandbox_image(source)
        finally:
            source.close()
        left_out = [f"--exclude=./{name}" for name in _LEFT_OUT]
        give = ["docker", "run", "--rm", "--user", "0:0", "--network", "none", "--entrypoint", "tar", found]
        added = self._folder / "image.tar"
        with added.open("wb") as tar:
            subprocess.run([*give, "-C", "/", "-c", *left_out, "."], stdout=tar, check=True)
        subprocess.run(
            [
                *("tar", "--append", "-f", str(added), "-C", str(PROJECT), "--owner=0", "--group=0"),
                *("--exclude=__pycache__", f"--transform=s,^,./{_SITE}/,", "experiments"),
            ],
            check=True,
        )
        changes = [
            "ENV PATH=/opt/runner/bin:/usr/local/bin:/usr/bin:/bin",
            "ENV HOME=/home/lab LANG=C.UTF-8 JUPYTER_PATH=/opt/runner/share/jupyter PROVEROM_RUNNER_WARM=",
            "USER 1000:1000",
            "WORKDIR /home/lab",
        ]
        client = self.client(timeout=600)
        try:
            repository, tag = IMAGE.split(":")
            client.api.import_image_from_file(str(added), repository=repository, tag=tag, changes=changes)
        finally:
            client.close()
            added.unlink()


def _sandbox_image(client: docker.DockerClient) -> str:
    base_id = str(client.images.get(ensure_base(client)).id)
    files = image_files(PROJECT, "Dockerfile.sandbox", ("runner", "desk"))
    wanted = Images(sandbox=f"{SANDBOX}:{context.digest(files, base_id)[:16]}", hub="").sandbox
    kept = sorted(client.images.list(name=SANDBOX), key=lambda image: str(image.attrs["Created"]), reverse=True)
    for image in kept:
        if wanted in image.tags:
            return wanted
    return str(kept[0].id) if kept else build_images(client, PROJECT, site=Site()).sandbox


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found
