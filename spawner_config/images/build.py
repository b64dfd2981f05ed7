"""Builds the two images on a Docker Engine. Each is tagged by the digest of what goes in, so nothing is built twice."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound

from spawner_config.engines.base import EngineError
from spawner_config.images import context
from spawner_config.images.progress import Progress, silent
from spawner_config.images.site import Site

DEFAULT_BASE = "debian:bookworm-slim"
OWN_BASE = "proverom-base:bookworm"  # made here by debootstrap where no registry can be reached
SANDBOX = "proverom/sandbox"
HUB = "proverom/hub"

_HERE = Path(__file__).parent
_STEP = re.compile(r"Step (\d+)/(\d+) : (\S+)")


@dataclass(frozen=True, slots=True)
class Images:
    """The full names, tag included, of the images of one state of the project."""

    sandbox: str
    hub: str


def build_images(
    client: docker.DockerClient, root: Path, *, base_image: str = "", site: Site, progress: Progress = silent
) -> Images:
    """Build what is missing of the images of the project in ``root`` and return their names.

    ``base_image`` is a Debian (or derived) image; "" takes the usual one, or makes one if it cannot be had.
    Raise EngineError with the end of the build's output if a build fails, or with what to do if there is no base.
    """
    base = ensure_base(client, base_image, progress)
    base_id = str(client.images.get(base).id)
    names = {}
    for repository, dockerfile, wanted in (
        (SANDBOX, "Dockerfile.sandbox", ("runner", "desk")),
        (HUB, "Dockerfile.hub", ("server",)),
    ):
        files = image_files(root, dockerfile, wanted)
        tag = f"{repository}:{context.digest(files, base_id)[:16]}"
        names[repository] = tag
        if not _present(client, tag):
            _build(client, tag, files, base=base, site=site, progress=progress)
    return Images(sandbox=names[SANDBOX], hub=names[HUB])


def image_files(root: Path, dockerfile: str, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Return the build context of an image, but for the site's certificates, which change nothing about the result."""
    files = {f"project/{name}": content for name, content in context.project_files(root).items()}
    files.update({f"requirements/{name}.txt": context.requirements(root, name) for name in wanted})
    files["Dockerfile"] = (_HERE / dockerfile).read_bytes()
    files["install.sh"] = (_HERE / "install.sh").read_bytes()
    return files


def ensure_base(client: docker.DockerClient, base_image: str = "", progress: Progress = silent) -> str:
    """Return the name of a base image that the engine has: the given one, the usual one, or one made with debootstrap.

    Raise EngineError if the given one cannot be pulled, or none can be pulled and none made.
    """
    for name in (base_image,) if base_image else (DEFAULT_BASE, OWN_BASE):
        if _present(client, name):
            return name
    wanted = base_image or DEFAULT_BASE
    progress(f"Pulling {wanted}", None)
    try:
        client.images.pull(wanted)
    except DockerException as problem:
        if base_image:
            raise EngineError(
                f"engine.base_image={base_image} cannot be pulled: {problem}. Load it, or name another Debian image."
            ) from problem
        _make_base(client, progress, reason=str(problem))
        return OWN_BASE
    return wanted


def _make_base(client: docker.DockerClient, progress: Progress, *, reason: str) -> None:
    debootstrap = shutil.which("debootstrap") or shutil.which("debootstrap", path="/usr/sbin:/sbin")
    if debootstrap is None or os.geteuid() != 0:
        missing = "debootstrap is not installed" if debootstrap is None else "making one takes root"
        raise EngineError(
            f"{DEFAULT_BASE} cannot be pulled ({reason}), and {missing}. Run `apt-get install debootstrap` and start "
            "as root, or set engine.base_image to a Debian 12 image that the engine has."
        )
    progress("No registry can be reached: making a base image with debootstrap (about a minute)", None)
    with tempfile.TemporaryDirectory(prefix="proverom-base-") as folder:
        made = subprocess.run(
            [debootstrap, "--variant=minbase", "--include=ca-certificates,python3,python3-venv", "bookworm", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise EngineError(f"debootstrap failed with status {made.returncode}:\n{_end(made.stdout + made.stderr)}")
        repository, tag = OWN_BASE.split(":")
        with tempfile.NamedTemporaryFile(prefix="proverom-base-", suffix=".tar") as packed:
            subprocess.run(
                ["tar", "-C", folder, "--exclude=./var/cache/apt/archives/*.deb", "-c", "."], stdout=packed, check=True
            )
            # By its name: given an open file, the client sends it in chunks that the engine cannot read.
            client.api.import_image_from_file(packed.name, repository=repository, tag=tag)


def _build(
    client: docker.DockerClient, tag: str, files: Mapping[str, bytes], *, base: str, site: Site, progress: Progress
) -> None:
    progress(f"Building {tag}", 0.0)
    try:
        certificates = site.certificates()
    except FileNotFoundError as problem:
        raise EngineError(str(problem)) from problem
    packed = io.BytesIO(context.archive({**files, "site-ca.crt": certificates}))
    output: list[str] = []
    try:
        # The classic builder: engines without BuildKit (Debian's own) have no other, and newer ones still have it.
        lines = client.api.build(
            fileobj=packed,
            custom_context=True,
            tag=tag,
            buildargs={"BASE": base, **{k: v for k, v in site.build_args().items() if v}},
            rm=True,
            forcerm=True,
            decode=True,
        )
        # To its end even after an error: the connection is the stream's.
        errors = [error for line in lines if (error := _follow(line, tag, output, progress))]
    except DockerException as problem:
        raise EngineError(f"Building {tag} failed: {problem}\n{_end(''.join(output))}") from problem
    if errors:
        raise EngineError(
            f"Building {tag} failed: {errors[0]}\n{_end(''.join(output))}\n"
            "If a certificate was not trusted, set engine.ca_bundle to the site's CA bundle and start again."
        )
    progress(f"Built {tag}", 1.0)


def _follow(line: Mapping[str, Any], tag: str, output: list[str], progress: Progress) -> str:
    """Take in one line of the builder's; return the error it tells of, "" if none."""
    if "error" in line:
        return str(line["error"]).strip()
    text = str(line.get("stream", ""))
    output.append(text)
    step = _STEP.match(text)
    if step:
        progress(f"Building {tag}: step {step[1]} of {step[2]}", (int(step[1]) - 1) / int(step[2]))
    return ""


def _present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    except APIError as problem:
        raise EngineError(f"The engine could not look for the image {name}: {problem}") from problem
    return True


def _end(output: str, lines: int = 30) -> str:
    return "\n".join(output.strip().splitlines()[-lines:])
