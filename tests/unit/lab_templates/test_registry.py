"""Where templates are found, and that a folder's links and pipes are left alone."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab_templates.checks import advice
from lab_templates.registry import FILES, library, load_folder

Codes = Callable[[Callable[[], object]], list[str]]


@pytest.fixture
def folder(tmp_path: Path, notebooks: Path) -> Path:
    shutil.copy(notebooks / "good.ipynb", tmp_path / "template.ipynb")
    shutil.copy(notebooks / "declaration.toml", tmp_path / "template.toml")
    (tmp_path / "README.md").write_text("# Svarprosent\n", encoding="utf-8")
    return tmp_path


def test_every_template_of_the_library_passes_the_gate_without_advice() -> None:
    versions = library()
    assert [version.name for version in versions] == ["letter-ab-test"]
    assert [advice(version) for version in versions] == [()]
    assert all(version.readme.startswith("# ") for version in versions)


def test_a_folder_is_a_template(folder: Path) -> None:
    assert load_folder(folder).name == "svarprosent"
    assert load_folder(str(folder)).readme == "# Svarprosent\n"


def test_all_missing_files_are_named(tmp_path: Path, codes: Codes) -> None:
    assert codes(lambda: load_folder(tmp_path)) == ["missing_file"] * 3
    assert codes(lambda: load_folder(tmp_path / "nowhere")) == ["no_such_folder"]


def test_a_link_is_not_followed(folder: Path, codes: Codes) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")
    assert codes(lambda: load_folder(folder)) == ["not_a_file"]


def test_a_pipe_does_not_hang(folder: Path, codes: Codes) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")
    assert codes(lambda: load_folder(folder)) == ["not_a_file"]


def test_a_folder_in_place_of_a_file(folder: Path, codes: Codes) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    assert codes(lambda: load_folder(folder)) == ["not_a_file"]


def test_no_more_is_read_than_the_gate_takes(folder: Path, codes: Codes) -> None:
    with open(folder / "template.ipynb", "wb") as file:
        file.truncate(2**40)  # a terabyte of nothing
    assert codes(lambda: load_folder(folder)) == ["file_too_large"]
    assert set(FILES) == {"template.ipynb", "template.toml", "README.md"}
