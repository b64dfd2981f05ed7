"""How many runners each agency gets: the one place that decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from experiments.queue import AgencyDemand

_NEVER = datetime.max.replace(tzinfo=UTC)


def desired_runners(demand: Sequence[AgencyDemand], *, total: int) -> Mapping[str, int]:
    """Return the number of runners each agency should have now, its running ones included.

    Nobody gets more than ``max_concurrent``, or more than it has runs. What the lab has (``total``) is shared by
    weight: each next runner goes to the agency that has the least for its weight, then to the one that has waited
    longest. Running runs are never taken away, so the sum is above ``total`` for a while after ``total`` was lowered.
    """
    wanted = {row.agency: min(row.queued + row.running, max(row.max_concurrent, 0)) for row in demand}
    given = {row.agency: row.running for row in demand}
    free = total - sum(given.values())
    while free > 0:
        hungry = [row for row in demand if given[row.agency] < wanted[row.agency]]
        if not hungry:
            break
        chosen = min(hungry, key=lambda row: (given[row.agency] / max(row.weight, 1), row.oldest or _NEVER, row.agency))
        given[chosen.agency] += 1
        free -= 1
    return given
