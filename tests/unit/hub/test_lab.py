"""Starting the lab: what is checked before, and what is kept between two starts."""

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub import lab
from hub.deployment import Deployment, NotDeployed
from hub.lab_local import LocalBackend, _environment
from hub.passwords import PasswordFile
from hub.settings import EngineSettings, HubSettings, LabSettings, Settings
from spawner_config.engines.base import EngineError, EngineUnreachable


def settings_in(folder: Path, kind: str = "local", port: int = 18000) -> Settings:
    return Settings(lab=LabSettings(state=folder), hub=HubSettings(port=port)).with_engine(kind)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_the_state_of_a_lab_is_written_once_and_kept(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert lab._write_state(settings, Deployment("local", "local")) is True
    first = lab.read_logins(tmp_path)["logins"]
    assert lab._write_state(settings, Deployment("local", "local")) is False
    assert lab.read_logins(tmp_path)["logins"] == first
    passwords = PasswordFile(tmp_path / "hub" / "passwords.json")
    assert all(passwords.check(login, entry["password"]) for login, entry in first.items())
    assert list(first) == ["team", "coordinator", "leader", "admin"]
    for name in ("logins.json", "secrets.json", "hub/settings.json", "hub/passwords.json", "hub/deployment.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert not any(entry["password"] in (tmp_path / "hub" / "passwords.json").read_text() for entry in first.values())


def test_the_hubs_container_is_told_its_own_paths(tmp_path: Path) -> None:
    lab._write_state(settings_in(tmp_path, "docker"), Deployment("docker", "sandbox:1", "hub:1"))
    assert json.loads((tmp_path / "hub" / "settings.json").read_text())["lab"]["state"] == "/srv/lab"
    assert Deployment.load(tmp_path) == Deployment("docker", "sandbox:1", "hub:1")


def test_a_full_disk_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "LEAST_FREE", 2**60)
    with pytest.raises(lab.LabError, match=r"GiB are free .* set lab\.state"):
        lab.up(settings_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(lab.LabError, match="file/state"):
        lab.up(settings_in(tmp_path / "file" / "state"))


def test_a_taken_port_is_named_with_the_setting(tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr("hub.lab_local.time.monotonic", lambda: next(ticks))
    with pytest.raises(EngineError, match=rf"Port {taken} is taken .* hub\.port={taken}"):
        LocalBackend(settings_in(tmp_path, port=taken))._check_ports()


def test_an_engine_that_is_asked_for_and_does_not_answer_is_an_error(tmp_path: Path) -> None:
    nowhere = EngineSettings(kind="docker", docker_host=f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnreachable, match=r"none\.sock"):
        lab.choose_backend(Settings(engine=nowhere, lab=LabSettings(state=tmp_path)))


def test_without_an_engine_auto_is_local(tmp_path: Path) -> None:
    nowhere = EngineSettings(kind="auto", docker_host=f"unix://{tmp_path}/none.sock")
    backend = lab.choose_backend(Settings(engine=nowhere, lab=LabSettings(state=tmp_path)))
    assert backend.engine == "local"
    assert "trying out" in backend.notices()[0]


def test_where_no_lab_was_started_there_is_none_to_stop_or_follow(tmp_path: Path) -> None:
    assert lab.down(settings_in(tmp_path)) is False
    with pytest.raises(lab.LabError, match="proverom up"):
        list(lab.logs(settings_in(tmp_path)))
    with pytest.raises(NotDeployed):
        Deployment.load(tmp_path)


def test_a_pid_file_of_another_boot_or_process_is_nobody(tmp_path: Path) -> None:
    import os

    backend = LocalBackend(settings_in(tmp_path))
    (tmp_path / "hub").mkdir()
    for start, boot in ((1, None), (None, "another")):
        from spawner_config.engines.keeper import boot_id, start_time

        found = {"pid": os.getpid(), "start": start or start_time(os.getpid()), "boot": boot or boot_id()}
        (tmp_path / "hub" / "hub.pid").write_text(json.dumps(found))
        assert backend.alive() is False
    for damaged in ("", "[]", "{}"):
        (tmp_path / "hub" / "hub.pid").write_text(damaged)
        assert backend.alive() is False


def test_erasing_leaves_other_files_alone(tmp_path: Path) -> None:
    lab._write_state(settings_in(tmp_path), Deployment("local", "local"))
    (tmp_path / "mine.txt").write_text("x")
    (tmp_path / "local" / "volumes" / "a").mkdir(parents=True)
    lab.erase(settings_in(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_hub_gets_its_settings_by_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVEROM_HUB__PORT", "9999")
    given = _environment(tmp_path)
    assert [name for name in given if name.startswith("PROVEROM_")] == ["PROVEROM_CONFIG"]


def test_a_lab_is_stopped_by_the_name_it_was_started_with(tmp_path: Path) -> None:
    started = settings_in(tmp_path).with_lab("fresh")
    lab._write_state(started, Deployment("local", "local", lab="fresh"))
    backend = lab._deployed_backend(settings_in(tmp_path))
    assert isinstance(backend, lab.LocalBackend)
    assert backend._settings.lab.name == "fresh"


def test_two_labs_never_share_a_state_folder(tmp_path: Path) -> None:
    lab._write_state(settings_in(tmp_path), Deployment("local", "local", lab="other"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(lab.LabError, match=r"holds the lab 'other'.* lab\.state"):
        lab.up(settings_in(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
