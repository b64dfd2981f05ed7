from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab_templates.checks import read_template
from lab_templates.model import InvalidInput, ParameterSpec, TemplateVersion, Text
from lab_templates.model import ParameterType as T

CASES = Path(__file__).parents[2] / "cases"


@pytest.fixture(scope="session")
def notebooks() -> Path:
    return CASES / "notebooks"


@pytest.fixture(scope="session")
def template(notebooks: Path) -> TemplateVersion:
    """A template that passes the gate, with a number ``rate`` (0-1) and a text ``label`` (at most 20 characters)."""
    declaration = (notebooks / "declaration.toml").read_bytes()
    return read_template((notebooks / "good.ipynb").read_bytes(), declaration, "# Svarprosent\n")


@pytest.fixture(scope="session")
def every_type(template: TemplateVersion) -> TemplateVersion:
    """A version that declares a parameter of every type, one of them without a default."""
    return replace(
        template,
        parameters=(
            ParameterSpec("alpha", T.NUMBER, 0.05, minimum=0.001, maximum=0.2),
            ParameterSpec("price", T.NUMBER, 1.0, unit="NOK"),
            ParameterSpec("years", T.INTEGER, 10, unit="years", minimum=1, maximum=75),
            ParameterSpec("any_number", T.INTEGER, 0),
            ParameterSpec("strict", T.BOOLEAN, True),
            ParameterSpec("title", T.TEXT, "", max_length=20, label=Text("Tittel", "Tittel", "Title")),
            ParameterSpec("arm", T.CHOICE, "kort", choices=("kort", "lang", "blåbær")),
            ParameterSpec("start", T.DATE, "2026-01-31"),
        ),
    )


@pytest.fixture(scope="session")
def codes() -> Callable[[Callable[[], object]], list[str]]:
    """Return the codes with which a call is refused, and [] if it is not; every problem must have a whole message."""

    def refused(call: Callable[[], object]) -> list[str]:
        try:
            call()
        except InvalidInput as error:
            problems = error.problems
        else:
            return []
        assert problems
        assert all(problem.message.endswith((".", "?")) for problem in problems), problems
        return [problem.code for problem in problems]

    return refused
