"""Picks the engine by its name in the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException

from spawner_config.engines.base import Engine, EngineError, EngineUnreachable
from spawner_config.engines.docker import DockerEngine
from spawner_config.engines.local import LocalEngine

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Means:
    """What the engines are made from. ``hub`` and ``guard_image`` are as ``DockerEngine`` takes them, the rest as
    ``LocalEngine``.
    """

    state: Path
    hub_ports: Mapping[int, int]
    hub: str | None = None
    guard_image: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """``reason`` says in English why this engine; ``version`` is what the engine says of itself."""

    engine: Engine
    version: str
    reason: str


def _docker(means: Means) -> DockerEngine:
    try:
        client = docker.from_env(timeout=60, max_pool_size=20)
    except DockerException as problem:
        raise EngineUnreachable(f"No Docker Engine answers: {problem}") from problem
    return DockerEngine(client, hub=means.hub, guard_image=means.guard_image)


def _local(means: Means) -> LocalEngine:
    return LocalEngine(means.state, environments=means.state / "env", hub_ports=means.hub_ports)


# A further engine is a class that keeps the promises of ``base.Engine`` and a line here.
ENGINES: Mapping[str, Callable[[Means], Engine]] = {"docker": _docker, "local": _local}


def choose_engine(kind: str, means: Means) -> Choice:
    """Return the engine called ``kind``; ``auto`` takes docker if one answers, else local.

    Raise EngineError for an unknown name, with the known ones; raise EngineUnreachable if the engine does not answer.
    """
    if kind == AUTO:
        try:
            return _checked("docker", means, "a Docker Engine answers")
        except EngineUnreachable as problem:
            return _checked("local", means, f"no Docker Engine answers ({problem})")
    if kind not in ENGINES:
        raise EngineError(f"engine.kind={kind!r} is unknown. Use one of: {', '.join([AUTO, *ENGINES])}.")
    return _checked(kind, means, f"engine.kind={kind} asks for it")


def _checked(kind: str, means: Means, reason: str) -> Choice:
    engine = ENGINES[kind](means)
    return Choice(engine=engine, version=engine.check(), reason=reason)
