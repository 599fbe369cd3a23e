"""Plots of lines and labeled points, as the text of an SVG file."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

__all__ = ["Axis", "Series", "plot"]

_COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
_LEFT, _TOP, _BOTTOM = 70, 40, 50  # margins; on the right is room for the legend
_LEGEND = 250
_TICKS = 6


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one color. labels: beside each point, or none.

    line: whether the points are joined; markers: whether they are drawn.
    """

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()
    line: bool = True
    markers: bool = True


@dataclass(frozen=True)
class Axis:
    """An axis. ticks: (value, text) to show instead of round numbers. zero: start at 0."""

    label: str
    log: bool = False
    ticks: Sequence[tuple[float, str]] = ()
    zero: bool = False


class _Scale:
    """Values of an axis as pixels between *start* and *end*."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        if axis.log and min(values) <= 0:
            raise ValueError(f"{axis.label}: {min(values)} has no place on a logarithmic axis")
        low, high = (0.0 if axis.zero else min(values)), max(values)
        if axis.log:
            low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
        if low == high:
            low, high = (low / 10, high * 10) if axis.log else (low - 1, high + 1)
        self._axis, self._low, self._high = axis, low, high
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        low, high = self._low, self._high
        if self._axis.log:
            value, low, high = (math.log10(number) for number in (value, low, high))
        return self._start + (value - low) / (high - low) * (self._end - self._start)

    def ticks(self) -> Sequence[tuple[float, str]]:
        if self._axis.ticks:
            return self._axis.ticks
        if self._axis.log:
            decades = range(round(math.log10(self._low)), round(math.log10(self._high)) + 1)
            return [(10.0**decade, f"{10.0**decade:g}") for decade in decades]
        raw = (self._high - self._low) / _TICKS
        power = 10 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
        first = math.ceil(self._low / step)
        count = math.floor(self._high / step) - first + 1
        return [(step * (first + i), f"{step * (first + i):g}") for i in range(count)]


def plot(
    series: Sequence[Series], *, title: str, x: Axis, y: Axis, width: int = 960, height: int = 540
) -> str:
    """Draw *series*; returns the text of an SVG file.

    Raises ValueError without any points, or for one that a logarithmic axis cannot show.
    """
    points = [point for one in series for point in one.points]
    if not points:
        raise ValueError(f"{title}: there are no points to draw")
    right, bottom = width - _LEGEND, height - _BOTTOM
    to_x = _Scale(x, [point[0] for point in points], _LEFT, right)
    to_y = _Scale(y, [point[1] for point in points], bottom, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(_LEFT, 24, title, 'font-size="16"'),
        _text((_LEFT + right) / 2, height - 10, x.label, 'text-anchor="middle"'),
        _text(16, _TOP - 10, y.label),
    ]
    for value, text in to_x.ticks():
        parts.append(_line(to_x(value), _TOP, to_x(value), bottom, "#ddd"))
        parts.append(_text(to_x(value), bottom + 18, text, 'text-anchor="middle"'))
    for value, text in to_y.ticks():
        parts.append(_line(_LEFT, to_y(value), right, to_y(value), "#ddd"))
        parts.append(_text(_LEFT - 6, to_y(value) + 4, text, 'text-anchor="end"'))
    for index, one in enumerate(series):
        color = _COLORS[index % len(_COLORS)]
        parts += _draw(one, [(to_x(a), to_y(b)) for a, b in one.points], color)
        at = _TOP + 18 * index
        parts.append(_line(right + 12, at, right + 30, at, color, 3))
        parts.append(_text(right + 36, at + 4, one.name))
    return "\n".join([*parts, "</svg>", ""])


def _draw(series: Series, at: Sequence[tuple[float, float]], color: str) -> Iterator[str]:
    if series.line:
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
    if series.markers:
        for a, b in at:
            yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{color}"/>'
    for (a, b), label in zip(at, series.labels, strict=False):
        yield _text(a + 7, b - 6, label, f'fill="{color}"')


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: int = 1) -> str:
    place = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {place} stroke="{color}" stroke-width="{width}"/>'


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
