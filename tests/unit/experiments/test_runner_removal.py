"""Whatever a run leaves behind is removed, and nothing that it only points to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.runner.removal import remove


def many(place: Path) -> None:
    for number in range(5000):
        (place / str(number)).touch()


def deep(place: Path) -> None:
    """Deeper than a path may be long and a function may call itself."""
    here = os.open(place, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def closed(place: Path) -> None:
    """Nobody may read or write in any of it, on any level."""
    inner = place / "a" / "b" / "c"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (inner / "link").symlink_to("/nowhere")
    for directory in (inner, inner.parent, inner.parent.parent, place):
        directory.chmod(0)


def odd(place: Path) -> None:
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "s"))
    (place / "loop").symlink_to("loop")
    (place / "æøå\n\x1b[31m").touch()
    os.close(os.open(os.fsencode(place) + b"/\xff\xfe", os.O_CREAT))


LEFT: dict[str, Callable[[Path], None]] = {"many": many, "deep": deep, "closed": closed, "odd": odd}


@pytest.mark.parametrize("what", LEFT)
def test_it_is_gone(tmp_path: Path, what: str) -> None:
    place = tmp_path / "left"
    place.mkdir()
    LEFT[what](place)
    if os.getuid() == 0:
        # To root no directory is closed: let somebody else remove it.
        for folder in (tmp_path, *tmp_path.parents):
            if folder == Path("/tmp"):
                break
            folder.chmod(folder.stat().st_mode | 0o711)
        subprocess.run(["chown", "-R", "-h", "65534:65534", str(tmp_path)], check=True)
        as_nobody = (
            "import os, sys; from pathlib import Path; from experiments.runner.removal import remove; "
            "os.setuid(65534); remove(Path(sys.argv[1]))"
        )
        project = Path(__file__).parents[3]
        subprocess.run([sys.executable, "-c", as_nobody, str(place)], cwd=project, check=True)
    else:
        remove(place)
    assert not os.path.lexists(place)


def test_what_a_link_points_to_is_left_alone(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    kept.chmod(0o750)
    place = tmp_path / "left"
    (place / "below").mkdir(parents=True)
    (place / "below" / "link").symlink_to(kept)
    (place / "link").symlink_to(kept)
    remove(place)
    assert not place.exists()
    assert (kept / "file").read_text() == "x"
    assert kept.stat().st_mode & 0o777 == 0o750


def test_a_link_in_its_place_is_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to(kept)
    remove(tmp_path / "link")
    assert not os.path.lexists(tmp_path / "link")
    assert (kept / "below").is_dir()


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")
