"""The ten faults. Each function makes one on a lab and returns how many kills it was: 0 if nothing was there to be hit.

What takes long (a cut network, a runner that sleeps past its lease) goes on beside the next faults; ``Later`` holds it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from docker.errors import DockerException

from catalog.store import Unavailable
from tests.faults.engine import until
from tests.faults.lab import OPERATORS, Lab, alive, kill
from tests.faults.load import Load
from tests.faults.processes import lease_grace

AT_ONCE = 50  # identical requests


@dataclass
class Later:
    """Faults that are still going on, and the kills they turned out to be, by class."""

    threads: list[threading.Thread] = field(default_factory=list)
    hits: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, kind: str, work: Callable[[], int]) -> None:
        def run() -> None:
            with contextlib.suppress(DockerException, OSError, Unavailable, TimeoutError, subprocess.SubprocessError):
                hits = work()
                with self.lock:
                    self.hits[kind] = self.hits.get(kind, 0) + hits

        self.threads = [thread for thread in self.threads if thread.is_alive()]
        self.threads.append(threading.Thread(target=run, name=kind, daemon=True))
        self.threads[-1].start()

    def under_way(self) -> dict[str, int]:
        """Return how many of each class are not over yet."""
        found: dict[str, int] = {}
        for thread in self.threads:
            if thread.is_alive():
                found[thread.name] = found.get(thread.name, 0) + 1
        return found

    def take(self) -> dict[str, int]:
        """Return the kills since the last time."""
        with self.lock:
            hits, self.hits = self.hits, {}
            return hits

    def wait(self) -> None:
        for thread in self.threads:
            thread.join(60)


@dataclass
class Scene:
    """What a fault is made on. ``clock`` is the file that moves the clocked processes' clock."""

    lab: Lab
    load: Load
    rng: random.Random
    later: Later
    clock: Path
    everybody: tuple[Lab, ...]

    def target(self, seconds: float = 8) -> str | None:
        """Return a sandbox that carries out a run, None if there is none within ``seconds``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(DockerException, OSError, Unavailable):
                living = set(self.lab.sandboxes())
                busy = [box for box in self.lab.running_runs() if box in living]
                if busy:
                    return self.rng.choice(busy)
            time.sleep(0.1)
        return None


# -- 1. the dispatcher -----------------------------------------------------------------------------------------------
def dispatcher_killed(scene: Scene) -> int:
    """kill -9 one at a random moment, or both; or start one that kills itself at a named point."""
    lab, rng = scene.lab, scene.rng
    if rng.random() < 0.5:
        lab.arm(rng)  # counted by the lab's minder when it has died
        time.sleep(rng.uniform(0.1, 0.5))
        return 0
    time.sleep(rng.uniform(0, 0.8))
    chosen = range(OPERATORS) if rng.random() < 0.3 else [rng.randrange(OPERATORS)]
    hits = 0
    for place in chosen:
        pid = lab.dispatchers[place]
        if pid not in lab.armed and alive(pid):
            kill(pid)
            hits += 1
    return hits


# -- 2. the engine ---------------------------------------------------------------------------------------------------
def engine_killed(scene: Scene) -> int:
    """kill -9 dockerd, start it again: containers live on with --live-restore, and die without."""
    engine = scene.lab.engine
    # Both labs have one engine: while the other lab's time is taken, it stays alone.
    until(lambda: not any(lab.measuring for lab in scene.everybody), 180, "the end of a measure", every=0.5)
    if scene.target() is None:
        return 0
    with engine.guard:
        engine.kill()
        time.sleep(scene.rng.uniform(0, 1.5))
        engine.start(live_restore=scene.rng.random() < 0.5)
    return 1


# -- 3. containers ---------------------------------------------------------------------------------------------------
def container_killed(scene: Scene) -> int:
    """``docker kill -s KILL`` of one to three containers in whatever state they are; or one runs out of memory."""
    lab, rng = scene.lab, scene.rng
    if rng.random() < 0.12:
        asked = scene.load.make(hog=True)
        scene.load.submit(asked)
        scene.later.begin("container", lambda: _ran_out(scene, asked.key))
        return 0
    hits = 0
    end = time.monotonic() + 5
    while not hits and time.monotonic() < end:
        with contextlib.suppress(DockerException, OSError):
            living = lab.sandboxes()
            for box in rng.sample(living, min(len(living), rng.choice((1, 1, 1, 2, 3)))):
                hits += lab.kill_sandbox(box)
        time.sleep(rng.uniform(0.05, 0.3))
    return hits


def _ran_out(scene: Scene, key: str) -> int:
    def ended() -> str | None:
        known = scene.load.acknowledged.get(key)
        with contextlib.suppress(Unavailable):
            if known and (rows := scene.lab.rows("SELECT reason FROM run WHERE id = :id", id=known[1])):
                return str(rows[0][0]) if rows[0][0] else None
        return None

    return int(until(ended, 45, "out of memory", every=0.5) == "out_of_memory")


# -- 4. unsure commits -----------------------------------------------------------------------------------------------
def unsure_commit(scene: Scene) -> int:
    """Nobody knows whether the last transaction counts: its connection, its server or its writer is gone."""
    lab, rng = scene.lab, scene.rng
    how = rng.choice(("proxy", "proxy", "stop", "service") if lab.postgres else ("service",))
    if how == "proxy":
        before = _lines(lab.cuts)
        os.kill(lab.proxy, rng.choice((signal.SIGUSR1, signal.SIGUSR2)))
        scene.load.submit(scene.load.make(sweep=False))
        end = time.monotonic() + 5
        while _lines(lab.cuts) == before and time.monotonic() < end:
            time.sleep(0.02)
        return _lines(lab.cuts) - before
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [scene.load.make(sweep=False) for _ in range(2)]
        sent = [pool.submit(scene.load.submit, one) for one in asked]
        time.sleep(rng.uniform(0, 0.06))
        if how == "stop" and lab.postgres:
            lab.postgres.stop_at_once()
            time.sleep(rng.uniform(0, 0.4))
            lab.postgres.start()
        else:
            with lab.lock:
                kill(lab.service)
                lab.start_service()
        concurrent.futures.wait(sent)
    scene.load.settle(0.5)
    return 1


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


# -- 5. a full disk --------------------------------------------------------------------------------------------------
def disk_full(scene: Scene) -> int:
    """No space for the database and the object store, which are on one small tmpfs."""
    lab = scene.lab
    marks = lab.marks()
    probe = scene.load.make(sweep=False, nap=0.2)
    with lab.full_disk():
        end = time.monotonic() + scene.rng.uniform(0.8, 2.0)
        while time.monotonic() < end:
            scene.load.submit(probe)
            time.sleep(0.15)
            probe = probe if probe.key in scene.load.pending else scene.load.make(sweep=False, nap=0.2)
    said = lab.since(marks)
    return int(any(word in said for word in (b"No space left", b"disk is full", b"DiskFull")))


# -- 6. input and output errors --------------------------------------------------------------------------------------
def io_error(scene: Scene) -> int:
    """strace makes the next syncs of whoever writes the database fail with EIO."""
    lab, rng = scene.lab, scene.rng
    if lab.postgres and rng.random() < 0.7:
        pids = lab.postgres.pids()
    else:
        pids = [lab.service, *(lab.dispatchers if rng.random() < 0.3 else [])]
    calls = "fdatasync,fsync"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={calls}:error=EIO:when=1..{rng.randint(1, 3)}",
    ]
    probe = scene.load.make(sweep=False, nap=0.2)
    tracer = subprocess.Popen(
        [*command, *(f"--attach={pid}" for pid in pids)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + rng.uniform(0.7, 1.5)
        while time.monotonic() < end:
            scene.load.submit(probe)
            time.sleep(0.15)
            probe = probe if probe.key in scene.load.pending else scene.load.make(sweep=False, nap=0.2)
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            _, said = tracer.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            _, said = tracer.communicate()
    return int(b"(INJECTED)" in said)


# -- 7. the clock ----------------------------------------------------------------------------------------------------
def clock_jump(scene: Scene) -> int:
    """The clock of the service and of both dispatchers jumps while runs are running, and perhaps back again."""
    lab, rng = scene.lab, scene.rng
    scene.clock.write_text("+0s\n")
    lab.restart(clocked=True)
    try:
        if scene.target() is None:
            return 0
        jump = rng.choice((-1, 1)) * rng.choice((30, 90, 300, 3700, 90_000))
        scene.clock.write_text(f"{jump:+d}s\n")
        hits = int(bool(lab.running_runs()))
        time.sleep(rng.uniform(2.0, 4.0))
        if rng.random() < 0.5 and scene.target(2):
            scene.clock.write_text("+0s\n")
            hits += 1
            time.sleep(1.5)
        return hits
    finally:
        # Runs that began in another time end in it: nobody can tell a new dispatcher that the clock was wrong.
        with contextlib.suppress(TimeoutError):
            until(lambda: not _of_another_time(scene), 25, "runs of another time", every=0.3)
        lab.restart(clocked=False)


def _of_another_time(scene: Scene) -> list[str]:
    """Return the running runs whose beginning is more than 20 s from now, by the true clock."""
    with contextlib.suppress(Unavailable):
        rows = scene.lab.rows("SELECT id, started_at FROM run WHERE state = 'running'")
        begun = [(run, datetime.fromisoformat(str(at))) for run, at in rows]
        told = [(run, at if at.tzinfo else at.replace(tzinfo=UTC)) for run, at in begun]  # SQLite knows no zones
        return [run for run, at in told if abs(datetime.now(UTC) - at) > timedelta(seconds=20)]
    return []


# -- 8. delivered twice ----------------------------------------------------------------------------------------------
def delivered_twice(scene: Scene) -> int:
    """Fifty identical submissions, claims or results at once. Their answers may not contradict each other."""
    how = scene.rng.choice((_same_submissions, _same_claims, _same_results, _same_results))
    return how(scene)


def _at_once(scene: Scene, path: str, headers: dict[str, str], body: object) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=AT_ONCE)
    # Plain http; the TLS context that nobody needs would cost 50 ms.
    transport = httpx.HTTPTransport(verify=False, limits=limits)
    with (
        httpx.Client(
            base_url=scene.lab.url, headers=headers, timeout=30, trust_env=False, transport=transport
        ) as client,
        concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool,
    ):

        def ask(_: int) -> httpx.Response | None:
            with contextlib.suppress(httpx.HTTPError):
                return client.post(path, json=body)
            return None

        return [answer for answer in pool.map(ask, range(AT_ONCE)) if answer is not None]


def _same_submissions(scene: Scene) -> int:
    asked = scene.load.make(sweep=False)
    answers = _at_once(scene, asked.path, asked.headers, asked.body)
    good = [answer for answer in answers if answer.status_code in (200, 201)]
    if len({answer.json()["id"] for answer in good}) > 1 or sum(answer.status_code == 201 for answer in good) > 1:
        scene.load.contradictions.append(f"{asked.key} was made more than once")
    scene.load.submit(asked)
    return int(len(good) > 1)


def _same_claims(scene: Scene) -> int:
    box = scene.target()
    token = scene.lab.token_of(box) if box else ""
    if not token:
        return 0
    answers = _at_once(scene, "/runner/v1/claim", {"Authorization": f"Bearer {token}"}, {"holding": []})
    given = {(a.json()["run"], a.json()["attempt"]) for a in answers if a.status_code == 200}
    if len(given) > 2:  # the slots of a runner
        scene.load.contradictions.append(f"one runner was given {len(given)} runs at once: {given}")
    return int(len(answers) > 1)


def _same_results(scene: Scene) -> int:
    """Send a run's result in its runner's name, while the runner is stopped: one is recorded, nothing is twice."""
    box = scene.target()
    token = scene.lab.token_of(box) if box else ""
    held = scene.lab.running_runs().get(box or "")
    if not box or not token or held is None or not scene.lab.signal_sandbox(box, signal.SIGSTOP):
        return 0
    try:
        run, attempt = held
        body = _true_result(scene, run, attempt)
        if body is None:
            return 0
        path = f"/runner/v1/runs/{run}/result"
        answers = _at_once(scene, path, {"Authorization": f"Bearer {token}"}, body)
    finally:
        scene.lab.signal_sandbox(box, signal.SIGCONT)
    states = {answer.json()["state"] for answer in answers if answer.status_code == 200}
    if len(states) > 1:
        scene.load.contradictions.append(f"run {run} was acknowledged with {sorted(states)}")
    if states and not any(row[0] in states for row in scene.lab.rows("SELECT state FROM run WHERE id = :id", id=run)):
        scene.load.contradictions.append(f"run {run} was acknowledged as {states} and is recorded otherwise")
    return int(bool(states))


def _true_result(scene: Scene, run: str, attempt: int) -> dict[str, object] | None:
    """Return the result that the runner itself would send: the notebook with its one recorded answer.

    None for a run that is to run out of memory: it has no such result, and its own end is waited for.
    """
    from tests.faults.answers import executed

    given = scene.lab.rows("SELECT parameters FROM run WHERE id = :id", id=run)[0][0]
    parameters = json.loads(given) if isinstance(given, str) else given
    if parameters["hog"]:
        return None
    return {
        "attempt": attempt,
        "outcome": "succeeded",
        "reason": None,
        "error": None,
        "notebook": executed(parameters),
    }


# -- 9. the network --------------------------------------------------------------------------------------------------
def network_cut(scene: Scene) -> int:
    """iptables drops or rejects what the sandboxes send to the Hub, for less or for longer than a lease."""
    how = scene.rng.choice((("DROP",), ("REJECT",), ("REJECT", "--reject-with", "tcp-reset")))
    seconds = scene.rng.choice((1.0, 2.5, 5.0, 8.0))
    if scene.target() is None:
        return 0
    scene.later.begin("cut", lambda: _cut(scene.lab, how, seconds))
    time.sleep(0.5)
    return 0


def _cut(lab: Lab, how: tuple[str, ...], seconds: float) -> int:
    rule = ["-i", "docker0", "-p", "tcp", "--dport", str(lab.plan.port), "-m", "comment", "--comment",
            f"cut{time.monotonic_ns()}", "-j", *how]  # fmt: skip
    subprocess.run(["iptables", "-w", "5", "-I", "INPUT", "1", *rule], check=True)
    try:
        time.sleep(seconds)
        listing = subprocess.run(
            ["iptables", "-w", "5", "-nvxL", "INPUT"], check=True, capture_output=True, text=True
        ).stdout
    finally:
        subprocess.run(["iptables", "-w", "5", "-D", "INPUT", *rule], check=True)
    hit = [line.split() for line in listing.splitlines() if rule[9] in line]
    return int(any(int(words[0]) > 0 for words in hit))


# -- 10. the zombie --------------------------------------------------------------------------------------------------
def zombie(scene: Scene) -> int:
    """A runner is stopped until its lease is over, and perhaps its run given to another, and then wakes up."""
    box = scene.target()
    held = scene.lab.running_runs().get(box or "")
    if not box or held is None:
        return 0
    grace = lease_grace(scene.lab.plan).total_seconds()
    seconds = scene.rng.uniform(scene.lab.plan.lease_seconds + 0.5, grace + 3)
    if not scene.lab.signal_sandbox(box, signal.SIGSTOP):
        return 0

    def wake() -> int:
        time.sleep(seconds)
        scene.lab.signal_sandbox(box, signal.SIGCONT)
        return 1

    scene.later.begin("zombie", wake)
    return 0


@dataclass(frozen=True, slots=True)
class Kind:
    """``share`` is out of 100; ``title`` is for people."""

    name: str
    title: str
    make: Callable[[Scene], int]
    share: int


KINDS = (
    Kind("dispatcher", "Dispatcher killed", dispatcher_killed, 22),
    Kind("engine", "Engine killed", engine_killed, 3),
    Kind("container", "Container killed, or out of memory", container_killed, 20),
    Kind("unsure", "Unsure commit", unsure_commit, 14),
    Kind("full", "Disk full", disk_full, 5),
    Kind("io", "I/O error", io_error, 5),
    Kind("clock", "Clock jump", clock_jump, 3),
    Kind("twice", "Delivered twice", delivered_twice, 16),
    Kind("cut", "Network cut", network_cut, 6),
    Kind("zombie", "Zombie", zombie, 6),
)
