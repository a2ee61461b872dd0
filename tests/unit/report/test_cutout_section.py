"""The page's section on cut-outs."""

import subprocess
import sys
from typing import Any

import pytest
from PIL import Image
from support.report_parts import EVIL, SHA, Tags, both, jpeg, prediction

from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.report import builder, cutout_section
from carvana_ray.report.verdict import judge_cutouts
from carvana_ray.report.written_cutout import written_figure

PLAIN = CutoutStyle(soft=False, background=None, format="png", mask_only=False)
SETTINGS = {"edge": "soft", "background": "transparent", "format": "png", "mask_only": False}
NO_MATPLOTLIB = """
import sys
import carvana_ray.report.builder, carvana_ray.report.written_cutout
assert "matplotlib" not in sys.modules
"""


def cutouts(name: str = "a.jpg", **changes: Any) -> builder.Part:
    """Return an invented part."""
    file = Image.new("RGBA", (90, 60), (10, 20, 30, 255))
    figure = written_figure(name, jpeg(1, 60, 90), file, {"reasons": [f"a hole in {name}"]}, PLAIN)
    result = {"images": 5, "written": 2, "resumed": 2, "bad": 1, "images_per_second": 3.0}
    return {
        "made": "2026-11-28 01:00 UTC",
        "model": SHA,
        "lineage": {"data": {"folder": f"/photos/{name}"}},
        "result": {**result, "seconds": 2.5},
        "finished": 4,
        "looked": 4,
        "listed": 1,
        "folder": "cutouts",
        "sheet": "sheets/cutouts.jpg",
        "settings": SETTINGS,
        "bad": [[name, f"truncated: {name}"]],
        "shown": [figure],
        "first": [figure],
        "seconds": {},
        **changes,
    }


def test_a_page_of_cut_outs_alone_shows_its_values_and_links() -> None:
    html = builder.to_html({"cutout": cutouts()}).decode()
    tags = Tags(html)
    for words in (
        "Many masks look unusual: 1 of 4.",
        "2 made by the last command",
        "Soft edges",
        "PNG",
    ):
        assert words in tags.text, words
    links = {value for name, value in tags.attributes if name == "href"}
    assert {"cutouts/", "sheets/cutouts.jpg", "cutouts/quarantine.csv"} <= links
    assert "Run time" not in tags.text


def test_a_name_never_becomes_a_part_of_the_page() -> None:
    harmless, found = (
        Tags(builder.to_html({"cutout": cutouts(name)}).decode()) for name in ("a.jpg", EVIL)
    )
    assert found.tags == harmless.tags
    assert EVIL in found.text


def test_cut_outs_join_the_page_of_a_prediction_and_come_first() -> None:
    html = builder.to_html({**both(), "cutout": cutouts()}).decode()
    text = Tags(html).text
    assert "Cut-outs: Many masks look unusual: 1 of 4." in text
    assert text.index("made by the last command") < text.index("unusual, of")
    assert html.index('id="first"') < html.index('id="review"')


def test_a_page_of_cut_outs_needs_no_matplotlib() -> None:
    subprocess.run([sys.executable, "-c", NO_MATPLOTLIB], check=True)


@pytest.mark.parametrize(
    ("background", "text"),
    [
        ("transparent", "transparent, PNG"),
        ([255, 0, 16], "#ff0010, PNG"),
        ("a picture", "a picture, PNG"),
    ],
)
def test_the_style_is_named(background: Any, text: str) -> None:
    part = cutouts(settings={**SETTINGS, "background": background})
    (card,) = (card for card in cutout_section.cards(part) if card.name == "Style")
    assert card.note == text


def test_left_out_files_are_counted_by_kind() -> None:
    part = cutouts()
    part["result"]["skipped"] = {".pdf": 2, "folder": 1}
    card = cutout_section.cards(part)[-1]
    assert (card.name, card.value, card.note) == ("Left out", "3", "2 .pdf, 1 folder")


def test_the_verdict_names_its_sample() -> None:
    assert judge_cutouts(4, 4, 0).sentence.startswith("Nothing unusual in 4 masks")
    assert judge_cutouts(1000, 48, 2).sentence.startswith(
        "In a sample of 48 of 1,000 cut-outs: 2 of"
    )
    assert judge_cutouts(1000, 48, None).sentence == "1,000 cut-outs."


@pytest.mark.parametrize(
    ("more", "note"),
    [
        ({"shadow": "contact"}, "transparent, contact shadow, PNG"),
        (
            {"frame": "catalogue", "size": "1600x1200", "margin": 0.05, "shadow": "soft"},
            "transparent, soft shadow, frame catalogue, 1600x1200, PNG",
        ),
        ({"frame": "car", "size": "that of the car", "margin": 0}, "transparent, frame car, PNG"),
        ({"mask_only": True}, "PNG"),
    ],
)
def test_shadow_and_frame_are_named(more: dict[str, Any], note: str) -> None:
    part = cutouts(settings={**SETTINGS, **more})
    (card,) = (card for card in cutout_section.cards(part) if card.name == "Style")
    assert card.note == note


def test_corrected_masks_are_counted_where_there_are_some() -> None:
    parts = {"cutout": cutouts(), "predict": prediction()}
    assert "Corrected" not in Tags(builder.to_html(parts).decode()).text
    for part in parts.values():
        part["result"]["corrected"] = 1234
    text = Tags(builder.to_html(parts).decode()).text
    assert text.count("Corrected|1,234|") == 2
    parts["cutout"]["result"]["corrected"] = 0
    assert Tags(builder.to_html(parts).decode()).text.count("Corrected|") == 1


def test_a_page_links_the_turning_cars_by_a_relative_address() -> None:
    part = cutouts()
    assert "turning cars" not in Tags(builder.to_html({"cutout": part}).decode()).text
    part["result"]["viewer"] = "s3://bucket/run/viewer.html"
    tags = Tags(builder.to_html({"cutout": part}).decode())
    assert ("href", "viewer.html") in tags.attributes
    assert "turning cars" in tags.text
