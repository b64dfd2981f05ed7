"""Where templates are found: the library that comes with the lab, and an author's own folder."""

from __future__ import annotations

import os
import stat
from importlib.resources import as_file, files
from pathlib import Path

from lab_templates import declaration, notebook
from lab_templates.checks import MAX_README_BYTES, read_template
from lab_templates.model import InvalidInput, Problem, TemplateVersion

# Each file of a template with the cap that the gate sets for it, so that no more than that is ever read.
FILES = {
    "template.ipynb": notebook.MAX_BYTES,
    "template.toml": declaration.MAX_BYTES,
    "README.md": MAX_README_BYTES,
}


def library() -> tuple[TemplateVersion, ...]:
    """Return the templates that come with the lab, by name. Raise InvalidInput if one does not pass the gate."""
    with as_file(files("lab_templates") / "library") as folder:
        return tuple(load_folder(found) for found in sorted(folder.iterdir()) if (found / "template.toml").is_file())


def load_folder(folder: str | Path, *, known_kernels: tuple[str, ...] = ("python3",)) -> TemplateVersion:
    """Return the template in ``folder``: its three files, and nothing else of it, through the gate.

    A symbolic link or anything but a plain file is not followed. Raise InvalidInput: no_such_folder, missing_file,
    not_a_file, file_too_large, and whatever the gate finds.
    """
    read: dict[str, bytes] = {}
    problems: list[Problem] = []
    if not Path(folder).is_dir():
        what = f"{folder} is no folder. Give the folder that holds {', '.join(FILES)}."
        raise InvalidInput((Problem("no_such_folder", value=str(folder), message=what),))
    for name, limit in FILES.items():
        try:
            read[name] = _plain_file(Path(folder) / name, limit)
        except InvalidInput as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidInput(tuple(problems))
    return read_template(read["template.ipynb"], read["template.toml"], read["README.md"], known_kernels=known_kernels)


def _plain_file(path: Path, limit: int) -> bytes:
    """Return a regular file's bytes. Opened once, without following a link or waiting for a pipe, then looked at."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        what = f"{path.name} is missing from {path.parent}. A template has {', '.join(FILES)}."
        raise InvalidInput((Problem("missing_file", path.name, message=what),)) from error
    except OSError as error:
        what = f"{path.name} in {path.parent} cannot be read ({error.strerror}). Put a plain file there."
        raise InvalidInput((Problem("not_a_file", path.name, message=what),)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        what = f"{path.name} in {path.parent} is no plain file. Put the file itself there."
        raise InvalidInput((Problem("not_a_file", path.name, message=what),))
    with open(descriptor, "rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        what = f"{path.name} is larger than {limit} bytes. Make it smaller."
        raise InvalidInput((Problem("file_too_large", path.name, limit=str(limit), message=what),))
    return raw
