"""The cell tagged ``parameters``: does it set exactly what the declaration declares, to the declared defaults?

The cell runs on every run, before the bound values; so it may hold nothing but assignments of plain values. It is read
as a syntax tree and never executed. (papermill's own inspection reads line by line with a pattern, and loses a default
that holds ``=`` or ``#``.)
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping, Sequence

from lab_templates.model import ParameterSpec, Problem
from lab_templates.text import quote

MAX_SOURCE = 20_000  # characters: deeper syntax trees than fit in there could bring down the interpreter


def compare(source: str, specs: Sequence[ParameterSpec]) -> Iterator[Problem]:
    """Yield every disagreement between a Python parameters cell and the declared parameters.

    Codes: bad_parameters_cell, given_twice, not_declared, not_in_notebook, default_differs.
    """
    problems: list[Problem] = []
    found = _assignments(source, problems)
    yield from problems
    if any(problem.code == "bad_parameters_cell" and not problem.field for problem in problems):
        return  # nothing could be read, and every parameter would be reported missing
    declared = {spec.name: spec for spec in specs}
    for name in sorted(found.keys() - declared.keys()):
        what = f"The parameters cell sets {name}, which template.toml does not declare. Declare it, or move it."
        yield Problem("not_declared", name, message=what)
    for name, spec in declared.items():
        if name not in found:
            what = f"template.toml declares {name}, but the parameters cell does not set it."
            yield Problem("not_in_notebook", name, message=f"{what} Add {name} = {spec.default!r}.")
        elif not _same(found[name], spec.default) and not any(problem.field == name for problem in problems):
            what = f"The parameters cell sets {name} = {_shown(found[name])}, but its declared default is "
            yield Problem(
                "default_differs",
                name,
                quote(found[name]),
                quote(spec.default),
                f"{what}{spec.default!r}. Make them one.",
            )


def _assignments(source: str, problems: list[Problem]) -> Mapping[str, object]:
    if len(source) > MAX_SOURCE:
        what = f"The parameters cell is {len(source)} characters long; at most {MAX_SOURCE} are read. Shorten it."
        problems.append(Problem("bad_parameters_cell", value=str(len(source)), limit=str(MAX_SOURCE), message=what))
        return {}
    try:
        with warnings.catch_warnings(action="ignore"):  # an author's odd escape is no warning of ours
            statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        fault = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        what = f"The parameters cell is no Python: {fault}. Let it hold only lines like alpha = 0.05."
        problems.append(Problem("bad_parameters_cell", value=quote(fault), message=what))
        return {}
    lines = source.splitlines()
    found: dict[str, object] = {}
    for statement in statements:
        line = quote(lines[statement.lineno - 1].strip()) if statement.lineno <= len(lines) else ""
        target, value = _plain_assignment(statement)
        if target is None or value is None:
            what = f"The parameters cell holds more than plain values: {line}. Move it to another cell."
            problems.append(Problem("bad_parameters_cell", line, line, message=what))
            continue
        if target in found:
            what = f"The parameters cell sets {target} more than once. Keep one line."
            problems.append(Problem("given_twice", target, message=what))
        found[target] = None
        try:
            found[target] = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            what = f"The parameters cell sets {target} to no plain value: {line}. Write the value itself."
            problems.append(Problem("bad_parameters_cell", target, line, message=what))
    return found


def _plain_assignment(statement: ast.stmt) -> tuple[str | None, ast.expr | None]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, statement.value
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id, statement.value
    return None, None


def _shown(value: object) -> str:
    return repr(quote(value)) if isinstance(value, str) else quote(value)


def _same(found: object, declared: object) -> bool:
    if isinstance(declared, float) and isinstance(found, int) and not isinstance(found, bool):
        return found == declared
    return type(found) is type(declared) and found == declared
