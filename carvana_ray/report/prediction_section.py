"""The page's sections on a prediction: which masks to check first, which images were bad.

Keys of its part of the report:

    result        images, bad, shards, resumed_shards, images_per_second, submission
    review        looked (images), listed (of these), csv (its file name), figures of
                  `overlays.unscored_figure` with reasons; problem if the review failed
    bad           [img, reason] of the first bad images
    shown         figures of some images, however good their masks are
"""

from typing import Any

from carvana_ray.report.page import Card, Column, ImageGrid, Section, Table
from carvana_ray.runtime.wording import count_of

MAX_BAD = 200  # bad images in the table; all are in quarantine.csv

Part = dict[str, Any]


def cards(part: Part) -> list[Card]:
    """Return the headline figures."""
    result, review = part["result"], part["review"]
    rate = result["images_per_second"]
    speed = f"{rate:,.1f} images per second" if rate else "all shards existed already"
    outcome = "treated as empty masks" if result["submission"] else "no submission was written"
    if not result["bad"]:
        outcome = "every image was readable"
    return [
        Card("Images predicted", f"{result['images']:,}", speed),
        Card("Masks to check", f"{review['listed']:,}", f"unusual, of {review['looked']:,}"),
        Card("Bad images", f"{result['bad']:,}", outcome),
    ]


def sections(part: Part) -> tuple[list[Section], list[Section]]:
    """Return the sections to begin with, and those further down."""
    first = [Section("review", "Masks to check first", "review.html", _review(part["review"]))]
    if part["result"]["bad"]:
        first.append(Section("bad", "Bad images", "bad_images.html", _bad(part)))
    if not part["shown"]:
        return first, []
    return first, [Section("shown", "Cut-outs", "images.html", ImageGrid(part["shown"], "s"))]


def _review(review: Part) -> Part:
    listed, shown = review["listed"], len(review["figures"])
    masks = count_of(review["looked"], "masks")
    if not listed:
        verdict = f"None of {masks} looks unusual. The images below come closest to it."
    else:
        verdict = f"{listed:,} of {masks} {'looks' if listed == 1 else 'look'} unusual."
        if listed > shown:
            verdict += f" The first {shown} are shown."
        elif listed < shown:
            verdict += " The other images have lower scores and are shown for comparison."
    images = ImageGrid(review["figures"], "r")
    return {"problem": None, **review, "verdict": verdict, "images": images}


def _bad(part: Part) -> Table:
    bad, rows = part["result"]["bad"], part["bad"][:MAX_BAD]
    caption = f"{count_of(bad, 'images')} could not be used."
    if bad > len(rows):
        caption += f" The first {len(rows)} are shown; quarantine.csv lists all."
    return Table(caption, [Column("image"), Column("reason")], rows)
