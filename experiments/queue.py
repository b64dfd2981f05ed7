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
        """Return the open runners whose run has ended: their sandboxes can be removed."""

    def expired(self, now: datetime) -> Sequence[Run]:
        """Return running runs whose lease has passed."""

    def give_back(self, run: str, attempt: int, now: datetime) -> Run:
        """End a lost attempt: the run is queued again, or ``failed`` with ``runner_lost`` after its last attempt.

        Does nothing if ``attempt`` no longer owns the run.
        """

    def end(self, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record an ending that the server decided on itself (deadline, cancel, start failure).

        Raise LeaseLost if ``attempt`` no longer owns the run.
        """

    # -- the runner's side -----------------------------------------------------------------------------------------
    def claim(self, token: str, now: datetime) -> Assignment | None:
        """Bind the runner to the next queued run of its agency and lease it; None if nothing waits.

        Claiming again with the same token before the run has ended returns the same assignment (a lost answer costs
        nothing). Raise TokenRefused if the token is unknown, closed, or its run has ended.
        """

    def heartbeat(self, token: str, run: str, attempt: int, progress: Progress, now: datetime) -> Directive:
        """Extend the lease and keep the progress. Raise TokenRefused, NotYourRun or LeaseLost."""

    def finish(self, token: str, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record the result, once. The same attempt finishing again gets the recorded run back, unchanged.

        Raise TokenRefused, NotYourRun or LeaseLost.
        """
