"""The form that asks for a series: from its text fields to a request, or everything that is wrong with it at once.

Fields: ``kind`` (grid, points or sample); for each parameter ``m-<name>`` says how it varies (one, list, range or any),
``p-<name>`` holds its one value, ``l-<name>`` its list (``l-<name>-<i>`` its i-th choice), ``from-``, ``to-`` and
``step-<name>`` its range, ``log-<name>`` an even spread of logarithms; ``table`` the pasted points, ``size`` and
``seed`` the sample. Fields of a way that was not chosen are kept and not looked at.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from catalog import wording
from catalog.i18n import N_, Translator
from catalog.web.run_form import field_id
from catalog.web.visit import Trouble
from experiments.sweeps import Axis, Range, Sample, Space, Span, SweepRequest
from lab_templates.model import LANGUAGES, InvalidInput, ParameterSpec, ParameterType, Problem, TemplateVersion
from lab_templates.parameters import INTEGER_MAX, read
from lab_templates.text import quote

KINDS = ("grid", "points", "sample")
MOST_TROUBLES = 20  # of a pasted table: whoever has more looks at the table again first
_NUMBERS = (ParameterType.NUMBER, ParameterType.INTEGER)
_SPACES = re.compile(r"[ \u00a0\u2009\u202f]")
# Between numbers and dates a comma parts two of them only before a space: 0,05 is one number.
_BETWEEN = re.compile(r"[;\n]|,\s")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form asks for. ``request`` is None where ``troubles`` says why."""

    request: SweepRequest | None
    troubles: tuple[Trouble, ...] = ()


def modes(spec: ParameterSpec) -> tuple[str, ...]:
    """Return the ways in which a parameter can vary, beside having one value; what a kind allows of them differs."""
    if spec.type is ParameterType.BOOLEAN:
        return ("any",)
    if spec.type is ParameterType.CHOICE:
        return ("list", "any")
    if spec.type in _NUMBERS:
        bounded = spec.minimum is not None and spec.maximum is not None
        return ("list", "range", "any") if bounded else ("list", "range")
    return ("list", "range") if spec.type is ParameterType.DATE else ("list",)


def allowed(kind: str, spec: ParameterSpec, mode: str) -> bool:
    """Say whether a kind of series can let a parameter vary so: a grid cannot take all of something that is endless."""
    if mode == "one":
        return True
    if kind == "grid" and mode == "range":
        return spec.type in _NUMBERS
    if kind == "grid" and mode == "any":
        return spec.type in (ParameterType.BOOLEAN, ParameterType.CHOICE)
    return kind != "points" and mode in modes(spec)


def chosen(values: Mapping[str, str], kind: str, spec: ParameterSpec) -> str:
    """Return the way that was chosen for a parameter, ``one`` where it was none."""
    mode = values.get(f"m-{spec.name}", "one")
    return mode if mode in modes(spec) and kind != "points" else "one"


def kind_of(values: Mapping[str, str]) -> str:
    return values["kind"] if values.get("kind") in KINDS else "grid"


def parse(version: TemplateVersion, values: Mapping[str, str], t: Translator) -> Asked:
    """Return the request of a form that was sent, or all its troubles in the form's own order."""
    reader = _Reader(version, values, t)
    kind = kind_of(values)
    if kind == "points":
        fixed, _ = reader.parameters(kind)
        points = reader.points()
        return reader.asked(SweepRequest(points=points, fixed=fixed))
    fixed, varied = reader.parameters(kind)
    if not varied and not reader.troubles:
        first = f"m-{version.parameters[0].name}-one" if version.parameters else ""
        reader.trouble(first, t(N_("Nothing varies yet. Choose how at least one of the values varies.")))
    if kind == "grid":
        grid: dict[str, Axis] = {name: axis for name, axis in varied.items() if axis and not isinstance(axis, Span)}
        return reader.asked(SweepRequest(grid=grid, fixed=fixed))
    space: dict[str, Space | None] = {n: axis for n, axis in varied.items() if not isinstance(axis, Range)}
    sample = Sample(reader.whole("size", 1), reader.whole("seed"), space)
    return reader.asked(SweepRequest(sample=sample, fixed=fixed))


@dataclass(slots=True)
class _Reader:
    version: TemplateVersion
    values: Mapping[str, str]
    t: Translator
    troubles: list[Trouble] = field(default_factory=list)

    def asked(self, request: SweepRequest) -> Asked:
        return Asked(None if self.troubles else request, tuple(self.troubles))

    def get(self, name: str) -> str:
        return self.values.get(name, "").strip()

    def trouble(self, field: str, text: str) -> None:
        found = Trouble(field, text)
        if found not in self.troubles:
            self.troubles.append(found)

    def label(self, spec: ParameterSpec) -> str:
        return self.t.text(spec.label) or spec.name

    def read(self, spec: ParameterSpec, raw: object, field: str) -> bool:
        """Say whether ``raw`` is a value of the parameter; note what is wrong with it beside ``field``."""
        try:
            read(spec, raw)
        except InvalidInput as error:
            for problem in error.problems:
                self.trouble(field, wording.problem(self.t, problem, self.label(spec)))
            return False
        return True

    # -- each parameter ----------------------------------------------------------------------------------------------
    def parameters(self, kind: str) -> tuple[dict[str, object], dict[str, Axis | Space | None]]:
        """Return the values that stand still, and how the others vary (None: over all that is allowed)."""
        fixed: dict[str, object] = {}
        varied: dict[str, Axis | Space | None] = {}
        for spec in self.version.parameters:
            mode = chosen(self.values, kind, spec)
            if not allowed(kind, spec, mode):
                what = N_("“%(field)s” cannot vary so in a grid. Give it several values, or draw a sample instead.")
                self.trouble(f"m-{spec.name}-{mode}", self.t(what, field=self.label(spec)))
            elif mode == "one":
                one = field_id(spec)
                raw: object = self.get(one) == "true" if spec.type is ParameterType.BOOLEAN else self.get(one)
                if self.read(spec, raw, one):
                    fixed[spec.name] = raw
            elif mode == "list":
                varied[spec.name] = self.listed(spec)
            elif mode == "range":
                varied[spec.name] = self.range(spec) if kind == "grid" else self.span(spec)
            elif spec.type is ParameterType.BOOLEAN:
                varied[spec.name] = [False, True]
            else:
                varied[spec.name] = list(spec.choices) if spec.choices else None
        return fixed, varied

    def listed(self, spec: ParameterSpec) -> list[object]:
        if spec.type is ParameterType.CHOICE:
            ticked = [c for i, c in enumerate(spec.choices) if self.get(f"l-{spec.name}-{i}")]
            if not ticked:
                self.trouble(f"l-{spec.name}-0", self.t(_NO_VALUES, field=self.label(spec)))
            return list(ticked)
        text = self.values.get(f"l-{spec.name}", "").replace("\r\n", "\n")
        parts = text.split("\n") if spec.type is ParameterType.TEXT else _BETWEEN.split(text)
        found = [part.strip() for part in parts if part.strip()]
        if not found:
            self.trouble(f"l-{spec.name}", self.t(_NO_VALUES, field=self.label(spec)))
        before = len(self.troubles)
        for value in found:
            if len(self.troubles) - before >= MOST_TROUBLES:
                break
            self.read(spec, value, f"l-{spec.name}")
        return list(found)

    def range(self, spec: ParameterSpec) -> Range | None:
        ends = self._ends(spec)
        step = self._decimal(self.get(f"step-{spec.name}"))
        if step is None or step <= 0:
            what = N_("The step of “%(field)s” must be a number above 0.")
            self.trouble(f"step-{spec.name}", self.t(what, field=self.label(spec)))
        if ends is None or step is None or step <= 0:
            return None
        if spec.type is ParameterType.INTEGER and step != step.to_integral_value():
            what = N_("The step of “%(field)s” must be a whole number.")
            self.trouble(f"step-{spec.name}", self.t(what, field=self.label(spec)))
        return Range(*ends, str(step))

    def span(self, spec: ParameterSpec) -> Span | None:
        ends = self._ends(spec)
        spread = bool(self.get(f"log-{spec.name}")) and spec.type in _NUMBERS
        if ends and spread and (low := self._decimal(ends[0])) is not None and low <= 0:
            what = N_("“%(field)s” must begin above 0 when small and large values are drawn equally often.")
            self.trouble(f"from-{spec.name}", self.t(what, field=self.label(spec)))
        return Span(*ends, spread) if ends else None

    def _ends(self, spec: ParameterSpec) -> tuple[str, str] | None:
        fields = [f"from-{spec.name}", f"to-{spec.name}"]
        found = [self.get(field) for field in fields]
        good = [self.read(spec, raw, field) for raw, field in zip(found, fields, strict=True)]
        if not all(good):
            return None
        if spec.type is ParameterType.DATE:
            wrong = found[0] > found[1]
        else:
            low, high = (self._decimal(raw) for raw in found)
            wrong = low is None or high is None or low > high
            found = [_SPACES.sub("", raw) for raw in found]
        if wrong:
            what = N_("“%(field)s” must end above where it begins.")
            self.trouble(fields[1], self.t(what, field=self.label(spec)))
            return None
        return found[0], found[1]

    @staticmethod
    def _decimal(text: str) -> Decimal | None:
        try:
            value = Decimal(_SPACES.sub("", text).replace(",", ".")) if len(text) <= 40 else None
        except InvalidOperation:
            return None
        return value if value is not None and value.is_finite() else None

    def whole(self, field: str, least: int = -INTEGER_MAX) -> int:
        """Return a whole number from ``least``; note what is wrong and return ``least`` if it is none."""
        text = _SPACES.sub("", self.get(field))
        if re.fullmatch(r"[+-]?[0-9]{1,18}", text) and int(text) >= least:
            return int(text)
        what = {
            "size": N_("Say how many runs to draw, as a whole number from 1."),
            "seed": N_("The starting number of the draw must be a whole number."),
        }[field]
        self.trouble(field, self.t(what))
        return least

    # -- a pasted table ----------------------------------------------------------------------------------------------
    def points(self) -> list[dict[str, object]]:
        """Return the points of the pasted table; an empty cell leaves its parameter at the form's own value."""
        text = self.values.get("table", "").lstrip("\ufeff").replace("\r\n", "\n").strip("\n")
        first = text.partition("\n")[0]
        separator = next((sign for sign in ("\t", ";") if sign in first), ",")
        try:
            rows = list(csv.reader(text.split("\n"), delimiter=separator, strict=True))
        except csv.Error:
            self.trouble("table", self.t(N_("The table cannot be read. Is a quotation mark left open?")))
            return []
        lines = [(number, row) for number, row in enumerate(rows, 1) if any(cell.strip() for cell in row)]
        if len(lines) < 2:
            what = N_("Paste a table: a line with the names of the fields, then one line for each run.")
            self.trouble("table", self.t(what))
            return []
        columns = self._columns(lines[0][1])
        if columns is None:
            return []
        found: list[dict[str, object]] = []
        before = len(self.troubles)
        for number, row in lines[1:]:
            if len(self.troubles) - before >= MOST_TROUBLES:
                self.trouble("table", self.t(N_("There may be more. Correct these first.")))
                break
            found.append(self._point(number, row, columns))
        return found

    def _columns(self, header: Sequence[str]) -> list[ParameterSpec] | None:
        """Return the parameter of each column, named by its machine name or by its label in any language."""
        known = {spec.name.casefold(): spec for spec in self.version.parameters}
        for spec in self.version.parameters:
            for language in LANGUAGES:
                known.setdefault(" ".join(spec.label.get(language).split()).casefold(), spec)
        known.pop("", None)
        before = len(self.troubles)
        found: list[ParameterSpec] = []
        for name in header[: len(self.version.parameters) + MOST_TROUBLES]:
            column = known.get(" ".join(name.split()).casefold())
            if column is None:
                names = ", ".join(spec.name for spec in self.version.parameters)
                what = N_("The table's first line has “%(name)s”, which is no field. The fields are: %(names)s.")
                self.trouble("table", self.t(what, name=quote(name.strip()), names=names))
            elif column in found:
                what = N_("The table has the field “%(name)s” twice. Leave one of them out.")
                self.trouble("table", self.t(what, name=self.label(column)))
            else:
                found.append(column)
        return None if len(self.troubles) > before else found

    def _point(self, number: int, row: Sequence[str], columns: Sequence[ParameterSpec]) -> dict[str, object]:
        if len(row) != len(columns):
            what = N_("Line %(line)s of the table has %(cells)s cells, and the first line has %(columns)s.")
            self.trouble("table", self.t(what, line=number, cells=len(row), columns=len(columns)))
            return {}
        point: dict[str, object] = {}
        for spec, cell in zip(columns, row, strict=True):
            raw = self._choice(spec, cell.strip())
            if not raw:
                continue
            try:
                read(spec, raw)
            except InvalidInput as error:
                problem: Problem = error.problems[0]
                said = wording.problem(self.t, problem, self.label(spec))
                self.trouble("table", self.t(N_("Line %(line)s: %(problem)s"), line=number, problem=said))
            point[spec.name] = raw
        return point

    @staticmethod
    def _choice(spec: ParameterSpec, cell: str) -> str:
        """Return a choice that was written by its label as its value; everything else as it is."""
        if spec.type is not ParameterType.CHOICE or cell in spec.choices:
            return cell
        for value, label in spec.choice_labels.items():
            if cell.casefold() in {label.get(language).casefold() for language in LANGUAGES}:
                return value
        return cell


_NO_VALUES = N_("Give the values that “%(field)s” is to have.")


def place_of(version: TemplateVersion, values: Mapping[str, str], problem: Problem) -> str:
    """Return the id of the field that a problem of the whole request belongs to, "" for none."""
    kind = kind_of(values)
    name = problem.field.partition(".")[0]
    known = {"agency": "agency", "experiment": "experiment", "timeout_seconds": "minutes"}
    spec = version.parameter(name)
    if problem.field.startswith("sample."):
        return problem.field.removeprefix("sample.") if problem.field in ("sample.size", "sample.seed") else ""
    if spec is None:
        return known.get(problem.field, "")
    if kind == "points":
        return "table"
    prefix = {"list": "l-", "range": "from-", "any": "m-"}.get(chosen(values, kind, spec), "p-")
    return f"{prefix}{name}" + ("-any" if prefix == "m-" else "-0" if spec.choices and prefix == "l-" else "")
