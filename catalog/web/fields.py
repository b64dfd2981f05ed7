"""Fields that a form sends as text and the store takes as something else."""

from __future__ import annotations

from datetime import date

from lab_templates.model import Problem
from lab_templates.text import quote


def day(problems: list[Problem], field: str, raw: str) -> date | None:
    """Return a date written like 2026-01-31, None for an empty field; note ``not_a_date`` for anything else."""
    if not raw:
        return None
    try:
        return date.fromisoformat(raw)
    except ValueError:
        problems.append(Problem("not_a_date", field, quote(raw)))
        return None
