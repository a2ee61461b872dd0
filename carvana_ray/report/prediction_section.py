"""The page's sections on a prediction: which masks to check first, which images were bad.

Keys of its part of the report:

    result        images, bad, shards, resumed_shards, images_per_second, submission, and perhaps
                  corrected
    review        looked (images), listed (of these), csv (its file name), figures of
                  `overlays.unscored_figure` with reasons; problem if the review failed
    bad           [img, reason] of the first bad images
    shown         figures of some images, however good their masks are
"""

from typing import Any

from carvana_ray.report.page import Card, Column, ImageGrid, Section, Table
from carvana_ray.runtime.wording import count_of

MAX_BAD = 200  # bad images in the table; all are in quarantine.csv

REVIEW_SHOWN = 6  # that are not folded away

Part = dict[str, Any]


def cards(part: Part) -> list[Card]:
    """Return the figures of quantity."""
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
        *corrected_card(result),
    ]


def corrected_card(result: Part) -> list[Card]:
    """Return the number of images whose mask a person has corrected, if there are any."""
    if not result.get("corrected"):
        return []
    return [Card("Corrected", f"{result['corrected']:,}", "masks that a person has corrected")]


def files(part: Part) -> list[tuple[str, str]]:
    """Return links to the files of a prediction, in the folder of the page."""
    result, review = part["result"], part["review"]
    names = [result["submission"].rsplit("/", 1)[-1]] if result["submission"] else []
    names += [] if review.get("problem") else [review["csv"]]
    names += ["quarantine.csv"] if result["bad"] else []
    return [(name, name) for name in names]


def sections(part: Part) -> list[Section]:
    """Return the sections of a prediction."""
    shown = [Section("review", "Check first", "review.html", _review(part["review"]))]
    if part["result"]["bad"]:
        shown.append(
            Section("bad", "Bad images", "bad_images.html", bad_table(part, "quarantine.csv"))
        )
    return shown


def _review(review: Part) -> Part:
    listed, shown = review["listed"], len(review["figures"])
    masks = count_of(review["looked"], "masks")
    if not listed:
        verdict = f"None of {masks} looks unusual. The images below come closest to it."
    else:
        verdict = f"{listed:,} of {masks} {'looks' if listed == 1 else 'look'} unusual."
        if listed > shown:
            verdict += f" The {shown} most unusual are below."
        elif listed < shown:
            verdict += " The other images have lower scores and are shown for comparison."
    images = ImageGrid(review["figures"], "tiles", REVIEW_SHOWN)
    return {"problem": None, **review, "verdict": verdict, "images": images}


def bad_table(part: Part, file: str) -> Table:
    """Return the table of the first bad images of a part; `file` lists all."""
    bad, rows = part["result"]["bad"], part["bad"][:MAX_BAD]
    caption = f"{count_of(bad, 'images')} could not be used."
    if bad > len(rows):
        caption += f" The first {len(rows)} are shown; {file} lists all."
    return Table(caption, [Column("image"), Column("reason")], rows)
