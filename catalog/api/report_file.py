"""The answer that is a report, of a run or of a sweep."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from catalog.api.files import file_response
from catalog.api.problems import Refusal
from catalog.reports.source import NotEnded, ReportUnavailable


def report_response(make: Callable[[], bytes], id: str, *, format: str, download: bool) -> Response:
    """Return what ``make`` renders (``format`` is html or pdf); raise Refusal where there is no report to render."""
    try:
        data = make()
    except NotEnded as error:
        raise Refusal(409, "not-ended", str(error)) from None
    except ReportUnavailable as error:
        raise Refusal(503, "report-unavailable", str(error)) from None
    if format == "pdf":
        return file_response(data, media_type="application/pdf", filename=f"{id}.pdf", attachment=download)
    from catalog.reports.page import policy  # nbconvert takes most of a second to import

    return file_response(
        data, media_type="text/html; charset=utf-8", filename=f"{id}.html", attachment=download, policy=policy()
    )
