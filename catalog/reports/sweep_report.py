"""A leader's report of a sweep: what matters most and by how much, the plot, how strong each connection is, where it
comes from. One self-contained page, also as PDF.

Nothing in it was made by a sandbox but names and numbers, which are escaped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from catalog import wording
from catalog.access import NotFound, Viewer
from catalog.i18n import N_, Translator, translator
from catalog.reports.display import Row
from catalog.reports.source import NotEnded
from catalog.reports.sweep_plot import Choice, Plot, plot
from catalog.reports.sweep_svg import drawings
from catalog.reports.sweep_words import Findings, Names, findings, too_few
from catalog.store import Catalog
from catalog.store.records import Failures, SensitivityRecord, SweepPoint, SweepRecord, SweepState
from experiments.model import RunState
from lab_templates.model import TemplateVersion

TEMPLATES = Path(__file__).parent / "templates"
MOST_PLOTS = 3  # measures that the report draws; the sweep's page draws any

SWEEP_STATES: dict[str, str] = {
    SweepState.QUEUED: N_("Waiting"),
    SweepState.RUNNING: N_("Running"),
    SweepState.SUCCEEDED: N_("Finished"),
    SweepState.PARTIAL: N_("Partly finished"),
    SweepState.FAILED: N_("Failed"),
    SweepState.CANCELLED: N_("Cancelled"),
}
SWEEP_COLORS: dict[str, str] = {
    SweepState.QUEUED: "neutral",
    SweepState.RUNNING: "info",
    SweepState.SUCCEEDED: "success",
    SweepState.PARTIAL: "warning",
    SweepState.FAILED: "danger",
    SweepState.CANCELLED: "neutral",
}


@dataclass(frozen=True, slots=True)
class SweepSource:
    """All that is shown of a sweep, gathered behind the viewer's back-check in the store."""

    record: SweepRecord
    version: TemplateVersion | None
    found: SensitivityRecord
    points: tuple[SweepPoint, ...]
    failures: tuple[Failures, ...]


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which runs failed: how many, and what happened."""

    points: int
    what: str
    run: str


def source_of(catalog: Catalog, viewer: Viewer, sweep: str) -> SweepSource:
    """Return a sweep as it is now. Raise NotFound where the viewer may not see it."""
    record = catalog.sweeps.get(viewer, sweep)
    results = catalog.sweep_results
    points, _ = results.points(viewer, sweep)
    found = results.sensitivity(viewer, sweep)
    return SweepSource(record, version_of(catalog, viewer, record), found, points, results.failures(viewer, sweep))


def version_of(catalog: Catalog, viewer: Viewer, record: SweepRecord) -> TemplateVersion | None:
    """Return the template version of a sweep, None if the viewer may not see it any more."""
    try:
        return catalog.templates.get(viewer, record.template, record.version).version
    except NotFound:
        return None


@dataclass(frozen=True, slots=True)
class SweepReports:
    """Blocks while it works: call it in a thread.

    Each method raises NotFound where the viewer may not see the sweep, NotEnded while it is under way, and
    ReportUnavailable where no PDF can be made. ``language``: nb, nn or en.
    """

    catalog: Catalog

    def html(self, viewer: Viewer, sweep: str, language: str) -> bytes:
        """Return the report as one UTF-8 page. Serve it with ``page.policy`` as its Content-Security-Policy."""
        return self._rendered(viewer, sweep, language, "html")

    def pdf(self, viewer: Viewer, sweep: str, language: str) -> bytes:
        """Return the report as an accessible PDF."""
        return self._rendered(viewer, sweep, language, "pdf")

    def _rendered(self, viewer: Viewer, sweep: str, language: str, kind: str) -> bytes:
        from catalog.reports.page import edition  # nbconvert comes with it: not before somebody reads a report
        from catalog.reports.pdf import print_page

        record = self.catalog.sweeps.get(viewer, sweep)
        if not record.state.ended:
            raise NotEnded(f"Sweep {record.id} is {record.state.value}. Its report can be read when it has ended.")
        named = chr(0).join((kind, language, edition(), repr(record))).encode("utf-8", "backslashreplace")
        key = f"sweep-{kind}-{hashlib.sha256(named).hexdigest()}"
        kept = self.catalog.blobs.cached(key)
        if kept is not None:
            return kept
        page = render(source_of(self.catalog, viewer, sweep), translator(language), paper=kind == "pdf")
        data = print_page(page) if kind == "pdf" else page
        self.catalog.blobs.cache(key, data)
        return data


def render(source: SweepSource, t: Translator, *, paper: bool = False) -> bytes:
    """Return the report as UTF-8 HTML. ``paper`` leaves out the script and what only a screen needs."""
    from catalog.reports.page import inner_policy, own

    record, names = source.record, Names(t, source.version, source.found.units)
    found = findings(source.found, source.points, names)
    body = (
        _environment()
        .get_template("report.html.j2")
        .render(
            _=t,
            t=t,
            plural=t.plural,
            language=t.language,
            policy=inner_policy(),
            style=Markup(own("report.css")),  # noqa: S704 (our own file)
            script=Markup("" if paper else own("height.js")),  # noqa: S704 (our own file)
            record=record,
            title=t.text(record.template_title) or record.template,
            agency=t.text(record.agency.name),
            ended=t.moment(record.ended_at) if record.ended_at else "",
            succeeded=record.counts.get(RunState.SUCCEEDED, 0),
            found=found,
            nothing=too_few(source.found, t),
            drawn=[(drawn, drawings(drawn, t)) for drawn in plots(source, found, names)],
            ways=ways(source.failures, t),
            varied=[Row(names.parameter(name), values(source.points, name, names)) for name in record.varied],
            fixed=fixed_rows(source, names),
            provenance=provenance(record, t),
            data_source=t.text(source.version.data_source) if source.version else "",
        )
    )
    return body.encode("utf-8", "replace")


def plots(source: SweepSource, found: Findings, names: Names) -> list[Plot]:
    """Return a plot of each of the first measures that differ against the parameter that moves it most."""
    shown = (
        plot(source.points, Choice(item.metric, item.rows[0].parameter), names) for item in found.moved[:MOST_PLOTS]
    )
    return [drawn for drawn in shown if drawn is not None]


def ways(failures: Sequence[Failures], t: Translator) -> list[Way]:
    """Return how runs failed, in sentences."""
    found = []
    for failure in failures:
        reason = wording.reason(t, failure.reason)
        found.append(Way(failure.points, reason[0] if reason else wording.state(t, failure.state), failure.run))
    return found


def values(points: Sequence[SweepPoint], name: str, names: Names) -> str:
    """Return over what a parameter varied: each value where they are few, how many and between which otherwise."""
    different = list(dict.fromkeys(point.parameters[name] for point in points))
    if len(different) <= 8:
        return ", ".join(names.value(name, value) for value in different)
    if not names.ordered(name):
        return names.t.plural("%(count)s value", "%(count)s values", len(different))
    ordered = sorted(
        different, key=lambda value: (value is None, value if isinstance(value, str) else float(value or 0))
    )
    low, high = names.value(name, ordered[0]), names.value(name, ordered[-1])
    said = N_("%(many)s values from %(low)s to %(high)s")
    return names.t(said, many=names.t.number(len(different)), low=low, high=high)


def fixed_rows(source: SweepSource, names: Names) -> list[Row]:
    """Return the values that were the same in every run, as the template and the request give them."""
    if source.version is None:
        return []
    given = source.record.request.get("fixed")
    kept = given if isinstance(given, dict) else {}
    rows = []
    for spec in source.version.parameters:
        if spec.name not in source.record.varied:
            value = kept.get(spec.name, spec.default)
            rows.append(Row(names.parameter(spec.name), names.value(spec.name, value)))
    return rows


def provenance(record: SweepRecord, t: Translator) -> list[Row]:
    """Return where a sweep comes from, by the server's own record."""
    rows = [
        Row(t(N_("Series of runs")), record.id),
        Row(t(N_("Template")), f"{record.template} {record.version}"),
        Row(t(N_("Template digest")), record.template_digest),
        Row(t(N_("Requested by")), record.requested_by),
        Row(t(N_("Requested")), t.moment(record.created_at)),
        Row(t(N_("Time limit for each run")), t.duration(record.timeout_seconds)),
    ]
    sample = record.request.get("sample")
    if isinstance(sample, dict):
        rows.append(Row(t(N_("Starting number of the draw")), str(sample.get("seed", ""))))
    if record.rounds > 1:
        rows.append(Row(t(N_("Rounds")), t.number(record.rounds)))
    if record.ended_at:
        rows.append(Row(t(N_("Ended")), t.moment(record.ended_at)))
    return rows


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES / "sweep"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
