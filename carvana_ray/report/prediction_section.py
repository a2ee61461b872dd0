"""The page's sections on a prediction: which masks to check first, which images were bad.

Keys of this part of the report, plain values as `builder` keeps them:

    result        images, bad, shards, resumed_shards, images_per_second, submission
    review        looked (images), listed (of these), csv (its file name), figures of
                  `overlays.unscored_figure` with reasons; problem, where it could not be made
    bad           [img, reason] of the first bad images
    shown         figures of some images, however good their masks are
    seconds       of each step, in order; speed: names and values
    lineage       headings, and below each names and values
"""

from typing import Any, NamedTuple

from carvana_ray.report.page import Card, Column, ImageGrid, Section, Table, count_of

MAX_BAD = 200  # bad images in the table; all are in quarantine.csv

Part = dict[str, Any]


class Review(NamedTuple):
    """The masks to check first: why the list is missing or a verdict, images, the file of all."""

    problem: str
    verdict: str
    images: ImageGrid
    csv: str


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
    review = _review(part["review"])
    first = [Section("review", "Masks to check first", "review.html", review)]
    if part["result"]["bad"]:
        first.append(Section("bad", "Bad images", "bad_images.html", _bad(part)))
    if not part["shown"]:
        return first, []
    return first, [Section("shown", "Cut-outs", "images.html", ImageGrid(part["shown"], "s"))]


def _review(review: dict[str, Any]) -> Review:
    listed, shown = review["listed"], len(review["figures"])
    masks = count_of(review["looked"], "mask")
    if not listed:
        verdict = f"None of {masks} looks unusual. The images below come closest to it."
    else:
        verdict = f"{listed:,} of {masks} {'looks' if listed == 1 else 'look'} unusual."
        if listed > shown:
            verdict += f" The first {shown} are shown."
        elif listed < shown:
            verdict += " The other images have lower scores and are shown for comparison."
    images = ImageGrid(review["figures"], "r")
    return Review(review.get("problem", ""), verdict, images, review["csv"])


def _bad(part: Part) -> Table:
    bad, rows = part["result"]["bad"], part["bad"][:MAX_BAD]
    caption = f"{count_of(bad, 'image')} could not be used, and why"
    if bad > len(rows):
        caption += f"; the first {len(rows)}, all are in quarantine.csv"
    return Table(caption, [Column("image"), Column("reason")], rows)
