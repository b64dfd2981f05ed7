"""Every machine word that can be stored or raised has a sentence."""

from __future__ import annotations

import ast
from pathlib import Path

from catalog import wording
from catalog.access import Role
from catalog.i18n import translator
from experiments import results
from experiments.model import Reason, RunState
from lab_templates.model import Problem, TemplateState

ROOT = Path(__file__).parents[3]
RAISERS = {"Problem", "_problem", "add", "one_problem", "_refuse"}


def raised_codes() -> set[str]:
    """Return the first argument of everything in the code that makes a Problem."""
    codes: set[str] = set()
    for folder in ("lab_templates", "experiments", "catalog/store", "catalog/web"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                first = node.args[0]
                if name in RAISERS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    codes.add(first.value)
    return codes


def test_every_problem_has_a_sentence() -> None:
    codes = raised_codes()
    assert {"above_maximum", "not_a_member", "bad_notebook", "no_parameters_cell"} <= codes
    assert not codes - set(wording.PROBLEMS)


def test_every_state_and_reason_has_a_sentence() -> None:
    assert set(wording.STATES) == set(wording.STATE_COLORS) == set(RunState)
    assert set(wording.REASONS) == set(Reason)
    assert set(wording.TEMPLATE_STATES) == set(wording.TEMPLATE_STATE_COLORS) == set(TemplateState)
    assert set(wording.ROLES) == set(Role)
    notices = {value for name, value in vars(results).items() if name.isupper() and isinstance(value, str)}
    said = {word for word in notices if word in vars(results).values() and word.isidentifier()}
    assert {"output_cut", "table_cut"} <= said & set(wording.NOTICES)


def test_sentences_are_filled_in() -> None:
    nb = translator("nb")
    above = Problem("above_maximum", "alpha", "9", "0.2", "alpha=9 is above")
    assert wording.problem(nb, above, "Alfa") == "«Alfa» er 9. Det kan være høyst 0,2."
    assert (
        wording.problem(nb, Problem("wrong_type", "alpha", "x", "number"))
        == "«alpha» kan ikke være «x». Oppgi et tall, for eksempel 0,5."
    )
    assert wording.problem(nb, Problem("news", message="Something new.")) == "Something new."
    assert wording.problem(nb, Problem("bad_name", value="%(field)s%s")) == "«%(field)s%s» kan ikke brukes som navn."
    assert wording.reason(nb, None) is None
    assert wording.reason(nb, "unheard_of") == ("Kjøringen ble avsluttet av denne grunnen: unheard_of.", "")
    assert "xyz" in wording.notice(nb, "xyz")
