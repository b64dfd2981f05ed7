"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup
from nbconvert.exporters import HTMLExporter, TemplateExporter
from nbformat import NotebookNode

from catalog import wording
from catalog.i18n import Translator, decimals, translator
from catalog.reports.cleaning import clean_html, clean_markdown, image
from catalog.reports.display import metric_rows, parameter_rows, provenance_rows
from catalog.reports.notebook import image_bytes, readable
from catalog.reports.pictures import pictures
from catalog.reports.source import ReportSource
from experiments.model import RunState, Scalar, Table

TEMPLATES = Path(__file__).parent / "templates"
MAX_ROWS = 200
MAX_COLUMNS = 30
_LOCK = threading.Lock()
# A Markdown heading at the very start: "# Title", or a line that is underlined.
_HEADING = re.compile(
    r"\s*(?:#{1,6}[ \t]+(?P<atx>[^\n]*?)[ \t]*#*[ \t]*(?:\n|\Z)|(?P<underlined>[^\n]+)\n(?:=+|-+)[ \t]*(?:\n|\Z))"
)


@cache
def own(name: str) -> str:
    """Return the text of one of the template's own files."""
    return (TEMPLATES / "proverom" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def inner_policy() -> str:
    """Return what the page also says itself, for when it is read as a file. Hashes instead of nonces: it can be kept as
    it is.
    """
    return (
        f"default-src 'none'; script-src {_hash(own('height.js'))}; style-src {_hash(own('report.css'))}; "
        "img-src data:; font-src data:; connect-src 'none'; form-action 'none'; base-uri 'none'"
    )


def policy() -> str:
    """Return the Content-Security-Policy of a report: an opaque origin that runs one known script and connects to
    nothing.
    """
    return f"sandbox allow-scripts; {inner_policy()}; frame-ancestors 'self'"


class ReportExporter(HTMLExporter):
    """nbconvert with the project's own template: no code, no script, nothing from elsewhere, and everything cleaned.

    HTMLExporter's pass over the finished page by BeautifulSoup is left out: this template writes each alternative text
    itself.
    """

    def __init__(self, **kw: Any) -> None:
        kw.setdefault("template_name", "proverom")
        super().__init__(extra_template_basedirs=[str(TEMPLATES)], preprocessors=[], default_preprocessors=[], **kw)  # type: ignore[no-untyped-call]

    def _create_environment(self) -> Any:
        environment = super()._create_environment()  # type: ignore[no-untyped-call]
        environment.autoescape = True
        return environment

    def default_filters(self) -> Iterator[tuple[str, Any]]:
        yield from super().default_filters()  # type: ignore[no-untyped-call]
        yield "clean_html", clean_html
        yield "picture", lambda text, mime: image(mime, image_bytes(mime, text))
        yield "words", lambda cell: clean_markdown(cell.source, cell.get("attachments"))
        yield "markdown", clean_markdown

    def from_notebook_node(  # type: ignore[override]
        self, nb: NotebookNode, resources: Any = None, **kw: Any
    ) -> tuple[str, Any]:
        resources = self._init_resources(resources)  # type: ignore[no-untyped-call]
        page, resources = TemplateExporter.from_notebook_node(self, nb, resources, **kw)
        return str(page), resources


@cache
def _exporter() -> ReportExporter:
    return ReportExporter()


@cache
def edition() -> str:
    """Return a digest of all that shapes a report besides its source: a changed template or wording renders anew."""
    digest = hashlib.sha256()
    for folder in (TEMPLATES, Path(wording.__file__).parent / "locale", Path(__file__).parent):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".j2", ".css", ".js", ".po", ".py"):
                digest.update(path.read_bytes())
    digest.update(Path(wording.__file__).read_bytes())
    return digest.hexdigest()[:16]


def render_html(source: ReportSource, *, paper: bool = False) -> bytes:
    """Return the report as UTF-8 HTML. ``paper`` leaves the script out."""
    t = translator(source.language)
    view = _view(source, t)
    style, script = Markup(own("report.css")), Markup("" if paper else own("height.js"))  # noqa: S704 (our own files)
    resources = {"report": view, "_": t, "style": style, "script": script, "policy": inner_policy()}
    notebook = readable(source.notebook)
    _without_title(notebook, str(view["title"]))
    with _LOCK:  # an exporter keeps state from one page to the next
        page, _ = _exporter().from_notebook_node(notebook, resources)
    return page.encode("utf-8", "replace")


def _without_title(notebook: NotebookNode, title: str) -> None:
    """Take out the notebook's first words where they are a heading that only repeats the report's."""
    words = next((cell for cell in notebook.cells if cell.cell_type == "markdown"), None)
    heading = _HEADING.match(words.source) if words is not None else None
    if words is None or heading is None or _plain(heading["atx"] or heading["underlined"]) != _plain(title):
        return
    words.source = words.source[heading.end() :]
    if not words.source.strip():
        notebook.cells.remove(words)


def _plain(text: str) -> str:
    return " ".join(text.replace("*", "").split()).casefold()


def _view(source: ReportSource, t: Translator) -> dict[str, object]:
    record, template = source.record, source.template
    ended_well = record.state is RunState.SUCCEEDED
    return {
        "language": t.language,
        "title": t.text(template.title if template else record.template_title) or record.template,
        "summary": t.text(template.summary) if template else "",
        "agency": t.text(record.agency.name),
        "ended": t.moment(record.ended_at) if record.ended_at else "",
        "ended_well": ended_well,
        "state": wording.state(t, record.state),
        "reason": None if ended_well else wording.reason(t, record.reason),
        "error": record.error if not ended_well else None,
        "notices": [wording.notice(t, word) for word in record.notices],
        "findings": record.findings,
        "figures": list(pictures(record.figures, source.figures)),
        "metrics": metric_rows(record, template, t),
        "tables": [_table(table, t) for table in record.tables],
        "parameters": parameter_rows(record, template, t),
        "data_source": t.text(template.data_source) if template else "",
        "data_class": t(wording.DATA_CLASSES.get(template.data_class, template.data_class)) if template else "",
        "provenance": provenance_rows(record, t),
    }


def _table(table: Table, t: Translator) -> dict[str, object]:
    columns, kept = table.columns[:MAX_COLUMNS], table.rows[:MAX_ROWS]
    digits = [_decimals([row[i] for row in kept if i < len(row)]) for i in range(len(columns))]
    rows = [[_cell(value, digits[i], t) for i, value in enumerate(row[: len(columns)])] for row in kept]
    hidden = len(table.rows) - len(rows)
    cut = (
        t.plural("%(count)s more row is in the run's files.", "%(count)s more rows are in the run's files.", hidden)
        if hidden > 0
        else ""
    )
    numeric = [number is not None for number in digits]
    return {"caption": table.caption or table.name, "columns": columns, "rows": rows, "numeric": numeric, "cut": cut}


def _decimals(values: list[Scalar]) -> int | None:
    """Return how many decimals a column of numbers is shown with (three figures of its largest), None if it is no such
    column.
    """
    shown = [value for value in values if value is not None]
    if not shown or any(isinstance(value, bool) or not isinstance(value, int | float) for value in shown):
        return None
    return decimals(float(value) for value in shown if isinstance(value, int | float))


def _cell(value: Scalar, digits: int | None, t: Translator) -> str:
    return t.fixed(value, digits) if digits is not None and isinstance(value, int | float) else t.scalar(value)
