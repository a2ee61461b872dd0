"""The sections on an evaluation: tables that end somewhere, sections that are left out."""

import pytest
from support.report_parts import Tags, evaluation

from carvana_ray.report import builder, evaluation_section


def test_more_images_than_the_table_takes_are_cut_and_counted() -> None:
    count = evaluation_section.MAX_ROWS + 10
    text = builder.to_html({"evaluate": evaluation(images=count)}).decode()
    assert f"all {count:,} are in evaluation.csv" in text
    assert text.count("<tr>") < evaluation_section.MAX_ROWS + 700


def test_the_tables_hold_the_numbers_of_the_scores() -> None:
    (section,) = [
        one for one in evaluation_section.sections(evaluation(images=40)) if one.anchor == "dice"
    ]
    by_view, by_car = section.data.folded[0][1]
    assert [row[0] for row in by_view.rows] == list(range(1, 17))
    name, lowest, mean, highest = by_car.rows[-1]
    assert (name, lowest, mean, highest) == ("0123456789ab", 0.5, 0.5, 0.5)
    scores = section.data.folded[1][1][0]
    assert scores.rows[0] == ("0123456789ab_01.jpg", "0123456789ab", 1, 0.5, 0.9994, 20.0, 10.0)


@pytest.mark.parametrize(("images", "words"), [(2, ""), (900, "The 16 cars with the lowest mean")])
def test_the_chart_of_cars_says_if_it_does_not_show_all(images: int, words: str) -> None:
    html = builder.to_html({"evaluate": evaluation(images=images)}).decode()
    assert words in html
    assert ("cars with the lowest mean are shown" in html) == bool(words)


def test_a_model_without_history_has_no_section_on_training() -> None:
    part = {**evaluation(), "history": []}
    assert "training" not in [section.anchor for section in evaluation_section.sections(part)]
    Tags(builder.to_html({"evaluate": part}).decode())


def test_the_best_epoch_is_named_where_there_was_validation() -> None:
    part = evaluation()
    words = "Best epoch: 5, with Dice 0.9800 in validation."
    assert words in builder.to_html({"evaluate": part}).decode()
    part["history"] = [{"epoch": 1, "loss": 0.5, "dice": 0.9, "accuracy": 0.9}]
    html = builder.to_html({"evaluate": part}).decode()
    assert "Best epoch" not in html
    assert "Speed by epoch" not in html
