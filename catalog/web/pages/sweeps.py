"""Series of runs: those there are, one while it works and after, its runs, its report, and what one can do with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from catalog import wording
from catalog.access import Action, NotFound
from catalog.exports.sweeps import points_as_csv
from catalog.i18n import N_, Translator, decimals
from catalog.reports.display import Row
from catalog.reports.sweep_plot import Choice, Plot, choices_for_lines, plot
from catalog.reports.sweep_report import (
    SWEEP_COLORS,
    SWEEP_STATES,
    SweepReports,
    SweepSource,
    fixed_rows,
    provenance,
    source_of,
    values,
    version_of,
    ways,
)
from catalog.reports.sweep_svg import drawings, legend_mark
from catalog.reports.sweep_words import Findings, Names, findings, metric_order, too_few
from catalog.store.records import SweepRecord, SweepState
from catalog.web import files
from catalog.web.visit import CHECKED, Reader, Visit
from experiments.model import RunState

router = APIRouter()
PAGE_SIZE = 25
MOST_COLUMNS = 8  # measures of one table that a screen has room for
BAR = (RunState.SUCCEEDED, RunState.FAILED, RunState.RUNNING)  # the parts of the bar, in its order; the rest waits


@dataclass(frozen=True, slots=True)
class Progress:
    """How many runs of a series are where. ``failed`` counts all that ended without success."""

    size: int
    done: int
    succeeded: int
    failed: int
    running: int
    waiting: int

    @classmethod
    def of(cls, sweep: SweepRecord) -> Progress:
        succeeded = sweep.counts.get(RunState.SUCCEEDED, 0)
        running, waiting = (sweep.counts.get(state, 0) for state in (RunState.RUNNING, RunState.QUEUED))
        return cls(sweep.size, sweep.done, succeeded, sweep.done - succeeded, running, waiting)

    def shares(self) -> dict[str, float]:
        """Return the parts of the bar in hundredths of its width."""
        parts = {"succeeded": self.succeeded, "failed": self.failed, "running": self.running}
        return {name: 100 * part / max(1, self.size) for name, part in parts.items()}


@router.get("/sweeps")
def listing(visit: Reader, agency: str = "", template: str = "", experiment: str = "", cursor: str = "") -> Response:
    filters = {"agency": agency, "template": template, "experiment": experiment}
    page = visit.catalog.sweeps.list(
        visit.viewer,
        agency=agency or None,
        template=template or None,
        experiment=experiment or None,
        cursor=cursor or None,
        limit=PAGE_SIZE,
    )
    return visit.page(
        "sweeps.html",
        sweeps=[(sweep, Progress.of(sweep)) for sweep in page.items],
        next=visit.url("/sweeps", **filters, cursor=page.next) if page.next else None,
        first=visit.url("/sweeps", **filters) if cursor else None,
        filters=filters,
        filtered=any(filters.values()),
        agencies=visit.catalog.agencies.list(visit.viewer),
        templates=visit.catalog.templates.list(visit.viewer),
        can_run=bool(visit.my_agencies(Action.SUBMIT)),
        **_states(visit.t),
    )


@router.get("/sweeps/{sweep}")
def one(
    sweep: str, visit: Reader, metric: str = "", parameter: str = "", lines: str = "", problem: str = ""
) -> Response:
    source = source_of(visit.catalog, visit.viewer, sweep)
    record, t = source.record, visit.t
    if record.state.ended:
        visit.seen(record.id)
    names = Names(t, source.version, source.found.units)
    found = findings(source.found, source.points, names)
    return visit.page(
        "sweep.html",
        sweep=record,
        title=title(record, t),
        progress=Progress.of(record),
        bar=Progress.of(record).shares(),
        note=_note(record, t),
        live_texts=_live_texts(t),
        experiment=_experiment(visit, record),
        may_act=visit.may(Action.SUBMIT, record.agency.orgnr),
        problem=problem if problem in ("ended", "nothing") else "",
        ways=ways(source.failures, t),
        missing=Progress.of(record).failed,
        found=found,
        nothing=too_few(source.found, t),
        varied=[Row(names.parameter(name), values(source.points, name, names)) for name in record.varied],
        fixed=fixed_rows(source, names),
        provenance=provenance(record, t),
        **_plotted(source, found, names, Choice(metric, parameter, lines)),
        **_states(t),
    )


def _plotted(source: SweepSource, found: Findings, names: Names, asked: Choice) -> dict[str, Any]:
    """Return the plot that was asked for, or else that of the first measure that differs against what moves it most."""
    metrics, varied = metric_order(source.found, source.version), source.record.varied
    by_metric = {item.metric: item for item in found.moved}
    first = next(iter(by_metric), metrics[0] if metrics else "")
    metric = asked.metric if asked.metric in metrics else first
    best = by_metric[metric].rows[0].parameter if metric in by_metric else varied[0] if varied else ""
    parameter = asked.parameter if asked.parameter in varied else best
    splits = [name for name in choices_for_lines(source.points, varied) if name != parameter]
    lines = asked.lines if asked.lines in splits else ""
    drawn: Plot | None = None
    if metric and parameter:
        drawn = plot(source.points, Choice(metric, parameter, lines), names)
    return {
        "plot": drawn,
        "drawings": drawings(drawn, names.t) if drawn else "",
        "legend": [(legend_mark(i), line.label) for i, line in enumerate(drawn.lines)] if drawn and lines else [],
        "metrics": [(name, names.metric(name)) for name in metrics],
        "parameters": [(name, names.parameter(name)) for name in varied],
        "splits": [(name, names.parameter(name)) for name in splits],
        "chosen": Choice(metric, parameter, lines),
    }


@router.get("/sweeps/{sweep}/runs")
def runs(
    sweep: str,
    visit: Reader,
    sort: Annotated[str, Query(max_length=200)] = "",
    down: str = "",
    show: str = "",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """The runs of a series, in their order or by a measure; ``show=failed``: those without success only."""
    record = visit.catalog.sweeps.get(visit.viewer, sweep)
    results, t = visit.catalog.sweep_results, visit.t
    found = results.sensitivity(visit.viewer, sweep)
    version = version_of(visit.catalog, visit.viewer, record)
    names = Names(t, version, found.units)
    metrics = metric_order(found, version)
    shown = metrics[:MOST_COLUMNS]
    metric = sort if sort in shown else ""
    points = results.ranked(
        visit.viewer,
        sweep,
        metric=metric,
        descending=bool(down),
        unsuccessful=show == "failed",
        offset=(page - 1) * PAGE_SIZE,
        limit=PAGE_SIZE + 1,
    )
    path, given = f"/sweeps/{record.id}/runs", {"show": "failed" if show == "failed" else ""}
    digits = {name: decimals(point.metrics.get(name) for point in points) for name in shown}
    sorted_by = {"sort": metric, "down": "1" if metric and down else ""}
    heads = [
        (
            name,
            names.metric(name),
            names.metric_unit(name),
            visit.url(path, **given, sort=name, down="" if metric == name and down else "1"),
            ("descending" if down else "ascending") if metric == name else "none",
        )
        for name in shown
    ]
    return visit.page(
        "sweep_runs.html",
        sweep=record,
        title=title(record, t),
        rows=[
            (
                point,
                (_reason(t, point.reason) if point.reason else ""),
                [names.value(name, point.parameters[name]) for name in record.varied],
                [t.fixed(point.metrics[name], digits[name]) if name in point.metrics else "–" for name in shown],
            )
            for point in points[:PAGE_SIZE]
        ],
        heads=heads,
        columns=[names.parameter(name) for name in record.varied],
        hidden=len(metrics) - len(shown),
        sort=metric,
        failed=show == "failed",
        failures=Progress.of(record).failed,
        in_order=visit.url(path, **given),
        all=visit.url(path),
        only_failed=visit.url(path, show="failed"),
        previous=visit.url(path, **given, **sorted_by, page=page - 1) if page > 1 else None,
        next=visit.url(path, **given, **sorted_by, page=page + 1) if len(points) > PAGE_SIZE else None,
    )


@router.get("/sweeps/{sweep}/runs.csv")
def as_csv(sweep: str, visit: Reader, excel: str = "") -> Response:
    record = visit.catalog.sweeps.get(visit.viewer, sweep)
    points, _ = visit.catalog.sweep_results.points(visit.viewer, sweep)
    units = visit.catalog.sweep_results.sensitivity(visit.viewer, sweep).units
    data = points_as_csv(points, record.varied, units, excel=bool(excel))
    return files.saved(data, files.CSV, "series", record.id)


# -- what one can do -------------------------------------------------------------------------------------------------
@router.get("/sweeps/{sweep}/cancel")
def ask_cancel(sweep: str, visit: Reader) -> Response:
    record = visit.catalog.sweeps.get(visit.viewer, sweep)
    if record.state.ended:
        return visit.go(f"/sweeps/{record.id}")
    t = visit.t
    return visit.page(
        "confirm.html",
        title=t(N_("Cancel this series?")),
        text=t(N_("Runs that wait do not start, and runs under way are stopped. What is finished is kept.")),
        action=visit.url(f"/sweeps/{record.id}/cancel"),
        button=t(N_("Cancel the series")),
        back=visit.url(f"/sweeps/{record.id}"),
        danger=True,
    )


@router.post("/sweeps/{sweep}/cancel", dependencies=CHECKED)
def cancel(sweep: str, visit: Reader) -> Response:
    record = visit.catalog.sweeps.get(visit.viewer, sweep)
    ended = record.state.ended
    visit.catalog.sweeps.cancel(visit.viewer, sweep)
    return visit.go(f"/sweeps/{record.id}", problem="ended" if ended else "")


@router.post("/sweeps/{sweep}/resume", dependencies=CHECKED)
def resume(sweep: str, visit: Reader) -> Response:
    record = visit.catalog.sweeps.get(visit.viewer, sweep)
    if not Progress.of(record).failed and visit.may(Action.SUBMIT, record.agency.orgnr):
        return visit.go(f"/sweeps/{record.id}", problem="nothing")
    visit.catalog.sweeps.resume(visit.viewer, sweep)
    return visit.go(f"/sweeps/{record.id}")


# -- the report ------------------------------------------------------------------------------------------------------
@router.get("/sweeps/{sweep}/report")
def report(sweep: str, visit: Reader) -> Response:
    record = visit.catalog.sweeps.get(visit.viewer, sweep)
    if not record.state.ended:
        return visit.go(f"/sweeps/{record.id}")
    return visit.page("sweep_report.html", sweep=record, title=title(record, visit.t))


@router.get("/sweeps/{sweep}/document")
def document(sweep: str, visit: Reader) -> Response:
    return files.document(SweepReports(visit.catalog).html(visit.viewer, sweep, visit.t.language))


@router.get("/sweeps/{sweep}/report.pdf")
def report_pdf(sweep: str, visit: Reader) -> Response:
    data = SweepReports(visit.catalog).pdf(visit.viewer, sweep, visit.t.language)
    return files.saved(data, files.PDF, "series", sweep)


@router.get("/sweeps/{sweep}/report.html")
def report_html(sweep: str, visit: Reader) -> Response:
    data = SweepReports(visit.catalog).html(visit.viewer, sweep, visit.t.language)
    return files.saved(data, files.HTML, "series", sweep)


def title(record: SweepRecord, t: Translator) -> str:
    return t.text(record.template_title) or record.template


def _reason(t: Translator, word: str) -> str:
    """Return in a sentence why a run did not succeed."""
    said = wording.reason(t, word)
    return said[0] if said else ""


def _note(record: SweepRecord, t: Translator) -> str:
    """Return what happens now, as ``static/sweep.js`` says it too."""
    texts = _live_texts(t)
    if record.cancel_requested:
        return texts["stopping"]
    if record.state is SweepState.QUEUED:
        return texts["waiting"]
    if record.seconds_left is None:
        return texts["unknown"]
    return texts["left"].replace("{time}", t.duration(record.seconds_left))


def _live_texts(t: Translator) -> dict[str, str]:
    """Return the sentences that ``static/sweep.js`` fills in."""
    return {
        "waiting": t(N_("The lab is finding room for the first runs.")),
        "stopping": t(N_("The series is being cancelled …")),
        "unknown": t(N_("How long it takes is not known yet.")),
        "left": t(N_("About {time} left.")),
        "lost": t(N_("Contact with the lab is lost. Trying again …")),
        "second": t(N_("less than a minute")),
        "minute": t(N_("{count} min")),
        "hour": t(N_("{hours} h {minutes} min")),
        "newer": t(N_("{count} more runs have ended since this was shown.")),
    }


def _states(t: Translator) -> dict[str, Any]:
    return {"sweep_states": {word: t(text) for word, text in SWEEP_STATES.items()}, "sweep_colors": SWEEP_COLORS}


def _experiment(visit: Visit, record: SweepRecord) -> Any:
    try:
        return visit.catalog.experiments.get(visit.viewer, record.experiment) if record.experiment else None
    except NotFound:
        return None
