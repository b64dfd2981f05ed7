"""Every sentence exists in bokmål and nynorsk, and what is shown of a number can be typed back."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from babel.messages.extract import extract
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st
from jinja2.ext import babel_extract

from catalog.i18n import LOCALE_FOLDER, decimals, translator
from catalog.web.i18n import LANGUAGES, choose
from lab_templates.model import ParameterSpec, ParameterType, Text
from lab_templates.parameters import read

ROOT = Path(__file__).parents[3]
KEYWORDS = {"_": None, "N_": None, "t": None, "plural": (1, 2), "ngettext": (1, 2), "gettext": None}
Message = str | tuple[str, ...]
PLACEHOLDER = re.compile(r"%\(\w+\)s|\{\w+\}")


def messages() -> dict[Message, str]:
    """Return every message of the code and the templates, with a place where it stands."""
    found: dict[Message, str] = {}
    for path in sorted([*ROOT.glob("catalog/**/*.py"), *ROOT.glob("hub/**/*.py")]):
        with path.open("rb") as file:
            for line, message, *_ in extract("python", file, KEYWORDS):
                found.setdefault(tuple(message) if isinstance(message, tuple) else message, f"{path.name}:{line}")
    templates = [*ROOT.glob("catalog/web/templates/*"), *ROOT.glob("catalog/reports/templates/**/*.j2")]
    for path in sorted([*templates, *ROOT.glob("hub/templates/*")]):
        with path.open("rb") as file:
            for line, _, message, _ in babel_extract(file, list(KEYWORDS), [], {"extensions": "jinja2.ext.i18n"}):
                words = [part for part in message if isinstance(part, str)] if isinstance(message, tuple) else [message]
                if words and isinstance(words[0], str):
                    found.setdefault(words[0] if len(words) == 1 else tuple(words), f"{path.name}:{line}")
    found.pop("", None)
    return found


@pytest.mark.parametrize("language", ["nb", "nn"])
def test_every_message_is_translated(language: str) -> None:
    with (LOCALE_FOLDER / f"{language}.po").open("rb") as file:
        catalog = read_po(file, locale=language)
    known = {m.id if isinstance(m.id, str) else tuple(m.id): m for m in catalog if m.id}
    wanted = messages()
    assert len(wanted) > 300
    assert not {message: place for message, place in wanted.items() if message not in known}
    assert not set(known) - set(wanted), "no longer said anywhere"
    for id, message in known.items():
        assert not message.fuzzy, id
        pairs = zip(id, message.string, strict=True) if isinstance(id, tuple) else [(id, message.string)]
        for source, translated in pairs:
            assert translated.strip(), id
            # A singular may leave its number out.
            assert set(PLACEHOLDER.findall(translated)) == set(PLACEHOLDER.findall(source)), id


def test_nynorsk_is_not_bokmal() -> None:
    words = [
        re.compile(rf"\b{word}\b", re.IGNORECASE)
        for word in ("ikke", "kjøring", "hva", "hvor", "noe", "fra", "jeg", "dere")
    ]
    with (LOCALE_FOLDER / "nn.po").open("rb") as file:
        said = [str(message.string) for message in read_po(file, locale="nn") if message.id]
    assert not [text for text in said for word in words if word.search(text)]


@pytest.mark.parametrize(
    ("query", "cookies", "accepted", "language"),
    [
        ({}, {}, None, "nb"),
        ({"lang": "nn"}, {"proverom_lang": "en"}, "nb", "nn"),
        ({"lang": "xx"}, {"proverom_lang": "en"}, "nb", "en"),
        ({}, {}, "de,nn-NO;q=0.8,en;q=0.3", "nn"),
        ({}, {}, "no", "nb"),
        ({}, {}, "en;q=0,de;q=nan,,;q", "nb"),
    ],
)
def test_choice_of_language(
    query: dict[str, str], cookies: dict[str, str], accepted: str | None, language: str
) -> None:
    assert choose(query, cookies, accepted) == language


def test_numbers_as_norwegians_write_them() -> None:
    nb, en = translator("nb"), translator("en")
    assert nb.quantity(2.3, "pp") == "2,3 prosentpoeng"
    assert nb.number(-0.0449281) == "-0,0449"
    assert nb.number(12345.678) == "12\u00a0346"
    assert nb.number(float("nan")) == "–"
    assert nb.fixed(49.0, 1) == "49,0"
    assert en.exact(10_000) == "10\u00a0000", "a comma would be read as a decimal one"
    assert translator("xx").language == "nb"
    assert decimals([45.1, 40.9, None]) == 1
    assert decimals([3.0, 4.0]) == 0


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 10), st.sampled_from(LANGUAGES))
def test_any_number_can_be_shown(value: float, digits: int, language: str) -> None:
    t = translator(language)
    assert t.number(value)
    assert t.fixed(value, digits)
    assert t.quantity(value, "pp")


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(LANGUAGES))
def test_a_shown_value_can_be_sent_back(value: float, language: str) -> None:
    shown = translator(language).exact(value)
    assert read(ParameterSpec("x", ParameterType.NUMBER, 0.0), shown) == value


def test_dates_and_durations() -> None:
    nb = translator("nb")
    assert nb.date(date(2026, 1, 31)) == "31. januar 2026"
    assert nb.moment(datetime(2026, 7, 1, 22, 5, tzinfo=UTC)) == "2. juli 2026 kl. 00.05"
    assert nb.duration(59.6) == "1 minutt"
    assert nb.duration(3600 + 120) == "1 time 2 minutter"
    assert nb.duration(-5) == "0 sekunder"
    assert nb.text(Text(nn="berre nynorsk")) == "berre nynorsk"
