"""A run's report: our own page around it, the document itself in an opaque origin, and its PDF."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from catalog.web.visit import Reader

router = APIRouter()


@router.get("/runs/{run}/report")
def frame(run: str, visit: Reader) -> Response:
    record = visit.catalog.runs.get(visit.viewer, run)
    if not record.state.ended:
        return visit.go(f"/runs/{record.id}")
    return visit.page("report.html", run=record)


@router.get("/reports/{run}/document")
def document(run: str, visit: Reader) -> Response:
    from catalog.reports.page import policy

    headers = {
        "Content-Security-Policy": policy(),
        "Cache-Control": "private, no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return Response(visit.site.reports.html(visit.viewer, run), media_type="text/html; charset=utf-8", headers=headers)


@router.get("/reports/{run}/report.pdf")
def pdf(run: str, visit: Reader) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{_file_name(run)}.pdf"',
        "Cache-Control": "private, no-store",
    }
    return Response(visit.site.reports.pdf(visit.viewer, run), media_type="application/pdf", headers=headers)


@router.get("/reports/{run}/report.html")
def download(run: str, visit: Reader) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{_file_name(run)}.html"',
        "Cache-Control": "private, no-store",
    }
    return Response(visit.site.reports.html(visit.viewer, run), media_type="text/html; charset=utf-8", headers=headers)


def _file_name(run: str) -> str:
    return "report-" + "".join(c for c in run if c.isascii() and c.isalnum())[:26]
