"""Notices: what a person is told when work ends, and which of it by e-mail."""

from __future__ import annotations

from enum import StrEnum


class NoticeKind(StrEnum):
    RUN = "run"
    SWEEP = "sweep"
    SCHEDULE = "schedule"  # a schedule was stopped


class Wish(StrEnum):
    """What a person wants by e-mail. On the pages every notice is shown, whatever the wish."""

    NONE = "none"
    FAILURES = "failures"
    BATCHES = "batches"  # sweeps, and the runs of schedules: what nobody sits and waits for
    ALL = "all"


DEFAULT_WISH = Wish.BATCHES


def mailed(wish: Wish, kind: NoticeKind, *, scheduled: bool, succeeded: bool) -> bool:
    """Say whether this notice goes out by e-mail. ``scheduled``: a schedule started the run.

    A stopped schedule is a failure: somebody expects runs that will not come.
    """
    if wish is Wish.NONE:
        return False
    if wish is Wish.FAILURES:
        return not succeeded
    if wish is Wish.BATCHES:
        return scheduled or kind is not NoticeKind.RUN
    return True
