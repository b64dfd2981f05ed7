"""What the keeper of a local sandbox measures and writes down."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from spawner_config.engines import keeper


@settings(deadline=None)  # it writes files
@given(st.lists(st.binary(max_size=300), max_size=40))
def test_a_log_never_holds_more_than_twice_its_limit_and_keeps_the_end(
    tmp_path_factory: object, pieces: list[bytes]
) -> None:
    folder: Path = tmp_path_factory.mktemp("log")  # type: ignore[attr-defined]
    with contextlib.closing(keeper.RotatingLog(folder / "log", 500)) as log:
        for piece in pieces:
            log.write(piece)
    newest = (folder / "log").read_bytes()
    older = (folder / "log.1").read_bytes() if (folder / "log.1").exists() else b""
    assert len(newest) <= 500
    assert len(older) <= 500
    assert b"".join(pieces).endswith(older + newest)
    assert len(older + newest) >= min(len(b"".join(pieces)), 200)  # a piece is at most 300


def test_a_piece_larger_than_the_log_leaves_its_end(tmp_path: Path) -> None:
    with contextlib.closing(keeper.RotatingLog(tmp_path / "log", 10)) as log:
        log.write(b"0123456789abcdef")
    assert (tmp_path / "log").read_bytes() == b"6789abcdef"


def test_a_process_is_known_by_its_start_and_a_dead_one_has_none() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = keeper.start_time(process.pid)
    assert began is not None
    assert began == keeper.start_time(process.pid)
    process.communicate(b"\n")
    assert keeper.start_time(process.pid) is None


def test_a_process_tree_is_found_whole_and_weighed() -> None:
    code = (
        "import os, sys, time\n"
        "held = bytearray(64 << 20)\n"
        "if os.fork() == 0: os.fork()\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    tree = keeper.descendants(process.pid)
    try:
        assert len(tree) == 3
        assert keeper.memory_of(tree, limit=1 << 40) > 3 * 64 << 20  # not told apart: counted three times
        assert 64 << 20 < keeper.memory_of(tree, limit=1) < 2 * 64 << 20  # told apart: they share it
    finally:
        for pid in reversed(tree):
            os.kill(pid, 9)
        process.stdout.close()
        process.wait()


def test_written_json_replaces_whole(tmp_path: Path) -> None:
    keeper.write(tmp_path / "state.json", {"a": 1})
    keeper.write(tmp_path / "state.json", {"a": 2})
    assert (tmp_path / "state.json").read_text() == '{"a": 2}'
    assert list(tmp_path.iterdir()) == [tmp_path / "state.json"]
