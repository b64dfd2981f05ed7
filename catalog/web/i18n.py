"""Which language a page is shown in."""

from __future__ import annotations

from collections.abc import Mapping

from catalog.i18n import LANGUAGE_NAMES, Translator, translator
from lab_templates.model import LANGUAGES

COOKIE = "proverom_lang"
__all__ = ["COOKIE", "LANGUAGES", "LANGUAGE_NAMES", "Translator", "choose", "translator"]

# What browsers call the languages that we have; "no" is the old name of bokmål.
_ACCEPTED = {"nb": "nb", "no": "nb", "nn": "nn", "en": "en"}


def choose(
    query: Mapping[str, str], cookies: Mapping[str, str], accept_language: str | None, default: str = "nb"
) -> str:
    """Return ``nb``, ``nn`` or ``en``: what the address asks for, what was chosen before, what the browser wants, the
    lab's own.
    """
    for wish in (query.get("lang"), cookies.get(COOKIE)):
        if wish in LANGUAGES:
            return str(wish)
    weighted: list[tuple[float, int, str]] = []
    for position, part in enumerate((accept_language or "").split(",")[:20]):
        name, _, parameters = part.strip().partition(";")
        language = _ACCEPTED.get(name.strip().lower().split("-")[0])
        if language is None:
            continue
        try:
            weight = float(parameters.strip().removeprefix("q=")) if parameters.strip() else 1.0
        except ValueError:
            weight = 0.0
        if weight > 0:
            weighted.append((-weight, position, language))
    return min(weighted)[2] if weighted else default
