"""The durable queue of runs, as the dispatcher and the runner protocol see it.

``catalog.store`` implements it over the database; ``experiments.testing`` holds an in-memory twin that keeps the same
promises. Every method is atomic. ``now`` is UTC and comes from the caller, so a test can move the clock.

Batches
=======
A runner (a ``RunnerTicket``) carries out a batch: one run that stands by itself, or a slice of one sweep: up to
``batch_limit`` of its runs, at most ``slots`` at a time. What one claim does, in this order:

1. unknown or closed token: TokenRefused;
2. the runner owns a running attempt that is not among the ``holding`` it sends: that assignment again, the oldest
   first, its lease renewed (a lost answer costs nothing);
3. the runner is *spent*: TokenRefused. It is spent once it has claimed ``batch_limit`` runs, or a run that goes alone
   (see below); once one of its attempts was given back or ended by the server; once it was retired; or once it found
   nothing more of its sweep waiting (that is found out in the claim, and kept);
4. it owns ``slots`` running attempts, or its agency has ``max_concurrent`` running runs: None;
5. it is bound to a sweep: the sweep's oldest queued run that does not go alone, or else it is spent now;
6. it is not bound yet: the agency's oldest queued run of those meant for it (runs of sweeps if ``batch_limit`` is above
   1, runs that go alone if not), or else the oldest of the others, so that nothing starves; None if nothing waits. A
   runner meant for runs that go alone is one for sweeps from its first run of a sweep on: its ``batch_limit`` is then
   what the queue says, so that a runner that waited, ready, serves whatever comes.

A run *goes alone* if it belongs to no sweep, or if an attempt of it was lost: what it suffered may have been another's
doing in the same sandbox, or its own doing to the others. Alone it shows which.

A runner that sends a result can be given its next run in the same transaction (``finish_and_claim``): steps 3 to 6,
with None wherever a claim would be refused. Step 2 is left to claims, which a runner makes one at a time.

TokenRefused on a claim does not end the token: a spent runner goes on with heartbeats and results for what it holds,
then exits. A closed runner is refused everywhere. Over HTTP: ``POST claim`` with the body ``{"holding": [run ids]}``
(no body is an empty list) answers 200 with the assignment, 204 for None, 401 for TokenRefused; ``Assignment.start`` is
part of the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    """What one agency waits for, and its share. Oldest is the creation time of its oldest queued run.

    ``queued`` counts all that wait, ``queued_of_sweeps`` those of them that do not go alone. ``max_memory`` (bytes)
    and ``max_cpus`` (cores) bound all runners of the agency together; None is no bound.
    """

    agency: str
    slug: str
    queued: int
    running: int
    max_concurrent: int
    weight: int
    oldest: datetime | None
    queued_of_sweeps: int = 0
    max_memory: int | None = None
    max_cpus: float | None = None


@dataclass(frozen=True, slots=True)
class RunnerLoad:
    """An open runner and what it has to do: how many runs it has claimed so far, and how many of them it owns now.

    ``spent`` runners claim no more (see above).
    """

    ticket: RunnerTicket
    claimed: int
    running: int
    spent: bool

    @property
    def bound(self) -> bool:
        return self.claimed > 0

    @property
    def finished(self) -> bool:
        """Nothing is left for it to do: its sandbox can go."""
        return self.spent and self.running == 0

    @property
    def places(self) -> int:
        """How many places it takes: one that is to have fewer still holds the runs it has."""
        return self.running if self.spent else max(self.ticket.slots, self.running)


class RunQueue(Protocol):
    # -- the dispatcher's side -------------------------------------------------------------------------------------
    def demand(self, recent: datetime | None = None) -> Sequence[AgencyDemand]:
        """Return one row for each agency that has queued or running runs, or had a run submitted since ``recent``."""

    def open_runner(self, ticket: RunnerTicket) -> None:
        """Record a runner before its sandbox is started, so that a crash in between leaves a trace."""

    def runners(self) -> Sequence[RunnerTicket]:
        """Return the tickets of all runners that are not closed."""

    def loads(self) -> Sequence[RunnerLoad]:
        """Return the same runners, with what each of them has to do."""

    def resize_runner(self, runner: str, slots: int) -> None:
        """Let a runner hold so many runs at a time, at least 1; what it holds already goes on.

        No error if it is spent, closed or unknown.
        """

    def retire_runner(self, runner: str) -> None:
        """Let a runner claim no more; what it holds goes on. No error if it is retired, closed or unknown."""

    def close_runner(self, runner: str) -> None:
        """End a runner's token for good. Closing twice is no error."""

    def active(self) -> Sequence[Run]:
        """Return every run in state ``running``."""

    def newest(self) -> str | None:
        """Return the id of the newest run, however it stands: a look that costs little tells of what was submitted."""

    def oldest_queued(self, agency: str) -> Run | None:
        """Return the agency's queued run that waits longest, or None."""

    def expired(self, now: datetime) -> Sequence[Run]:
        """Return running runs whose lease has passed."""

    def give_back(self, run: str, attempt: int, now: datetime) -> Run:
        """End a lost attempt: the run is queued again, or ``failed`` with ``runner_lost`` after its last attempt.

        A run whose cancellation was asked for becomes ``cancelled`` instead. A run that is queued again has no times
        but ``created_at``, no runner and no progress. The runner that had it is spent. Does nothing if ``attempt`` no
        longer owns the run.
        """

    def end(self, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record an ending that the server decided on itself (deadline, cancel, start failure).

        A queued run can be ended too; ``attempt`` is then the number of its last one (0 if there was none). The runner
        of a running one is spent: it did not end the run itself. Raise LeaseLost if the run has ended or ``attempt`` no
        longer owns it.
        """

    # -- the runner's side -----------------------------------------------------------------------------------------
    def claim(self, token: str, now: datetime, holding: Collection[str] = ()) -> Assignment | None:
        """Give the runner its next run and lease it; None if there is none now. See above for which.

        ``holding`` are the runs that the runner knows it has. The run's ``started_at`` is now, its ``deadline_at`` its
        time limit later. Raise TokenRefused if the token is unknown or closed, or the runner is spent.
        """

    def heartbeat(self, token: str, run: str, attempt: int, progress: Progress, now: datetime) -> Directive:
        """Extend the lease and keep the progress.

        Raise TokenRefused, NotYourRun if this runner never claimed the run, or LeaseLost if the run has ended or
        ``attempt`` is not this runner's own.
        """

    def finish(self, token: str, run: str, attempt: int, result: RunResult, now: datetime) -> Run:
        """Record the result, once. An attempt whose run has ended already gets the recorded run back, unchanged.

        Raise TokenRefused, NotYourRun, or LeaseLost if another attempt has taken over or the run waits for one.
        """

    def finish_and_claim(
        self, token: str, run: str, attempt: int, result: RunResult, now: datetime
    ) -> tuple[Run, Assignment | None]:
        """Record the result like ``finish``, and give the runner its next run, if there is one for it now.

        There is none with a result that was recorded before: what went with it is claimed (step 2). Raise like
        ``finish``.
        """

    def hand_back(self, token: str, run: str, attempt: int, now: datetime) -> Run | None:
        """Give a run back that failed while others shared its sandbox, through no fault that can be proved its own.

        It is queued for another attempt, alone, and its runner is spent. Return None, with nothing changed, if what
        happened is to be recorded instead: the runner never had another run, this was the last attempt, or the run is
        to be cancelled. A run that was handed back already is returned as it is. Raise like ``finish``.
        """
