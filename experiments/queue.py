"""The durable queue of runs, as the dispatcher and the runner protocol see it.

``catalog.store`` implements it over the database; ``experiments.testing`` holds an in-memory twin that keeps the same
promises. Every method is atomic. ``now`` is UTC and comes from the caller, so a test can move the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from experiments.model import Assignment, Directive, Progress, Run, RunnerTicket, RunResult


class TokenRefused(Exception):
    """The runner's token is unknown, used up, or its runner has been closed (HTTP 401)."""


class NotYourRun(Exception):
    """The token is good, but not for this run (HTTP 403)."""


class LeaseLost(Exception):
    """This attempt no longer owns the run: it ended, or another attempt has taken over (HTTP 409)."""


@dataclass(frozen=True, slots=True)
class AgencyDemand:
    """What one agency waits for, and its share. Oldest is the creation time of its oldest queued run."""

    agency: str
    slug: str
    queued: int
    running: int
    max_concurrent: int
    weight: int
    oldest: datetime | None


class RunQueue(Protocol):
    # -- the dispatcher's side -------------------------------------------------------------------------------------
    def demand(self) -> Sequence[AgencyDemand]:
        """Return one row for each agency that has queued or running runs."""

    def open_runner(self, ticket: RunnerTicket) -> None:
        """Record a runner before its sandbox is started, so that a crash in between leaves a trace."""

    def runners(self) -> Sequence[RunnerTicket]:
        """Return the tickets of all runners that are not closed."""

    def idle_runners(self) -> Sequence[RunnerTicket]:
        """Return the open runners that have not been bound to a run."""

    def close_runner(self, runner: str) -> None:
        """End a runner's token for good. Closing twice is no error."""

    def active(self) -> Sequence[Run]:
        """Return every run in state ``running``."""

    def finished_runners(self) -> Sequence[RunnerTicket]:
        """Return the open runners whose run has ended or whose attempt was given back: their sandboxes can go."""

    def oldest_queued(self, agency: str) -> Run | None:
        """Return the agency's queued run that waits longest (the one that the next claim would get), or None."""

    def expired(self, now: datetime) -> Sequence[Run]:
        """Return running runs whose lease has passed."""

    def give_back(self, run: str, attempt: int, now: datetime) -> Run:
        """End a lost attempt: the run is queued again, or ``failed`` with ``runner_lost`` after its last attempt.

        A run whose cancellation was asked for becomes ``cancelled`` instead. A run that is queued again has no times
        but ``created_at``, no runner and no progress. Does nothing if ``attempt`` no longer owns the run.
        """

    def end(self, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record an ending that the server decided on itself (deadline, cancel, start failure).

        A queued run can be ended too; ``attempt`` is then the number of its last one (0 if there was none). Raise
        LeaseLost if the run has ended or ``attempt`` no longer owns it.
        """

    # -- the runner's side -----------------------------------------------------------------------------------------
    def claim(self, token: str, now: datetime) -> Assignment | None:
        """Bind the runner to the oldest queued run of its agency and lease it; None if nothing waits.

        None too while the agency has ``max_concurrent`` running runs: the quota holds however many runners there are.
        The run's ``started_at`` is now, its ``deadline_at`` its time limit later. Claiming again with the same token
        before the run has ended returns the same assignment and renews the lease (a lost answer costs nothing). Raise
        TokenRefused if the token is unknown or closed, its run has ended, or its attempt was given back.
        """

    def heartbeat(self, token: str, run: str, attempt: int, progress: Progress, now: datetime) -> Directive:
        """Extend the lease and keep the progress.

        Raise TokenRefused, NotYourRun, or LeaseLost if the run has ended or ``attempt`` is not this runner's own.
        """

    def finish(self, token: str, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record the result, once. An attempt whose run has ended already gets the recorded run back, unchanged.

        Raise TokenRefused, NotYourRun, or LeaseLost if another attempt has taken over or the run waits for one.
        """
