"""All that one report is made of, gathered behind the viewer's back-check in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from catalog.access import NotFound, Viewer
from catalog.store import Catalog
from catalog.store.records import RunRecord
from lab_templates.model import LANGUAGES, TemplateVersion


class ReportUnavailable(Exception):
    """The report cannot be made now; the message says why and what to do."""


class NotEnded(ReportUnavailable):
    """The run is still waiting or running: there is nothing to report yet."""


@dataclass(frozen=True, slots=True)
class ReportSource:
    """``notebook`` is the executed notebook (hostile), None if none was kept; ``figures`` the images that the store
    checked, by name.
    """

    record: RunRecord
    notebook: bytes | None = None
    template: TemplateVersion | None = None
    figures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def language(self) -> str:
        """The language of the template's own text, which the whole report is written in."""
        language = self.template.language if self.template else "nb"
        return language if language in LANGUAGES else "nb"

    def key(self, kind: str, edition: str) -> str:
        """Return the name that a rendering goes by in the cache: another content or another ``edition`` is another
        name.
        """
        parts = (kind, edition, repr(self.record), self.template.digest if self.template else "")
        return f"report-{kind}-{hashlib.sha256(chr(0).join(parts).encode('utf-8', 'backslashreplace')).hexdigest()}"


def record_of(catalog: Catalog, viewer: Viewer, run: str) -> ReportSource:
    """Return the source without its heavy parts: enough to name it in the cache.

    Raise NotFound where the viewer may not see the run, NotEnded while it is under way.
    """
    record = catalog.runs.get(viewer, run)
    if not record.state.ended:
        raise NotEnded(f"Run {record.id} is {record.state.value}. Its report can be read when it has ended.")
    try:
        template = catalog.templates.get(viewer, record.template, record.version).version
    except NotFound:
        template = None
    return ReportSource(record, template=template)


def with_files(catalog: Catalog, viewer: Viewer, source: ReportSource) -> ReportSource:
    """Return the source with the notebook and the figures read."""
    record = source.record
    notebook = catalog.runs.notebook(viewer, record.id) if record.notebook_sha256 else None
    figures = {info.name: catalog.runs.figure(viewer, record.id, info.name)[1] for info in record.figures}
    return replace(source, notebook=notebook, figures=figures)
