"""Charts as SVG within the page: drawn in the page's own colours, so that both themes can be read.

A chart is 400 wide, about what a phone shows. No meaning is in a colour alone: lines differ in
their dashes and marks too, and every number is also in a table or in the text.
"""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from carvana_ray.report import html_elements as markup

WIDTH = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 22, 16, 40
BARS = 40  # of a histogram
MANY = 100  # values, for their lowest percent to be put into the first bar

Series = tuple[str, Sequence[tuple[float, float]]]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers that cover low..high, some `about` of them."""
    span = (high - low) or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / about))
    step = next(step * m for m in (1, 2, 2.5, 5, 10, 20) if span / (step * m) <= about)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def shown(value: float, step: float) -> str:
    """Return a number with the decimals that tell it from its neighbour on an axis."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    if round(step, decimals) != round(step, decimals + 2):
        decimals += 1
    return f"{value:,.{decimals}f}"


def _chart(title: str, height: int, body: str, caption: str) -> str:
    # The caption says in words what is to be seen; the title is the name for screen readers.
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
    )
    return markup.element("figure", svg + markup.text("figcaption", caption), class_="chart")


def _text(x: float, y: float, value: str, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        f"{f' class={kind!r}' if kind else ''}>{escape(value)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


class _Frame:
    """A plot's axes: from values to places."""

    def __init__(
        self, x: tuple[float, float], y_ticks: list[float], height: int, x_label: str, x_ticks: list
    ) -> None:
        self._x, self._y = x, (y_ticks[0], y_ticks[-1])
        self._top, self._bottom = _TOP, height - _BOTTOM
        self.bottom = self._bottom
        step = y_ticks[1] - y_ticks[0]
        parts = []
        for tick in y_ticks:
            at = self.y(tick)
            parts.append(_line(_LEFT, at, WIDTH - _RIGHT, at, "grid"))
            parts.append(_text(_LEFT - 6, at + 4, shown(tick, step), "end"))
        step = x_ticks[1] - x_ticks[0] if len(x_ticks) > 1 else 1
        parts += [
            _text(self.x(tick), self._bottom + 16, shown(tick, step), "middle") for tick in x_ticks
        ]
        parts.append(
            _text((_LEFT + WIDTH - _RIGHT) / 2, height - 6, x_label, "middle", kind="label")
        )
        self.svg = "".join(parts)

    def x(self, value: float) -> float:
        low, high = self._x
        return _LEFT + (WIDTH - _RIGHT - _LEFT) * (value - low) / ((high - low) or 1)

    def y(self, value: float) -> float:
        low, high = self._y
        return self._bottom - (self._bottom - self._top) * (value - low) / ((high - low) or 1)


def lines(title: str, x_label: str, series: Sequence[Series], caption: str) -> str:
    """Return a chart of up to four lines, with a legend.

    Args:
        title: its name.
        x_label: of the horizontal axis, whose values are whole numbers.
        series: (name, points) each; points that are not finite are left out.
        caption: a sentence below it.
    """
    kept = [(n, [p for p in points if math.isfinite(p[1])]) for n, points in series]
    kept = [(name, points) for name, points in kept if points]
    if not kept:
        return ""
    xs, ys = zip(*(point for _, points in kept for point in points), strict=True)
    first, last = min(xs), max(xs)
    whole = [t for t in ticks(first, last) if t == int(t) and first <= t <= last] or [first]
    frame = _Frame((first, last), ticks(min(ys), max(ys)), 250, x_label, whole)
    parts, legend = [frame.svg], []
    for number, (name, points) in enumerate(kept):
        places = [(frame.x(x), frame.y(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line s{number}" points="{path}"/>')
        parts += [_mark(number, x, y) for x, y in places if len(places) <= 30]
        left, top = 4 + 100 * (number % 4), 14
        legend.append(
            _line(left, top - 4, left + 22, top - 4, f"line s{number}")
            + _mark(number, left + 11, top - 4)
            + _text(left + 27, top, name)
        )
    key = f'<svg class="key" viewBox="0 0 {WIDTH} 20" aria-hidden="true">{"".join(legend)}</svg>'
    return _chart(title, 250, "".join(parts), caption).replace("<svg", key + "<svg", 1)


def _mark(number: int, x: float, y: float) -> str:
    if number % 2:
        return (
            f'<rect class="mark s{number}" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
        )
    return f'<circle class="mark s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def histogram(
    title: str, x_label: str, values: Sequence[float], limit: tuple[str, float], caption: str
) -> str:
    """Return a histogram; the lowest bar also holds what lies below the chart.

    Of `MANY` values the chart ends where the lowest percent does, else one picture would press all
    others into a single bar; below it is counted.

    Args:
        title, caption: its name, and a sentence below it.
        x_label: of the values.
        values: to count.
        limit: a name and a value to mark by a line.
    """
    found = np.asarray(values, dtype=np.float64)
    low = float(np.quantile(found, 0.01)) if len(found) >= MANY else float(found.min())
    x_ticks = ticks(low, max(float(found.max()), limit[1]))
    edges = np.linspace(x_ticks[0], x_ticks[-1], BARS + 1)
    counts, _ = np.histogram(np.maximum(found, edges[0]), edges)
    frame = _Frame((edges[0], edges[-1]), ticks(0, int(counts.max())), 250, x_label, x_ticks)
    bars = []
    for count, left, right in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            x, y, wide = frame.x(left), frame.y(count), frame.x(right) - frame.x(left) - 1
            bars.append(
                f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                f'height="{frame.bottom - y:.1f}"/>'
            )
    at = frame.x(limit[1])
    mark = _line(at, _TOP, at, frame.bottom, "limit") + _text(at - 4, _TOP + 10, limit[0], "end")
    return _chart(title, 250, frame.svg + "".join(bars) + mark, caption)


def ranges(
    title: str, x_label: str, rows: Sequence[tuple[str, float, float, float]], caption: str
) -> str:
    """Return a line a row: from the lowest to the highest value, with a mark at the mean.

    Args:
        title, caption: its name, and a sentence below it.
        x_label: of the values.
        rows: (name, lowest, mean, highest) each.
    """
    name_width, number_width, line_height = 96, 56, 18
    x_ticks = ticks(min(row[1] for row in rows), max(row[3] for row in rows), 4)
    low, high = x_ticks[0], x_ticks[-1]
    height = line_height * len(rows) + 46
    inside = WIDTH - name_width - number_width - 12

    def x(value: float) -> float:
        return name_width + 6 + inside * (value - low) / (high - low)

    parts = []
    for tick in x_ticks:
        parts.append(_line(x(tick), 4, x(tick), height - 38, "grid"))
        label = shown(tick, x_ticks[1] - x_ticks[0])
        parts.append(_text(x(tick), height - 24, label, "middle"))
    parts.append(_text(name_width + inside / 2, height - 6, x_label, "middle", kind="label"))
    for number, (name, least, mean, most) in enumerate(rows):
        y = line_height * number + 16
        short = name if len(name) <= 13 else name[:12] + "\N{HORIZONTAL ELLIPSIS}"
        parts.append(_text(name_width - 4, y + 4, short, "end"))
        parts.append(_line(x(least), y, x(most), y, "range"))
        parts.append(f'<circle class="dot" cx="{x(mean):.1f}" cy="{y}" r="4"/>')
        parts.append(_text(WIDTH - 4, y + 4, f"{mean:.4f}", "end"))
    return _chart(title, height, "".join(parts), caption)


def bars(title: str, rows: Sequence[tuple[str, float, str]], caption: str) -> str:
    """Return a horizontal bar a row: (name, value of 0 or more, what stands beside it)."""
    most = max((value for _, value, _ in rows), default=0) or 1
    parts = []
    for number, (name, value, beside) in enumerate(rows):
        y = 40 * number + 14
        parts.append(_text(4, y, name))
        parts.append(_text(WIDTH - 4, y, beside, "end"))
        wide = max((WIDTH - 8) * value / most, 1)
        parts.append(f'<rect class="bar" x="4" y="{y + 6}" width="{wide:.1f}" height="10"/>')
    return _chart(title, 40 * len(rows) + 4, "".join(parts), caption)
