"""Where the command line finds the lab, and as whom.

These few names are read here and not in ``hub.settings`` because the command line also lives in desks, where the
server's dependencies (pydantic among them) are not installed.

==========================  ==============================================================================
``PROVEROM_URL``            the lab's address, with or without ``/services/catalog``
``PROVEROM_TOKEN``          a Hub token of yours
``JUPYTERHUB_API_TOKEN``    a desk's own token, set by the Hub; used if there is no ``PROVEROM_TOKEN``
``PROVEROM_AGENCY``         the agency that is meant where none is named; a desk has its own here
==========================  ==============================================================================

``--as LOGIN`` needs none of them: it reads ``logins.json`` in the state folder of the lab that was started on this
machine.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PROJECT = Path(__file__).resolve().parent.parent
SERVICE = "/services/catalog"


class NotConnected(Exception):
    """It is not known where the lab is or who asks; the message says what to give."""


@dataclass(frozen=True, slots=True)
class Connection:
    """``url`` is the catalog's base address, without a slash at its end; ``agency`` is meant where none is named."""

    url: str
    token: str
    agency: str | None = None


def connect(login: str | None = None, *, environ: Mapping[str, str] | None = None) -> Connection:
    """Return the connection for ``login`` (``--as``), or else the environment's. Raise NotConnected."""
    environ = os.environ if environ is None else environ
    agency = environ.get("PROVEROM_AGENCY") or None
    if login is not None:
        url, token = _local_login(login, state_folder(environ))
        return Connection(service_url(url), token, agency)
    url, token = (
        environ.get("PROVEROM_URL", ""),
        environ.get("PROVEROM_TOKEN") or environ.get("JUPYTERHUB_API_TOKEN", ""),
    )
    if url and token:
        return Connection(service_url(url), token, agency)
    missing = " and ".join(name for name, value in (("PROVEROM_URL", url), ("PROVEROM_TOKEN", token)) if not value)
    raise NotConnected(
        f"Nobody is named. Add --as LOGIN ({_names(state_folder(environ))}) if the lab runs on this machine; "
        f"otherwise set {missing}. A token comes from the lab's page Token."
    )


def service_url(url: str) -> str:
    """Return the catalog's base address of an address of the lab's. Raise NotConnected if it is no address."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise NotConnected(f"PROVEROM_URL={url!r} is not an address. Give one like https://lab.example.no.")
    path = parts.path.rstrip("/").removesuffix("/api/v1").rstrip("/")
    if not path.endswith(SERVICE):
        path += SERVICE
    return f"{parts.scheme}://{parts.netloc}{path}"


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return the state folder of this machine's lab, as ``hub.settings`` would find it."""
    given = environ.get("PROVEROM_LAB__STATE")
    if not given:
        config = environ.get("PROVEROM_CONFIG")
        path = Path(config).expanduser() if config else PROJECT / "proverom.toml"
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8")).get("lab", {}).get("state")
        except (OSError, ValueError, AttributeError):
            given = None  # the server says what is wrong with its settings; here they are only a hint
    return (PROJECT / Path(given if isinstance(given, str) else ".lab").expanduser()).resolve()


def _local_login(login: str, state: Path) -> tuple[str, str]:
    path = state / "logins.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotConnected(
            f"No lab was started on this machine ({path} is not there). Start one with: proverom up"
        ) from None
    except (OSError, ValueError) as error:
        raise NotConnected(f"{path} cannot be read ({error}). Run as the user who started the lab.") from None
    try:
        return str(kept["url"]), str(kept["logins"][login]["token"])
    except (KeyError, TypeError):
        raise NotConnected(f"There is no login {login!r} in this machine's lab. Use one of: {_names(state)}.") from None


def _names(state: Path) -> str:
    try:
        return ", ".join(json.loads((state / "logins.json").read_text(encoding="utf-8"))["logins"])
    except (OSError, ValueError, KeyError, TypeError):
        return "team, coordinator, leader, admin"
