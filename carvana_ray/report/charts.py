"""Charts, drawn by matplotlib: as SVG within the page, and as PNG files.

In the page the colors of a chart are CSS variables, so that it follows the light and the dark
theme. No meaning is in a color alone: lines also differ in dashes and markers, and every number is
in a table or in the text too.
"""

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

MIN_FOR_TAIL = 100  # values from which on a histogram's first bar holds the lowest percent
HEIGHT = 250  # of a chart, for a width of 400
MAX_TICKS = 8  # of a logarithmic axis
MAX_NAME = 13  # letters of a row's name

# The light theme of page.css, by the name of the CSS variable.
_COLORS = {"text": "#1b1f24", "quiet": "#57606a", "edge": "#d0d7de", "s0": "#0b57d0"}
_COLORS |= {"s1": "#b3450b", "s2": "#4c7a00", "s3": "#8033b8"}
_LINES = ("s0", "-", "o"), ("s1", "--", "s"), ("s2", "-.", "o"), ("s3", ":", "s")
_STEPS = [1, 2, 2.5, 5, 10]  # between ticks
_STYLE: dict[Any, Any] = {
    "axes.autolimit_mode": "round_numbers",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": _COLORS["quiet"],
    "axes.xmargin": 0,
    "axes.ymargin": 0,
    "figure.constrained_layout.use": True,
    "font.size": 12,
    "grid.color": _COLORS["edge"],
    "legend.frameon": False,
    "lines.linewidth": 2,
    "svg.fonttype": "none",
    "text.color": _COLORS["text"],
    "text.parse_math": False,  # a name may hold dollar signs
    "xtick.color": _COLORS["text"],
    "xtick.major.pad": 8,
    "xtick.major.size": 0,
    "ytick.color": _COLORS["text"],
    "ytick.major.pad": 6,
    "ytick.major.size": 0,
}
_styled = matplotlib.rc_context(_STYLE)

Series = tuple[str, Sequence[tuple[float, float]]]  # name, points (x, y)
Range = tuple[str, float, float, float]  # name, lowest, mean, highest


class Chart(NamedTuple):
    """A chart of the page: its title, an SVG element, and a sentence below it."""

    title: str
    svg: Markup
    caption: str


def _plot(height: float = HEIGHT, **labels: str) -> tuple[Figure, Axes]:
    """Return an empty chart of 400 x height units, about the width of a phone's screen."""
    figure = Figure(figsize=(400 / 72, height / 72))
    axes: Axes = figure.add_subplot(**labels)
    axes.spines[:].set_visible(False)
    return figure, axes


@_styled
def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str = "",
    title: str = "",
    *,
    log: bool = False,
) -> Figure:
    """Return a chart of up to four lines, with a legend. x are integers; a y of NaN is a gap.

    With `log`, y is logarithmic and must be above 0.
    """
    figure, axes = _plot(xlabel=x_label, ylabel=y_label, title=title)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    if log:
        _set_log_scale(axes, [y for _, points in series for _, y in points])
    axes.xaxis.grid(False)
    for (name, points), (color, dashes, marker) in zip(series, _LINES, strict=False):
        (line,) = axes.plot(*zip(*points, strict=True), color=_COLORS[color], ls=dashes, label=name)
        line.set(clip_on=False, marker=marker if len(points) <= 30 else "")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _set_log_scale(axes: Axes, values: Sequence[float]) -> None:
    """Make y logarithmic, with round ticks from below the lowest to above the highest value."""
    known = [value for value in values if not math.isnan(value)] or [1.0]
    exponents = range(math.floor(math.log10(min(known))) - 1, math.ceil(math.log10(max(known))) + 2)
    ticks: list[float] = []
    for digits in ((1, 2, 5), (1, 3), (1,)):
        steps = [float(f"{digit}e{exponent}") for exponent in exponents for digit in digits]
        low = max(step for step in steps if step <= min(known))
        high = min(step for step in steps if step >= max(known) and step > low)
        ticks = [step for step in steps if low <= step <= high]
        if len(ticks) <= MAX_TICKS:
            break
    axes.set_yscale("log")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(ticks[0], ticks[-1])


@_styled
def histogram(
    values: Sequence[float], x_label: str, limit: tuple[str, float], height: float = HEIGHT
) -> Figure:
    """Return a histogram of images; its first bar also holds all lower values.

    From `MIN_FOR_TAIL` values on the chart starts at the lowest percent: one outlier would press
    all other values into a single bar.

    Args:
        values: one value an image; at least one.
        limit: name and value of a dashed line.
        height: of the chart.
    """
    figure, axes = _plot(height, xlabel=x_label, ylabel="images")
    low = np.quantile(values, 0.01) if len(values) >= MIN_FOR_TAIL else np.min(values)
    ticks = MaxNLocator(5, steps=_STEPS).tick_values(low, max(np.max(values), limit[1]))
    edges = np.linspace(ticks[0], ticks[-1], 41).tolist()  # 40 bars
    axes.hist(np.maximum(values, edges[0]), edges, rwidth=0.85, color=_COLORS["s0"])
    axes.axvline(limit[1], color=_COLORS["text"], ls="--")
    axes.text(limit[1], 1.01, limit[0], ha="right", transform=axes.get_xaxis_transform())
    axes.set_xticks(ticks)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def height_of_ranges(rows: int) -> float:
    """Return the height of a chart of `ranges`."""
    return 18 * rows + 46


@_styled
def ranges(rows: Sequence[Range], x_label: str, height: float = 0) -> Figure:
    """Return a chart of one or more ranges, a line each, with a dot at the mean.

    It is at least `height_of_ranges` high.
    """
    figure, axes = _plot(max(height_of_ranges(len(rows)), height), xlabel=x_label)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    axes.yaxis.grid(False)
    names, lowest, means, highest = zip(*rows, strict=True)
    places = range(len(rows))
    axes.hlines(places, lowest, highest, color=_COLORS["s0"])
    axes.plot(means, places, "o", color=_COLORS["s0"], clip_on=False)
    axes.set_yticks(places, [_shorten(name) for name in names])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for y, mean in enumerate(means):
        axes.text(1.02, y, f"{mean:.4f}", va="center", transform=axes.get_yaxis_transform())
    return figure


@_styled
def bars(rows: Sequence[tuple[str, float, str]], longest: float = 0, places: int = 0) -> Figure:
    """Return a horizontal bar a row: (name, value of 0 or more, the value as text).

    Charts with the same `longest`, a value, and `places`, a number of rows, can be compared.
    """
    places = max(places, len(rows))
    figure, axes = _plot(40 * places + 4)
    axes.set_axis_off()
    values = [value for _, value, _ in rows]
    axes.barh(range(len(rows)), values, 0.25, color=_COLORS["s0"])
    axes.set_xlim(0, max(*values, longest) or 1)
    axes.set_ylim(places - 0.8, -0.8)
    for row, (name, _, text) in enumerate(rows):
        axes.text(0, row - 0.3, name)
        axes.text(1, row - 0.3, text, ha="right", transform=axes.get_yaxis_transform())
    return figure


def _shorten(name: str) -> str:
    """Return a name of at most `MAX_NAME` characters, all of them printable: others break XML."""
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


@_styled
def to_png(figure: Figure) -> bytes:
    """Return a chart as a PNG file of 720 x 480 pixels."""
    figure.set_size_inches(6, 4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


@_styled
def to_chart(figure: Figure, title: str, caption: str) -> Chart:
    """Return a chart for the page; the same input gives the same bytes.

    Its title, the name for screen readers, must be unique in the page: ids are derived from it.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that matplotlib lacks: the browser has its own
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
        _simplify(element)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": title}
    return Chart(title, Markup(ElementTree.tostring(root, encoding="unicode")), caption)


def _simplify(element: ElementTree.Element) -> None:
    """Replace namespaces, long numbers, and styles, which the page's policy forbids in elements."""
    variables = {color: f"var(--{name})" for name, color in _COLORS.items()}
    values = {name.split("}")[-1]: value for name, value in element.attrib.items()}
    rules = (rule.split(": ", 1) for rule in values.pop("style", "").split("; ") if rule)
    values |= {name: variables.get(value, value) for name, value in rules if name[:4] != "font"}
    element.tag = element.tag.split("}")[-1]
    if element.tag == "g":
        values.pop("id", None)  # "axes_1" is in every chart; an id must be unique in the page
    element.attrib = {name: re.sub(r"(\.\d\d)\d+", r"\1", value) for name, value in values.items()}
    element.tail = None
    element.text = element.text if element.tag == "text" else None
