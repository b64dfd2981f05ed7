"""The suite inside its network namespace: the ground, the measures, the rounds of faults on both databases."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from docker.errors import DockerException

from catalog.store import Unavailable
from tests.conftest import postgres_programs
from tests.faults import measures
from tests.faults.checker import Checker, Findings
from tests.faults.engine import OwnEngine, until
from tests.faults.kinds import KINDS, Kind, Later, Scene
from tests.faults.lab import Lab
from tests.faults.load import OPEN, Load
from tests.faults.nursery import Nursery

ROUND = 250  # kills on one lab between two audits
PORTS = {"sqlite": 8201, "postgresql": 8202}
TRIES = 60  # without a hit, before a class is given up


@dataclass
class Report:
    """What came of it all. ``kills`` by database and class."""

    seed: int
    kills: dict[str, dict[str, int]] = field(default_factory=dict)
    measures: list[measures.Measure] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    broken: list[str] = field(default_factory=list)  # of the suite itself: a class that could not be made
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(sum(classes.values()) for classes in self.kills.values())

    @property
    def good(self) -> bool:
        return not self.findings.sentences() and not self.broken and all(measure.met for measure in self.measures)

    def as_json(self) -> str:
        content: dict[str, Any] = asdict(self)
        return json.dumps({**content, "total": self.total, "good": self.good}, indent=2)


def shares(kills: int) -> dict[str, dict[str, int]]:
    """Return how many kills each database and class gets: by share, and each class at least one from 20 kills on."""
    halves = {"sqlite": kills - kills // 2, "postgresql": kills // 2}
    return {kind: _split(half) for kind, half in halves.items()}


def _split(kills: int) -> dict[str, int]:
    least = int(kills >= len(KINDS))
    total, left = sum(kind.share for kind in KINDS), kills - least * len(KINDS)
    parts = {kind.name: least + left * kind.share // total for kind in KINDS}
    for kind in sorted(KINDS, key=lambda kind: -kind.share)[: kills - sum(parts.values())]:
        parts[kind.name] += 1
    return parts


class Rounds:
    """The faults of one lab, in rounds, until its share is done."""

    def __init__(self, scene: Scene, share: Mapping[str, int], report: Report, say: Callable[[str], None]) -> None:
        self._scene, self._share, self._report, self._say = scene, share, report, say
        self._done = report.kills.setdefault(scene.lab.kind, {kind.name: 0 for kind in KINDS})
        self._missed = {kind.name: 0 for kind in KINDS}
        self._checker = Checker(scene.lab, scene.load)
        self.doing = ""  # for whoever looks on

    def go(self) -> None:
        checked = 0
        while (kind := self._next()) is not None:
            self._make(kind)
            self._count()
            if sum(self._done.values()) - checked >= ROUND:
                checked = sum(self._done.values())
                self.audit()
        self.audit()

    def _missing(self) -> dict[str, int]:
        given_up = {name for name, missed in self._missed.items() if missed >= TRIES}
        return {n: k - self._done[n] for n, k in self._share.items() if k > self._done[n] and n not in given_up}

    def _next(self) -> Kind | None:
        """Return what to do next, by what is missing most; None when nothing is missing."""
        while missing := self._missing():
            under_way = self._scene.later.under_way()
            under_way["dispatcher"] = len(self._scene.lab.armed)
            open_ = {name: count - under_way.get(name, 0) for name, count in missing.items()}
            names = [name for name, count in open_.items() if count > 0]
            self.doing = f"waits for {under_way}"
            if names:
                [name] = self._scene.rng.choices(names, [open_[name] for name in names])
                return next(kind for kind in KINDS if kind.name == name)
            time.sleep(0.2)
            self._count()
            for pid in list(self._scene.lab.armed):
                self._scene.lab.disarm(pid, after_seconds=8)
        for name in self._share.keys() - {n for n, k in self._share.items() if self._done[n] >= k}:
            self._report.broken.append(f"{self._scene.lab.kind}: {name} was made {self._done[name]} times only")
        return None

    def _make(self, kind: Kind) -> None:
        self._breathe()
        self.doing = kind.name
        before = len(self._scene.lab.armed) + sum(self._scene.later.under_way().values())
        try:
            hits = kind.make(self._scene)
        except (DockerException, OSError, Unavailable, TimeoutError, subprocess.SubprocessError, RuntimeError) as error:
            # The fault of another class came between; it is made again.
            self._say(f"{self._scene.lab.kind}: {kind.name} again: {type(error).__name__}: {str(error)[:200]}")
            hits = 0
        self._done[kind.name] += hits
        begun = len(self._scene.lab.armed) + sum(self._scene.later.under_way().values()) > before
        self._missed[kind.name] = 0 if hits or begun else self._missed[kind.name] + 1

    def _breathe(self) -> None:
        """Let the lab catch up with what the faults themselves have asked for: what waits in a queue is no target."""
        self.doing = "lets the lab catch up"
        end = time.monotonic() + 30
        while self._scene.load.open_runs() > 2 * OPEN and time.monotonic() < end:
            time.sleep(0.3)

    def _count(self) -> None:
        for name, hits in self._scene.later.take().items():
            self._done[name] += hits
        with self._scene.lab.lock:
            self._done["dispatcher"] += self._scene.lab.self_killed
            self._scene.lab.self_killed = 0

    def state(self) -> str:
        """Return in words what it is at, for a log in which nothing moves."""
        stirring = self._checker.stirring()[:4]
        return f"{self._scene.lab.kind}: {self.doing}; missing {self._missing()}; stirring {stirring}"

    def audit(self) -> None:
        """Let everything come to rest, compare, and go on."""
        scene = self._scene
        self.doing = "waits for what is under way"
        scene.later.wait()
        self._count()
        scene.load.stop()
        scene.load.settle(30)
        self.doing = "audit"
        try:
            found = self._checker.audit()
        except (Unavailable, DockerException, OSError) as error:
            found = Findings(wrong=[f"the audit failed: {error!r}"])
        for sentence in found.sentences():
            self._say(f"{scene.lab.kind}: FOUND {sentence}")
        self._report.findings.add(found)
        scene.load.start()


@contextlib.contextmanager
def ground(folder: Path, seed: int, say: Callable[[str], None]) -> Iterator[tuple[Scene, ...]]:
    """Raise the ground: an engine with the image, two labs with their load; and take it all away."""
    programs = postgres_programs()
    if programs is None:
        raise FileNotFoundError("PostgreSQL's programs are not installed. Get them: sudo apt-get install postgresql")
    clock = folder / "clock"
    clock.write_text("+0s\n")
    with contextlib.ExitStack() as stack:
        plain_folder, clocked_folder = folder / "plain", folder / "clocked"
        plain_folder.mkdir()
        clocked_folder.mkdir()
        plain, clocked = Nursery(plain_folder), Nursery(clocked_folder, clock=clock)
        stack.callback(plain.end)
        stack.callback(clocked.end)
        engine = OwnEngine(folder)
        stack.callback(engine.end)
        engine.start()
        engine.load_image()
        say("engine and image are there")
        until(lambda: plain.ready() and clocked.ready(), 60, "the nurseries")
        labs = []
        for kind, port in PORTS.items():
            (folder / kind).mkdir()
            lab = Lab(kind, folder / kind, engine, (plain, clocked), port, programs)
            labs.append(lab)
            stack.callback(lab.end)
            lab.start()
            lab.mind(True)
        scenes = []
        for lab in labs:
            rng = random.Random(f"{seed} {lab.kind}")
            load = Load(lab, random.Random(f"{seed} {lab.kind} load"))
            stack.callback(load.close)
            scenes.append(Scene(lab, load, rng, Later(), clock, tuple(labs)))
            until(load.answered, 60, f"the service on {lab.kind}")
            load.start()
        yield tuple(scenes)


def measure_first(scenes: tuple[Scene, ...], report: Report, say: Callable[[str], None]) -> None:
    """Measure what must not be disturbed by faults."""
    with contextlib.ExitStack() as stack:
        for scene in scenes:
            stack.enter_context(measures.usual_times(scene.lab))
        found = _together([partial(_of_dispatcher, scene) for scene in scenes])
        for live_restore in (True, False):
            found.append(measures.engine_back(scenes, live_restore=live_restore))
        for measure in (one for some in found for one in some):
            report.measures.append(measure)
            say(str(measure))


def _of_dispatcher(scene: Scene) -> list[measures.Measure]:
    return [measures.dead_runner_noticed(scene), measures.dispatcher_back(scene)]


def _together(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do them at once; return their answers, or raise the first error."""
    answers: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            answers[number] = works[number]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def run(folder: Path, kills: int, seed: int, say: Callable[[str], None], *, measured: bool) -> Report:
    """Do it all and return the report."""
    report, began = Report(seed), time.monotonic()
    planned = shares(kills)
    with ground(folder, seed, say) as scenes:
        say(f"the ground stands after {time.monotonic() - began:.0f} s")
        over = threading.Event()
        rounds_of: list[Rounds] = []
        if measured:
            measure_first(scenes, report, say)

        def work(scene: Scene, away_first: bool) -> None:
            rounds = Rounds(scene, planned[scene.lab.kind], report, say)
            rounds_of.append(rounds)

            def away() -> None:
                with measures.usual_times(scene.lab):
                    measure = measures.database_back(scene)
                report.measures.append(measure)
                say(str(measure))

            # While one lab's database is away, the other lab has its faults.
            try:
                if measured and away_first:
                    away()
                rounds.go()
                if measured and not away_first:
                    away()
                    rounds.audit()
                scene.load.stop()
            except Exception as error:
                report.broken.append(f"{scene.lab.kind}: {error!r}")
                say(traceback.format_exc())

        progress = threading.Thread(target=_progress, args=(over, report, kills, scenes, rounds_of, say), daemon=True)
        progress.start()
        _together([partial(work, scene, scene.lab.kind == "postgresql") for scene in scenes])
        over.set()
        progress.join()
        networks = [n.name for n in scenes[0].lab.client.networks.list() if "no.proverom.lab" not in n.attrs["Labels"]]
        unknown = set(networks) - {"bridge", "host", "none"}
        report.findings.left += [f"network {name}" for name in unknown]
    report.seconds = time.monotonic() - began
    return report


def _progress(
    over: threading.Event,
    report: Report,
    kills: int,
    scenes: tuple[Scene, ...],
    rounds: list[Rounds],
    say: Callable[[str], None],
) -> None:
    total, still = -1, 0
    while not over.wait(10):
        still = still + 1 if report.total == total else 0
        total = report.total
        if still >= 2:
            for one in rounds:
                say(one.state())
        each = ", ".join(f"{kind} {sum(classes.values())}" for kind, classes in report.kills.items())
        runs = sum(len(asked.numbers) for scene in scenes for asked, _ in list(scene.load.acknowledged.values()))
        found = report.findings
        say(
            f"{report.total} of {kills} kills ({each}), {runs} runs asked for, {found.checked} checked, "
            f"lost: {len(found.lost) + len(found.endless)}, recorded twice: {len(found.twice)}"
        )
