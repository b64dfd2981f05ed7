"""Settings: friendly values, one message for everything that is wrong, and a reference that names them all."""

from pathlib import Path

import pytest

from hub.settings import PROJECT, SettingsError, every_setting, load_settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("PROVEROM_"):
            monkeypatch.delenv(name)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    monkeypatch.setenv("PROVEROM_CONFIG", str(empty))


def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, name: str = "proverom.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    monkeypatch.setenv("PROVEROM_CONFIG", str(path))
    return path


def test_sizes_and_durations_are_written_as_people_write_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(
        monkeypatch, tmp_path, '[desk]\nmemory = "1.5 GiB"\n[runs]\ndefault_timeout = "10m"\nmax_timeout = 7200\n'
    )
    settings = load_settings()
    assert settings.desk.memory == 1536 * 1024**2
    assert (settings.runs.default_timeout, settings.runs.max_timeout) == (600, 7200)


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(monkeypatch, tmp_path, "[hub]\nport = 9000\ndesk_idle_minutes = 5\n")
    monkeypatch.setenv("PROVEROM_HUB__PORT", "9100")
    settings = load_settings()
    assert (settings.hub.port, settings.hub.desk_idle_minutes) == (9100, 5)


def test_everything_wrong_is_said_at_once_with_name_value_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = configure(monkeypatch, tmp_path, '[hub]\nprt = 1\n[hbu]\nport = 1\n[desk]\nmemory = "1 KiB"\n')
    monkeypatch.setenv("PROVEROM_RUNS__LEASE", "soon")
    monkeypatch.setenv("PROVEROM_LOGON__KIND", "demo")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    said = str(caught.value)
    assert f"hub.prt=1 (in {path}) is not a setting. Did you mean port? [hub] has: address," in said
    assert "[hbu]" in said
    assert "Did you mean hub?" in said
    assert "desk.memory='1 KiB'" in said
    assert "greater than or equal to" in said
    assert "runs.lease='soon' (PROVEROM_RUNS__LEASE) is wrong: give a number of seconds" in said
    assert "PROVEROM_LOGON__KIND='demo' is not a setting. Did you mean PROVEROM_LOGIN__KIND?" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[engine]\nkind = "swarmm"\n', "'docker' or 'local'"),
        ('[lab]\nname = "My Lab"\n', "lab.name='My Lab'"),
        ('[runs]\ndefault_timeout = "2h"\nmax_timeout = "1h"\n', "above max_timeout"),
        ('[engine]\nkind = "local"\n[hub]\naddress = "0.0.0.0"\n', "127.0.0.1 only"),
        (
            '[login]\nkind = "oidc"\nissuer = "https://id.example.no"\n',
            "authorize_url, token_url, client_id, client_secret",
        ),
        ('[login]\nusername_claim = "pid"\n', "national identity number"),
        ('[hub]\npublic_url = "lab.example.no"\n', "https://lab.example.no"),
        ("[hub\n", "is not valid"),
        ("[hub]\nport = nan\n", "hub.port=nan"),
    ],
)
def test_a_wrong_value_stops_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str) -> None:
    configure(monkeypatch, tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert said in str(caught.value)


def test_a_secret_is_never_in_the_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(monkeypatch, tmp_path, '[login]\nclient_secret = ["hush"]\n[catalog]\ndatabase_url = 77712345\n')
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "hush" not in str(caught.value)
    assert "77712345" not in str(caught.value)


def test_what_is_dumped_is_read_back_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(
        monkeypatch,
        tmp_path,
        '[lab]\nname = "two"\n[desk]\nmemory = "1 GiB"\n[runs]\nlease = "20s"\n[login]\nclient_secret = "s3"\n',
    )
    first = load_settings()
    configure(monkeypatch, tmp_path, first.dump(), "settings.json")
    again = load_settings()
    assert again.dump() == first.dump()
    assert again.login.client_secret.get_secret_value() == "s3"
    assert (again.desk.memory, again.runs.lease, again.state) == (1024**3, 20, first.state)


def test_the_hubs_container_sees_its_own_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(monkeypatch, tmp_path, '[engine]\ndocker_host = "unix:///run/other.sock"\n')
    inside = load_settings().with_engine("docker").inside(Path("/srv/lab"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert inside.database_url == "sqlite:////srv/lab/catalog.sqlite"
    assert inside.docker_host == "unix:///var/run/docker.sock"


def test_a_missing_ca_bundle_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(monkeypatch, tmp_path, '[engine]\nca_bundle = "/no/such.pem"\n')
    with pytest.raises(SettingsError, match=r"/no/such\.pem"):
        _ = load_settings().ca_bundle


def test_the_reference_names_every_setting_with_its_default() -> None:
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, variable, default, description in every_setting():
        section, _, short = name.partition(".")
        row = next((line for line in page.splitlines() if line.startswith(f"| `{name}`")), "")
        assert row, f"docs/settings.md does not document {section}.{short}"
        assert f"`{variable}`" in row
        assert not default or f"`{default}`" in row, f"{name}: the default {default} is not in docs/settings.md"
        assert description in row, f"{name}: docs/settings.md says something else"


def test_the_reference_names_nothing_that_is_not_there() -> None:
    page = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    known = {name for name, *_ in every_setting()}
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert rows == known
