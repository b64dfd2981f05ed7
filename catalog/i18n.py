"""Texts, numbers and dates in bokmål, nynorsk and English.

Message ids are the English sentences; ``catalog/locale/<language>.po`` holds the others. The files are read when a
language is first asked for, so there is no compile step to forget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from functools import cache
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

from babel import dates, numbers
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

from experiments.model import Scalar
from lab_templates.model import LANGUAGES, Text

LANGUAGE_NAMES = {"nb": "Bokmål", "nn": "Nynorsk", "en": "English"}
LOCALE_FOLDER = Path(__file__).parent / "locale"
ZONE = ZoneInfo("Europe/Oslo")
_HUGE = 1e21  # from here on all digits are too many to read, and more than babel can write
_LOCALES = {"nb": "nb_NO", "nn": "nn_NO", "en": "en_GB"}


def N_(message: str) -> str:
    """Mark a message for extraction and return it unchanged; it is translated where it is shown."""
    return message


def decimals(values: Iterable[float | None]) -> int:
    """Return how many decimals numbers that belong together are shown with: three figures of the largest, none if all
    are whole.
    """
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value)]
    largest = max(sizes, default=0.0)
    if not largest or all(float(size).is_integer() for size in sizes):
        return 0
    digits = min(10, max(0, 2 - math.floor(math.log10(largest))))
    while digits and all(round(size, digits - 1) == round(size, digits) for size in sizes):
        digits -= 1
    return digits


class Translator:
    """One language. Called with an English message it returns the sentence, ``%(name)s`` filled from the keywords."""

    def __init__(self, language: str, messages: NullTranslations) -> None:
        self.language = language
        self._messages = messages
        self._locale = _LOCALES[language]

    def __call__(self, message: str, **values: object) -> str:
        text = str(self._messages.gettext(message)) if message else ""
        return text % values if values else text

    def plural(self, one: str, many: str, count: int, **values: object) -> str:
        """Return the form for ``count``, with ``%(count)s`` written as a number of this language."""
        text = str(self._messages.ngettext(one, many, count))
        return text % {"count": self.number(count), **values}

    def text(self, text: Text) -> str:
        """Return a text of the catalog in this language, or in the nearest one it has."""
        return text.get(self.language)

    def number(self, value: float) -> str:
        """Return a number to read: three significant figures, but never fewer than its integer digits."""
        if not math.isfinite(value):
            return "–"
        if abs(value) < _HUGE and (isinstance(value, int) or float(value).is_integer()):
            return self._decimal(int(value), "#,##0")
        if value and (abs(value) < 1e-6 or abs(value) >= _HUGE):
            return str(numbers.format_scientific(Decimal(f"{value:.3g}"), locale=self._locale))
        digits = Decimal(f"{value:.0f}") if abs(value) >= 100 else Decimal(f"{value:.3g}")
        return self._decimal(digits, "#,##0.##########")

    def fixed(self, value: float, digits: int) -> str:
        """Return a number with exactly ``digits`` decimals, for a column of its like."""
        if not math.isfinite(value):
            return "–"
        if abs(value) >= _HUGE:
            return self.number(value)
        return self._decimal(round(value, digits), "#,##0" + "." * bool(digits) + "0" * digits)

    def exact(self, value: float) -> str:
        """Return a number with all its digits: what was typed must be recognised."""
        if not math.isfinite(value):
            return "–"
        if abs(value) >= _HUGE or (not isinstance(value, int) and not float(value).is_integer()):
            if not 1e-6 <= abs(value) < 1e15:
                return repr(float(value)).replace(".", "." if self.language == "en" else ",")
            whole, _, rest = f"{Decimal(repr(abs(float(value)))):f}".partition(".")
            shown = self._decimal(int(whole), "#,##0") + ("." if self.language == "en" else ",") + rest
            return f"-{shown}" if value < 0 else shown
        return self._decimal(int(value), "#,##0")

    def _decimal(self, value: int | float | Decimal, pattern: str) -> str:
        # Thousands are set apart by a space in English too: a form reads the comma as a decimal one, in every language.
        grouped = str(numbers.format_decimal(value, format=pattern, locale=self._locale))
        return grouped.replace(",", "\u00a0") if self.language == "en" else grouped

    def scalar(self, value: Scalar) -> str:
        """Return a parameter's value as people read it."""
        if value is None:
            return "–"
        if isinstance(value, bool):
            return self(N_("Yes")) if value else self(N_("No"))
        return self.exact(value) if isinstance(value, int | float) else value

    def unit(self, unit: str, value: float | None = None) -> str:
        """Return a unit in words; an unknown one is shown as it is. ``value`` chooses singular or plural."""
        many = value is None or abs(value) != 1
        known = {
            "pp": self.plural("percentage point", "percentage points", 2 if many else 1),
            "NOK": self(N_("NOK")),
            "MNOK": self(N_("million NOK")),
            "persons": self.plural("person", "persons", 2 if many else 1),
            "days": self.plural("day", "days", 2 if many else 1),
            "years": self.plural("year", "years", 2 if many else 1),
            "periods": self.plural("period", "periods", 2 if many else 1),
            "minutes": self.plural("minute", "minutes", 2 if many else 1),
            "seconds": self.plural("second", "seconds", 2 if many else 1),
            "letters": self.plural("letter", "letters", 2 if many else 1),
        }
        return known.get(unit, unit)

    def quantity(self, value: float, unit: str = "") -> str:
        """Return a number with its unit: "2,3 prosentpoeng"."""
        return f"{self.number(value)} {self.unit(unit, value)}".strip()

    def date(self, value: date) -> str:
        return str(dates.format_date(value, "long", locale=self._locale))

    def moment(self, value: datetime) -> str:
        """Return a point in time, on Norway's clock."""
        local = value.astimezone(ZONE)
        day = dates.format_date(local.date(), "d. MMM y" if self.language != "en" else "d MMM y", locale=self._locale)
        clock = dates.format_time(local.time(), "HH:mm" if self.language == "en" else "HH.mm", locale=self._locale)
        return self(N_("%(day)s at %(clock)s"), day=day, clock=clock)

    def occasion(self, value: datetime, zone: tzinfo = ZONE) -> str:
        """Return a point in time with its weekday, on the clock of a zone."""
        local = value.astimezone(zone)
        pattern = "EEEE d. MMMM y" if self.language != "en" else "EEEE d MMMM y"
        day = dates.format_date(local.date(), pattern, locale=self._locale)
        clock = dates.format_time(local.time(), "HH:mm" if self.language == "en" else "HH.mm", locale=self._locale)
        return self(N_("%(day)s at %(clock)s"), day=day, clock=clock)

    def iso(self, value: datetime) -> str:
        """Return what a ``<time datetime>`` wants."""
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def duration(self, seconds: float) -> str:
        """Return a length of time in its largest fitting units."""
        whole = max(0, round(seconds))
        if whole < 60:
            return self.plural("%(count)s second", "%(count)s seconds", whole)
        minutes, rest = divmod(whole, 60)
        if minutes < 60:
            text = self.plural("%(count)s minute", "%(count)s minutes", minutes)
            return text if not rest else f"{text} {self.plural('%(count)s second', '%(count)s seconds', rest)}"
        hours, minutes = divmod(minutes, 60)
        text = self.plural("%(count)s hour", "%(count)s hours", hours)
        return text if not minutes else f"{text} {self.plural('%(count)s minute', '%(count)s minutes', minutes)}"


@cache
def translator(language: str) -> Translator:
    """Return the translator of ``nb``, ``nn`` or ``en``; anything else gets bokmål."""
    language = language if language in LANGUAGES else "nb"
    if language == "en":
        return Translator("en", NullTranslations())
    with (LOCALE_FOLDER / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=_LOCALES[language])
    compiled = BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    return Translator(language, Translations(fp=compiled))
