"""What the pages are told about the lab they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Sizes in bytes, times in seconds.

    ``vendor_dir`` is the ``node_modules`` folder that ``assets/package-lock.json`` was installed into; without it the
    pages keep their own plain look. ``engine`` is the machine word of the engine in use: ``local`` puts a banner on
    every page. ``sends_mail``: a mail server is set up, so that notices reach people outside the pages too.
    """

    base_path: str = "/services/catalog"
    hub_path: str = "/hub"
    language: str = "nb"
    engine: str = ""
    vendor_dir: Path | None = None
    max_timeout_seconds: int = 24 * 3600
    max_upload_bytes: int = 16 * 1024 * 1024
    sends_mail: bool = False
