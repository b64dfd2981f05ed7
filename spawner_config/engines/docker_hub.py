"""The Hub's own container: the one that is no sandbox. It holds the engine's socket, and only the Hub runs in it."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.types import LogConfig, Mount

from spawner_config import names
from spawner_config.engines.base import EngineError, EngineUnreachable
from spawner_config.networks import HUB_ALIAS, HUB_PORTS

STATE = "/srv/lab"
SOCKET = "/var/run/docker.sock"
KIND = "hub"
_DIGEST = "no.proverom.spec"
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HubSpec:
    """``socket`` and ``state`` are paths on the engine's machine; ``user`` is the uid and gid of the state folder."""

    lab: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    state: str
    socket: str
    user: tuple[int, int]
    socket_group: int
    address: str
    port: int
    revision: str = ""  # changes when the Hub must be started anew, though nothing else here does

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class HubStatus:
    running: bool
    digest: str
    exit_code: int


def connect(docker_host: str, *, timeout: int = 120) -> docker.DockerClient:
    """Return a client for the engine at ``docker_host`` (``unix:///...``). Raise EngineUnreachable if none answers."""
    try:
        # Asked for first, because docker-py leaves its socket open when nobody answers.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(socket_of(docker_host)))
        client = docker.DockerClient(base_url=docker_host, timeout=timeout)
    except (DockerException, OSError) as problem:
        raise EngineUnreachable(
            f"No Docker Engine answers at {docker_host}: {problem}. Is it running, and may you use it?"
        ) from problem
    return client


class HubContainer:
    """Starts, watches and ends the Hub of one lab. Every call blocks and is safe to repeat."""

    def __init__(self, client: docker.DockerClient, lab: str) -> None:
        self._client = client
        self._lab = names.check_lab(lab)
        self._name = names.hub_container(lab)

    def status(self) -> HubStatus | None:
        """Return how the container is, None if there is none."""
        try:
            found = self._client.api.inspect_container(self._name)
        except NotFound:
            return None
        except (DockerException, OSError) as problem:
            raise EngineUnreachable(f"The Docker Engine does not answer: {problem}") from problem
        labels = found["Config"]["Labels"] or {}
        return HubStatus(bool(found["State"]["Running"]), labels.get(_DIGEST, ""), int(found["State"]["ExitCode"]))

    def start(self, spec: HubSpec) -> bool:
        """Bring the Hub up as ``spec`` says; one that runs so is left alone. Return whether anything was started.

        Raise EngineError, with what to do, if its port is taken or the engine refuses.
        """
        status = self.status()
        if status is not None and status.digest == spec.digest and status.running:
            return False
        if status is not None and status.digest != spec.digest:
            self.remove()
            status = None
        try:
            if status is None:
                self._ensure_edge()
                self._create(spec)
            self._client.api.start(self._name)
        except (DockerException, OSError) as problem:
            self.remove()
            text = str(getattr(problem, "explanation", None) or problem)
            if "address already in use" in text or "port is already allocated" in text:
                raise EngineError(
                    f"hub.port={spec.port} on {spec.address} is taken by another program. End that, or choose another."
                ) from problem
            raise EngineError(f"The Docker Engine could not start the Hub: {text}") from problem
        return True

    def remove(self) -> None:
        """End the Hub (10 s to finish) and remove its container. Its state stays in the state folder."""
        calls: tuple[Callable[[], object], ...] = (
            lambda: self._client.api.stop(self._name, timeout=10),
            lambda: self._client.api.remove_container(self._name, force=True, v=True),
        )
        for call in calls:
            try:
                call()
            except NotFound:
                return
            except (DockerException, OSError) as problem:
                if "already in progress" not in str(problem):
                    raise EngineError(f"The Docker Engine could not end the Hub: {problem}") from problem

    def logs(self, *, follow: bool, tail: int = 200) -> Iterator[str]:
        """Yield what the Hub and its services write, in pieces; if asked, follow it until the Hub ends."""
        try:
            for piece in self._client.api.logs(self._name, stream=True, follow=follow, tail=tail):
                yield piece.decode("utf-8", "replace")
        except NotFound:
            return

    def remove_networks(self) -> tuple[str, ...]:
        """Remove the lab's networks, which must be empty by now, and return their names."""
        return self._remove_all(
            "network",
            self._client.api.networks(filters=self._mine()),
            lambda n: self._client.api.remove_network(n["Id"]),
        )

    def remove_volumes(self) -> tuple[str, ...]:
        """Remove the lab's volumes, with all the files that people keep in them, and return their names."""
        found = self._client.api.volumes(filters=self._mine())["Volumes"] or []
        return self._remove_all("volume", found, lambda v: self._client.api.remove_volume(v["Name"]))

    def _mine(self) -> dict[str, str]:
        return {"label": f"{names.LAB}={self._lab}"}

    def _remove_all(self, what: str, found: list[dict[str, Any]], remove: Any) -> tuple[str, ...]:
        for thing in found:
            try:
                remove(thing)
            except NotFound:
                continue
            except APIError as problem:
                raise EngineError(
                    f"The {what} {thing['Name']} could not be removed: {problem.explanation or problem}"
                ) from problem
        return tuple(thing["Name"] for thing in found)

    def _ensure_edge(self) -> None:
        """The network on which the Hub's port is published: an ordinary bridge that no sandbox is ever on."""
        edge = names.edge_network(self._lab)
        if any(network["Name"] == edge for network in self._client.api.networks(names=[edge])):
            return
        try:
            self._client.api.create_network(
                edge, driver="bridge", check_duplicate=True, labels={names.LAB: self._lab, names.KIND: "network"}
            )
        except APIError as problem:
            if problem.status_code != 409:
                raise

    def _create(self, spec: HubSpec) -> None:
        api = self._client.api
        edge = names.edge_network(self._lab)
        inside = HUB_PORTS[0]
        uid, gid = spec.user
        host = api.create_host_config(
            port_bindings={inside: (spec.address, spec.port)},
            mounts=[
                Mount(target=STATE, source=spec.state, type="bind"),
                Mount(target=SOCKET, source=spec.socket, type="bind"),
            ],
            group_add=[spec.socket_group],
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs={"/tmp": f"rw,nosuid,nodev,size={512 * _MIB},mode=1777"},  # noqa: S108
            # It is on every agency's network and must never be the way from one to another.
            sysctls={"net.ipv4.ip_forward": "0"},
            init=True,
            restart_policy={"Name": "unless-stopped"},
            log_config=LogConfig(type="json-file", config={"max-size": str(10 * _MIB), "max-file": "3"}),
            network_mode=edge,
        )
        # docker-py's own type stubs describe another argument than it takes.
        networking: Any = api.create_networking_config({edge: api.create_endpoint_config(aliases=[HUB_ALIAS])})  # type: ignore[arg-type]
        api.create_container(
            image=spec.image,
            name=self._name,
            hostname=HUB_ALIAS,
            command=list(spec.command),
            environment=dict(spec.environment),
            labels={names.LAB: self._lab, names.KIND: KIND, _DIGEST: spec.digest},
            user=f"{uid}:{gid}",
            working_dir=STATE,
            ports=[inside],
            host_config=host,
            networking_config=networking,
        )


def socket_of(docker_host: str) -> Path:
    """Return the path of the engine's socket. Raise EngineError for an engine that is not on this machine."""
    if not docker_host.startswith("unix://"):
        raise EngineError(
            f"engine.docker_host={docker_host!r} is not on this machine. Name the engine's socket: unix:///path"
        )
    return Path(docker_host.removeprefix("unix://")).resolve()
