"""Passwords: hashed, compared, and guessed slowly."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.passwords import FREE_TRIES, LONGEST_WAIT, PasswordFile, Throttle, hashed, matches, new_password


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_only_the_password_matches_its_hash() -> None:
    kept = hashed("æøå 🙂")
    assert matches("æøå 🙂", kept)
    assert not matches("æøå", kept)
    assert "æøå" not in kept
    assert hashed("æøå 🙂") != kept


@settings(max_examples=25, deadline=None)
@given(st.text())
def test_what_is_no_hash_matches_nothing(kept: str) -> None:
    assert not matches("x", kept)


def test_a_file_of_passwords(tmp_path: Path) -> None:
    file = PasswordFile(tmp_path / "passwords.json")
    assert not file.check("team", "")
    file.add({"team": "one"})
    file.add({"leader": "two"})
    assert file.check("team", "one")
    assert file.check("leader", "two")
    assert not file.check("team", "two")
    assert not file.check("nobody", "one")
    assert "one" not in (tmp_path / "passwords.json").read_text().replace("none", "")


def test_new_ones_differ_and_are_long() -> None:
    assert len({new_password() for _ in range(100)}) == 100
    assert len(new_password()) == 19


def test_after_some_wrong_ones_the_wait_doubles_up_to_its_end() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(FREE_TRIES):
        assert throttle.wait("team") == 0
        throttle.failed("team")
    waits = []
    for _ in range(12):
        waits.append(throttle.wait("team"))
        clock.now += waits[-1]
        assert throttle.wait("team") == 0
        throttle.failed("team")
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == LONGEST_WAIT
    assert throttle.wait("leader") == 0


def test_the_right_one_starts_anew() -> None:
    throttle = Throttle(Clock())
    for _ in range(FREE_TRIES + 3):
        throttle.failed("team")
    throttle.succeeded("team")
    assert throttle.wait("team") == 0


def test_many_invented_names_do_not_fill_the_memory() -> None:
    throttle = Throttle(Clock(), capacity=10)
    for number in range(1000):
        throttle.failed(f"name{number}")
    assert len(throttle._failed) == 10
