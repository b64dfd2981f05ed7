"""The demonstration lab's passwords: made once, kept as scrypt hashes, compared in constant time, guessed slowly."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

from hub.keys import write_private

# About 50 ms and 16 MiB each on a 2-core machine.
_N, _R, _P = 2**14, 8, 1
# Read aloud and typed from paper: no letter that looks like another.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"

FREE_TRIES = 5
LONGEST_WAIT = 60.0


def new_password() -> str:
    """Return four groups of four letters and digits, about 79 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))


def hashed(password: str) -> str:
    """Return ``scrypt$n$r$p$<salt>$<hash>``."""
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P)
    return f"scrypt${_N}${_R}${_P}${b64encode(salt).decode()}${b64encode(digest).decode()}"


def matches(password: str, kept: str) -> bool:
    """Say whether a password is the one that was hashed; a hash of another form matches nothing."""
    try:
        scheme, n, r, p, salt, digest = kept.split("$")
        if scheme != "scrypt":
            return False
        found = hashlib.scrypt(password.encode(), salt=b64decode(salt), n=int(n), r=int(r), p=int(p))
        return hmac.compare_digest(found, b64decode(digest))
    except ValueError:
        return False


class PasswordFile:
    """Logins and their hashes, in one private file. Read at each check, so that a change counts at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._nobody = hashed(new_password())

    def check(self, login: str, password: str) -> bool:
        """Say whether this is the login's password. An unknown login takes as long as a known one: about 50 ms."""
        kept = self._read().get(login)
        return matches(password, kept or self._nobody) and kept is not None

    def has(self, login: str) -> bool:
        return login in self._read()

    def add(self, passwords: Mapping[str, str]) -> None:
        """Keep these passwords beside those there are."""
        write_private(self._path, self._read() | {login: hashed(password) for login, password in passwords.items()})

    def _read(self) -> dict[str, str]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return {str(login): str(kept) for login, kept in data.items()} if isinstance(data, dict) else {}


class Throttle:
    """After ``FREE_TRIES`` wrong passwords for a login, each further one doubles the wait, up to ``LONGEST_WAIT``.

    Counted per login and not per address: whoever sits in a sandbox can claim any address.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, capacity: int = 10_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._failed: dict[str, tuple[int, float]] = {}

    def wait(self, login: str) -> float:
        """Return how many seconds this login still has to wait, 0 if it may try."""
        failures, last = self._failed.get(login, (0, 0.0))
        if failures < FREE_TRIES:
            return 0.0
        pause = min(LONGEST_WAIT, 2.0 ** min(failures - FREE_TRIES, 10))
        return max(0.0, last + pause - self._clock())

    def failed(self, login: str) -> None:
        failures, _ = self._failed.pop(login, (0, 0.0))
        if len(self._failed) >= self._capacity:  # somebody tries many names: forget the longest untouched
            self._failed.pop(next(iter(self._failed)))
        self._failed[login] = (failures + 1, self._clock())

    def succeeded(self, login: str) -> None:
        self._failed.pop(login, None)
