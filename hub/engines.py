"""The engine that this lab's sandboxes run on, as the Hub's processes and the command line use it."""

from __future__ import annotations

from hub.deployment import Deployment
from hub.ports import ports_of
from hub.settings import Settings
from spawner_config import names
from spawner_config.engines.base import Engine
from spawner_config.engines.local import LocalEngine
from spawner_config.networks import HUB_PORTS


def lab_engine(settings: Settings, deployment: Deployment) -> Engine:
    """Return the engine; ``local`` is not asked anything yet. Raise EngineUnreachable if no Docker Engine answers."""
    if deployment.engine == "local":
        return local_engine(settings)
    from spawner_config.engines.docker import DockerEngine
    from spawner_config.engines.docker_hub import connect

    client = connect(settings.docker_host)
    return DockerEngine(client, hub=names.hub_container(settings.lab.name), guard_image=deployment.hub_image)


def local_engine(settings: Settings) -> LocalEngine:
    """Return the ``local`` engine of this lab."""
    ports = ports_of(settings.with_engine("local"))
    seen = dict(zip(HUB_PORTS, (ports.proxy, ports.hub), strict=True))
    return LocalEngine(settings.state, environments=settings.state / "env", hub_ports=seen)
