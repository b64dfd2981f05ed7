"""What an experiment found, recorded from inside its notebook.

    from experiments import record

    record.metric("difference", 2.3, unit="pp", ci=(0.4, 4.2), better="higher")
    record.figure("response", fig, alt="Bars: 41 % answered the old letter, 52 % the new one.")
    record.table("by office", frame)
    record.finding("A shorter letter gave 2.3 pp more answers in time.")

Each call puts one output of its own MIME type into the notebook, beside a form that JupyterLab shows. That is
all: no network, no credential, no file. The catalog reads the outputs when the run has ended. Outside a notebook
the text form is printed.

Only the standard library is imported here. A value that cannot be recorded raises ValueError or TypeError at once,
in the cell that recorded it; NaN and infinities are values (a division by nought is a result too) and are kept.
"""

from __future__ import annotations

import base64
import html
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

__all__ = ["MIME", "figure", "finding", "metric", "table"]

MIME = "application/vnd.proverom.result+json"

MAX_NAME = 200  # characters
MAX_UNIT = 60
MAX_TEXT = 2000  # a caption, an alternative text, a finding
MAX_CELL = 1000
MAX_FIGURE_BYTES = 5 * 1024 * 1024
MAX_FIGURE_PIXELS = 50_000_000
MAX_ROWS = 1000
MAX_COLUMNS = 50

_PNG = b"\x89PNG\r\n\x1a\n"


def metric(
    name: str,
    value: Any,
    *,
    unit: str = "",
    ci: tuple[Any, Any] | None = None,
    better: str | None = None,
) -> None:
    """Record one number.

    ``value`` is any real number: int, float, numpy scalar, Decimal. ``unit`` is what it is counted in (``pp``,
    ``NOK``, ``days``). ``ci`` is its confidence interval ``(low, high)``, finite, in the same unit. ``better`` is
    ``"higher"`` or ``"lower"`` where one of them is to be wished for.

    Raise TypeError if something is no number, ValueError if a text is too long or the interval is turned round.
    """
    kind = "metric"
    name = _text(kind, "name", name, MAX_NAME)
    number = _number(f"metric {name!r}: value", value)
    interval = None if ci is None else _interval(name, ci)
    if better not in ("higher", "lower", None):
        raise ValueError(
            f'metric {name!r}: better={better!r} is neither "higher" nor "lower". Use one of them or None.'
        )
    unit = _text(kind, "unit", unit, MAX_UNIT, empty=True)
    shown = f"{_show(number)} {unit}".rstrip()
    if interval is not None:
        shown += f" ({_show(interval[0])} to {_show(interval[1])})"
    _emit(
        {
            "kind": kind,
            "name": name,
            "value": number if math.isfinite(number) else str(number),
            "unit": unit,
            "ci": interval,
            "better": better,
        },
        plain=f"{name}: {shown}",
        as_html=f"<p><strong>{html.escape(name)}</strong>: {html.escape(shown)}</p>",
    )


def figure(name: str, image: Any, *, alt: str, caption: str = "", format: str = "png", dpi: int = 150) -> None:
    """Record one figure.

    ``image`` is a matplotlib Figure (or anything that has one, such as Axes), a PIL image, or the bytes of a PNG or
    SVG file. ``alt`` says in words what the figure shows, for those who cannot see it; the law requires it of public
    bodies, and so do we. ``format`` (``"png"`` or ``"svg"``) and ``dpi`` apply to matplotlib figures. A matplotlib
    figure is closed in pyplot, so that the notebook shows it once.

    Raise TypeError if ``image`` is none of these, ValueError if ``alt`` is missing or the image too large.
    """
    name = _text("figure", "name", name, MAX_NAME)
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(
            f"figure {name!r} has no alt text. Say in a sentence what it shows: people who cannot see it read that "
            'instead, and the law requires it of public bodies. For example alt="Bars: 41 % before, 52 % after."'
        )
    alt = _text("figure", "alt", alt, MAX_TEXT)
    caption = _text("figure", "caption", caption, MAX_TEXT, empty=True)
    mime, data = _image(name, image, format, dpi)
    if len(data) > MAX_FIGURE_BYTES:
        raise ValueError(
            f"figure {name!r} is {len(data)} bytes; at most {MAX_FIGURE_BYTES} can be recorded. Lower its dpi or size."
        )
    if mime == "image/png" and _pixels(data) > MAX_FIGURE_PIXELS:
        raise ValueError(f"figure {name!r} has {_pixels(data)} pixels; at most {MAX_FIGURE_PIXELS} fit. Lower its dpi.")
    encoded = base64.b64encode(data).decode("ascii")
    _emit(
        {"kind": "figure", "name": name, "mime": mime, "data": encoded, "caption": caption, "alt": alt},
        plain=f"Figure {name}: {alt}",
        shown={mime: encoded if mime == "image/png" else data.decode("utf-8")},
        metadata={mime: {"alt": alt}},
    )


def table(name: str, data: Any, *, caption: str = "") -> None:
    """Record one table.

    ``data`` is a pandas DataFrame or Series, a list of dicts (one per row) or a dict of equally long lists (one per
    column). A DataFrame's index becomes the first columns unless it merely counts the rows. Missing values become empty
    cells; numbers stay numbers, dates become ISO text, everything else becomes text.

    Raise TypeError if ``data`` is none of these, ValueError if it is too large or its columns differ in length.
    """
    name = _text("table", "name", name, MAX_NAME)
    caption = _text("table", "caption", caption, MAX_TEXT, empty=True)
    columns, rows = _columns_and_rows(name, data)
    if len(columns) > MAX_COLUMNS or len(rows) > MAX_ROWS:
        raise ValueError(
            f"table {name!r} has {len(rows)} rows and {len(columns)} columns; at most {MAX_ROWS} rows and "
            f"{MAX_COLUMNS} columns can be recorded. Summarise it: a reader needs the few numbers that matter."
        )
    titles = [_cell(name, title) for title in columns]
    if len(set(titles)) < len(titles):
        raise ValueError(f"table {name!r} has two columns of the same name. Rename one of them.")
    cells = [[_cell(name, value) for value in row] for row in rows]
    _emit(
        {"kind": "table", "name": name, "columns": [str(t) for t in titles], "rows": cells, "caption": caption},
        plain=_plain_table(name, titles, cells),
        as_html=_html_table(caption or name, titles, cells),
    )


def finding(text: str) -> None:
    """Record one finding: a sentence or two that a leader understands and can act on. The first is the headline.

    Raise TypeError if it is no text, ValueError if it is empty or longer than ``MAX_TEXT`` characters.
    """
    text = _text("finding", "text", text, MAX_TEXT)
    _emit(
        {"kind": "finding", "text": text},
        plain=text,
        as_html=f"<p><strong>{html.escape(text)}</strong></p>",
    )


# -- putting it out --------------------------------------------------------------------------------------------------


def _emit(
    payload: Mapping[str, Any],
    *,
    plain: str,
    as_html: str = "",
    shown: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    ipython = sys.modules.get("IPython")  # nobody is in a notebook without it: importing it here would only cost time
    if ipython is None or ipython.get_ipython() is None:
        print(plain)
        return
    bundle: dict[str, Any] = {MIME: dict(payload), "text/plain": plain, **(shown or {})}
    if as_html:
        bundle["text/html"] = as_html
    ipython.display.display(bundle, raw=True, metadata=dict(metadata or {}))


def _show(number: float) -> str:
    return f"{number:,.4g}".replace(",", " ") if abs(number) < 1e4 else f"{number:,.0f}".replace(",", " ")


def _plain_table(name: str, titles: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [titles, *rows[:20]]
    text = "\n".join("\t".join("" if cell is None else str(cell) for cell in line) for line in lines)
    more = f"\n… and {len(rows) - 20} more rows" if len(rows) > 20 else ""
    return f"{name}\n{text}{more}"


def _html_table(caption: str, titles: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(title))}</th>' for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{'' if cell is None else html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


# -- reading values --------------------------------------------------------------------------------------------------


def _text(kind: str, what: str, value: Any, longest: int, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{kind}: {what} must be text, not {type(value).__name__}.")
    text = value.strip()
    if not text and not empty:
        raise ValueError(f"{kind}: {what} is empty. Write something there.")
    if len(text) > longest:
        raise ValueError(f"{kind}: {what} is {len(text)} characters long; at most {longest} fit. Shorten it.")
    if any((ord(c) < 32 and c not in "\n\t") or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise ValueError(f"{kind}: {what} holds a control character or a broken one: {text[:40]!r}. Take it out.")
    return text


def _number(what: str, value: Any) -> int | float:
    """Return a Python number; whole numbers stay whole where a float could not hold them otherwise."""
    value = _python(value)
    if isinstance(value, bool | complex | str | bytes) or value is None or not hasattr(value, "__float__"):
        raise TypeError(f"{what}={value!r} is no number. Record a number, or put text into a finding.")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{what} is no number that can be recorded ({error}).") from error
    if isinstance(value, int) and abs(value) < 2**53:
        return int(value)
    return number


def _interval(name: str, ci: Any) -> list[float]:
    try:
        low, high = ci
    except (TypeError, ValueError) as error:
        raise ValueError(f"metric {name!r}: ci={ci!r} is no pair. Give ci=(low, high).") from error
    bounds = [_number(f"metric {name!r}: ci", low), _number(f"metric {name!r}: ci", high)]
    if not all(math.isfinite(bound) for bound in bounds):
        raise ValueError(f"metric {name!r}: ci={ci!r} is not finite. Leave ci out where there is no interval.")
    if bounds[0] > bounds[1]:
        raise ValueError(f"metric {name!r}: ci={ci!r} has its low end above its high end. Swap them.")
    return [float(bound) for bound in bounds]


def _python(value: Any) -> Any:
    """Return a numpy scalar (or array of no dimension) as the Python value it is; anything else unchanged."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _cell(table_name: str, value: Any) -> str | int | float | bool | None:
    value = _python(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    if isinstance(value, float):
        return None if math.isnan(value) else (value if math.isfinite(value) else str(value))
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if type(value).__name__ in ("Decimal", "Fraction"):
        return _cell(table_name, float(value))
    text = value.isoformat() if isinstance(value, date) else str(value)
    return _text(f"table {table_name!r}", "a cell", text, MAX_CELL, empty=True)


def _columns_and_rows(name: str, data: Any) -> tuple[list[Any], list[Sequence[Any]]]:
    if hasattr(data, "to_frame") and not hasattr(data, "columns"):
        data = data.to_frame()
    if hasattr(data, "columns") and hasattr(data, "itertuples"):
        return _from_frame(data)
    if isinstance(data, Mapping):
        columns = list(data)
        lists = [list(data[column]) for column in columns]
        if len({len(values) for values in lists}) > 1:
            raise ValueError(f"table {name!r} has columns of different lengths. Give each the same number of values.")
        return columns, list(zip(*lists, strict=True))
    if isinstance(data, Iterable) and not isinstance(data, str | bytes):
        rows = list(data)
        if all(isinstance(row, Mapping) for row in rows):
            columns = list(dict.fromkeys(key for row in rows for key in row))
            return columns, [[row.get(column) for column in columns] for row in rows]
    raise TypeError(f"table {name!r} is a {type(data).__name__}. Give a DataFrame, a list of dicts or a dict of lists.")


def _from_frame(frame: Any) -> tuple[list[Any], list[Sequence[Any]]]:
    if type(frame.index).__name__ != "RangeIndex":
        frame = frame.reset_index()
    columns = [
        " / ".join(str(level) for level in c if level != "") if isinstance(c, tuple) else c for c in frame.columns
    ]
    return columns, list(frame.itertuples(index=False, name=None))


# -- reading images --------------------------------------------------------------------------------------------------


def _image(name: str, image: Any, format: str, dpi: int) -> tuple[str, bytes]:
    if format not in ("png", "svg"):
        raise ValueError(f'figure {name!r}: format={format!r} is neither "png" nor "svg". Use one of them.')
    if isinstance(image, bytes | bytearray | memoryview):
        return _known_image(name, bytes(image))
    if not hasattr(image, "savefig"):  # Axes, and the results of pandas' and seaborn's plotting, know their figure
        image = getattr(image, "figure", image)
    if hasattr(image, "savefig"):
        return _matplotlib(image, format, dpi)
    if hasattr(image, "save") and hasattr(image, "mode") and hasattr(image, "size"):  # PIL
        buffer = io.BytesIO()
        (image if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I") else image.convert("RGB")).save(buffer, "PNG")
        return "image/png", buffer.getvalue()
    raise TypeError(
        f"figure {name!r} is a {type(image).__name__}. Give a matplotlib figure, a PIL image, or bytes of PNG or SVG."
    )


def _known_image(name: str, data: bytes) -> tuple[str, bytes]:
    if data.startswith(_PNG):
        return "image/png", data
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if "<svg" in text[:4096]:
        return "image/svg+xml", data
    raise ValueError(
        f"figure {name!r}: these {len(data)} bytes are neither a PNG nor an SVG file. Convert the image first."
    )


def _pixels(png: bytes) -> int:
    """Return width times height, which stand first in every PNG file."""
    return int.from_bytes(png[16:20], "big") * int.from_bytes(png[20:24], "big")


def _matplotlib(figure: Any, format: str, dpi: int) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    # Neither the time nor the version belongs in a result that the catalog keeps by its content.
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    figure.savefig(buffer, format=format, dpi=dpi, bbox_inches="tight", metadata=metadata)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and hasattr(figure, "number"):
        pyplot.close(figure)  # or the inline backend shows it a second time at the end of the cell
    return ("image/svg+xml" if format == "svg" else "image/png"), buffer.getvalue()
