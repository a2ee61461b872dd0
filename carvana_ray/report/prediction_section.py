"""What a prediction has to show: which masks to look at first, which pictures were bad.

Keys of this part of the report:

    result      images, bad, shards, resumed_shards, images_per_second, submission
    review      looked (pictures), listed (of these), csv (its file name), figures of
                `layers.unscored` with reasons; problem, where it could not be made
    bad         [img, reason] of the first bad pictures
    shown       figures of some pictures, whatever their masks are like
    seconds     of each step, in order; speed: names and values
    lineage     headings, and below each names and values
"""

from typing import Any

from carvana_ray.report import html_elements as markup
from carvana_ray.report import image_cards as shots
from carvana_ray.report.page import Section

BAD = 200  # bad pictures in the table; all are in quarantine.csv

Part = dict[str, Any]


def cards(part: Part) -> list[tuple[str, str, str]]:
    """Return the headline figures: name, value, note."""
    result, review = part["result"], part["review"]
    rate = result["images_per_second"]
    speed = f"{rate:,.1f} pictures/s" if rate else "all shards were there already"
    held = "" if result["submission"] else "no submission was written"
    if not result["bad"]:
        held = "every picture could be read"
    return [
        ("Pictures predicted", f"{result['images']:,}", speed),
        ("To look at", f"{review['listed']:,}", f"unusual masks, of {review['looked']:,}"),
        ("Bad pictures", f"{result['bad']:,}", held or "taken as empty masks"),
    ]


def sections(part: Part) -> tuple[list[Section], list[Section]]:
    """Return the sections to begin with, and those further down."""
    first = Section("review", "Look at first", "Look at these first", _review(part["review"]))
    shown = Section("shown", "Cut-outs", "Some of the cut-outs", shots.shots(part["shown"], "s"))
    bad = Section("bad", "Bad pictures", "Bad pictures", _bad(part))
    return [first, bad], [shown]


def _review(review: dict[str, Any]) -> str:
    if review.get("problem"):
        return markup.text("p", f"The list could not be made: {review['problem']}")
    listed, shown = review["listed"], len(review["figures"])
    how = (
        "No truth is needed for this list: each view is compared with what the other views of the "
        "car let expect, and each mask is searched for holes, stray pieces and a ragged outline. "
        "The score is in standard deviations."
    )
    looked = f"{review['looked']:,} masks"
    if not listed:
        said = f"None of {looked} is unusual. These come closest to it."
    else:
        said = f"{listed:,} of {looked} {'is' if listed == 1 else 'are'} unusual"
        if listed > shown:
            said += f"; these are the first {shown}."
        elif listed < shown:
            said += "; the others here, with lower scores, only come closest to it."
        else:
            said += "."
    where = f"Every picture with its score is in {review['csv']}, beside this page."
    return (
        markup.text("p", said)
        + shots.shots(review["figures"], "r")
        + markup.text("p", how)
        + markup.text("p", where)
    )


def _bad(part: Part) -> str:
    if not part["result"]["bad"]:
        return ""
    rows = [tuple(row) for row in part["bad"][:BAD]]
    caption = f"{part['result']['bad']:,} pictures that could not be used, and why"
    if part["result"]["bad"] > len(rows):
        caption += f"; the first {len(rows)}, all are in quarantine.csv"
    return markup.table(caption, ["picture", "reason"], rows)
