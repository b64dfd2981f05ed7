"""Listings of runs as files for spreadsheets and programs.

One row a run; each parameter is a column ``parameter.<name>``, each metric ``metric.<name> [unit]`` with ``.low`` and
``.high`` where any run has an interval.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from catalog.exports.cells import cell
from catalog.store.records import RunRecord

Row = dict[str, object]


def run_rows(runs: Sequence[RunRecord]) -> tuple[list[str], list[Row]]:
    """Return the columns, in order, and a row for each run; an absent value is None."""
    rows = [{**_fixed(run), **_parameters(run), **_metrics(run)} for run in runs]
    columns = list(_fixed(runs[0])) if runs else []
    for kind in ("parameter.", "metric."):
        columns += sorted({name for row in rows for name in row if name.startswith(kind)})
    return columns, [{name: row.get(name) for name in columns} for row in rows]


def runs_as_csv(runs: Sequence[RunRecord], *, excel: bool = False) -> bytes:
    """Return RFC 4180 CSV in UTF-8 whose cells no spreadsheet takes for formulas.

    ``excel``: semicolons, decimal commas and a byte order mark, which is what a Norwegian Excel opens without asking.
    """
    columns, rows = run_rows(runs)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";" if excel else ",", lineterminator="\r\n")
    writer.writerow([cell(name) for name in columns])
    for row in rows:
        writer.writerow([cell(row[name], decimal_comma=excel) for name in columns])
    return out.getvalue().encode("utf-8-sig" if excel else "utf-8")


def runs_as_json(runs: Sequence[RunRecord]) -> bytes:
    """Return a JSON array of objects with the same columns."""
    return json.dumps(run_rows(runs)[1], ensure_ascii=False, allow_nan=False).encode()


def _fixed(run: RunRecord) -> Row:
    return {
        "run": run.id,
        "agency": run.agency.orgnr,
        "agency_name": run.agency.name.get("nb"),
        "template": run.template,
        "version": run.version,
        "state": run.state.value,
        "reason": run.reason and run.reason.value,
        "requested_by": run.requested_by,
        "created_at": run.created_at.isoformat(),
        "seconds": run.seconds,
        "experiment": run.experiment,
        "finding": run.findings[0] if run.findings else None,
    }


def _parameters(run: RunRecord) -> Mapping[str, object]:
    return {f"parameter.{name}": value for name, value in run.parameters.items()}


def _metrics(run: RunRecord) -> Row:
    row: Row = {}
    for metric in run.metrics:
        name = f"metric.{metric.name}" + (f" [{metric.unit}]" if metric.unit else "")
        row[name] = metric.value
        if metric.ci_low is not None or metric.ci_high is not None:
            row[f"{name}.low"], row[f"{name}.high"] = metric.ci_low, metric.ci_high
    return row
