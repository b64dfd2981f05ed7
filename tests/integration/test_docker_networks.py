"""Two that make an agency's network at the same moment, on a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from spawner_config import names, networks
from spawner_config.engines.docker import DockerEngine

AGENCY = "889640782"


@pytest.fixture
def lab(docker_client: Any) -> Iterator[str]:
    lab = f"tw{uuid.uuid4().hex[:8]}"
    yield lab
    for network in docker_client.networks.list(filters={"label": f"{names.LAB}={lab}"}):
        network.remove()


def test_of_two_networks_of_one_name_the_older_stays(docker_client: Any, lab: str) -> None:
    name = names.agency_network(lab, "nav")
    how = {**networks.network_arguments(lab=lab, agency=AGENCY), "check_duplicate": False}
    first, second = docker_client.networks.create(name, **how), docker_client.networks.create(name, **how)
    assert first.id != second.id
    DockerEngine(docker_client).ensure_network(name, lab=lab, agency=AGENCY)
    assert [network.id for network in docker_client.networks.list(names=[name])] == [first.id]
