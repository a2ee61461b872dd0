"""The page's sections on cut-outs: the files as they were written, and the images without one.

Keys of its part of the report:

    result        as of the job: images, written, resumed, bad, images_per_second, seconds, and
                  perhaps skipped, the number of left out files by kind, corrected, the number of
                  corrected masks, and viewer, the URI of the index of turning cars
    finished      cut-outs in the folder
    looked        of these, read for the page
    listed        of these, unusual; None if the files have no alpha
    folder        of the cut-outs, relative to the page
    sheet         contact sheet, relative to the page; "" without any
    bad           [img, reason] of the first bad images
    shown         figures of some cut-outs
    first         figures of the unusual cut-outs, with reasons, or of others if there is none
    settings      of the cut-outs, as in the index: edge, background, format, mask_only,
                  and perhaps shadow, and frame and size
"""

from typing import Any

from carvana_ray.data.listing import describe_skipped
from carvana_ray.report.page import Card, ImageGrid, Section
from carvana_ray.report.prediction_section import bad_table, corrected_card

FIRST_SHOWN = 6  # that are not folded away

Part = dict[str, Any]


def cards(part: Part) -> list[Card]:
    """Return the figures of quantity."""
    result = part["result"]
    rate = result["images_per_second"]
    speed = f"{rate:,.1f} images per second" if rate else "all existed already"
    shown = [
        Card(
            "Cut-outs", f"{part['finished']:,}", f"{result['written']:,} made by the last command"
        ),
        Card("Last command", f"{result['seconds']:,.1f} s", speed),
        Card("Bad images", f"{result['bad']:,}", "listed below" if result["bad"] else "none"),
    ]
    shown += [*corrected_card(result), _style_card(part["settings"])]
    if skipped := result.get("skipped"):
        shown.append(Card("Left out", f"{sum(skipped.values()):,}", describe_skipped(skipped)))
    return shown


def files(part: Part) -> list[tuple[str, str]]:
    """Return links to the results, relative to the page."""
    folder = part["folder"]
    found = [(f"{folder}/", f"{folder}/"), (part["sheet"], part["sheet"])]
    if uri := part["result"].get("viewer"):
        found.append(("turning cars", uri.rpartition("/")[2]))
    if part["result"]["bad"]:
        found.append((f"{folder}/quarantine.csv", f"{folder}/quarantine.csv"))
    return [(text, uri) for text, uri in found if uri]


def sections(part: Part) -> list[Section]:
    """Return the sections of the cut-outs."""
    shown = []
    if part["first"]:
        heading = "Check first" if part["listed"] else "More cut-outs"
        grid = ImageGrid(part["first"], "tiles", FIRST_SHOWN)
        shown.append(Section("first", heading, "images.html", grid))
    if part["result"]["bad"]:
        table = bad_table(part, f"{part['folder']}/quarantine.csv")
        shown.append(Section("not-cut", "Images without a cut-out", "bad_images.html", table))
    return shown


def _style_card(settings: Part) -> Card:
    """Return how the cut-outs look."""
    look = "Masks" if settings["mask_only"] else f"{settings['edge'].capitalize()} edges"
    background = settings["background"]
    if isinstance(background, list):
        background = "#{:02x}{:02x}{:02x}".format(*background)
    notes = [] if settings["mask_only"] else [background]
    if "shadow" in settings:
        notes.append(f"{settings['shadow']} shadow")
    if "frame" in settings:
        size = settings["size"]  # or "that of the car"
        notes.append(f"frame {settings['frame']}" + (f", {size}" if size[0].isdigit() else ""))
    return Card("Style", look, ", ".join([*notes, settings["format"].upper()]))
