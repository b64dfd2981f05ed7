"""Which engine is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawner_config.engines.base import EngineError, EngineUnreachable
from spawner_config.engines.choose import Means, choose_engine


@pytest.fixture
def means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Means:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    return Means(state=tmp_path, hub_ports={8000: 1, 8081: 2})


def test_an_unknown_engine_is_refused_with_the_known_ones(means: Means) -> None:
    with pytest.raises(EngineError, match=r"engine\.kind='podman' is unknown.*auto, docker, local"):
        choose_engine("podman", means)


def test_docker_that_does_not_answer_is_unreachable(means: Means) -> None:
    with pytest.raises(EngineUnreachable, match="Docker"):
        choose_engine("docker", means)


def test_auto_takes_local_where_no_docker_answers_and_says_why(means: Means) -> None:
    choice = choose_engine("auto", means)
    assert choice.engine.name == "local"
    assert "no Docker Engine answers" in choice.reason
    assert "bubblewrap" in choice.version
