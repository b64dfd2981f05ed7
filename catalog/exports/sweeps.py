"""The points of a sweep as a file for spreadsheets: a row a point, what varies and each measure as a column."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from catalog.exports.cells import cell
from catalog.store.records import SweepPoint


def points_as_csv(
    points: Sequence[SweepPoint], varied: Sequence[str], units: Mapping[str, str], *, excel: bool = False
) -> bytes:
    """Return RFC 4180 CSV in UTF-8 whose cells no spreadsheet takes for formulas; ``units`` by measure.

    ``excel``: semicolons, decimal commas and a byte order mark, which is what a Norwegian Excel opens without asking.
    """
    metrics = list(dict.fromkeys(name for point in points for name in point.metrics))
    heads = [f"metric.{name}" + (f" [{units[name]}]" if units.get(name) else "") for name in metrics]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=";" if excel else ",", lineterminator="\r\n")
    columns = ["point", "run", "state", "reason", *(f"parameter.{name}" for name in varied), *heads]
    writer.writerow([cell(name) for name in columns])
    for point in points:
        row: list[object] = [point.point + 1, point.run, point.state.value, point.reason and point.reason.value]
        row += [point.parameters.get(name) for name in varied]
        row += [point.metrics.get(name) for name in metrics]
        writer.writerow([cell(value, decimal_comma=excel) for value in row])
    return out.getvalue().encode("utf-8-sig" if excel else "utf-8")
