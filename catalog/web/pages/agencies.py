"""An agency's page: its quotas, and how much of them is in use now."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter
from starlette.responses import Response

from catalog.access import is_admin
from catalog.i18n import N_
from catalog.store.usage import Quota, Usage
from catalog.web.visit import Reader, Visit

router = APIRouter()
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Row:
    """A quota in words, and the share of it that is in use (0 to 1; None where it is no limit, or leaves nothing)."""

    label: str
    used: str
    allowed: str
    each: str
    more: str
    share: float | None


@router.get("/agencies/{agency}")
def one(agency: str, visit: Reader) -> Response:
    """The page of an agency, by its organisation number or its short name."""
    usage = visit.catalog.usage.of(visit.viewer, agency)
    return visit.page(
        "agency.html", agency=usage.agency, usage=usage, rows=_rows(visit, usage), admin=is_admin(visit.viewer)
    )


def _rows(visit: Visit, usage: Usage) -> list[Row]:
    t = visit.t
    return [
        _row(visit, t(N_("Runs at the same time")), usage.runs, 1),
        _row(visit, t(N_("Memory")), usage.memory, usage.run_memory, _GIB, "GiB"),
        _row(visit, t(N_("Processor cores")), usage.cpus, usage.run_cpus),
    ]


def _row(visit: Visit, label: str, quota: Quota, each: float, scale: int = 1, unit: str = "") -> Row:
    t = visit.t
    more = t(N_("As many as the lab has room for"))
    if quota.more is not None:
        more = t.plural("%(count)s more run", "%(count)s more runs", quota.more) if quota.more else t(N_("No more now"))
    return Row(
        label=label,
        used=t.quantity(quota.used / scale, unit),
        allowed=t(N_("No limit")) if quota.allowed is None else t.quantity(quota.allowed / scale, unit),
        each=t.quantity(each / scale, unit),
        more=more,
        share=min(1.0, quota.used / quota.allowed) if quota.allowed else None,
    )
