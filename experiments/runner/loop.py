"""A runner's life: claim, have it executed, report, until its batch is done."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.runner import processes
from experiments.runner.company import Company
from experiments.runner.places import SharedPlaces
from experiments.runner.protocol import HubAway, HubClient, Refused, Task
from experiments.runner.workers import NoWorker, Worker, Zygote, died, failed, not_started

MOST_SLOTS = 64
FIRST_BEAT = 1.0  # seconds
# papermill and its kernel are stopped from within their worker at the deadline; one that hangs is killed after this.
WORKER_GRACE = 30.0
CLAIM_WAIT = 20  # seconds that one question for work may stay open
SLOWEST_RETRY = 5.0
PAUSE = 0.5  # seconds before a run is claimed again that no thread could be had for
LOOK_FOR_PROGRESS = 0.5  # seconds between two looks at how far the run has come
# A result is sent for this long before the runner gives up: a database that is restored from its backup takes its time.
KEEP_TRYING = 6 * 3600.0

DONE, FAILED, MISUSED = 0, 1, 2

_ENDING = threading.Event()  # set before the workers are killed: their deaths then mean nothing


def main(environment: MutableMapping[str, str]) -> int:
    """Live one runner's life; return the exit status: 0 done or not needed, 1 a result was not taken, 2 wrong use.

    PROVEROM_RUNNER_URL is the Hub's address. The token is in PROVEROM_RUN_TOKEN, or in the file that
    PROVEROM_RUN_TOKEN_FILE names; it is taken out of the environment, and the file removed, before anything else.
    PROVEROM_RUNNER_SLOTS is how many runs are carried out at a time (1 if it is not set), PROVEROM_RUNNER_PLACES which
    folders are the sandbox's alone and are cleared between runs (``places``).
    """
    processes.shield()
    url, token = take_credentials(environment)
    slots = environment.pop("PROVEROM_RUNNER_SLOTS", "1")
    places = environment.pop("PROVEROM_RUNNER_PLACES", "")
    if not url or not token:
        print("PROVEROM_RUNNER_URL and PROVEROM_RUN_TOKEN are not both set: a runner is started by the dispatcher.")
        return MISUSED
    if not slots.isdecimal() or not 1 <= int(slots) <= MOST_SLOTS:
        print(f"PROVEROM_RUNNER_SLOTS={slots!r} is no number of runs. Give one from 1 to {MOST_SLOTS}.")
        return MISUSED
    _handle_signals()
    return Runner(HubClient(url, token), int(slots), places, environment).live()


def take_credentials(environment: MutableMapping[str, str]) -> tuple[str, str]:
    """Return address and token, "" where missing, and leave none of the token behind for a kernel to find."""
    url = environment.pop("PROVEROM_RUNNER_URL", "")
    token = environment.pop("PROVEROM_RUN_TOKEN", "")
    file = environment.pop("PROVEROM_RUN_TOKEN_FILE", "")
    if not token and file:
        with contextlib.suppress(OSError):
            token = Path(file).read_text(encoding="ascii", errors="replace").strip()
            Path(file).unlink()
    return url, token


class Runner:
    """Claims runs while it has a slot for them, and carries each out in a process of its own.

    A slot is a thread. With each result it is given its next run, and it claims again when there was none.
    """

    def __init__(self, hub: HubClient, slots: int, places: str, environment: Mapping[str, str]) -> None:
        self._hub = hub
        self._free = threading.Semaphore(slots)
        self._zygote = Zygote(environment)
        self._shared = SharedPlaces(places)
        self._company = Company(self._shared.paths)
        self._lock = threading.Lock()
        self._held: dict[str, Worker | None] = {}
        self._taken: set[tuple[str, int]] = set()  # attempts that were begun
        self._code = DONE

    def live(self) -> int:
        """Claim and carry out until the batch is used up; return the exit status."""
        try:
            # Before the first claim, so that a run is given to a runner that can begin with it.
            self._zygote.start()
        except NoWorker as error:
            say(str(error))
            return FAILED
        self._shared.remember()
        threads: list[threading.Thread] = []
        while True:
            self._free.acquire()
            task = self._claim()
            if task is None:
                break
            threads = [thread for thread in threads if thread.is_alive()]
            threads.append(threading.Thread(target=self._fill_slot, args=(task,), name="slot", daemon=True))
            try:
                threads[-1].start()
            except RuntimeError as error:
                # The sandbox has no process left. The Hub gives the run again to who asks without knowing of it.
                say(f"run {task.run}: {error}")
                self._company.trouble()
                threads.pop()
                self._let_go(task, begun=False)
                self._free.release()
                time.sleep(PAUSE)
        for thread in threads:
            thread.join()
        self._zygote.end()
        processes.kill_descendants()
        return self._code

    def _claim(self) -> Task | None:
        """Return the next assignment, None if the Hub has no more for this runner. Waits while the Hub is away."""
        retry = Backoff()
        while True:
            with self._lock:
                holding = set(self._held)
            try:
                task = self._hub.claim(CLAIM_WAIT, holding)
            except HubAway as away:
                say(f"waiting for the Hub: {away}")
                retry.wait()
            except Refused as refused:
                say(f"no longer needed: {refused}")
                return None
            else:
                if task is None:
                    retry.reset()
                elif self._is_new(task):
                    return task
                else:
                    retry.wait()

    def _is_new(self, task: Task) -> bool:
        """Take an assignment; return False if it was taken before: two answers that cross can hold the same one."""
        with self._lock:
            if (task.run, task.attempt) in self._taken:
                return False
            self._taken.add((task.run, task.attempt))
            self._held[task.run] = None
            return True

    def _fill_slot(self, task: Task) -> None:
        following: Task | None = task
        try:
            while following is not None:
                following = self._carry_out(following)
        finally:
            self._free.release()

    def _carry_out(self, task: Task) -> Task | None:
        """Have the task executed while heartbeats are sent, and send its result; return what is to be done next."""
        say(f"run {task.run}, attempt {task.attempt}: starting")
        stay = self._company.enter()
        heart: Heart | None = None
        worker: Worker | None = None
        try:
            try:
                with self._lock:  # else another run's end would take the new run's directory for something left behind
                    worker = self._held[task.run] = self._zygote.worker(task)
                heart = Heart(self._hub, task, worker, self._company)
                heart.start()
            except (NoWorker, RuntimeError) as error:  # RuntimeError: the sandbox has no thread left
                if worker is not None:
                    worker.close()
                about, body = not_started(task, str(error))
            else:
                about, body = self._wait_for(task, worker, heart)
            # A runner that is being ended kills its workers itself: the run is then for another runner.
            if _ENDING.is_set() or (heart is not None and heart.lost):
                return None
            say(f"run {task.run}, attempt {task.attempt}: {about.get('outcome')} {about.get('reason') or ''}".rstrip())
            self._company.leave(stay)
            if stay.disturbed(about) and hand_back(self._hub, task):
                return None
            code, following = deliver(self._hub, task, about, body)
            self._code |= code
            return following if following is not None and self._is_new(following) else None
        finally:
            if heart is not None:
                heart.stop()
            self._company.leave(stay)
            self._let_go(task)

    def _wait_for(self, task: Task, worker: Worker, heart: Heart) -> tuple[Mapping[str, Any], bytes]:
        """Return what happened to the run, with nothing of it left."""
        killed = processes.out_of_memory_kills()
        found = worker.wait(task.timeout_seconds + WORKER_GRACE)
        heart.leave_the_worker()
        # What the run has used up, or done to others, is looked for while it is still there to be seen.
        self._company.look()
        if found is None or not worker.has_its_home():
            worker.again = False
            self._company.trouble()
        worker.close()
        self._clear(task)
        if worker.again:
            self._zygote.take_back(worker.process)
        return found or died(task, processes.out_of_memory_kills() > killed)

    def _let_go(self, task: Task, *, begun: bool = True) -> None:
        with self._lock:
            self._held.pop(task.run, None)
            if not begun:
                self._taken.discard((task.run, task.attempt))

    def _clear(self, task: Task) -> None:
        """Remove what a run has left behind outside of its own process and directory."""
        with self._lock:
            self._held[task.run] = None
            living = [worker for worker in self._held.values() if worker is not None]
            self._zygote.kill_others({worker.process.warden for worker in living})
            oldest = min((worker.began for worker in living), default=None)
            self._shared.clear(keep=[worker.home for worker in living], oldest_living=oldest)


class Heart(threading.Thread):
    """Says how far a run has come whenever it has, and every third of a lease, until ``stop``.

    A Hub that is away is asked again at the next beat: the notebook goes on. A Hub that says that the lease is lost
    ends this run at once, because whatever it finished would be refused; one that knows the runner no more ends it.
    While the result is on its way the lease is kept, and the worker is perhaps another run's already.
    """

    def __init__(self, hub: HubClient, task: Task, worker: Worker, company: Company) -> None:
        super().__init__(name="heart", daemon=True)
        self._hub, self._task, self._worker, self._company = hub, task, worker, company
        self._ended = threading.Event()
        self._hand = threading.Lock()  # on the worker's process
        self._done = False
        self.lost = False

    def run(self) -> None:
        # A run that is over by then is spared the first one.
        every = max(0.2, self._task.lease_seconds / 3)
        look = min(LOOK_FOR_PROGRESS, every)
        due, told = time.monotonic(), None
        pause = min(FIRST_BEAT, every)
        while not self._ended.wait(pause):
            # A person watches the page, so what has moved is told soon; a chatty cell is not told of at every line.
            progress, pause = self._worker.progress(), look
            self._company.look()
            with self._hand:
                if not self._done:
                    self._worker.process.kill_if_stopped()
            if progress != told or time.monotonic() >= due:
                told = progress
                due = time.monotonic() + self._beat(every, told)

    def leave_the_worker(self) -> None:
        """Touch the worker's process no more: it has said its last word of this run."""
        with self._hand:
            self._done = True

    def stop(self) -> None:
        self._ended.set()

    def _beat(self, pause: float, told: tuple[int, int, str]) -> float:
        """Send one heartbeat; return after how many seconds the next is due."""
        try:
            if self._hub.heartbeat(self._task, *told):
                self._worker.cancel()
        except HubAway as away:
            say(f"no heartbeat: {away}")
            return min(pause, 1.0)
        except Refused as refused:
            if self._ended.is_set():
                return pause
            say(f"run {self._task.run} is lost to this runner: {refused}")
            if refused.status == 401:
                _end_at_once(DONE)
            self.lost = True
            self._ended.set()
            with self._hand:
                if not self._done:
                    self._worker.process.kill()
        return pause


def hand_back(hub: HubClient, task: Task) -> bool:
    """Ask for another attempt at a run; return False if its result is to be sent. What is refused is gone."""
    retry = Backoff()
    end = time.monotonic() + KEEP_TRYING
    while time.monotonic() < end:
        try:
            taken = hub.hand_back(task)
        except HubAway as away:
            say(f"the run is handed back later: {away}")
            retry.wait()
        except Refused as refused:
            say(f"the run was not taken back: {refused}")
            return True
        else:
            say(f"run {task.run}: " + ("to be tried again, alone" if taken else "its result is wanted"))
            return taken
    return True


def deliver(hub: HubClient, task: Task, about: Mapping[str, Any], body: bytes) -> tuple[int, Task | None]:
    """Send the result until the Hub has recorded or refused it; return the exit status and the next assignment."""
    retry = Backoff()
    end = time.monotonic() + KEEP_TRYING
    while time.monotonic() < end:
        try:
            state, following = hub.finish(task, body)
        except HubAway as away:
            say(f"the result waits: {away}")
            retry.wait()
        except Refused as refused:
            say(f"the result was refused: {refused}")
            # 413 and 422 leave the run open. Something that is recorded ends it; a retry would end the same way.
            if refused.status not in (413, 422) or about.get("reason") == "bad_result":
                return FAILED, None
            about, body = failed(task, "bad_result", None)
        else:
            say(f"recorded: {state}")
            return DONE, following
    return FAILED, None


class Backoff:
    """Waits 0.2 s, then twice as long each time up to 5 s, each a little different so that runners do not march."""

    def __init__(self) -> None:
        self._next = 0.2

    def wait(self) -> None:
        time.sleep(self._next * random.uniform(0.8, 1.2))  # noqa: S311
        self._next = min(self._next * 2, SLOWEST_RETRY)

    def reset(self) -> None:
        self._next = 0.2


def say(text: str) -> None:
    """Write one line to the sandbox's log."""
    print(text, file=sys.stderr, flush=True)


def _end_at_once(code: int) -> None:
    _ENDING.set()
    processes.kill_descendants(within_seconds=2.0)
    os._exit(code)


def _handle_signals() -> None:
    """SIGTERM ends the runner at once and sends nothing: the server gives the run to another one.

    Process 1 gets no signal that it has no handler for, so this one has to be said. The others are what a kernel's
    process can send its neighbours by mistake; they get a handler that does nothing, for a signal that is set to be
    ignored stays ignored in the kernels too, and then no cell can be interrupted.
    """

    def terminated(_number: int, _frame: FrameType | None) -> None:
        _end_at_once(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminated)
    for harmless in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT):
        signal.signal(harmless, lambda _number, _frame: None)
