"""How this site's machines reach a package index: its CA bundle, its index, its proxy. None of it stays in an image."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Site:
    """``ca_bundle`` is a PEM file, or None where the public authorities do. ``proxy`` goes by HTTP_PROXY, HTTPS_PROXY,
    NO_PROXY.
    """

    ca_bundle: Path | None = None
    index_url: str = ""
    extra_index_url: str = ""
    trusted_host: str = ""
    proxy: Mapping[str, str] = field(default_factory=dict)

    def certificates(self) -> bytes:
        """Return the CA bundle, b"" if there is none; raise FileNotFoundError, with what to do, if it is named but
        missing.
        """
        if self.ca_bundle is None:
            return b""
        if not self.ca_bundle.is_file():
            raise FileNotFoundError(
                f"engine.ca_bundle={self.ca_bundle} does not exist. "
                "Give the PEM file with the site's certificate authorities."
            )
        return self.ca_bundle.read_bytes()

    def build_args(self) -> dict[str, str]:
        return {
            "PIP_INDEX_URL": self.index_url,
            "PIP_EXTRA_INDEX_URL": self.extra_index_url,
            "PIP_TRUSTED_HOST": self.trusted_host,
            **self.proxy,
        }


def site_of_this_machine(*, ca_bundle: Path | None = None, proxy: Mapping[str, str] | None = None) -> Site:
    """Return what pip on this machine is set up to use, from its files and its variables alike.

    A given ``ca_bundle`` wins. Indexes that are folders of this machine are left out: a build cannot see them.
    """
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    found: dict[str, str] = {}
    for line in listing.stdout.splitlines():
        name, _, value = line.partition("=")
        try:
            found[name.rpartition(".")[2]] = str(ast.literal_eval(value))
        except (ValueError, SyntaxError):
            continue
    if ca_bundle is None and found.get("cert"):
        ca_bundle = Path(found["cert"])
    return Site(
        ca_bundle=ca_bundle,
        index_url=_remote(found.get("index-url", "")),
        extra_index_url=_remote(found.get("extra-index-url", "")),
        trusted_host=found.get("trusted-host", ""),
        proxy=dict(proxy or {}),
    )


def _remote(urls: str) -> str:
    return " ".join(url for url in urls.split() if url.startswith(("https://", "http://")))
