"""The set-up: what it leaves alone, and what it says where something is missing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hub.settings import PROJECT


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the set-up as a program of its own, with a virtual environment to be made in a folder of the test's."""
    spec = importlib.util.spec_from_file_location("proverom_setup", PROJECT / "hub" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / "venv"
    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(module, "STAMP", venv / "stamp.json")
    return module


def test_it_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PROJECT / "hub" / "setup.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Usage" in done.stderr


def test_what_has_not_changed_is_left_alone(setup: ModuleType) -> None:
    wanted = setup.digests()
    assert not setup.is_current(wanted, dev=False)
    setup.PYTHON.parent.mkdir(parents=True)
    setup.PYTHON.write_text("")
    setup.STAMP.write_text(json.dumps({"dev": False, **wanted}))
    assert setup.is_current(wanted, dev=False)
    assert not setup.is_current(wanted, dev=True)
    setup.STAMP.write_text(json.dumps({"dev": True, **wanted}))
    assert setup.is_current(wanted, dev=False)
    assert not setup.is_current({**wanted, "pyproject.toml": "changed"}, dev=True)
    setup.STAMP.write_text("{")
    assert not setup.is_current(wanted, dev=False)


def test_a_missing_venv_module_says_what_to_type(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(setup.Lacking, match=r"sudo apt-get install -y python3\.\d+-venv"):
        setup.add_debian_venv()
    monkeypatch.setattr(setup.shutil, "which", lambda _: None)
    with pytest.raises(setup.Lacking, match="venv module"):
        setup.add_debian_venv()


def test_an_old_python_is_refused(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(setup, "OLDEST", (99, 0))
    assert setup.main([]) == 2
    assert "make lab PYTHON=" in capsys.readouterr().err


def test_it_is_pips_own_settings_that_uv_is_given(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "global.cert='/etc/site.pem'\nglobal.extra-index-url='https://a https://b'\n:env:.cert='/etc/env.pem'\n"

    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, listing, "")

    monkeypatch.setattr(setup.subprocess, "run", run)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert setup.uv_environment() == {
        "UV_INDEX": "https://a https://b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": "/etc/env.pem",
    }
    monkeypatch.setenv("SSL_CERT_FILE", "/mine.pem")
    assert "SSL_CERT_FILE" not in setup.uv_environment()
