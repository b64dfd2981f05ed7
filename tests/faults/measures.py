"""How long it takes to notice and to get back to work, with the times that a lab has by default."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from catalog.store import Unavailable
from tests.faults.engine import until
from tests.faults.kinds import Scene
from tests.faults.lab import Lab, alive, kill
from tests.faults.nursery import start_cold
from tests.faults.processes import log_path

AWAY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Measure:
    """``seconds`` is the longest of all repetitions; ``goal`` is what it must not exceed."""

    name: str
    where: str
    seconds: float
    goal: float
    repetitions: int = 1

    @property
    def met(self) -> bool:
        return self.seconds <= self.goal

    def __str__(self) -> str:
        verdict = "ok" if self.met else "TOO LONG"
        what = f"{self.name} ({self.where}, {self.repetitions}x)"
        return f"{what}: {self.seconds:.1f} s, at most {self.goal:.0f} s: {verdict}"


@contextlib.contextmanager
def usual_times(lab: Lab) -> Iterator[None]:
    """Run the lab's processes with the default times instead of the suite's shorter ones."""
    lab.measuring = lab.usual_times = True
    lab.restart(clocked=False)
    try:
        yield
    finally:
        lab.usual_times = False
        lab.restart(clocked=False)
        lab.measuring = False


def dead_runner_noticed(scene: Scene, repetitions: int = 3) -> Measure:
    """From the kill of a runner's container until its run is queued again (or with another runner already)."""
    lab, worst = scene.lab, 0.0
    for _ in range(repetitions):
        box = until(lambda: scene.target(1), 60, "a run at work")
        run, attempt = lab.running_runs().get(box) or ("", 0)
        began = time.monotonic()
        if not lab.kill_sandbox(box):
            continue
        until(partial(_no_longer_running, lab, run, attempt), 60, "the run's return", every=0.02)
        worst = max(worst, time.monotonic() - began)
    return Measure("dead runner noticed", lab.kind, worst, 15, repetitions)


def dispatcher_back(scene: Scene, repetitions: int = 2) -> Measure:
    """From kill -9 of the only dispatcher until a new one, started the ordinary way, has given out work."""
    lab, worst = scene.lab, 0.0
    lab.mind(False)
    try:
        for _ in range(repetitions):
            for pid in lab.dispatchers[1:]:
                kill(pid)
            until(lambda: alive(lab.dispatchers[0]), 5, "a dispatcher")
            tickets = _tickets(lab)
            until(partial(_more_tickets, lab, tickets), 60, "work before the kill")
            began, tickets = time.monotonic(), _tickets(lab)
            kill(lab.dispatchers[0])
            cold = start_cold(replace(lab.plan, log=log_path(lab.folder, "dispatcher"), usual_times=True))
            lab.dispatchers[0] = cold.pid
            until(partial(_more_tickets, lab, tickets), 60, "work after the kill", every=0.02)
            worst = max(worst, time.monotonic() - began)
            lab.cold.append(cold)
    finally:
        lab.mind(True)
    return Measure("dispatcher back to work", lab.kind, worst, 10, repetitions)


def engine_back(scenes: tuple[Scene, ...], *, live_restore: bool) -> list[Measure]:
    """From the moment the engine answers again until a run that was waiting or cut off has been recorded."""
    engine = scenes[0].lab.engine
    for scene in scenes:
        until(partial(scene.target, 1), 60, "a run at work")
    before = [_finished(scene.lab) for scene in scenes]
    with engine.guard:
        engine.kill()
        time.sleep(2)
        engine.start(live_restore=live_restore)
    began = time.monotonic()
    done: dict[str, float] = {}
    while len(done) < len(scenes) and time.monotonic() - began < 60:
        for scene, known in zip(scenes, before, strict=True):
            now = _finished(scene.lab)
            if missing := known - now:
                scene.load.contradictions.append(f"finished runs are gone: {missing}")
            if now - known:
                done.setdefault(scene.lab.kind, time.monotonic() - began)
        time.sleep(0.05)
    how = "with" if live_restore else "without"
    return [
        Measure(f"back after an engine restart {how} live-restore", s.lab.kind, done.get(s.lab.kind, 60.0), 15)
        for s in scenes
    ]


def database_back(scene: Scene) -> Measure:
    """The database is away for a minute: from its return until the next run is recorded."""
    lab = scene.lab
    until(lambda: scene.target(1), 60, "a run at work")
    with _away(lab):
        time.sleep(AWAY_SECONDS)
    began, before = time.monotonic(), None
    while time.monotonic() - began < 60:
        with contextlib.suppress(Unavailable):
            now = _finished(lab)
            before = now if before is None else before
            if now - before:
                break
        time.sleep(0.05)
    return Measure("back after a minute without the database", lab.kind, time.monotonic() - began, 15)


@contextlib.contextmanager
def _away(lab: Lab) -> Iterator[None]:
    """PostgreSQL is stopped at once; SQLite's file is locked by another process' transaction."""
    if lab.postgres:
        lab.postgres.stop_at_once()
        yield
        lab.postgres.start()
        return
    other = sqlite3.connect(str(lab.state / "catalog.sqlite"), isolation_level=None, timeout=20)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def _no_longer_running(lab: Lab, run: str, attempt: int) -> bool:
    query = "SELECT count(*) FROM run WHERE id = :id AND state = 'running' AND attempt = :attempt"
    return bool(lab.rows(query, id=run, attempt=attempt)[0][0] == 0)


def _more_tickets(lab: Lab, than: int) -> bool:
    return _tickets(lab) > than


def _tickets(lab: Lab) -> int:
    return int(lab.rows("SELECT count(*) FROM runner")[0][0])


def _finished(lab: Lab) -> set[str]:
    return {row[0] for row in lab.rows("SELECT id FROM run WHERE state = 'succeeded'")}
