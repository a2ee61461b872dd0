"""Charts: right numbers, round axes, safe text, and colors that follow the page's theme."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from support.report_parts import EVIL, Tags

from carvana_ray.report import charts

CHARTS = [
    charts.lines([(EVIL, [(1, 2), (2, 3)])], EVIL, EVIL, EVIL),
    charts.bars([(EVIL, 1.0, EVIL)]),
    charts.ranges([(EVIL, 0.1, 0.2, 0.3)], EVIL),
    charts.histogram([0.1, 0.2], EVIL, (EVIL, 0.3)),
]


def svg(figure: Figure, title: str = "t") -> str:
    return str(charts.to_chart(figure, title, "").svg)


@pytest.mark.parametrize("figure", CHARTS)
def test_text_from_outside_never_becomes_a_tag(figure: Figure) -> None:
    tags = Tags(svg(figure, EVIL))
    assert set(tags.tags) <= {"svg", "g", "defs", "path", "use", "text", "clippath", "rect"}
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    assert "<script>aler" in tags.text
    assert ("aria-label", EVIL) in tags.attributes


@pytest.mark.parametrize("figure", CHARTS)
def test_the_pages_policy_and_its_themes_hold_within_a_chart(figure: Figure) -> None:
    text = svg(figure)
    assert "style" not in text
    assert "var(--text)" in text
    assert not re.search(r"=\"#[0-9a-f]{6}\"", text), "every color is a variable of the page"
    assert "http" not in text


def test_a_chart_is_the_same_each_time_and_shares_no_id_with_another() -> None:
    def draw(title: str) -> str:
        return svg(charts.ranges([("a", 0.1, 0.2, 0.3)], "Dice"), title)

    assert draw("by car") == draw("by car")
    ids = [set(re.findall(r'\bid="([^"]+)"', draw(title))) for title in ("by car", "by view")]
    assert all(ids)
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("name", ["$\\frac$ $x$", "a\x01b", "a\udc80", "\u8eca"])
def test_names_of_any_characters_can_be_drawn(name: str) -> None:
    Tags(svg(charts.ranges([(name, 0.1, 0.2, 0.3)], "Dice"))).text.encode()


@pytest.mark.parametrize("low", [0.0, 0.98, 0.99999])
@pytest.mark.parametrize("high", [1.0, 37.0, 1e6])
def test_ticks_cover_all_values_and_can_be_told_apart(low: float, high: float) -> None:
    figure = charts.lines([("a", [(1, low), (2, high)])], "epoch")
    svg(figure)
    (axes,) = figure.axes
    bottom, top = axes.get_ylim()
    assert bottom <= low + 1e-9
    assert top >= high - 1e-9
    ticks = axes.get_yticks()
    assert 2 <= len(ticks) <= 9
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(set(labels)) == len(labels)
    assert all(float(x).is_integer() for x in axes.get_xticks())


@pytest.mark.parametrize("low", [1e-5, 0.0049, 0.05, 0.7, 1.0])
@pytest.mark.parametrize("factor", [1.0, 1.3, 4.0, 90.0, 1e5])
def test_ticks_of_a_log_axis_are_few_and_cover_all_values(low: float, factor: float) -> None:
    nan = float("nan")
    figure = charts.lines([("a", [(1, low), (2, nan), (3, low * factor)])], "epoch", log=True)
    svg(figure)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    bottom, top = axes.get_ylim()
    assert bottom <= low * (1 + 1e-9)
    assert top >= low * factor * (1 - 1e-9)
    ticks = [float(label.get_text()) for label in axes.get_yticklabels()]
    assert 2 <= len(ticks) <= charts.MAX_TICKS + 4
    assert ticks == sorted(set(ticks))
    assert (bottom, top) == (ticks[0], ticks[-1])


def test_charts_of_bars_can_share_a_scale_and_a_height() -> None:
    short, long = charts.bars([("a", 1.0, "1")], 4.0, 3), charts.bars([("a", 4.0, "4")] * 3, 4.0)
    assert short.get_size_inches().tolist() == long.get_size_inches().tolist()
    assert short.axes[0].get_xlim() == long.axes[0].get_xlim() == (0, 4)


def test_charts_of_a_row_have_a_common_height() -> None:
    rows = [("a", 0.1, 0.2, 0.3)] * 16
    height = charts.height_of_ranges(16)
    few = charts.ranges(rows[:2], "Dice", height)
    shown = charts.histogram([0.5], "Dice", ("ceiling", 0.5), height)
    heights = {one.get_size_inches()[1] for one in (few, charts.ranges(rows, "Dice"), shown)}
    assert len(heights) == 1


def test_one_value_makes_a_chart() -> None:
    for figure in (
        charts.lines([("a", [(1, 0.5)])], "epoch"),
        charts.lines([("a", [(1, float("nan"))])], "epoch"),
        charts.histogram([0.5], "Dice", ("ceiling", 0.5)),
        charts.ranges([("a", 0.5, 0.5, 0.5)], "Dice"),
        charts.bars([("a", 0.0, "0 s")]),
    ):
        Tags(svg(figure))


def test_lines_differ_in_more_than_their_color() -> None:
    figure = charts.lines([(name, [(1, 0.1), (2, 0.2)]) for name in "abcd"], "epoch")
    looks = {(line.get_linestyle(), line.get_marker()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 4


def bar_heights(figure: Figure) -> list[float]:
    return [bar.get_height() for bar in figure.axes[0].patches if bar.get_height()]


def test_each_bar_of_a_histogram_is_as_high_as_its_count() -> None:
    figure = charts.histogram([0.90] * 10 + [0.95] * 5, "Dice", ("ceiling", 0.99))
    assert bar_heights(figure) == [10, 5]


def test_the_first_bar_of_a_histogram_holds_the_lowest_percent() -> None:
    figure = charts.histogram([0.01, *np.linspace(0.98, 0.99, 199)], "Dice", ("ceiling", 0.999))
    assert sum(bar_heights(figure)) == 200
    assert figure.axes[0].get_xlim()[0] >= 0.97
