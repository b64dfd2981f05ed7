"""What goes into an image."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from spawner_config.images import context


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in {
        "pyproject.toml": "[project]",
        ".gitignore": ".lab/\n*.log\n",
        "hub/cli.py": "1",
        "hub/debug.log": "secret",
        "hub/__pycache__/cli.cpython-311.pyc": "1",
        ".lab/secrets.json": "secret",
        "tests/test_x.py": "1",
        "hub/locale/nb.mo": "1",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_without_git_the_packages_files_go_in(project: Path) -> None:
    assert set(context.project_files(project)) == {"pyproject.toml", "hub/cli.py", "hub/debug.log"}


def test_with_git_what_is_ignored_stays_out_and_what_is_new_goes_in(project: Path) -> None:
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / "hub" / "new.py").write_text("2")
    assert set(context.project_files(project)) == {"pyproject.toml", "hub/cli.py", "hub/new.py"}


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pyproject\.toml"):
        context.project_files(tmp_path)


def test_the_digest_moves_with_every_part() -> None:
    one = context.digest({"a": b"1", "b": b"2"}, "base")
    assert one == context.digest({"b": b"2", "a": b"1"}, "base")
    others = [
        context.digest({"a": b"1", "b": b"3"}, "base"),
        context.digest({"a": b"12", "b": b""}, "base"),
        context.digest({"a1": b"", "b": b"2"}, "base"),
        context.digest({"a": b"1"}, "base"),
        context.digest({"a": b"1", "b": b"2"}, "other"),
        context.digest({"a": b"1", "b": b"2"}),
    ]
    assert len({one, *others}) == 7


def test_an_archive_of_the_same_files_is_the_same_bytes() -> None:
    files = {"install.sh": b"#!/bin/sh", "x/y": b"1"}
    assert context.archive(files) == context.archive(dict(reversed(files.items())))
    with tarfile.open(fileobj=io.BytesIO(context.archive(files))) as tar:
        assert tar.getmember("install.sh").mode == 0o755
        assert tar.extractfile("x/y").read() == b"1"  # type: ignore[union-attr]
