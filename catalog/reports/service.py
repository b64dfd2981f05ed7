"""Reports behind one door: who may see the run, what was rendered before, and the rendering."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.access import Viewer
from catalog.reports.source import record_of, with_files
from catalog.store import Catalog


@dataclass(frozen=True, slots=True)
class Reports:
    """Blocks while it works: call it in a thread.

    Each method raises NotFound where the viewer may not see the run, NotEnded while it is under way, and
    ReportUnavailable (with a sentence for people) where no report can be made.
    """

    catalog: Catalog

    def html(self, viewer: Viewer, run: str) -> bytes:
        """Return the report as one UTF-8 page. Serve it with ``page.policy`` as its Content-Security-Policy."""
        return self._rendered(viewer, run, "html")

    def pdf(self, viewer: Viewer, run: str) -> bytes:
        """Return the report as an accessible PDF."""
        return self._rendered(viewer, run, "pdf")

    def _rendered(self, viewer: Viewer, run: str, kind: str) -> bytes:
        # nbconvert takes most of a second to import: not before somebody reads a report.
        from catalog.reports.page import edition, render_html
        from catalog.reports.pdf import render_pdf

        source = record_of(self.catalog, viewer, run)
        key = source.key(kind, edition())
        kept = self.catalog.blobs.cached(key)
        if kept is not None:
            return kept
        source = with_files(self.catalog, viewer, source)
        data = render_html(source) if kind == "html" else render_pdf(source)
        self.catalog.blobs.cache(key, data)
        return data
