"""desk-vs-docker-run: from asking the Hub for a desk to JupyterLab's page, against ``docker run`` of the same image."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from bench.lab import PERSON, BenchLab
from bench.measure import Row, alternating, seconds
from tests.lab import Lab, free_port, wait_until

AGENCY = "nav"
START = f"/hub/api/users/{PERSON}/servers/{AGENCY}"
DESK = f"/user/{PERSON}/{AGENCY}/lab"


def answers(client: httpx.Client, path: str) -> bool | None:
    """Say whether JupyterLab's page is there; None while nobody answers."""
    try:
        return client.get(path).status_code == 200 or None
    except httpx.TransportError:
        return None


def start_desk(client: httpx.Client) -> None:
    client.post(START, json={}).raise_for_status()
    wait_until(lambda: answers(client, DESK), seconds=120, what="the desk", every=0.02)


def stop_desk(client: httpx.Client) -> None:
    client.delete(START).raise_for_status()
    wait_until(
        lambda: client.get(f"/hub/api/users/{PERSON}").json()["servers"] == {}, seconds=60, what="the desk's end"
    )


def docker_run(engine: Any, image: str) -> float:
    """Return the seconds from ``docker run`` to JupyterLab's page; removing the container is not counted."""
    port = free_port()
    command = ["jupyter", "lab", "--no-browser", "--ip=0.0.0.0", "--port=8888", "--IdentityProvider.token="]
    began = time.perf_counter()
    container = engine.containers.run(image, command, detach=True, ports={"8888/tcp": ("127.0.0.1", port)})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            wait_until(lambda: answers(client, "/lab"), seconds=120, what="docker run's JupyterLab", every=0.02)
        return time.perf_counter() - began
    finally:
        container.remove(force=True)


def image_of_desk(engine: Any, lab: Lab) -> str:
    labels = [f"no.proverom.lab={lab.name}", "no.proverom.kind=desk"]
    (container,) = engine.containers.list(filters={"label": labels})
    return str(container.image.id)


def measure(lab: BenchLab, *, repetitions: int, say: Callable[[str], None]) -> Row:
    name = "desk-vs-docker-run"
    start_desk(lab.client)
    image = image_of_desk(lab.engine, lab.lab)
    stop_desk(lab.client)

    def ours() -> float:
        took = seconds(lambda: start_desk(lab.client))
        stop_desk(lab.client)
        return took

    return Row(name, *alternating(name, ours, lambda: docker_run(lab.engine, image), repetitions=repetitions, say=say))
