"""The page of a report: whole, safe, readable by machines that read aloud, and small."""

import itertools
import json
import re
from pathlib import Path

import pytest
from support.report_parts import EVIL, SHA, Tags, both, evaluation, prediction, scored

from carvana_ray import storage
from carvana_ray.report import builder

FILES_OF_AN_EVALUATION = {"evaluation.csv", "evaluation.json", "sheets/worst.jpg"}


def test_a_name_never_becomes_a_part_of_a_report() -> None:
    harmless, found = (Tags(builder.to_html(both(name=n)).decode()) for n in ("a_01.jpg", EVIL))
    assert found.tags == harmless.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in harmless.attributes]
    assert EVIL in found.text


def test_a_page_is_whole_and_needs_no_network() -> None:
    text = builder.to_html(both()).decode()
    assert text.startswith("<!doctype html>")
    tags = Tags(text)
    sources = [value or "" for name, value in tags.attributes if name in ("src", "href")]
    assert sources
    files = {"review.csv", "quarantine.csv", *FILES_OF_AN_EVALUATION}
    assert {value for value in sources if not value.startswith(("data:", "#"))} == files
    assert "http" not in re.sub("http-equiv", "", text)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not re.search(r"\sstyle=|\son\w+=", text), "the policy forbids both"


def test_the_same_parts_give_the_same_page() -> None:
    assert builder.to_html(both()) == builder.to_html(both())


def test_headings_landmarks_labels_and_names_are_there() -> None:
    tags = Tags(builder.to_html(both()).decode())
    ranks = [int(tag[1]) for tag in tags.tags if re.fullmatch("h[1-6]", tag)]
    assert ranks.count(1) == 1
    assert ranks[0] == 1
    assert all(rank <= before + 1 for before, rank in itertools.pairwise(ranks))
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.tags.count(landmark) == 1
    assert all(found.get("alt") for tag, found in tags.elements if tag == "img")
    assert all(found.get("aria-label") for _, found in tags.elements if found.get("role") == "img")
    assert tags.tags.count("fieldset") == tags.tags.count("legend")
    ids = {found["id"] for _, found in tags.elements if "id" in found}
    targets = [found["href"] or "" for tag, found in tags.elements if tag in ("a", "use")]
    links = {target[1:] for target in targets if target.startswith("#")}
    assert links <= ids
    assert len(ids) == sum("id" in found for _, found in tags.elements), "each id once"
    assert ("lang", "en") in tags.attributes


def test_sections_have_an_order_and_the_words_of_the_contents() -> None:
    html = builder.to_html(both()).decode()
    headings = re.findall('<h2 id="(.*?)">(.*?)</h2>', html)
    assert [anchor for anchor, _ in headings] == [
        *("cutouts", "summary", "review", "bad", "worst", "dice", "training"),
        *("time", "provenance"),
    ]
    assert headings == re.findall('<li><a href="#(.*?)">(.*?)</a></li>', html)


def test_the_page_shows_the_values_of_its_parts() -> None:
    text = Tags(builder.to_html(both()).decode()).text
    for words in ("0.9994", "0.5000", "600", "truncated: ", "a hole in ", "no submission"):
        assert words in text, words
    assert SHA[:12] in text


def test_a_part_alone_is_a_page_too() -> None:
    for kind in ("evaluate", "predict"):
        Tags(builder.to_html({kind: both()[kind]}).decode())
    with pytest.raises(ValueError, match="needs"):
        builder.to_html({})


def test_the_page_of_5088_images_is_below_5_mb_whatever_they_look_like() -> None:
    page = builder.to_html(
        {
            "evaluate": evaluation(images=5088, figures=8, noise=True),
            "predict": prediction(noise=True, figures=24),
        }
    )
    assert 1_000_000 < len(page) < 5_000_000


def test_jobs_of_one_model_share_a_page_and_those_of_another_do_not(tmp_path: Path) -> None:
    out = str(tmp_path)
    builder.add_section(out, "evaluate", evaluation())
    target = builder.add_section(out, "predict", prediction())
    assert storage.read(target) == builder.to_html(both())
    other = {**prediction(), "model": "7c" * 32}
    builder.add_section(out, "predict", other)
    assert storage.read(target) == builder.to_html({"predict": other})
    (tmp_path / "report" / "evaluate.json").write_text("{torn")
    builder.add_section(out, "predict", prediction())
    assert storage.read(target) == builder.to_html({"predict": prediction()})
    (tmp_path / "report" / "evaluate.json").write_text(json.dumps({"model": SHA, "format": 0}))
    builder.add_section(out, "predict", prediction())
    assert storage.read(target) == builder.to_html({"predict": prediction()})


def test_the_time_without_data_is_a_percentage() -> None:
    part = evaluation()
    part["speed"] = {"Training: share of time that waited for pictures": 0.0018}
    assert (
        "Training: time without data|0.2%"
        in Tags(builder.to_html({"evaluate": part}).decode()).text
    )


def test_cut_outs_at_the_top_are_those_of_the_prediction_or_else_of_the_evaluation() -> None:
    parts = both()
    parts["evaluate"]["shown"] = [scored("of_evaluation.jpg", size=(80, 120))]
    assert "of_evaluation" not in builder.to_html(parts).decode()
    assert "of_evaluation" in builder.to_html({"evaluate": parts["evaluate"]}).decode()
    assert 'id="cutouts"' not in builder.to_html({"evaluate": evaluation()}).decode()
