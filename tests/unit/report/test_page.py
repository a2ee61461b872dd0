"""The page: whole, safe, readable by machines that read aloud, and small."""

import base64
import hashlib
import html.parser
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.report_parts import SHA, both, evaluation, prediction

from carvana_ray import report, storage
from carvana_ray.report import builder as parts
from carvana_ray.report import charts
from carvana_ray.report import evaluation_section as evaluated
from carvana_ray.report import html_elements as markup
from carvana_ray.report import image_cards as shots
from carvana_ray.report.page import Section

EVIL = "<script>alert(\"1\")</script> & 'x' <img src=x onerror=alert(1)>"
EMPTY = {"meta", "img", "link", "input", "line", "rect", "circle", "polyline"}


class Tags(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects tags, text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.attributes: list[tuple[str, str | None]] = []
        self.of: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.of.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "|"


def test_a_table_has_a_header_for_each_column_and_each_row() -> None:
    tags = Tags(markup.table("Cars", ["car", "Dice", "n"], [["a", 0.5, 1], ["b", 0.25, 2]]))
    assert tags.text == "Cars|car|Dice|n|a|0.5000|1|b|0.2500|2|"
    scopes = [found["scope"] for tag, found in tags.of if tag == "th"]
    assert scopes == ["col", "col", "col", "row", "row"]
    (region,) = [found for _, found in tags.of if found.get("role") == "region"]
    assert (region["tabindex"], region["aria-label"]) == ("0", "Cars")


@pytest.mark.parametrize(
    "html",
    [
        markup.text("p", EVIL, title=EVIL),
        markup.table(EVIL, [EVIL], [[EVIL]]),
        markup.pairs({EVIL: EVIL}),
        markup.cards([(EVIL, EVIL, EVIL)]),
        markup.details(EVIL, ""),
        markup.image("data:,", EVIL, 1, 1),
        charts.lines(EVIL, EVIL, [(EVIL, [(1, 2), (2, 3)])], EVIL),
        charts.bars(EVIL, [(EVIL, 1.0, EVIL)], EVIL),
        charts.ranges(EVIL, EVIL, [(EVIL, 0.1, 0.2, 0.3)], EVIL),
        charts.histogram(EVIL, EVIL, [0.1, 0.2], (EVIL, 0.3), EVIL),
        report.render_page(EVIL, EVIL, [Section("a", EVIL, EVIL, "<p>x</p>")]).decode(),
    ],
)
def test_text_from_outside_never_becomes_html(html: str) -> None:
    tags = Tags(html)
    assert tags.tags.count("script") == html.count('<script>"use strict"')
    assert not any(name.startswith("on") for name, _ in tags.attributes)
    values = [value or "" for _, value in tags.attributes]
    assert EVIL in tags.text or EVIL in values


def test_a_name_never_becomes_a_part_of_a_report() -> None:
    harmless, found = (Tags(parts.to_html(both(name=n)).decode()) for n in ("a_01.jpg", EVIL))
    assert found.tags == harmless.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in harmless.attributes]
    assert EVIL in found.text


def test_a_page_is_whole_and_needs_no_network() -> None:
    text = parts.to_html(both()).decode()
    assert text.startswith("<!doctype html>")
    tags = Tags(text)
    sources = [value or "" for name, value in tags.attributes if name in ("src", "href")]
    assert sources
    assert all(value.startswith(("data:", "#")) for value in sources)
    assert "http" not in re.sub("http-equiv", "", text)
    assert "@import" not in text
    assert "url(" not in text


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else() -> None:
    text = report.render_page("t", "l", []).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind in ("style", "script"):
        (own,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        sha256 = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{sha256}'"
    assert not re.search(r"\sstyle=|\son\w+=", text), "the policy forbids both"


def test_headings_landmarks_labels_and_names_are_there() -> None:
    tags = Tags(parts.to_html(both()).decode())
    ranks = [int(tag[1]) for tag in tags.tags if re.fullmatch("h[1-6]", tag)]
    assert ranks.count(1) == 1
    assert ranks[0] == 1
    assert all(rank <= before + 1 for before, rank in itertools.pairwise(ranks))
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.tags.count(landmark) == 1
    assert all(found.get("alt") for tag, found in tags.of if tag == "img")
    assert all(found.get("aria-label") for tag, found in tags.of if found.get("role") == "img")
    assert tags.tags.count("fieldset") == tags.tags.count("legend")
    anchors = {found["id"] for _, found in tags.of if "id" in found}
    links = {(found["href"] or "")[1:] for tag, found in tags.of if tag == "a"}
    assert links <= anchors
    assert len(anchors) == sum("id" in found for _, found in tags.of), "each id once"
    assert ("lang", "en") in tags.attributes


def test_what_is_said_is_what_was_found() -> None:
    text = Tags(parts.to_html(both()).decode()).text
    for words in (
        "0.9994",
        "0.5000",
        "600",
        "truncated: ",
        "a hole in ",
        "no submission",
        SHA[:12],
    ):
        assert words in text, words


def test_a_part_alone_is_a_page_too() -> None:
    for kind in ("evaluate", "predict"):
        Tags(parts.to_html({kind: both()[kind]}).decode())
    with pytest.raises(ValueError, match="needs"):
        parts.to_html({})


def test_the_page_of_5088_pictures_is_below_5_mb_whatever_they_look_like() -> None:
    page = parts.to_html(
        {
            "evaluate": evaluation(pictures=5088, figures=8, noise=True),
            "predict": prediction(noise=True, figures=24),
        }
    )
    assert 1_000_000 < len(page) < 5_000_000


def test_more_pictures_than_the_table_takes_are_cut_and_counted() -> None:
    text = parts.to_html({"evaluate": evaluation(pictures=evaluated.ROWS + 10)}).decode()
    assert f"all {evaluated.ROWS + 10:,} are in evaluation.csv" in text
    assert text.count("<tr>") < evaluated.ROWS + 700


def test_jobs_of_one_model_share_a_page_and_those_of_another_do_not(tmp_path: Path) -> None:
    out = str(tmp_path)
    parts.add_section(out, "evaluate", evaluation())
    target = parts.add_section(out, "predict", prediction())
    assert storage.read(target) == parts.to_html(both())
    other = {**prediction(), "model": "7c" * 32}
    parts.add_section(out, "predict", other)
    assert storage.read(target) == parts.to_html({"predict": other})
    (tmp_path / "report" / "evaluate.json").write_text("{torn")
    parts.add_section(out, "predict", prediction())
    assert storage.read(target) == parts.to_html({"predict": prediction()})
    (tmp_path / "report" / "evaluate.json").write_text(json.dumps({"model": SHA, "format": 0}))
    parts.add_section(out, "predict", prediction())
    assert storage.read(target) == parts.to_html({"predict": prediction()})


def test_what_parts_have_in_common_is_said_once() -> None:
    same = both()
    for part in same.values():
        part["lineage"] = {"versions": {"ray": "2.60.0"}}
    assert parts.to_html(same).decode().count("2.60.0") == 1


@pytest.mark.parametrize("low", [0.0, 0.98, 0.99999])
@pytest.mark.parametrize("high", [1.0, 37.0, 1e6])
def test_ticks_are_round_and_cover_what_they_must(low: float, high: float) -> None:
    found = charts.ticks(low, high)
    assert found[0] <= low + 1e-9
    assert found[-1] >= high - 1e-9
    assert 2 <= len(found) <= 9
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])
    labels = [charts.shown(tick, steps[0]) for tick in found]
    assert len(set(labels)) == len(labels), "neighbours can be told apart"


def test_one_value_makes_a_chart() -> None:
    Tags(charts.lines("t", "epoch", [("a", [(1, 0.5)])], "c"))
    Tags(charts.histogram("t", "Dice", [0.5], ("ceiling", 0.5), "c"))
    Tags(charts.ranges("t", "Dice", [("a", 0.5, 0.5, 0.5)], "c"))
    Tags(charts.bars("t", [("a", 0.0, "0 s")], "c"))
    assert charts.lines("t", "epoch", [("a", [(1, float("nan"))])], "c") == ""


def test_each_bar_of_a_histogram_is_as_high_as_its_count() -> None:
    values = [0.90] * 10 + [0.95] * 5
    svg = charts.histogram("t", "Dice", values, ("ceiling", 0.99), "c")
    heights = [float(h) for h in re.findall(r'class="bar"[^>]*height="([\d.]+)"', svg)]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)


def test_figures_without_pictures_are_nothing() -> None:
    assert shots.shots([], "x") == ""
