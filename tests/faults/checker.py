"""Compares what was acknowledged with what is recorded, once everything has come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from docker.errors import DockerException

from catalog.blobs import BlobDamaged, BlobMissing, Blobs
from catalog.store import Unavailable
from spawner_config import names
from tests.faults.lab import AGENCIES, Lab
from tests.faults.load import Asked, Load

REST_SECONDS = 60  # without any progress, once nothing is asked for or killed any more: then something never ends


@dataclass
class Findings:
    """Each a list of sentences. Every one of them is a fault of the lab's, and none is expected.

    ``wrong``: an end that no fault explains. ``left``: what should be gone.
    """

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    endless: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    checked: int = 0  # runs

    def add(self, other: Findings) -> None:
        for name in ("lost", "twice", "endless", "wrong", "left"):
            getattr(self, name).extend(getattr(other, name))
        self.checked += other.checked

    def sentences(self) -> list[str]:
        kinds = (("lost", self.lost), ("recorded twice", self.twice), ("never ends", self.endless))
        more = (("wrong", self.wrong), ("left over", self.left))
        return [f"{kind}: {sentence}" for kind, found in (*kinds, *more) for sentence in found]


@dataclass(frozen=True, slots=True)
class _Run:
    id: str
    state: str
    reason: str | None
    attempt: int
    notebook: str | None
    answer: float | None


class Checker:
    """Knows which submissions it has checked already; each is checked once, after its round."""

    def __init__(self, lab: Lab, load: Load) -> None:
        self._lab, self._load = lab, load
        self._blobs = Blobs(lab.plan.blobs)
        self._checked: set[str] = set()

    def rest(self) -> Findings:
        """Wait until nothing waits, runs or lives any more; return what does not end, and what is left over."""
        found = Findings()
        end = time.monotonic() + REST_SECONDS
        last = time.monotonic() + 6 * REST_SECONDS
        before: list[str] = []
        while (moving := self.stirring()) and time.monotonic() < end:
            if moving != before:
                before, end = moving, max(end, min(time.monotonic() + REST_SECONDS, last))
            time.sleep(0.3)
        if moving:
            found.endless += [one for one in moving if "run " in one]
            found.left += [one for one in moving if "run " not in one]
        return found

    def stirring(self) -> list[str]:
        """Return what has not ended, or is not gone."""
        try:
            rows = self._lab.rows("SELECT id, state, attempt FROM run WHERE state IN ('queued', 'running')")
            found = [f"run {id} is {state}, attempt {attempt}" for id, state, attempt in rows]
            open_ones = self._lab.rows("SELECT id, sandbox, spent, claimed FROM runner WHERE closed_at IS NULL")
            found += [f"the token of {one} (spent, claimed: {more})" for one, _, *more in open_ones]
            found += [f"the run of sweep {one} has no end" for (one,) in
                      self._lab.rows("SELECT id FROM sweep WHERE ended_at IS NULL")]  # fmt: skip
            found += [f"container {name}" for name in self._lab.sandboxes(running=False)]
            known = {names.agency_network(self._lab.name, slug) for _, slug, *_ in AGENCIES}
            for network in self._lab.client.networks.list(filters={"label": f"{names.LAB}={self._lab.name}"}):
                if network.name not in known:
                    found.append(f"network {network.name}")
            found += [f"volume {volume.name}" for volume in self._lab.client.volumes.list()]
        except (Unavailable, DockerException, OSError) as error:
            return [f"unknown: {error}"]
        return found

    def audit(self) -> Findings:
        """Compare every acknowledged submission since the last audit with the database."""
        found = self.rest()
        load = self._load
        found.wrong += [f"never acknowledged: {key}" for key in load.pending]
        found.wrong += load.contradictions
        load.contradictions = []
        rows = self._lab.rows(
            "SELECT run.id, run.state, run.reason, run.attempt, run.notebook_sha256, metric.value, run.sweep, run.point"
            ", run.idempotency_key FROM run LEFT JOIN metric ON metric.run = run.id AND metric.name = 'answer'"
        )
        runs = {row[0]: _Run(row[0], row[1], row[2], row[3], row[4], row[5]) for row in rows}
        points: dict[str, dict[int, list[_Run]]] = {}
        for row in rows:
            if row[6] is not None:
                points.setdefault(row[6], {}).setdefault(row[7], []).append(runs[row[0]])
        promised = {id for _, id in load.acknowledged.values()}
        for row in rows:
            if row[6] is None and row[0] not in promised and row[8] not in load.pending:
                found.twice.append(f"run {row[0]} was asked for by nobody (key {row[8]})")
        for (sweep,) in self._lab.rows("SELECT id FROM sweep"):
            if sweep not in promised and not load.pending:
                found.twice.append(f"sweep {sweep} was asked for by nobody")
        for key, (asked, id) in load.acknowledged.items():
            if key in self._checked:
                continue
            self._checked.add(key)
            mine = points.get(id, {}) if asked.sweep else {0: [runs[id]] if id in runs else []}
            for point, number in enumerate(asked.numbers):
                self._check(found, asked, f"{key} ({id}), point {point}", mine.get(point, []), number)
        self._events(found, runs)
        return found

    def _check(self, found: Findings, asked: Asked, what: str, runs: list[_Run], number: int) -> None:
        found.checked += 1
        if len(runs) != 1:
            (found.twice if runs else found.lost).append(f"{what} has {len(runs)} runs")
            return
        run = runs[0]
        if run.state == "succeeded" and not asked.hog:
            if run.answer != 2 * number + 1:
                found.lost.append(f"{what}: the answer is {run.answer}, not {2 * number + 1}")
            try:
                self._blobs.get(run.notebook or "")
            except (BlobMissing, BlobDamaged) as error:
                found.lost.append(f"{what}: {error}")
        elif run.state == "failed" and run.reason == "out_of_memory" and asked.hog:
            return
        elif not (run.state == "failed" and run.reason == "runner_lost" and run.attempt == 3):
            found.wrong.append(f"{what} ended as {run.state} ({run.reason}), attempt {run.attempt}")

    def _events(self, found: Findings, runs: dict[str, _Run]) -> None:
        """Each end is an event once; each run that stands by itself, and each sweep, is told of once."""
        ends = self._lab.rows(
            "SELECT subject, count(*) FROM event WHERE action IN ('run.ended', 'sweep.ended') GROUP BY subject"
        )
        found.twice += [f"the end of {subject} has {count} events" for subject, count in ends if count > 1]
        ended = {subject for subject, _ in ends}
        found.lost += [f"run {run.id} has ended without an event" for run in runs.values() if run.id not in ended]
        asked = self._lab.rows(
            "SELECT subject, count(*) FROM event WHERE action IN ('run.submitted', 'sweep.submitted') GROUP BY subject"
        )
        found.twice += [f"{subject} was submitted by {count} events" for subject, count in asked if count > 1]
        told = dict(self._lab.rows("SELECT subject, count(*) FROM notice GROUP BY subject"))
        found.twice += [f"{subject} was told of {count} times" for subject, count in told.items() if count > 1]
        for _, id in self._load.acknowledged.values():
            if id not in told:
                found.lost.append(f"nobody was told of the end of {id}")
        claims = self._lab.rows("SELECT run, attempt, count(*) FROM runner_claim GROUP BY run, attempt")
        for run, attempt, count in claims:
            if count > 1:
                found.twice.append(f"attempt {attempt} of {run} was given to {count} runners")


def worth(found: Findings, say: Callable[[str], None]) -> None:
    """Say what was found."""
    for sentence in found.sentences():
        say(sentence)
