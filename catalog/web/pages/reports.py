"""A run's report: our own page around it, the document itself in an opaque origin, and its PDF."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from catalog.web import files
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
    return files.document(visit.site.reports.html(visit.viewer, run))


@router.get("/reports/{run}/report.pdf")
def pdf(run: str, visit: Reader) -> Response:
    return files.saved(visit.site.reports.pdf(visit.viewer, run), files.PDF, "report", run)


@router.get("/reports/{run}/report.html")
def download(run: str, visit: Reader) -> Response:
    return files.saved(visit.site.reports.html(visit.viewer, run), files.HTML, "report", run)
