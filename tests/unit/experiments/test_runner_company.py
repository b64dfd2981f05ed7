"""Whether what happened to a run may be another's doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.runner import company
from experiments.runner.company import Company, Stay

ERROR = {"cell": 1, "name": "ValueError", "message": "no", "traceback": "", "source": ""}


def stay(*, shared: bool = True, troubled: bool = False) -> Stay:
    made = Stay()
    made.shared, made.troubled = shared, troubled
    return made


@pytest.mark.parametrize(
    ("about", "disturbed"),
    [
        ({"outcome": "succeeded", "reason": None}, False),
        ({"outcome": "cancelled", "reason": "cancelled_by_user"}, False),
        ({"outcome": "timed_out", "reason": "time_limit"}, False),
        ({"outcome": "failed", "reason": "cell_failed", "error": ERROR}, False),
        ({"outcome": "failed", "reason": "cell_failed", "error": ERROR | {"name": "MemoryError"}}, True),
        ({"outcome": "failed", "reason": "cell_failed", "error": ERROR | {"message": "[Errno 28] No space"}}, True),
        ({"outcome": "failed", "reason": "cell_failed", "error": ERROR | {"message": "can't start new thread"}}, True),
        ({"outcome": "failed", "reason": "cell_failed", "error": "nonsense"}, False),
        ({"outcome": "failed", "reason": "kernel_died"}, True),
        ({"outcome": "failed", "reason": "start_failed"}, True),
        ({"outcome": ["nonsense"]}, False),
        ({}, False),
    ],
)
def test_what_speaks_for_a_disturbance(about: dict[str, object], disturbed: bool) -> None:
    assert stay().disturbed(about) is disturbed
    assert stay(shared=False, troubled=True).disturbed(about) is False, "alone, nobody else is to blame"
    assert stay(troubled=True).disturbed(about) is (about.get("outcome") in ("failed", "timed_out"))


def test_who_was_there_at_the_same_time_shares() -> None:
    here = Company(())
    first = here.enter()
    assert not first.shared
    second = here.enter()
    assert first.shared
    assert second.shared
    here.leave(first)
    here.leave(second)
    here.leave(second)
    assert not here.enter().shared


def test_trouble_is_for_those_who_are_there() -> None:
    here = Company(())
    gone, there = here.enter(), here.enter()
    here.leave(gone)
    here.trouble()
    assert (gone.troubled, there.troubled, here.enter().troubled) == (False, True, False)


def test_a_refused_process_is_trouble_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = 3
    monkeypatch.setattr(company.processes, "refused_processes", lambda: refused)
    here = Company(())
    first = here.enter()
    here.look()
    assert not first.troubled
    refused = 4
    here.look()
    later = here.enter()
    here.look()
    assert (first.troubled, later.troubled) == (True, False)


def test_a_place_without_room_is_trouble() -> None:
    here = Company((Path("/dev/shm"), Path("/is/not/there")))
    visitor = here.enter()
    here.look()
    assert not visitor.troubled
    full = Company((Path("/proc"), Path("/nowhere")))  # a file system without blocks is not full, it has none
    visitor = full.enter()
    full.look()
    assert not visitor.troubled
