"""The singular values of an audit as an inline SVG: a logarithmic axis, and every significant gap marked.

A model's width is where the values fall off a cliff (Carlini et al., arXiv 2403.06634, section 4.1). Padding the width
after training adds a second cliff, so all of them are marked and not the largest alone.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lensmith.audit.findings.wording import ratio

_MOST_DECADES = 18


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The size of a picture, its margins, and how many points and ticks it has room for, in its own units."""

    name: str
    wide: int
    high: int
    left: int
    right: int = 22
    top: int = 34
    bottom: int = 46
    most_points: int
    ticks: int
    decades: int


WIDE = Frame(name="wide", wide=960, high=400, left=58, most_points=1200, ticks=5, decades=8)
NARROW = Frame(name="narrow", wide=380, high=340, left=44, right=12, most_points=300, ticks=3, decades=6)
"""For a telephone: the same with as large a text, so that the gap fits beside it."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A significant gap: `after` values the next one is `ratio` times smaller (infinite: nothing comes after)."""

    after: int
    ratio: float


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Where a value stands: `x` by its number from 1, `y` by its decimal logarithm."""

    num_values: int
    low: int
    high: int
    frame: Frame

    @property
    def right(self) -> int:
        return self.frame.wide - self.frame.right

    @property
    def bottom(self) -> int:
        return self.frame.high - self.frame.bottom

    def x(self, number: float) -> float:
        span = max(1, self.num_values - 1)
        return self.frame.left + (self.right - self.frame.left) * (number - 1) / span

    def y(self, logarithm: float) -> float:
        share = (self.high - min(max(logarithm, self.low), self.high)) / (self.high - self.low)
        return self.frame.top + (self.bottom - self.frame.top) * share


def singular_plot(values: Sequence[float], marks: Sequence[Mark], width: int | None, frame: Frame = WIDE) -> str:
    """The SVG element; empty where there are fewer than two positive values.

    `width`, where it was resolved, tells values of the model (before) from noise (after). No script, no style of its
    own beyond class names: the page colours it.
    """
    logs = [math.log10(value) if value > 0 and math.isfinite(value) else -math.inf for value in values]
    finite = [value for value in logs if value > -math.inf]
    if len(finite) < 2:
        return ""
    high = math.ceil(max(finite) + 1e-9)
    scale = _Scale(num_values=len(logs), low=max(math.floor(min(finite)), high - _MOST_DECADES), high=high, frame=frame)
    parts = [_grid(scale), _curves(logs, scale, [mark.after for mark in marks], width)]
    parts += [_mark(mark, scale, logs, row, is_width=mark.after == width) for row, mark in enumerate(marks)]
    described = f"{len(values)} singular values on a logarithmic axis"
    return (
        f'<svg class="plot {frame.name}" viewBox="0 0 {frame.wide} {frame.high}" role="img" aria-label="{described}">'
        f"<title>{described}</title>{''.join(parts)}</svg>"
    )


def _grid(scale: _Scale) -> str:
    parts, left = [], scale.frame.left
    step = max(1, math.ceil((scale.high - scale.low) / scale.frame.decades))
    for decade in range(scale.low, scale.high + 1, step):
        y = scale.y(decade)
        parts.append(f'<line class="grid" x1="{left}" x2="{scale.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">10'
            f'<tspan dy="-5" font-size="9">{decade}</tspan></text>'
        )
    bottom = scale.bottom
    for number in _ticks(scale.num_values, scale.frame.ticks):
        x = scale.x(number)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{number:,}</text>')
    middle = (left + scale.right) / 2
    low = scale.frame.high - 8
    parts.append(f'<text class="axis" x="{middle}" y="{low}" text-anchor="middle">number of the singular value</text>')
    parts.append(f'<text class="axis" x="{left}" y="16">size of the singular value</text>')
    return "".join(parts)


def _curves(logs: Sequence[float], scale: _Scale, cuts: Sequence[int], width: int | None) -> str:
    """The values as lines, broken at the marked gaps; those after the width are noise."""
    parts = []
    edges = [0, *sorted(cuts), len(logs)]
    for start, end in itertools.pairwise(edges):
        name = "noise" if width is not None and start >= width else "signal"
        points = [f"{scale.x(index + 1):.1f},{scale.y(logs[index]):.1f}" for index in _thinned(start, end, scale.frame)]
        if len(points) == 1:
            x, y = points[0].split(",")
            parts.append(f'<circle class="{name}" cx="{x}" cy="{y}" r="3"/>')
        elif points:
            parts.append(f'<polyline class="{name}" points="{" ".join(points)}"/>')
    return "".join(parts)


def _mark(mark: Mark, scale: _Scale, logs: Sequence[float], row: int, *, is_width: bool) -> str:
    x = scale.x(mark.after + 0.5)
    above = scale.y(logs[mark.after - 1])
    below = scale.y(logs[mark.after]) if mark.after < len(logs) else float(scale.bottom)
    name = "width" if is_width else "gap"
    is_left = x > (scale.frame.left + scale.right) / 2
    anchor, text_x = ("end", x - 8) if is_left else ("start", x + 8)
    label_y = scale.frame.top + 12 + 18 * (row % 12)
    what = f"width {mark.after:,}" if is_width else f"{mark.after:,}"
    return (
        f'<line class="guide {name}" x1="{x:.1f}" x2="{x:.1f}" y1="{scale.frame.top}" y2="{scale.bottom}"/>'
        f'<line class="drop {name}" x1="{x:.1f}" x2="{x:.1f}" y1="{above:.1f}" y2="{below:.1f}"/>'
        f'<text class="label {name}" x="{text_x:.1f}" y="{label_y}" text-anchor="{anchor}">'
        f"{what}: {ratio(mark.ratio)} times smaller</text>"
    )


def _thinned(start: int, end: int, frame: Frame) -> list[int]:
    """Indices in [start, end): all, or evenly chosen ones with both ends and their neighbours."""
    if end - start <= frame.most_points:
        return list(range(start, end))
    step = (end - start) / frame.most_points
    chosen = {start + math.floor(place * step) for place in range(frame.most_points)}
    return sorted(chosen | {*range(start, start + 8), *range(end - 8, end)})


def _ticks(num_values: int, about: int) -> list[int]:
    """1 and round numbers up to the last value, about so many."""
    rough = num_values / about
    power = 10 ** math.floor(math.log10(rough)) if rough >= 1 else 1
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [1, *range(step, num_values + 1, step)] if step > 1 else list(range(1, num_values + 1))
