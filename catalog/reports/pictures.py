"""The figures that a run recorded, ready to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from catalog.reports.cleaning import image
from catalog.store.records import FigureInfo


@dataclass(frozen=True, slots=True)
class Picture:
    """``address`` is a ``data:`` address; ``alt`` is never empty."""

    address: Markup
    alt: str
    caption: str


def pictures(figures: Iterable[FigureInfo], files: Mapping[str, bytes]) -> Iterator[Picture]:
    """Yield each figure whose file is an image that a browser should be given."""
    for info in figures:
        address = image(info.mime, files.get(info.name, b""))
        if address is not None:
            yield Picture(address, info.alt or info.caption or info.name, info.caption)
