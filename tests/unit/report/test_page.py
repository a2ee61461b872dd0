"""The page's templates: text from outside is escaped, the policy holds, tables have headers."""

import base64
import hashlib
import re

import pytest
from support.report_parts import EVIL, Tags, scored

from carvana_ray.report import charts
from carvana_ray.report.headline import Headline, place_on_scale
from carvana_ray.report.page import (
    Card,
    ChartsAndTables,
    Column,
    ImageGrid,
    Section,
    Summary,
    Table,
    render_page,
)
from carvana_ray.report.provenance_section import Facts
from carvana_ray.report.verdict import Verdict

SECTIONS = [
    "summary.html",
    "review.html",
    "bad_images.html",
    "images.html",
    "worst.html",
    "charts.html",
    "run_time.html",
    "provenance.html",
]


def data_of(template: str, text: str, problem: str = "") -> object:
    """Return what a template takes, with a text from outside wherever it takes one."""
    table = Table(text, [Column(text), Column(text, "%.4f")], [[text, 0.5]])
    chart = charts.to_chart(charts.bars([(text, 1.0, text)]), text, text)
    figure = scored(text, size=(80, 120)) | {"reasons": [text] * 5}
    grid = ImageGrid([figure] * 2, "wide", 1)
    return {
        "summary.html": Summary([[Card(text, text, text, text)]], [(text, text)]),
        "review.html": {"problem": problem, "verdict": text, "images": grid, "csv": text},
        "bad_images.html": table,
        "images.html": grid,
        "worst.html": {"worst": grid, "median": grid},
        "charts.html": ChartsAndTables([chart], [(text, [table])]),
        "run_time.html": {"charts": [chart], "speed": {text: text}},
        "provenance.html": [Facts(text, {text: text}, {text: text})],
    }[template]


def top_of(text: str) -> Headline:
    return Headline(text, text, Verdict(text, text), place_on_scale(0.95), [text])


def page_of(template: str, text: str, problem: str = "") -> Tags:
    section = Section("a", text, template, data_of(template, text, problem))
    return Tags(render_page(top_of(text), [section]).decode())


@pytest.mark.parametrize("template", SECTIONS)
def test_text_from_outside_never_becomes_html(template: str) -> None:
    harmless, found = page_of(template, "harmless"), page_of(template, EVIL)
    assert found.tags == harmless.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in harmless.attributes]
    assert found.text.count(EVIL) == harmless.text.count("harmless") > 4


def test_the_reason_why_there_is_no_list_is_escaped() -> None:
    found = page_of("review.html", "harmless", problem=EVIL)
    assert found.tags == page_of("review.html", "harmless", problem="disk").tags
    assert EVIL in found.text


def test_a_table_has_a_header_for_each_column_and_each_row() -> None:
    columns = [Column("car"), Column("Dice", "%.4f"), Column("n", "%d")]
    table = Table("Cars", columns, [["a", 0.5, 1], ["b", 0.25, 2]])
    tags = Tags(render_page(top_of(""), [Section("a", "", "bad_images.html", table)]).decode())
    words = [word for word in tags.text.split("|") if word.strip()]
    cells = " ".join(words[words.index("Cars") :])
    assert cells.startswith("Cars car Dice n a 0.5000 1 b 0.2500 2 ")
    scopes = [found["scope"] for tag, found in tags.elements if tag == "th"]
    assert scopes == ["col", "col", "col", "row", "row"]
    numbers = [found.get("class") for tag, found in tags.elements if tag == "td"]
    assert numbers == ["number"] * 4
    (region,) = [found for _, found in tags.elements if found.get("role") == "region"]
    assert (region["tabindex"], region["aria-label"]) == ("0", "Cars")


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else() -> None:
    text = render_page(top_of("t"), []).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    for kind in ("style", "script"):
        (own,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        sha256 = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{sha256}'"


def test_only_the_first_reasons_are_shown_and_the_others_counted() -> None:
    text = page_of("images.html", "harmless").text
    assert "and 2 more" in text


def test_a_hash_is_short_in_sight_and_whole_under_the_pointer_and_when_copied() -> None:
    values = {"sha": "5b" * 32, "commit": "ab" * 20 + "-dirty", "system": "Linux-6.1-x86_64-" * 3}
    section = Section("a", "", "provenance.html", [Facts("Model", {**values, "n": 8}, {})])
    tags = Tags(render_page(top_of("t"), [section]).decode())
    hashes = [found["title"] for tag, found in tags.elements if found.get("class") == "hash"]
    assert hashes == [values["sha"], values["commit"]]
    assert all(value in tags.text for value in values.values())


def test_what_repeats_is_folded_away_and_counted() -> None:
    figures = [scored(f"{n}.jpg", size=(80, 120)) for n in range(5)]
    section = Section("a", "", "images.html", ImageGrid(figures, "tiles", 2))
    html = render_page(top_of("t"), [section]).decode()
    shown, folded = html.split("<summary>3 more</summary>")
    assert (shown.count("<article"), folded.count("<article")) == (2, 3)


def test_the_bar_has_the_layers_of_the_page_and_none_without_images() -> None:
    section = Section("a", "", "images.html", ImageGrid([scored("a.jpg", size=(80, 120))]))
    tags = Tags(render_page(top_of("t"), [section]).decode())
    values = [found["value"] for tag, found in tags.elements if tag == "input"]
    assert values == ["", "cut", "mask", "errors", "truth", "photo"]
    assert "fieldset" not in Tags(render_page(top_of("t"), []).decode()).tags
