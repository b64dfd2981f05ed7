"""What the command line shows: plain tables, JSON, and one clear error."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from hub.client import Client

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

As = Annotated[
    str | None,
    typer.Option("--as", metavar="LOGIN", help="Act as a login of the lab that was started on this machine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=100_000, help="The most to list.")]


def fail(message: str, status: int) -> NoReturn:
    """Say what is wrong on stderr and end with ``status``."""
    print(f"proverom: {shown(message)}", file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def lab(login: str | None) -> Iterator[Client]:
    """Open the API as ``login`` or as the environment says, and turn its errors into an exit status."""
    # httpx takes a quarter of a second to import: not for --help.
    from hub.client import ApiError, Client
    from hub.connection import NotConnected, connect

    client = None
    try:
        client = Client(connect(login))
        yield client
    except NotConnected as error:
        fail(str(error), WRONG_USE)
    except ApiError as error:
        lines = [str(p.get("message", "")) for p in error.problems]
        fail("\n  ".join(lines) if lines and any(lines) else str(error), WRONG_USE if error.wrong_use else FAILED)
    finally:
        if client is not None:
            client.close()


def print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=2))


def show(value: object, as_json: bool, otherwise: Callable[[], None]) -> None:
    """Print ``value`` as JSON, or what ``otherwise`` prints."""
    if as_json:
        print_json(value)
    else:
        otherwise()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print a plain table as wide as it needs to be when it is piped, as wide as the window otherwise."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = [[shown(cell) for cell in row] for row in rows]
    if not found:
        print(empty, file=sys.stderr)
        return
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, name in enumerate(columns):
        drawn.add_column(name, overflow="fold", no_wrap=number == 0)
    for row in found:
        drawn.add_row(*(Text(cell) for cell in row))  # Text: nothing in a cell is taken for markup
    console = Console(highlight=False, soft_wrap=False, width=None if sys.stdout.isatty() else 10_000)
    if sys.stdout.isatty():
        console.print(drawn)
        return
    widths = [max(len(name), *(len(row[n]) for row in found)) for n, name in enumerate(columns)]
    for row in [list(columns), *found]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print ``name  value`` lines; a value that is None is left out."""
    kept = [(name, shown(value)) for name, value in pairs if value is not None and value != ""]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        print(f"{name.ljust(width)}  {value}")


def shown(value: object) -> str:
    """Return a value as a terminal may show it: what notebooks wrote must not steer it."""
    text = "-" if value is None else ("yes" if value is True else "no" if value is False else str(value))
    return "".join(c if c in "\n\t" or not _steers(c) else f"\\u{ord(c):04x}" for c in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") and character not in "\u200d\ufe0f\u00ad"


def local(moment: str | None) -> str:
    """Return an API time as local time, to the second."""
    return "-" if not moment else datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def name_of(text: dict[str, Any]) -> str:
    return str(text.get("nb") or text.get("nn") or text.get("en") or "")


def number(value: object) -> str:
    """Return a number with at most six significant digits."""
    return f"{value:.6g}" if isinstance(value, float) else shown(value)


def metric(m: dict[str, Any]) -> str:
    """Return ``2.3 pp (0.4 to 4.2)``."""
    said = number(m["value"]) if m["value"] is not None else shown(m.get("flag"))
    unit = f" {m['unit']}" if m["unit"] else ""
    return said + unit + (f" ({number(m['ci'][0])} to {number(m['ci'][1])})" if m.get("ci") else "")


def duration(value: float | None) -> str:
    """Return seconds as people say them: ``40 s``, ``12 min``, ``3 h 20 min``; ``-`` if not known."""
    if value is None:
        return "-"
    if value < 90:
        return f"{value:.0f} s"
    minutes = round(value / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{round(minutes / 60 / 24)} days"


def seconds(value: str | None) -> int | None:
    """Return ``90``, ``90s``, ``10m`` or ``2h`` in seconds; raise typer.BadParameter for anything else."""
    if value is None:
        return None
    text = value.strip().lower()
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    digits = text[:-1] if unit else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9 or int(digits) == 0:
        raise typer.BadParameter(f"{value!r} is not a time limit. Write it like 90s, 10m or 2h.")
    return int(digits) * (unit or 1)
