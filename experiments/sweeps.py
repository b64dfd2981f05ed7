"""Sweeps: one template over many points of its parameters, as a grid, a list or a seeded random sample.

``count`` says how many points a request describes without making any of them, so a grid of 10^9 is refused at once;
``expand`` makes them, each bound by ``lab_templates.parameters.bind``.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation

from lab_templates.model import InvalidInput, ParameterSpec, ParameterType, Problem, Scalar, TemplateVersion
from lab_templates.parameters import MAX_PROBLEMS, bind, read
from lab_templates.text import quote

_LONGEST_NUMBER = 40
_TRIES_PER_POINT = 20  # draws for one more distinct point, before a small space is taken for exhausted


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers ``start``, ``start + step``, … up to and including ``stop``: in decimals, so 0:1:0.1 holds 0.3."""

    start: object
    stop: object
    step: object


@dataclass(frozen=True, slots=True)
class Span:
    """Where a sample is drawn from: evenly between ``low`` and ``high``, or evenly in their logarithms."""

    low: object
    high: object
    logarithmic: bool = False


Axis = Range | Sequence[object]
Space = Span | Sequence[object]


@dataclass(frozen=True, slots=True)
class Sample:
    """``size`` points drawn by a generator that starts from ``seed``: the same seed gives the same points.

    A name of ``space`` without more (None) is drawn from all that its declaration allows.
    """

    size: int
    seed: int
    space: Mapping[str, Space | None]


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """What somebody asks for, values raw. Exactly one of ``grid``, ``points`` and ``sample`` is given.

    ``fixed`` holds for every point, and a point of the list wins over it.
    """

    grid: Mapping[str, Axis] | None = None
    points: Sequence[Mapping[str, object]] | None = None
    sample: Sample | None = None
    fixed: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expansion:
    """The points of a sweep, bound and distinct, in the order of the request.

    ``asked`` is how many were described, so ``asked - len(points)`` of them were said twice (or, of a sample, could
    not be drawn anew). ``varied`` names the parameters that differ between points.
    """

    points: tuple[Mapping[str, Scalar], ...]
    asked: int
    varied: tuple[str, ...]

    @property
    def duplicates(self) -> int:
        return self.asked - len(self.points)


def count(request: SweepRequest) -> int:
    """Return how many points the request describes, without making them. Raise InvalidInput (bad_sweep, bad_space)."""
    given = [part for part in (request.grid, request.points, request.sample) if part is not None]
    if len(given) != 1:
        raise _problem("bad_sweep", "sweep", len(given), "Give exactly one of grid, points and sample.")
    if request.sample is not None:
        size, seed = request.sample.size, request.sample.seed
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise _problem("wrong_type", "sample.size", size, f"size={quote(size)} is no number of points. Give one.")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise _problem("wrong_type", "sample.seed", seed, f"seed={quote(seed)} is no whole number. Give one.")
        return size
    if request.points is not None:
        return len(request.points)
    sizes = [_axis_size(name, axis) for name, axis in (request.grid or {}).items()]
    return math.prod(sizes) if sizes else 0


def expand(version: TemplateVersion, request: SweepRequest, *, most: int) -> Expansion:
    """Return the request's points. At most ``most`` are allowed, and more than that are never made.

    Raise InvalidInput with every problem: bad_sweep, bad_space, empty_sweep, too_many_runs (its value is the number of
    points), given_twice (a name that is fixed and varied), and those of ``bind``.
    """
    asked = count(request)
    if asked == 0:
        raise _problem("empty_sweep", "sweep", 0, "The sweep has no points. Give at least one value to vary.")
    if asked > most:
        what = (
            f"The sweep is {asked} runs; at most {most} are allowed at once. Take fewer values or larger steps, draw a "
            "sample, or ask the lab's administrators for more."
        )
        raise InvalidInput((Problem("too_many_runs", "sweep", str(asked), str(most), what),))
    if request.points is not None:
        raw: Iterator[Mapping[str, object]] = ({**request.fixed, **point} for point in request.points)
    elif request.grid is not None:
        raw = _grid_points(version, request.grid, request.fixed)
    else:
        raw = _sample_points(version, request.sample or Sample(0, 0, {}), request.fixed)
    points = _distinct(version, raw, asked, listed=request.points is not None)
    return Expansion(points, asked, _varied(version, points))


def _distinct(
    version: TemplateVersion, raw: Iterator[Mapping[str, object]], asked: int, *, listed: bool
) -> tuple[Mapping[str, Scalar], ...]:
    found: dict[tuple[Scalar, ...], Mapping[str, Scalar]] = {}
    problems: list[Problem] = []
    names = [spec.name for spec in version.parameters]
    for number, values in enumerate(raw, 1):
        try:
            bound = bind(version, values).values
        except InvalidInput as error:
            for p in error.problems:
                said = f"Point {number}: {p.message}" if listed else p.message
                problem = Problem(p.code, p.field, p.value, p.limit, said)
                if problem not in problems:
                    problems.append(problem)
            if len(problems) >= MAX_PROBLEMS or not listed:
                break
            continue
        found.setdefault(tuple(bound[name] for name in names), bound)
        if len(found) >= asked:
            break
    if problems:
        raise InvalidInput(tuple(problems[:MAX_PROBLEMS]))
    return tuple(found.values())


def _varied(version: TemplateVersion, points: Sequence[Mapping[str, Scalar]]) -> tuple[str, ...]:
    names = (spec.name for spec in version.parameters)
    return tuple(name for name in names if any(point[name] != points[0][name] for point in points))


# -- grids -----------------------------------------------------------------------------------------------------------


def _grid_points(
    version: TemplateVersion, grid: Mapping[str, Axis], fixed: Mapping[str, object]
) -> Iterator[Mapping[str, object]]:
    problems = _twice(grid, fixed)
    axes: dict[str, list[object]] = {}
    for name, axis in grid.items():
        axes[name] = _axis_values(name, axis)
        spec = version.parameter(name)
        if spec is not None:
            problems += _unreadable(spec, axes[name])  # once a value, not once a point that it is in
    if problems:
        raise InvalidInput(tuple(problems[:MAX_PROBLEMS]))
    for values in itertools.product(*axes.values()):
        yield {**fixed, **dict(zip(axes, values, strict=True))}


def _unreadable(spec: ParameterSpec, values: Sequence[object]) -> list[Problem]:
    problems: list[Problem] = []
    for value in values:
        try:
            read(spec, value)
        except InvalidInput as error:
            problems.extend(error.problems)
        if len(problems) >= MAX_PROBLEMS:
            break
    return problems


def _axis_size(name: str, axis: Axis) -> int:
    if isinstance(axis, Range):
        start, stop, step = _decimals(name, axis)
        return int((stop - start) / step) + 1 if (stop - start) / step >= 0 else 0
    if isinstance(axis, str | bytes) or not isinstance(axis, Sequence):
        raise _problem("bad_space", name, axis, f"{name} is neither a list of values nor a range. Give one of them.")
    return len(axis)


def _axis_values(name: str, axis: Axis) -> list[object]:
    if not isinstance(axis, Range):
        return list(axis)
    start, _, step = _decimals(name, axis)
    values = (start + step * index for index in range(_axis_size(name, axis)))
    return [int(v) if v == v.to_integral_value() else float(v) for v in values]


def _decimals(name: str, axis: Range) -> tuple[Decimal, Decimal, Decimal]:
    found = []
    for part, raw in (("start", axis.start), ("stop", axis.stop), ("step", axis.step)):
        found.append(_decimal(f"{name}.{part}", raw))
    if found[2] == 0:
        raise _problem("bad_space", name, axis.step, f"{name}: a range with step 0 never ends. Give another step.")
    return found[0], found[1], found[2]


def _decimal(what: str, raw: object) -> Decimal:
    """Return a number as it was written: the float 0.1 is the tenth that somebody typed. Raise InvalidInput."""
    text = raw.strip().replace(",", ".") if isinstance(raw, str) else repr(raw)
    plain = isinstance(raw, int | float | str) and not isinstance(raw, bool) and len(text) <= _LONGEST_NUMBER
    try:
        value = Decimal(text) if plain else None
    except InvalidOperation:
        value = None
    if value is None or not value.is_finite() or abs(value) > Decimal("1e300"):
        raise _problem("bad_space", what, raw, f"{what}={quote(raw)} is no number. Give one, for example 0.1.")
    return value


def _twice(varied: Mapping[str, object], fixed: Mapping[str, object]) -> list[Problem]:
    both = [name for name in varied if name in fixed]
    said = "{} is both fixed and varied. Leave one of them out."
    return [Problem("given_twice", quote(name), quote(name), message=said.format(quote(name))) for name in both]


# -- samples ---------------------------------------------------------------------------------------------------------


def _sample_points(
    version: TemplateVersion, sample: Sample, fixed: Mapping[str, object]
) -> Iterator[Mapping[str, object]]:
    """Yield drawn points, repeats included, until nobody takes more or a new one is not to be hoped for.

    Only ``Random.random`` is used: its sequence for a seed is the one that Python promises to keep.
    """
    problems = _twice(sample.space, fixed)
    if not sample.space:
        problems.append(Problem("empty_sweep", "sample.space", message="The sample varies nothing. Name a parameter."))
    draws: dict[str, _Draw] = {}
    for name, space in sample.space.items():
        spec = version.parameter(name)
        try:
            if spec is None:
                bind(version, {name: None})
            else:
                draws[name] = _Draw.of(spec, space)
        except InvalidInput as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidInput(tuple(problems[:MAX_PROBLEMS]))
    generator = random.Random(sample.seed)  # noqa: S311 - reproducible is what it has to be
    for _ in range(sample.size * _TRIES_PER_POINT):
        yield {**fixed, **{name: draw(generator.random()) for name, draw in draws.items()}}


@dataclass(frozen=True, slots=True)
class _Draw:
    """Turns a number from [0, 1) into a value."""

    type: ParameterType
    choices: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    logarithmic: bool = False

    def __call__(self, share: float) -> Scalar:
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        if self.type is ParameterType.DATE:
            days = int(self.high - self.low) + 1
            return (date.fromordinal(int(self.low)) + timedelta(days=int(share * days))).isoformat()
        if self.type is ParameterType.INTEGER and not self.logarithmic:
            low, high = int(self.low), int(self.high)
            return min(high, low + int(share * (high - low + 1)))
        if self.logarithmic:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(self.high, max(self.low, value))
        return round(value) if self.type is ParameterType.INTEGER else value

    @classmethod
    def of(cls, spec: ParameterSpec, space: Space | None) -> _Draw:
        """Raise InvalidInput: no_range (nothing says where to draw from), bad_space, and those of ``read``."""
        if isinstance(space, Span):
            return cls._between(spec, space)
        if space is not None:
            if isinstance(space, str | bytes) or not isinstance(space, Sequence) or not space:
                what = f"{spec.name} has no values to draw from. Give a list of values, or a range."
                raise _problem("bad_space", spec.name, space, what)
            return cls(spec.type, tuple(read(spec, value) for value in space))
        if spec.type is ParameterType.BOOLEAN:
            return cls(spec.type, (False, True))
        if spec.choices:
            return cls(spec.type, tuple(spec.choices))
        if spec.minimum is not None and spec.maximum is not None:
            whole = spec.type is ParameterType.INTEGER
            low = math.ceil(spec.minimum) if whole else spec.minimum
            return cls._between(spec, Span(low, math.floor(spec.maximum) if whole else spec.maximum))
        what = f"{spec.name} has no least and greatest value in its template. Say where to draw it from."
        raise _problem("no_range", spec.name, spec.type.value, what)

    @classmethod
    def _between(cls, spec: ParameterSpec, span: Span) -> _Draw:
        if spec.type not in (ParameterType.NUMBER, ParameterType.INTEGER, ParameterType.DATE):
            what = f"{spec.name} is of type {spec.type} and has no range. Give a list of values."
            raise _problem("bad_space", spec.name, spec.type.value, what)
        ends = [read(spec, end) for end in (span.low, span.high)]
        if spec.type is ParameterType.DATE:
            low, high = (float(date.fromisoformat(str(end)).toordinal()) for end in ends)
        else:
            low, high = (float(end) for end in ends if isinstance(end, int | float))
        if low > high or (span.logarithmic and (low <= 0 or spec.type is ParameterType.DATE)):
            what = (
                f"{spec.name}: {quote(span.low)} to {quote(span.high)} is no range to draw from. The first must be "
                "the smaller, and above 0 for an even spread of logarithms."
            )
            raise _problem("bad_space", spec.name, f"{quote(span.low)}:{quote(span.high)}", what)
        return cls(spec.type, (), low, high, span.logarithmic)


def _problem(code: str, field: str, value: object, message: str) -> InvalidInput:
    return InvalidInput((Problem(code, field, quote(value), message=message),))


# -- the time it takes -----------------------------------------------------------------------------------------------


def expected_seconds(runs: int, ahead: int, typical: float | None, concurrent: int) -> float | None:
    """Return how long ``runs`` runs take that wait behind ``ahead`` others; None if that cannot be known.

    ``typical`` is the median duration of earlier runs in seconds, ``concurrent`` how many of the agency run at once.
    They run in rounds of ``concurrent``, so the time is that of the rounds.
    """
    if typical is None or concurrent < 1:
        return None
    return math.ceil((runs + ahead) / concurrent) * typical
