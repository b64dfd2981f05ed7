"""Who gets how many places: the one room where fairness is decided. A place is room for one run at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from experiments.queue import AgencyDemand

_NEVER = datetime.max.replace(tzinfo=UTC)


def desired_places(demand: Sequence[AgencyDemand], *, total: int) -> Mapping[str, int]:
    """Return how many places each agency should have now, those of its running runs included.

    Nobody gets more than ``max_concurrent``, or more than it has runs. What the lab has (``total``) is shared by
    weight: each next place goes to the agency that has the least for its weight, then to the one that has waited
    longest. What runs now gives no right to a place: a run is never interrupted for it, but the place of a sweep's run
    is passed on when that run ends.
    """
    wanted = {row.agency: min(row.queued + row.running, max(row.max_concurrent, 0)) for row in demand}
    given = {row.agency: 0 for row in demand}
    for _ in range(max(total, 0)):
        hungry = [row for row in demand if given[row.agency] < wanted[row.agency]]
        if not hungry:
            break
        chosen = min(hungry, key=lambda row: (given[row.agency] / max(row.weight, 1), row.oldest or _NEVER, row.agency))
        given[chosen.agency] += 1
    return given


def fitting(quota: float | None, each: float) -> int | None:
    """Return how many places a quota of memory (bytes) or CPU (cores) has room for, if each takes so much of it.

    None is any number: there is no quota, or a place takes nothing of it.
    """
    if quota is None or each <= 0:
        return None
    # Whole bytes are divided exactly; cores are not whole, and 0.3 of them are three times 0.1.
    return max(0, quota // each if isinstance(quota, int) and isinstance(each, int) else int(quota / each + 1e-9))


def split(places: int, *, singles: int, sweeps: int) -> tuple[int, int]:
    """Share an agency's places between its runs that stand by themselves and its runs of sweeps: all, or half each.

    What one of them does not need the other gets; of an odd number the single runs, for which somebody waits, get more.
    """
    for_singles = min(singles, max(places - sweeps, (places + 1) // 2))
    return for_singles, min(sweeps, places - for_singles)
