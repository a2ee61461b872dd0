"""The sections on a prediction: sentences that agree with their numbers."""

import pytest
from support.report_parts import Tags, prediction

from carvana_ray.report import builder, prediction_section


@pytest.mark.parametrize(
    ("listed", "looked", "figures", "verdict"),
    [
        (0, 1, 1, "None of 1 mask looks unusual. The images below come closest to it."),
        (1, 64, 1, "1 of 64 masks looks unusual."),
        (3, 64, 3, "3 of 64 masks look unusual."),
        (3, 64, 8, "3 of 64 masks look unusual. The other images have lower scores"),
        (40, 5000, 24, "40 of 5,000 masks look unusual. The 24 most unusual are below."),
    ],
)
def test_the_verdict_agrees_with_its_numbers(
    listed: int, looked: int, figures: int, verdict: str
) -> None:
    part = prediction(figures=figures)
    part["review"] |= {"listed": listed, "looked": looked}
    first, _ = prediction_section.sections(part)
    assert first.data["verdict"].startswith(verdict)


def test_a_list_that_could_not_be_made_says_why() -> None:
    part = prediction()
    part["review"] = {"looked": 0, "listed": 0, "csv": "review.csv", "figures": [], "problem": "x!"}
    html = builder.to_html({"predict": part}).decode()
    assert "The list could not be made: x!" in html


def test_sections_without_images_are_left_out() -> None:
    part = prediction(figures=0)
    part["result"]["bad"] = 0
    assert [section.anchor for section in prediction_section.sections(part)] == ["review"]
    Tags(builder.to_html({"predict": part}).decode())


@pytest.mark.parametrize(
    ("bad", "listed", "caption"),
    [
        (1, 1, "1 image could not be used."),
        (300, 250, "300 images could not be used. The first 200 are shown;"),
    ],
)
def test_bad_images_are_counted_and_the_table_ends(bad: int, listed: int, caption: str) -> None:
    part = prediction()
    part["result"]["bad"], part["bad"] = bad, [["a.jpg", "truncated"]] * listed
    _, section = prediction_section.sections(part)
    assert section.data.caption.startswith(caption)
    assert len(section.data.rows) == min(listed, prediction_section.MAX_BAD)
    assert ("quarantine.csv" in section.data.caption) == (bad > listed or bad > 200)


@pytest.mark.parametrize(
    ("bad", "submission", "note"),
    [
        (0, "x.csv", "every image was readable"),
        (1, "x.csv", "treated as empty masks"),
        (1, None, "no submission was written"),
    ],
)
def test_the_card_of_bad_images_says_what_became_of_them(
    bad: int, submission: str | None, note: str
) -> None:
    part = prediction()
    part["result"] |= {"bad": bad, "submission": submission}
    assert prediction_section.cards(part)[-1].note == note
