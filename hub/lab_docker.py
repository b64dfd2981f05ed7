"""The lab on a Docker Engine: the Hub is a container of its own, on each agency's network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from hub.deployment import Deployment
from hub.settings import PROJECT, Settings
from spawner_config.engines.docker import DockerEngine
from spawner_config.engines.docker_hub import STATE, HubContainer, HubSpec, connect, socket_of
from spawner_config.images.build import build_images
from spawner_config.images.site import site_of_this_machine

# The Hub's own processes see the state folder here, whatever it is called on the machine.
INSIDE = Path(STATE)


class DockerBackend:
    """Raise EngineUnreachable if no engine answers."""

    engine = "docker"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = connect(settings.docker_host)
        self._hub = HubContainer(self._client, settings.lab.name)
        self._engine = DockerEngine(self._client)

    def prepare(self, progress: Callable[[str, float | None], None]) -> Deployment:
        given = self._settings
        site = site_of_this_machine(ca_bundle=given.ca_bundle, proxy=given.proxy_variables)
        images = build_images(self._client, PROJECT, base_image=given.engine.base_image, site=site, progress=progress)
        return Deployment("docker", images.sandbox, images.hub)

    def start(self, deployment: Deployment) -> bool:
        state = self._settings.state
        socket = socket_of(self._settings.docker_host)
        owner = state.stat()
        settings_file = (state / "hub" / "settings.json").read_bytes()
        return self._hub.start(
            HubSpec(
                lab=self._settings.lab.name,
                image=deployment.hub_image,
                command=("python", "-m", "hub.services", "front"),
                environment={"PROVEROM_CONFIG": str(INSIDE / "hub" / "settings.json"), "HOME": str(INSIDE / "hub")},
                state=str(state),
                socket=str(socket),
                user=(owner.st_uid, owner.st_gid),
                socket_group=socket.stat().st_gid,
                address=self._settings.hub.address,
                port=self._settings.hub.port,
                revision=hashlib.sha256(settings_file + deployment.sandbox_image.encode()).hexdigest(),
            )
        )

    def alive(self) -> bool:
        status = self._hub.status()
        return status is not None and status.running

    def last_words(self) -> str:
        return "".join(self._hub.logs(follow=False, tail=30)).strip()

    def logs(self, *, follow: bool) -> Iterator[str]:
        return self._hub.logs(follow=follow)

    def stop(self, progress: Callable[[str], None]) -> None:
        progress("Ending the Hub")
        self._hub.remove()
        lab = self._settings.lab.name
        for sandbox in self._engine.sandboxes(lab=lab):
            progress(f"Ending {sandbox.name}")
            self._engine.remove(sandbox.name)
        self._hub.remove_networks()

    def erase(self) -> None:
        self._hub.remove_volumes()

    def notices(self) -> tuple[str, ...]:
        return ()
