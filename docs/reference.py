"""Write docs/settings.md and docs/commands.md from the code: ``make docs``. A test holds them to it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

SETTINGS_HEAD = """# Settings

`proverom.toml` beside the project's `pyproject.toml`, or the file that `PROVEROM_CONFIG` names. Each setting can be
given as an environment variable too, which goes before the file. An unknown or wrong setting stops the start, with its
name, its value and what is allowed. (This page is written by `make docs`.)

```toml
[hub]
port = 8000
```
"""

COMMANDS_HEAD = """# Commands

Exit status: 0 done, 1 a run that failed or a thing that could not be done, 2 wrong use. `proverom --help`, and `--help`
after each command, say the same. (This page is written by `make docs`.)
"""


@dataclass(frozen=True, slots=True)
class Command:
    """``path`` is what one types, without arguments: ``proverom runs list``."""

    path: str
    usage: str
    help: str
    parameters: tuple[tuple[str, str], ...]


def commands() -> Iterator[Command]:
    """Yield every command of the command line, groups included, in the order of their names."""
    from typer.main import get_command

    from hub.cli import app

    yield from _walk(get_command(app), "proverom")


def _walk(command: Any, path: str) -> Iterator[Command]:
    described = [_described(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [name for name, _ in described if not name.startswith("-")]
    children = {name: c for name, c in sorted(getattr(command, "commands", {}).items()) if not c.hidden}
    usage = " ".join([path, *arguments, *(["COMMAND"] if children else [])])
    help_text = inspect.cleandoc(command.help or "").partition("\f")[0].strip()
    yield Command(path, usage, help_text, tuple(p for p in described if p[0] != "--help"))
    for name, child in children.items():
        yield from _walk(child, f"{path} {name}")


def _described(parameter: Any) -> tuple[str, str]:
    if parameter.param_type_name == "argument":
        return str(parameter.display_name_raw).upper(), parameter.help or ""
    return ", ".join([*parameter.opts, *parameter.secondary_opts]), parameter.help or ""


def api_routes() -> list[str]:
    """Return the path of every route of the API, below ``/api/v1``."""
    from fastapi import APIRouter

    import catalog.api

    found: set[str] = set()
    for module in pkgutil.iter_modules(catalog.api.__path__, "catalog.api."):
        router = getattr(importlib.import_module(module.name), "router", None)
        if isinstance(router, APIRouter):
            found |= {route.path for route in router.routes if getattr(route, "include_in_schema", False)}  # type: ignore[attr-defined]
    return sorted(found)


def settings_page() -> str:
    from hub.settings import every_setting

    lines = [SETTINGS_HEAD]
    section = ""
    for name, variable, default, description in every_setting():
        if name.partition(".")[0] != section:
            section = name.partition(".")[0]
            lines += [f"\n## [{section}]\n", "| Setting | Default | What it is |", "|---|---|---|"]
        what = _cell(description)
        lines.append(f"| `{name}` | {f'`{default}`' if default else ''} | {what} (`{variable}`) |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    lines = [COMMANDS_HEAD]
    for command in commands():
        lines += [f"\n## `{command.usage}`\n", command.help]
        if command.parameters:
            lines += ["\n| | |", "|---|---|"]
            lines += [f"| `{name}` | {_cell(help_text)} |" for name, help_text in command.parameters]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def pages() -> dict[str, str]:
    """Return file name in docs/ -> its text."""
    return {"settings.md": settings_page(), "commands.md": commands_page()}


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
