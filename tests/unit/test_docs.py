"""The documentation says what the code does: nothing that users meet is undocumented, nothing documented is gone."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("spawner_config", "lab_templates", "experiments", "catalog", "hub")

# A Protocol whose docstring begins so is a note of what one function needs of another class, not a place to plug in.
NO_PLUG_POINT = ("What is needed of", "What an execution gives")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def documents() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def code_spans(text: str) -> set[str]:
    """Return what a Markdown text sets as code: inline spans, and the lines of its code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return set(inline) | {line.strip() for block in blocks for line in block.splitlines()}


def dependencies() -> set[str]:
    """Return the name of each direct dependency, as the project's file spells it."""
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {re.match(r"[\w.-]+", entry)[0] for entries in lists for entry in entries}  # type: ignore[index]


def decided() -> dict[str, str]:
    """Return dependency -> its reason, from the table in decisions.md."""
    section = read(DOCS / "decisions.md").partition("## What it builds on")[2]
    return dict(re.findall(r"^\| `([^`]+)` \| (.+?) \|$", section, re.MULTILINE))


def test_every_dependency_has_its_reason() -> None:
    assert dependencies() == set(decided())


def plug_points() -> Iterator[tuple[str, str]]:
    """Yield (module, class) of each Protocol in the project's packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(read(path))):
                if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                    continue
                bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
                if "Protocol" in bases and not (ast.get_docstring(node) or "").startswith(NO_PLUG_POINT):
                    yield ".".join(path.relative_to(ROOT).with_suffix("").parts), node.name


def test_every_plug_point_is_in_the_architecture() -> None:
    spans = code_spans(read(DOCS / "architecture.md"))
    missing = [f"{module}.{name}" for module, name in plug_points() if f"{module}.{name}" not in spans]
    assert not missing, f'docs/architecture.md, "Plug points", does not name {missing}'


def test_every_plug_point_that_is_documented_exists() -> None:
    section = read(DOCS / "architecture.md").partition("## Plug points")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)
    known = {f"{module}.{name}" for module, name in plug_points()}
    assert named
    assert set(named) <= known


def test_the_reference_pages_are_what_the_code_says() -> None:
    from docs.reference import pages

    for name, text in pages().items():
        assert read(DOCS / name) == text, f"docs/{name} is out of date: run `make docs`."


def known_commands() -> set[str]:
    from docs.reference import commands

    return {command.path for command in commands()}


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_commands_in_the_documents_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    commands = known_commands()
    for span in code_spans(read(document)):
        if match := re.match(r"make ([a-z]+)", span):
            assert match[1] in targets, f"{document.name} says `{span}`, and the Makefile has {sorted(targets)}"
        if match := re.match(r"(?:\.venv/bin/)?(proverom(?: [a-z]+)*)", span):
            words = match[1].split()
            longest = next((n for n in range(len(words), 0, -1) if " ".join(words[:n]) in commands), 0)
            assert longest == len(words) or longest > 1, f"{document.name} says `{span}`: no such command"


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_and_pictures_in_the_documents_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", read(document)):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), f"{document.name} links to {target}, which is not there"


def documented_paths() -> set[str]:
    """Return every path that the architecture's tables name, with whatever stands in braces as ``{}``."""
    found = re.findall(r"(?<![\w.])/[\w/{}.:-]*", " ".join(code_spans(read(DOCS / "architecture.md"))))
    return {re.sub(r"\{[^}]*\}", "{}", path) for path in found}


def test_every_api_route_is_in_the_architecture() -> None:
    from docs.reference import api_routes

    documented = documented_paths()
    missing = [route for route in api_routes() if not documented & {plain(route), f"/runner/v1{plain(route)}"}]
    assert not missing, f"docs/architecture.md does not name {missing}"


def plain(route: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", route)
