"""Files on their way to a browser: a report inside our own page, from an opaque origin, or one to save."""

from __future__ import annotations

from starlette.responses import Response

PDF, HTML, CSV = "application/pdf", "text/html; charset=utf-8", "text/csv; charset=utf-8"
_EXTENSIONS = {PDF: "pdf", HTML: "html", CSV: "csv"}


def document(data: bytes) -> Response:
    """Return the report for the frame in our page: a stranger's HTML, which can reach nothing from there."""
    from catalog.reports.page import policy  # nbconvert comes with it: not before somebody reads a report

    headers = {
        "Content-Security-Policy": policy(),
        "Cache-Control": "private, no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(data, media_type=HTML, headers=headers)


def saved(data: bytes, kind: str, word: str, id: str) -> Response:
    """Return a file to save, called by a word of ours and what is plain of an id that somebody typed."""
    name = f"{word}-{''.join(c for c in id if c.isascii() and c.isalnum())[:26]}"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.{_EXTENSIONS[kind]}"',
        "Cache-Control": "private, no-store",
    }
    return Response(data, media_type=kind, headers=headers)
