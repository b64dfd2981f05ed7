"""Raw values to bound parameters: what is accepted, what is refused and how, and that nothing else ever happens."""

import ast
import json
import math
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, TemplateVersion
from lab_templates.parameters import INTEGER_MAX, INTEGER_MIN, MAX_PROBLEMS, bind, bind_timeout, parse_pairs
from lab_templates.text import quote

Codes = Callable[[Callable[[], object]], list[str]]
# Fixtures are the same for every example on purpose: a version is frozen.
fixed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_absent_values_are_the_defaults(every_type: TemplateVersion) -> None:
    assert bind(every_type, {}).values == {spec.name: spec.default for spec in every_type.parameters}


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("alpha", 0.1, 0.1),
        ("alpha", "0,05", 0.05),
        ("alpha", " 0.05 ", 0.05),
        ("alpha", ",1", 0.1),
        ("alpha", "1e-2", 0.01),
        ("price", 3, 3.0),
        ("price", "10 000,5", 10_000.5),
        ("price", "1\u00a0000\u00a0000", 1_000_000.0),
        ("price", "1\u202f000", 1000.0),
        ("price", "-0", 0.0),
        ("years", 75, 75),
        ("years", 5.0, 5),
        ("years", "+12", 12),
        ("any_number", "-9 223 372 036 854 775 808", INTEGER_MIN),
        ("any_number", INTEGER_MAX, INTEGER_MAX),
        ("strict", "on", True),
        ("strict", "Nei", False),
        ("strict", False, False),
        ("title", "", ""),
        ("title", "å", "å"),
        ("title", "a\r\nb", "a\nb"),
        ("title", '"; import os #', '"; import os #'),
        ("title", "😀" * 20, "😀" * 20),
        ("arm", "blåbær", "blåbær"),
        ("start", "2028-02-29", "2028-02-29"),
        ("start", date(2026, 5, 17), "2026-05-17"),
    ],
)
def test_accepted(every_type: TemplateVersion, name: str, raw: object, value: object) -> None:
    bound = bind(every_type, {name: raw}).values[name]
    assert bound == value
    assert type(bound) is type(value)


def test_minus_nought_is_nought(every_type: TemplateVersion) -> None:
    assert math.copysign(1, float(bind(every_type, {"price": -0.0}).values["price"] or 0)) == 1


@pytest.mark.parametrize(
    ("name", "raw", "code"),
    [
        ("alpha", 0.5, "above_maximum"),
        ("alpha", "0,0001", "below_minimum"),
        ("alpha", "", "missing_value"),
        ("alpha", None, "missing_value"),
        ("alpha", True, "wrong_type"),
        ("alpha", "0,05 kr", "wrong_type"),
        ("alpha", "1.000,5", "wrong_type"),
        ("alpha", "10 00", "wrong_type"),
        ("alpha", "٠٫٠٥", "wrong_type"),
        ("alpha", "0x1", "wrong_type"),
        ("alpha", "1_0", "wrong_type"),
        ("alpha", [0.05], "wrong_type"),
        ("alpha", {"value": 0.05}, "wrong_type"),
        ("alpha", b"0.05", "wrong_type"),
        ("alpha", 0.05 + 0j, "wrong_type"),
        pytest.param("alpha", "9" * 10_000, "wrong_type", id="alpha-text-of-10000-digits"),
        ("price", math.nan, "not_finite"),
        ("price", math.inf, "not_finite"),
        ("price", -math.inf, "not_finite"),
        ("price", "NaN", "not_finite"),
        ("price", "-Infinity", "not_finite"),
        ("price", "1e400", "not_finite"),
        ("price", json.loads("1e400"), "not_finite"),
        ("price", 2**64, "above_maximum"),
        pytest.param("price", 10**5000, "above_maximum", id="price-5001-digits"),
        ("price", -(2**64), "below_minimum"),
        ("any_number", 2**64, "above_maximum"),
        ("any_number", str(2**64), "above_maximum"),
        pytest.param("any_number", 10**5000, "above_maximum", id="integer-5001-digits"),
        ("any_number", INTEGER_MIN - 1, "below_minimum"),
        ("any_number", 1e300, "above_maximum"),
        ("any_number", math.nan, "not_finite"),
        ("any_number", 1.5, "wrong_type"),
        ("any_number", "1,0", "wrong_type"),
        ("any_number", True, "wrong_type"),
        ("years", 0, "below_minimum"),
        ("strict", 1, "wrong_type"),
        ("strict", "kanskje", "wrong_type"),
        ("title", 5, "wrong_type"),
        ("title", None, "missing_value"),
        ("title", "x" * 21, "too_long"),
        pytest.param("title", "x" * 10_000_000, "too_long", id="title-10-million"),
        ("title", "a\x00b", "bad_text"),
        ("title", "a\x1bb", "bad_text"),
        ("title", "a\ud800b", "bad_text"),
        ("arm", "middels", "not_a_choice"),
        ("arm", 1, "not_a_choice"),
        pytest.param("arm", "x" * 1_000_000, "not_a_choice", id="arm-a-million"),
        ("start", "31.01.2026", "not_a_date"),
        ("start", "2026-02-30", "not_a_date"),
        ("start", "2026-01-31T10:00", "not_a_date"),
        ("start", datetime(2026, 1, 31), "not_a_date"),  # noqa: DTZ001 - what a parser without zones hands over
        ("start", 20260131, "not_a_date"),
        ("__class__", 1, "bad_name"),
        ("alpha beta", 1, "bad_name"),
        ("import", 1, "bad_name"),
        ("", 1, "bad_name"),
        ("alpha\n", 1, "bad_name"),
        ("ålpha", 1, "bad_name"),
        ("../alpha", 1, "bad_name"),
        ("alhpa", 1, "unknown_parameter"),
    ],
)
def test_refused(every_type: TemplateVersion, codes: Codes, name: str, raw: object, code: str) -> None:
    assert codes(lambda: bind(every_type, {name: raw})) == [code]


def test_all_problems_at_once(every_type: TemplateVersion) -> None:
    with pytest.raises(InvalidInput) as refused:
        bind(every_type, {"alpha": 9, "years": "mange", "arm": "ny", "beta": 1, "__init__": 2, "title": "ok"})
    assert {p.field: p.code for p in refused.value.problems} == {
        "alpha": "above_maximum",
        "years": "wrong_type",
        "arm": "not_a_choice",
        "beta": "unknown_parameter",
        "__init__": "bad_name",
    }


def test_messages_say_what_which_value_and_what_next(every_type: TemplateVersion) -> None:
    with pytest.raises(InvalidInput) as refused:
        bind(every_type, {"alpha": 9, "yaers": 1})
    messages = [problem.message for problem in refused.value.problems]
    assert messages == [
        "svarprosent 1.0.0 has no parameter yaers. Did you mean years?",
        "alpha=9 is above its maximum 0.2. Lower it, or use another version of the template.",
    ]


def test_a_flood_of_problems_is_cut(every_type: TemplateVersion) -> None:
    with pytest.raises(InvalidInput) as refused:
        bind(every_type, {f"x{i}": i for i in range(10_000)})
    assert len(refused.value.problems) == MAX_PROBLEMS


def test_a_parameter_without_a_default_must_be_given(every_type: TemplateVersion, codes: Codes) -> None:
    wanted = replace(every_type, parameters=(ParameterSpec("n", ParameterType.INTEGER, None),))
    assert codes(lambda: bind(wanted, {})) == ["missing_value"]
    assert bind(wanted, {"n": "3"}).values == {"n": 3}


def test_what_is_no_mapping_is_refused(every_type: TemplateVersion, codes: Codes) -> None:
    assert codes(lambda: bind(every_type, ["alpha"])) == ["wrong_type"]  # type: ignore[arg-type]


def test_hidden_characters_are_shown_escaped() -> None:
    assert quote("a\u202egnp\x00") == "a\\u202egnp\\u0000"
    assert len(quote("x" * 10_000)) == 80


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.dates()
    | st.datetimes()
    | st.decimals()
    | st.sampled_from(["0,05", "1e400", "10 000", "ja", "kort", "2026-02-30", "nan", "\ud800", "--5", "+,"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["alpha", "price", "years", "any_number", "strict", "title", "arm", "start"]) | st.text()


@fixed
@given(raw=st.dictionaries(names, anything, max_size=6))
def test_whatever_is_bound_is_within_the_declaration(every_type: TemplateVersion, raw: dict[str, object]) -> None:
    try:
        values = bind(every_type, raw).values
    except InvalidInput as error:
        json.dumps([problem.as_dict() for problem in error.problems]).encode()
        return
    assert list(values) == [spec.name for spec in every_type.parameters]
    assert isinstance(values["alpha"], float)
    assert 0.001 <= values["alpha"] <= 0.2
    assert isinstance(values["price"], float)
    assert math.isfinite(values["price"])
    assert type(values["years"]) is int
    assert 1 <= values["years"] <= 75
    assert type(values["any_number"]) is int
    assert INTEGER_MIN <= values["any_number"] <= INTEGER_MAX
    assert isinstance(values["strict"], bool)
    assert isinstance(values["title"], str)
    assert len(values["title"]) <= 20
    assert unicodedata.is_normalized("NFC", values["title"])
    assert values["arm"] in ("kort", "lang", "blåbær")
    assert isinstance(values["start"], str)
    assert date.fromisoformat(values["start"]).isoformat() == values["start"]
    json.dumps(dict(values), allow_nan=False).encode("utf-8")  # every database and kernel can hold it


@fixed
@given(number=st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_a_number_written_in_norwegian_is_the_number(every_type: TemplateVersion, number: float) -> None:
    written = f"{number:,.6f}".replace(",", "\u00a0").replace(".", ",")
    assert bind(every_type, {"price": written}).values["price"] == float(f"{number:.6f}")


@fixed
@given(raw=anything)
def test_binding_again_changes_nothing(every_type: TemplateVersion, raw: object) -> None:
    for spec in every_type.parameters:
        try:
            once = bind(every_type, {spec.name: raw}).values
        except InvalidInput:
            continue
        assert bind(every_type, once).values == once


@fixed
@given(text=st.text(max_size=20))
@example('"; import os #')
@example("\\")
def test_text_stays_data_in_the_cell_that_papermill_writes(every_type: TemplateVersion, text: str) -> None:
    try:
        values = bind(every_type, {"title": text}).values
    except InvalidInput:
        return
    names = ast.parse(PythonTranslator.codify(dict(values))).body
    written = {node.targets[0].id: ast.literal_eval(node.value) for node in names}  # type: ignore[attr-defined]
    assert written == values


def test_pairs() -> None:
    assert parse_pairs(["alpha=0,05", " title = a=b ", "arm="]) == {"alpha": "0,05", "title": " a=b ", "arm": ""}


def test_pairs_with_every_problem(codes: Codes) -> None:
    pairs = ["alpha", "al pha=1", "x=1", "x=2", "=3", "__class__=4"]
    assert codes(lambda: parse_pairs(pairs)) == ["bad_pair", "bad_name", "given_twice", "bad_name", "bad_name"]


@pytest.mark.parametrize("raw", [1, "60", 3600, "3 600", 60.0])
def test_timeout(raw: object) -> None:
    assert bind_timeout(raw, 3600) == float(str(raw).replace(" ", ""))


@pytest.mark.parametrize(
    "raw",
    [
        *(-1, 0, 3601, math.nan, math.inf, 1.5, True, None, "", "nan", "-1", "1e3", [60]),
        pytest.param("9" * 5000, id="text-of-5000-digits"),
        pytest.param(10**5000, id="5001-digits"),
    ],
)
def test_timeout_refused(codes: Codes, raw: object) -> None:
    assert codes(lambda: bind_timeout(raw, 3600)) == ["bad_timeout"]
