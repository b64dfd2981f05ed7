"""A steady stream of trivial runs, single ones and small sweeps, and what was acknowledged of it."""

from __future__ import annotations

import itertools
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from catalog.store import Unavailable
from tests.faults.lab import AGENCIES, TEMPLATE, Lab

OPEN = 8  # runs that wait or run, at a time
_ASKERS = {AGENCIES[0][0]: "kari", AGENCIES[1][0]: "siri", AGENCIES[2][0]: "kari"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One submission. ``numbers`` are the parameters n of its runs: a single run's, or a sweep's points in order."""

    key: str
    agency: str
    numbers: tuple[int, ...]
    sweep: bool
    hog: bool
    nap: float

    @property
    def path(self) -> str:
        return "/api/v1/sweeps" if self.sweep else "/api/v1/runs"

    @property
    def body(self) -> dict[str, Any]:
        fixed = {"nap": self.nap, "hog": self.hog}
        common = {"template": TEMPLATE, "agency": self.agency}
        if self.sweep:
            return {**common, "points": [{"n": n} for n in self.numbers], "fixed": fixed}
        return {**common, "parameters": {"n": self.numbers[0], **fixed}}

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer token-{_ASKERS[self.agency]}", "Idempotency-Key": self.key}


@dataclass
class Load:
    """``acknowledged`` says which id each submission was promised; ``pending`` are those without an answer so far."""

    lab: Lab
    rng: random.Random
    acknowledged: dict[str, tuple[Asked, str]] = field(default_factory=dict)
    pending: dict[str, Asked] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)  # answers that differ from what was promised
    refused: int = 0

    def __post_init__(self) -> None:
        self._serial = itertools.count(1)
        self._lock = threading.Lock()
        self._going = threading.Event()
        self._thread: threading.Thread | None = None
        self._client = httpx.Client(base_url=self.lab.url, timeout=10, trust_env=False, verify=False)  # noqa: S501 - plain http, and making a context costs 50 ms

    def make(self, *, hog: bool = False, sweep: bool | None = None, nap: float | None = None) -> Asked:
        with self._lock:
            sweep = not hog and self.rng.random() < 0.4 if sweep is None else sweep
            size = self.rng.randint(2, 5) if sweep else 1
            asked = Asked(
                key=f"{self.lab.name}-{next(self._serial)}",
                agency=self.rng.choice(AGENCIES)[0],
                numbers=tuple(self.rng.randrange(1_000_000_000) for _ in range(size)),
                sweep=sweep,
                hog=hog,
                nap=round(self.rng.uniform(0.2, 2.5), 2) if nap is None else nap,
            )
            self.pending[asked.key] = asked
            return asked

    def submit(self, asked: Asked, client: httpx.Client | None = None) -> int:
        """Ask once; return the status, 0 if there was no answer. What is pending will be asked for again."""
        try:
            answer = (client or self._client).post(asked.path, json=asked.body, headers=asked.headers)
        except httpx.HTTPError:
            return 0
        if answer.status_code in (200, 201):
            self._acknowledge(asked, str(answer.json()["id"]))
        elif answer.status_code < 500 and answer.status_code != 429:
            self.contradictions.append(f"{asked.key}: {answer.status_code} {answer.text[:300]}")
        return answer.status_code

    def _acknowledge(self, asked: Asked, id: str) -> None:
        with self._lock:
            _, known = self.acknowledged.setdefault(asked.key, (asked, id))
            if known != id:
                self.contradictions.append(f"{asked.key} was acknowledged as {known} and as {id}")
            self.pending.pop(asked.key, None)

    def answered(self) -> bool:
        """Ask for one more run; return whether it was acknowledged."""
        return self.submit(self.make()) == 201

    def settle(self, seconds: float) -> bool:
        """Ask again for all that is pending; return whether everything is acknowledged in the end."""
        end = time.monotonic() + seconds
        while self.pending and time.monotonic() < end:
            for asked in list(self.pending.values()):
                self.submit(asked)
            if self.pending:
                time.sleep(0.2)
        return not self.pending

    # -- the stream ------------------------------------------------------------------------------------------------
    def start(self) -> None:
        self._going.set()
        self._thread = threading.Thread(target=self._stream, name=f"load {self.lab.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._going.clear()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        self.stop()
        self._client.close()

    def open_runs(self) -> int:
        """Return how many runs wait or run; OPEN while the database is away."""
        try:
            return int(self.lab.rows("SELECT count(*) FROM run WHERE state IN ('queued', 'running')")[0][0])
        except Unavailable:
            return OPEN

    def _stream(self) -> None:
        while self._going.is_set():
            for asked in list(self.pending.values())[:3]:
                if self.submit(asked) >= 500:
                    self.refused += 1
            if self.open_runs() < OPEN and not self.pending:
                for _ in range(3):
                    self.submit(self.make())
            time.sleep(0.25)
