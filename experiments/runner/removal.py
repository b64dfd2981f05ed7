"""Removes what a run has left behind, whatever it is: nothing is followed, and no depth, mode or number stops it."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

_OWN = 0o700


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it, as far as possible; one that is not there is no error.

    What it may not remove stays, and goes with the sandbox. Nobody else may be writing there.
    """
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _remove_directory(path)
        else:
            os.unlink(path)


def _remove_directory(path: Path) -> None:
    """Remove a directory level by level.

    What is in it may be deeper than a path can be long, and than a function can call itself: so whatever directory is
    found below is first moved up into ``path`` itself.
    """
    os.chmod(path, _OWN)
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        waiting, stuck = [""], False
        while waiting:
            name = waiting.pop()
            below, failed = _empty(top, name)
            waiting += below
            stuck |= failed
            if name:
                try:
                    os.rmdir(name, dir_fd=top)
                except OSError:
                    stuck = True
    finally:
        os.close(top)
    if not stuck:
        os.rmdir(path)


def _empty(top: int, name: str) -> tuple[list[str], bool]:
    """Unlink the files of the directory ``name`` in ``top`` ("" is top itself) and move its directories into ``top``.

    Return their names there, and whether something could not be removed.
    """
    found: list[str] = []
    failed = False
    try:
        here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top) if name else os.dup(top)
    except OSError:
        return found, True
    try:
        with os.scandir(here) as entries:
            inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry, is_directory in inside:
            try:
                if not is_directory:
                    os.unlink(entry, dir_fd=here)
                    continue
                os.chmod(entry, _OWN, dir_fd=here)  # a directory moves only for those who may write in it
                moved = secrets.token_hex(16)
                os.rename(entry, moved, src_dir_fd=here, dst_dir_fd=top)
                found.append(moved)
            except OSError:
                failed = True
    except OSError:
        failed = True
    finally:
        os.close(here)
    return found, failed
