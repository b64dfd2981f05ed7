"""A sweep's plot as SVG: one drawing for a wide page, one for a phone, so that its letters can be read on both.

Colours and sizes are attributes, so that it looks the same in a page, in a report and on paper; a page may override the
colours by the classes ``pr-line-0`` to ``pr-line-5``. ``Markup.format`` escapes each text: names come from sandboxes.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from markupsafe import Markup

from catalog.i18n import Translator, decimals
from catalog.reports.sweep_plot import Line, Plot

# At least 4.5 to 1 against white; shapes and dashes differ too, so that no line is known by its colour alone.
COLORS = ("#0062ba", "#a8400b", "#1b6e4b", "#7a3e9d", "#50555b", "#806000")
DASHES = ("", "7 4", "2 4", "10 4 2 4", "1 3", "12 5")
_TICKS = 5
_CHARACTER = 0.58  # of its size, as wide as an average letter


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes in the drawing's own units; the axes stand ``left`` from the left and ``bottom`` from the bottom."""

    width: int
    height: int
    font: int
    left: int
    right: int = 16
    top: int = 42
    bottom: int = 52


WIDE = Frame(720, 400, 15, 76, right=24)
NARROW = Frame(340, 320, 13, 58, right=14)
_ROW = 50  # height of a row of choices


@dataclass(frozen=True, slots=True)
class Scale:
    """From values between ``low`` and ``high`` to places from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> str:
        span = self.high / 2 - self.low / 2
        share = (value / 2 - self.low / 2) / span if span else 0.5
        return f"{self.start + share * (self.end - self.start):.1f}"


def drawings(plot: Plot, t: Translator) -> Markup:
    """Return the two drawings; a style sheet shows one of them."""
    return draw(plot, t, WIDE, "wide") + draw(plot, t, NARROW, "narrow")


def draw(plot: Plot, t: Translator, frame: Frame, kind: str) -> Markup:
    """Return one drawing with a title and a description for those who cannot see it."""
    if plot.places:
        frame = Frame(frame.width, 44 + _ROW * len(plot.places) + 52, frame.font, 16, frame.right, 16, 52)
    inside = _of_choices(plot, t, frame) if plot.places else _of_numbers(plot, t, frame)
    box = Markup('<svg class="pr-plot pr-plot--{0}" viewBox="0 0 {1} {2}" width="{1}" height="{2}" role="img"').format(
        kind, frame.width, frame.height
    )
    head = Markup(
        ' aria-labelledby="plot-{0}-title plot-{0}-desc" font-size="{1}" fill="currentColor">'
        '<title id="plot-{0}-title">{2}</title><desc id="plot-{0}-desc">{3}</desc>'
    ).format(kind, frame.font, plot.title, plot.summary)
    return box + head + inside + Markup("</svg>")


def legend_mark(index: int) -> Markup:
    """Return the sample of a line that stands beside its name."""
    return Markup(
        '<svg class="pr-plot__key pr-line-{0}" viewBox="0 0 36 14" width="36" height="14" aria-hidden="true" '
        'color="{1}"><line x1="1" y1="7" x2="35" y2="7" stroke="currentColor" stroke-width="2.5" '
        'stroke-dasharray="{2}"/>{3}</svg>'
    ).format(index, COLORS[index], DASHES[index], _mark(index, "18", "7", 4.5))


def _of_numbers(plot: Plot, t: Translator, frame: Frame) -> Markup:
    floor, right = frame.height - frame.bottom, frame.width - frame.right
    spots = [spot for line in plot.lines for spot in line.spots]
    xs = [spot.x for spot in spots] + [x for line in plot.lines for x, _ in line.dots]
    many = 3 if frame.width < 500 else _TICKS
    x = _date_scale(xs, frame.left, right, many) if plot.dates else _scale(xs, frame.left, right, many)
    y = _scale(_heights(plot), floor, frame.top, _TICKS)
    parts = [_text(6, frame.font, plot.y_label, frame, frame.width - 12, size=frame.font)]
    for tick, label in zip(y.ticks, _labels(y.ticks, t), strict=True):
        parts += [
            _rule(frame.left, y(tick), right, y(tick)),
            _text(frame.left - 8, y(tick), label, frame, anchor="end"),
        ]
    shown = [date.fromordinal(round(v)).isoformat() for v in x.ticks] if plot.dates else _labels(x.ticks, t)
    for tick, label in zip(x.ticks, shown, strict=True):
        parts += [_rule(x(tick), floor, x(tick), floor + 5), _text(x(tick), floor + 20, label, frame, anchor="middle")]
    parts.append(_rule(frame.left, floor, right, floor, strong=True))
    middle = (frame.left + right) / 2
    parts.append(_text(middle, frame.height - 8, plot.x_label, frame, right - frame.left, anchor="middle"))
    parts += [_curve(index, line, x, y) for index, line in enumerate(plot.lines)]
    return Markup("").join(parts)


def _curve(index: int, line: Line, x: Scale, y: Scale) -> Markup:
    parts = [
        Markup('<circle cx="{}" cy="{}" r="3.5" fill="currentColor" fill-opacity="0.35"/>').format(x(a), y(b))
        for a, b in line.dots
    ]
    if not line.dots:
        parts += [
            Markup(
                '<line x1="{0}" y1="{1}" x2="{0}" y2="{2}" stroke="currentColor" stroke-width="6" '
                'stroke-opacity="0.25"/>'
            ).format(x(s.x), y(s.low), y(s.high))
            for s in line.spots
        ]
    path = " ".join(f"{x(s.x)},{y(s.mean)}" for s in line.spots)
    parts.append(
        Markup(
            '<polyline points="{}" fill="none" stroke="currentColor" stroke-width="2.5" stroke-linejoin="round" '
            'stroke-dasharray="{}"/>'
        ).format(path, DASHES[index])
    )
    parts += [_mark(index, x(s.x), y(s.mean), 4.5) for s in line.spots]
    return _line_group(index, parts)


def _of_choices(plot: Plot, t: Translator, frame: Frame) -> Markup:
    """Draw a row for each choice: its name above, its runs and their mean along the measure's axis below."""
    floor, right = frame.height - frame.bottom, frame.width - frame.right
    x = _scale(_heights(plot), frame.left + 8, right - 8, 3 if frame.width < 500 else _TICKS)
    parts: list[Markup] = []
    for tick, label in zip(x.ticks, _labels(x.ticks, t), strict=True):
        parts += [_rule(x(tick), frame.top, x(tick), floor), _text(x(tick), floor + 20, label, frame, anchor="middle")]
    for row, place in enumerate(plot.places):
        top = frame.top + 6 + _ROW * row
        parts += [_rule(frame.left, top + 30, right, top + 30)]
        parts += [_text(frame.left, top + 9, place, frame, right - frame.left)]
    middle = (frame.left + right) / 2
    parts.append(_text(middle, frame.height - 8, plot.y_label, frame, right - frame.left, anchor="middle"))
    for index, line in enumerate(plot.lines):
        heights = {row: frame.top + 6 + _ROW * row + 30 for row in range(len(plot.places))}
        dots = [
            Markup('<circle cx="{}" cy="{}" r="3.5" fill="currentColor" fill-opacity="0.35"/>').format(
                x(value), heights[int(row)]
            )
            for row, value in line.dots
        ]
        bars = [] if line.dots else [
            Markup(
                '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="currentColor" stroke-width="6" stroke-opacity="0.25"/>'
            ).format(x(s.low), heights[int(s.x)], x(s.high), heights[int(s.x)])
            for s in line.spots
        ]  # fmt: skip
        means = [_mark(index, x(s.mean), f"{heights[int(s.x)]:.1f}", 6) for s in line.spots]
        parts.append(_line_group(index, [*dots, *bars, *means]))
    return Markup("").join(parts)


def _line_group(index: int, parts: Sequence[Markup]) -> Markup:
    return Markup('<g class="pr-line-{}" color="{}">{}</g>').format(index, COLORS[index], Markup("").join(parts))


def _mark(index: int, x: str, y: str, r: float) -> Markup:
    """Return the shape of a line's means: another one for each line."""
    a, b = float(x), float(y)
    if index % 6 == 0:
        return Markup('<circle cx="{}" cy="{}" r="{}" fill="currentColor"/>').format(x, y, r)
    corners = {
        1: ((-r, -r), (r, -r), (r, r), (-r, r)),
        2: ((0, -r * 1.3), (r * 1.2, r), (-r * 1.2, r)),
        3: ((0, -r * 1.4), (r * 1.4, 0), (0, r * 1.4), (-r * 1.4, 0)),
        4: ((0, r * 1.3), (r * 1.2, -r), (-r * 1.2, -r)),
        5: ((-r * 1.4, -r * 0.6), (r * 1.4, -r * 0.6), (r * 1.4, r * 0.6), (-r * 1.4, r * 0.6)),
    }[index % 6]
    path = " ".join(f"{a + dx:.1f},{b + dy:.1f}" for dx, dy in corners)
    return Markup('<polygon points="{}" fill="currentColor"/>').format(path)


def _rule(x1: object, y1: object, x2: object, y2: object, *, strong: bool = False) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="currentColor" stroke-opacity="{}"/>').format(
        x1, y1, x2, y2, "0.7" if strong else "0.18"
    )


def _text(
    x: object, y: object, text: str, frame: Frame, room: float = 0, *, anchor: str = "start", size: int = 0
) -> Markup:
    size = size or frame.font
    shown = _fitted(text, int(room / (size * _CHARACTER))) if room else text
    return Markup('<text x="{}" y="{}" dy="0.32em" text-anchor="{}">{}</text>').format(x, y, anchor, shown)


def _fitted(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)].rstrip() + "…"


def _heights(plot: Plot) -> list[float]:
    return [y for line in plot.lines for spot in line.spots for y in (spot.low, spot.mean, spot.high)]


def _scale(values: Sequence[float], start: float, end: float, many: int) -> Scale:
    """Return a scale whose ends are round numbers beyond the values."""
    low, high = min(values), max(values)
    if high - low <= max(abs(low), abs(high)) * 1e-12:
        margin = abs(low) * 0.1 or 1.0
        low, high = max(low - margin, -sys.float_info.max), min(high + margin, sys.float_info.max)
    if not math.isfinite(high - low):  # the two lie further apart than a number can say
        return Scale(low, high, start, end, (low, high))
    step = _round_step((high - low) / many)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(i * step for i in range(first, last + 1))
    if not all(map(math.isfinite, ticks)) or len(set(ticks)) < 2:
        return Scale(low, high, start, end, (low, high))
    return Scale(ticks[0], ticks[-1], start, end, ticks)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    if power == 0 or not math.isfinite(rough / power):
        return rough
    return next(power * size for size in (1, 2, 2.5, 5, 10) if power * size >= rough * (1 - 1e-9))


def _date_scale(values: Sequence[float], start: float, end: float, many: int) -> Scale:
    low, high = min(values), max(values)
    if high == low:
        high = low + 1
    many = min(many, 4)
    ticks = sorted({float(round(low + (high - low) * i / (many - 1))) for i in range(many)})
    return Scale(low, high, start + 30, end - 30, tuple(ticks))


def _labels(ticks: Sequence[float], t: Translator) -> list[str]:
    """Return ticks as numbers with as many decimals as tell them apart."""
    largest = max(abs(tick) for tick in ticks)
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=largest)
    if largest >= 1e9 or (largest and largest < 1e-5):
        return [f"{tick:.2g}".replace(".", "." if t.language == "en" else ",") for tick in ticks]
    digits = min(10, max(0, -math.floor(math.log10(step) + 1e-9))) if step > 0 else decimals(ticks)
    while digits < 10 and any(abs(round(tick, digits) - tick) > step * 1e-6 for tick in ticks):
        digits += 1
    return [t.fixed(tick + 0.0, digits) for tick in ticks]
