"""The Docker Engine: one machine. ``container_arguments`` is the one translation of a ``SandboxSpec``; desks use it
too.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import docker
import requests
from docker.constants import DEFAULT_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import HostConfig, LogConfig, Mount, Ulimit

from spawner_config import names, networks
from spawner_config.engines.base import EngineError, EngineUnreachable, SandboxStatus
from spawner_config.sandbox import HOME, MIB, SANDBOX_UID, Limits, SandboxSpec

_CPU_PERIOD = 100_000  # microseconds
_UNREACHABLE = (requests.exceptions.ConnectionError, requests.exceptions.Timeout)


def container_arguments(spec: SandboxSpec) -> dict[str, Any]:
    """Return ``spec`` as the keyword arguments of docker-py's ``APIClient.create_container``.

    The engine's default seccomp profile applies because no other is named.
    """
    return {
        "image": spec.image,
        "name": spec.name,
        "hostname": spec.kind,
        "command": list(spec.command),
        "environment": dict(spec.environment),
        "labels": dict(spec.labels),
        "user": spec.user,
        "working_dir": HOME,
        "host_config": HostConfig(version=DEFAULT_DOCKER_API_VERSION, **_host_config(spec)),
    }


def _host_config(spec: SandboxSpec) -> dict[str, Any]:
    limits = spec.limits
    owner = f"uid={SANDBOX_UID},gid={SANDBOX_UID}"
    tmpfs = {
        "/tmp": f"rw,nosuid,nodev,size={limits.tmp},mode=1777",  # noqa: S108  (the sandbox's own)
        "/run": f"rw,nosuid,nodev,noexec,size={MIB},{owner}",
    }
    if not any(volume.target == HOME for volume in spec.volumes):
        tmpfs[HOME] = f"rw,nosuid,nodev,size={limits.tmp},{owner},mode=0700"
    disable_ipv6 = "0" if spec.ipv6 else "1"
    return {
        "network_mode": spec.network,
        "dns": list(spec.dns),
        "sysctls": {f"net.ipv6.conf.{which}.disable_ipv6": disable_ipv6 for which in ("all", "default")},
        "cap_drop": list(spec.drop_capabilities),
        "security_opt": ["no-new-privileges:true"] if spec.no_new_privileges else [],
        "privileged": False,
        "read_only": spec.read_only_root,
        "tmpfs": tmpfs,
        "shm_size": min(limits.tmp, 64 * MIB),
        "mounts": [
            Mount(
                target=volume.target,
                source=volume.source,
                type="volume",
                read_only=volume.read_only,
                labels={names.LAB: spec.lab, names.AGENCY: spec.agency},
            )
            for volume in spec.volumes
        ],
        "mem_limit": limits.memory,
        "memswap_limit": limits.memory,  # equal: no swap
        # Not as NanoCpus: the engine refuses more of those than the machine has.
        "cpu_period": _CPU_PERIOD,
        "cpu_quota": _cpu_quota(limits.cpus),
        "pids_limit": limits.pids,
        "ulimits": [Ulimit(name="nofile", soft=4096, hard=8192), Ulimit(name="core", soft=0, hard=0)],
        "log_config": LogConfig(type="json-file", config={"max-size": str(limits.log), "max-file": "2"}),
        "ipc_mode": "private",
        # A runner is process 1 of its sandbox: no kernel can kill or stop it, and it reaps what they leave.
        "init": spec.kind == "desk",
        "restart_policy": {"Name": "no"},
    }


def _cpu_quota(cpus: float) -> int:
    """Return the microseconds of CPU time in each period; the kernel takes no fewer than 1000."""
    return max(1000, round(cpus * _CPU_PERIOD))


class DockerEngine:
    """``hub`` is the name of the Hub's container; None where no Hub is to be attached to the networks (a test's own).

    ``guard_image`` is an image with iptables (the Hub's), used for a moment to close the host to each new network;
    without one, ``notices`` says what stays open.
    """

    name = "docker"

    def __init__(self, client: docker.DockerClient, *, hub: str | None = None, guard_image: str | None = None) -> None:
        self._client = client
        self._hub = hub
        self._guard_image = guard_image
        self._guarded: set[str] = set()
        self._lock = threading.Lock()
        self.notices: list[str] = []

    def check(self) -> str:
        with _translated("ask for its version"):
            version = self._client.version()
        return f"Docker Engine {version['Version']} (API {version['ApiVersion']}, {version['Os']}/{version['Arch']})"

    # -- networks --------------------------------------------------------------------------------------------------
    def ensure_network(self, network: str, *, lab: str, agency: str) -> None:
        with self._lock, _translated(f"make the network {network}"):
            found = self._network(network) or self._create_network(network, lab=lab, agency=agency)
            wrong = networks.problems(found, lab=lab, agency=agency)
            if wrong:
                raise EngineError(
                    f"The network {network} exists, but is not the agency's wall: {'; '.join(wrong)}. "
                    f"Remove it (docker network rm {network}) and start again."
                )
            self._guard(found)
            if self._hub is not None:
                self._attach_hub(found)

    def _network(self, name: str) -> dict[str, Any] | None:
        """Return the network, None if there is none.

        The engine keeps two of one name if two ask for it at the same moment, and then starts no sandbox on either:
        the older one stays.
        """
        listed = self._client.api.networks(names=[name])  # matches parts of names too
        same = sorted((one for one in listed if one["Name"] == name), key=lambda one: (one["Created"], one["Id"]))
        for further in same[1:]:
            self._remove_network(further["Id"])
        if not same:
            return None
        found: dict[str, Any] = self._client.api.inspect_network(same[0]["Id"])
        return found

    def _remove_network(self, network: str) -> None:
        """Remove a network that has a namesake. Somebody else may be doing so too."""
        try:
            for container in self._client.api.inspect_network(network)["Containers"]:
                self._client.api.disconnect_container_from_network(container, network, force=True)
            self._client.api.remove_network(network)
        except NotFound:
            return

    def _create_network(self, name: str, *, lab: str, agency: str) -> dict[str, Any]:
        try:
            self._client.networks.create(name, **networks.network_arguments(lab=lab, agency=agency))
        except APIError as problem:
            if problem.status_code != 409:  # 409: somebody else has just made it
                raise
        found = self._network(name)
        if found is None:
            raise EngineError(f"The network {name} was made and is gone again. Is something else removing networks?")
        return found

    def _guard(self, network: dict[str, Any]) -> None:
        if network["Id"] in self._guarded:
            return
        if self._guard_image is None:
            self._notice(
                f"{network['Name']}: a sandbox can send the host datagrams, because no image with iptables was given."
            )
            return
        try:
            self._client.containers.run(
                self._guard_image,
                list(networks.guard_command(networks.bridge_interface(network))),
                entrypoint=[],
                network_mode="host",
                user="0:0",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN", "NET_RAW"],
                security_opt=["no-new-privileges:true"],
                labels={names.LAB: network["Labels"][names.LAB], names.KIND: "guard"},
                remove=True,
            )
        except (docker.errors.ContainerError, APIError) as problem:
            self._notice(
                f"{network['Name']}: a sandbox can send the host datagrams, because iptables failed: {problem}"
            )
        else:
            self._guarded.add(network["Id"])

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    def _attach_hub(self, network: dict[str, Any]) -> None:
        name = str(self._hub)
        try:
            hub = self._client.api.inspect_container(name)
        except NotFound as problem:
            raise EngineError(f"There is no Hub container {name!r} to put on {network['Name']}.") from problem
        endpoint = hub["NetworkSettings"]["Networks"].get(network["Name"])
        if endpoint is not None:
            if endpoint["NetworkID"] == network["Id"] and networks.HUB_ALIAS in (endpoint.get("Aliases") or ()):
                return
            self._client.api.disconnect_container_from_network(hub["Id"], network["Name"], force=True)
        try:
            self._client.api.connect_container_to_network(hub["Id"], network["Id"], aliases=[networks.HUB_ALIAS])
        except APIError as problem:
            if "already exists in network" not in str(problem):
                raise

    # -- sandboxes -------------------------------------------------------------------------------------------------
    def start(self, spec: SandboxSpec) -> None:
        with _translated(f"start {spec.name}"):
            try:
                self._client.api.create_container(**container_arguments(spec))
            except ImageNotFound as problem:
                raise EngineError(
                    f"The engine has no image {spec.image!r} for {spec.name}. Build it: proverom image build"
                ) from problem
            except APIError as problem:
                if problem.status_code != 409:
                    raise
            # Starting one that runs changes nothing; one that has ended is left as it is.
            if self._client.api.inspect_container(spec.name)["State"]["Status"] == "created":
                self._client.api.start(spec.name)

    def resize(self, name: str, limits: Limits) -> None:
        with _translated(f"resize {name}"):
            self._client.api.update_container(
                name,
                mem_limit=limits.memory,
                memswap_limit=limits.memory,
                cpu_period=_CPU_PERIOD,
                cpu_quota=_cpu_quota(limits.cpus),
            )

    def stop(self, name: str, *, grace_seconds: float = 2.0) -> None:
        self._unless_absent(
            f"stop {name}", lambda: self._client.api.stop(name, timeout=max(0, math.ceil(grace_seconds)))
        )

    def remove(self, name: str) -> None:
        self._unless_absent(f"remove {name}", lambda: self._client.api.remove_container(name, v=True, force=True))

    def sandboxes(self, *, lab: str, kind: str | None = None) -> Sequence[SandboxStatus]:
        wanted = [f"{names.LAB}={names.check_lab(lab)}"] + ([f"{names.KIND}={kind}"] if kind else [])
        found = []
        with _translated("list the sandboxes"):
            for summary in self._client.api.containers(all=True, filters={"label": wanted}):
                if summary["Labels"].get(names.KIND) not in ("desk", "runner"):
                    continue
                try:
                    found.append(_status(self._client.api.inspect_container(summary["Id"])))
                except NotFound:  # removed since it was listed
                    continue
        return found

    def logs(self, name: str, *, tail: int = 200) -> str:
        with _translated(f"read the log of {name}"):
            try:
                return bytes(self._client.api.logs(name, stdout=True, stderr=True, tail=tail)).decode(
                    "utf-8", "replace"
                )
            except NotFound:
                return ""

    def image_digest(self, image: str) -> str:
        with _translated(f"look for the image {image}"):
            try:
                return str(self._client.images.get(image).id)
            except ImageNotFound as problem:
                raise EngineError(f"The engine has no image {image!r}. Build it: proverom image build") from problem

    def _unless_absent(self, doing: str, call: Callable[[], object]) -> None:
        with _translated(doing):
            try:
                call()
            except NotFound:
                return
            except APIError as problem:
                if "already in progress" not in str(problem):
                    raise


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn the client's errors into ours; NotFound and the like that a caller handles never get here."""
    try:
        yield
    except _UNREACHABLE as problem:
        raise EngineUnreachable(
            f"The Docker Engine does not answer (to {doing}): {problem}. Is it running?"
        ) from problem
    except APIError as problem:
        raise EngineError(f"The Docker Engine could not {doing}: {problem.explanation or problem}") from problem
    except DockerException as problem:
        raise EngineUnreachable(
            f"The Docker Engine does not answer (to {doing}): {problem}. Is it running?"
        ) from problem


def _status(container: dict[str, Any]) -> SandboxStatus:
    state = container["State"]
    labels = container["Config"]["Labels"] or {}
    ended = state["Status"] in ("exited", "dead")
    return SandboxStatus(
        name=str(container["Name"]).lstrip("/"),
        kind=labels.get(names.KIND, ""),
        agency=labels.get(names.AGENCY, ""),
        labels=labels,
        running=bool(state["Running"]),
        exit_code=int(state["ExitCode"]) if ended else None,
        out_of_memory=bool(state.get("OOMKilled")),
        started_at=_time(str(state.get("StartedAt", ""))),
    )


def _time(text: str) -> datetime | None:
    """Return a time as the engine writes it: nanoseconds, and the year 1 for "never"."""
    if not text or text.startswith("0001-"):
        return None
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(fraction + '000000')[:6]}+00:00")
