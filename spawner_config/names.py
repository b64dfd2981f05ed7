"""What everything the lab makes in an engine is called, and how it is labelled.

Names are at most 63 characters (a DNS label), and two different things never get the same name: the lab has no hyphen,
a person's part has none either, and a person whose name is not plain gets a digest of it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata

LAB = "no.proverom.lab"
KIND = "no.proverom.kind"
AGENCY = "no.proverom.agency"
RUNNER = "no.proverom.runner"
PERSON = "no.proverom.person"

MAX_LENGTH = 63
_DIGEST_LENGTH = 13  # base32: 65 bits

_LAB = re.compile(r"[a-z0-9]{1,12}")
_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_RUNNER = re.compile(r"[a-zA-Z0-9_.-]{1,34}")

# The network on which the Hub meets the outside: no agency may be called so, or its sandboxes would be on it.
EDGE = "edge"


def check_lab(lab: str) -> str:
    """Return ``lab``; raise ValueError unless it is 1 to 12 lowercase letters and digits."""
    if not _LAB.fullmatch(lab):
        raise ValueError(f"lab={lab!r} cannot name a lab. Use 1 to 12 lowercase letters and digits.")
    return lab


def check_slug(slug: str) -> str:
    """Return ``slug``; raise ValueError unless it can name an agency's network, volumes and desks."""
    if not _SLUG.fullmatch(slug) or slug == EDGE:
        raise ValueError(
            f"slug={slug!r} cannot name an agency. Use 1 to 20 lowercase letters, digits and hyphens, beginning and "
            f"ending with a letter or a digit, and not {EDGE!r}."
        )
    return slug


def check_container(name: str) -> str:
    """Return ``name``; raise ValueError unless every engine can call a sandbox so."""
    if not _CONTAINER.fullmatch(name) or name.endswith("\n"):
        raise ValueError(
            f"name={name!r} cannot name a sandbox. Use 1 to {MAX_LENGTH} of the letters A-Z a-z, digits, '_', '.', '-'."
        )
    return name


def agency_network(lab: str, slug: str) -> str:
    return f"proverom-{check_lab(lab)}-{check_slug(slug)}"


def edge_network(lab: str) -> str:
    return f"proverom-{check_lab(lab)}-{EDGE}"


def hub_container(lab: str) -> str:
    return f"proverom-{check_lab(lab)}-hub"


def desk_container(lab: str, slug: str, person: str) -> str:
    """Return the name of a person's desk at an agency; one person has one desk there."""
    return _with_person(f"proverom-{check_lab(lab)}-desk-{check_slug(slug)}-", person)


def home_volume(lab: str, slug: str, person: str) -> str:
    return _with_person(f"proverom-{check_lab(lab)}-home-{check_slug(slug)}-", person)


def shared_volume(lab: str, slug: str) -> str:
    return f"proverom-{check_lab(lab)}-shared-{check_slug(slug)}"


def runner_container(lab: str, runner: str) -> str:
    """Return the name of a runner's sandbox; raise ValueError unless its id is 1 to 34 letters, digits, or '_.-'."""
    if not _RUNNER.fullmatch(runner):
        raise ValueError(f"runner={runner!r} is no runner's id. Use 1 to 34 letters, digits, '_', '.', '-'.")
    return f"proverom-{check_lab(lab)}-runner-{runner}"


def runner_id(lab: str, name: str) -> str:
    """Return the id of the runner whose sandbox has this name; raise ValueError if it is no runner's of this lab."""
    prefix = f"proverom-{check_lab(lab)}-runner-"
    if not name.startswith(prefix) or len(name) == len(prefix):
        raise ValueError(f"name={name!r} is no runner's of the lab {lab!r}. Use names.runner_container.")
    return name.removeprefix(prefix)


def labels(*, lab: str, kind: str, agency: str) -> dict[str, str]:
    """Return the labels that everything of this kind carries."""
    return {LAB: check_lab(lab), KIND: kind, AGENCY: agency}


def _with_person(prefix: str, person: str) -> str:
    """Return prefix and person in at most 63 characters: the name itself if it is plain, else its readable part, '_', a
    digest.

    A plain name holds no '_', so the two forms never meet. Names that differ only in how Unicode composes them are one.
    """
    if not person:
        raise ValueError("person='' is nobody's name.")
    room = MAX_LENGTH - len(prefix)
    person = unicodedata.normalize("NFC", person)
    if len(person) <= room and re.fullmatch(r"[a-z0-9]+", person):
        return prefix + person
    digest = (
        base64.b32encode(hashlib.sha256(person.encode("utf-8", "surrogatepass")).digest())
        .decode()
        .lower()[:_DIGEST_LENGTH]
    )
    readable = re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", person).lower())[: room - _DIGEST_LENGTH - 1]
    return f"{prefix}{readable}_{digest}"
