"""The results of a cut-out job for people: quarantine.csv, turning cars, contact sheet, report.

Sheet and page show the files of the whole folder, whichever commands wrote them. Of a large folder
they show a sample, so the cost of both is bounded.
"""

import contextlib
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from PIL import Image

from carvana_ray import rle, storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.data import quarantine
from carvana_ray.data.cars import KAGGLE, CarNames
from carvana_ray.data.corrections import correction_of
from carvana_ray.data.quarantine import Bad
from carvana_ray.errors import (
    BadImageError,
    BadImagesError,
    IncompleteError,
    InputError,
    StorageUnavailableError,
    first_line,
)
from carvana_ray.images.validate import MAX_BYTES
from carvana_ray.report import builder, contact_sheet
from carvana_ray.report.overlays import Caption, Figure
from carvana_ray.report.prediction_section import MAX_BAD
from carvana_ray.report.provenance import describe_job
from carvana_ray.report.written_cutout import (
    alpha_of,
    open_cutout,
    written_figure,
    written_tiles,
)
from carvana_ray.review.ranking import ReviewItem, rank
from carvana_ray.review.shape import measure
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.cutout.viewer import write_viewers
from carvana_ray.stages.engine import Engine

if TYPE_CHECKING:
    from carvana_ray.stages.cutout.plan_run import CutoutRun

log = logging.getLogger(__name__)

SHEET = "sheets/cutouts.jpg"
SAMPLE = 48  # cut-outs that are read
SHOWN, FIRST = 4, 12  # figures of the page
LARGE_TILES = 8  # cut-outs, up to which their tiles are twice as large
TILE_WIDTH, PAIRS = 240, 4  # pixels of a tile; images in a row
EACH_ITS_OWN_CAR = CarNames(re.compile("(?!)()"))  # a pattern that fits no name

Cutout = tuple[str, bytes, Image.Image]  # name of the image, its bytes, the cut-out
Sources = Mapping[str, SourceImage]  # by name of the cut-out


def publish(run: "CutoutRun", bad: list[Bad], result: dict[str, Any], engine: Engine) -> None:
    """Write quarantine.csv next to the cut-outs, or remove that of an earlier run; sheet and page.

    `result` gets ``sheet`` and ``report``, unless there is no cut-out at all, and ``viewer`` if
    cars have a page.

    Raises:
        BadImagesError: some images are bad, and --on-bad-picture is fail.
    """
    bad = sorted(bad)  # they come in any order
    if bad:
        uri = quarantine.write_csv(run.target, bad)
    else:
        storage.remove(storage.join(run.target, quarantine.FILE))
    errors: tuple[type[Exception], ...] = (OSError, InputError, IncompleteError, *engine.errors)
    if run.flags.viewer:
        try:
            result |= write_viewers(run, engine)
        except errors as error:
            log.warning("pages of cars could not be written: %s", first_line(error))
    try:
        result |= show_folder(run, bad, result)
    except (OSError, InputError, StorageUnavailableError) as error:
        log.warning("contact sheet and report could not be written: %s", first_line(error))
    if not bad:
        return
    message = f"{quarantine.summarize(bad, uri)}. All others are cut out"
    if run.flags.on_bad_picture == "skip":
        log.warning("%s", message)
        return
    raise BadImagesError(
        f"{message}. Repair the bad images and run again, or use --on-bad-picture skip", result
    )


def show_folder(run: "CutoutRun", bad: Sequence[Bad], result: dict[str, Any]) -> dict[str, str]:
    """Write the contact sheet and the page of a folder of cut-outs.

    Returns:
        the URIs of both, by ``sheet`` and ``report``; nothing if no cut-out can be shown.
    """
    out, suffix = storage.parent(run.target), run.checked.style.suffix
    finished = index.finished(run.target, suffix)
    new = {run.sources[entry.name].cutout(suffix) for entry in run.pending}
    sample = pick_sample(finished, new)
    style = run.checked.style
    items, names, sheet = _look(run.target, sample, style)
    if not names:
        return {}
    storage.write_atomic(storage.join(out, SHEET), sheet, replace=True)
    part = {
        **_facts(run, out),
        "result": result,
        "finished": len(finished),
        "looked": len(names),
        "listed": sum(item.listed for item in items) if items else None,
        "folder": storage.name(run.target),
        "sheet": SHEET,
        "settings": run.checked.settings,
        "bad": [[name, reason] for name, reason, _ in bad[:MAX_BAD]],
        **_figures(run.target, sample, style, items, names),
        "seconds": {},
    }
    return {"sheet": storage.join(out, SHEET), "report": builder.add_section(out, "cutout", part)}


def pick_sample(finished: Sources, new: Collection[str]) -> dict[str, SourceImage]:
    """Return up to `SAMPLE` cut-outs, evenly spaced; up to half of them are of the last command.

    Args:
        finished: all cut-outs.
        new: names of those that the last command made.
    """
    fresh = [name for name in finished if name in new]
    others = [name for name in finished if name not in new]
    picked = _spread(fresh, max(SAMPLE // 2, SAMPLE - len(others)))
    picked += _spread(others, SAMPLE - len(picked))
    return {name: finished[name] for name in sorted(picked)}


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Return at most `count` names, evenly spaced."""
    count = min(count, len(names))
    return [names[len(names) * place // count] for place in range(count)]


def _read(target: str, sample: Sources) -> Iterator[tuple[str, Cutout]]:
    """Yield images and cut-outs, by name of the cut-out; without those that cannot be read."""
    pairs = [(source.uri, storage.join(target, name)) for name, source in sample.items()]
    answers = storage.read_many(list(chain.from_iterable(pairs)), MAX_BYTES)
    for name, source in sample.items():
        photo, file = next(answers), next(answers)
        if isinstance(photo, bytes) and isinstance(file, bytes):
            with contextlib.suppress(BadImageError):
                folder = name.rpartition("/")[0]
                image = f"{folder}/{source.entry.name}" if folder else source.entry.name
                yield name, (image, photo, open_cutout(name, file))


def _look(
    target: str, sample: Sources, style: CutoutStyle
) -> tuple[list[ReviewItem], list[str], bytes]:
    """Return a sample's ranking, those that were read, and the sheet.

    There is no ranking without alpha, or if alpha holds the shadow too. A frame moves and scales
    the car, so that its place says nothing about the car's other views: of 160 true masks 12 were
    listed in frames of catalogues. Framed cut-outs are ranked by the shape of each alone.
    """
    shapes, names, pairs = {}, [], []
    width = TILE_WIDTH * (2 if len(sample) <= LARGE_TILES else 1)
    for name, (image, photo, file) in _read(target, sample):
        with contextlib.suppress(BadImageError):
            pairs.append(written_tiles(image, photo, file, width))
            names.append(name)
            if style.shadow == "none" and (alpha := alpha_of(file)) is not None:
                shapes[name] = measure(rle.encode(alpha >= 128), *alpha.shape)
    corrected = [name for name, source in sample.items() if correction_of(source.entry)]
    items = rank(shapes, EACH_ITS_OWN_CAR if style.frame else KAGGLE, corrected)
    place = {item.name: number for number, item in enumerate(items)}
    order = sorted(range(len(names)), key=lambda number: place.get(names[number], number))
    tiles = [tile for number in order for tile in pairs[number]]
    row = 2 * (PAIRS // 2 if width > TILE_WIDTH else PAIRS)
    rows = [tiles[start : start + row] for start in range(0, len(tiles), row)]
    title = f"{count_of(len(names), 'cut-outs')}, the most unusual first" if items else "Cut-outs"
    return items, names, contact_sheet.render_sheet(rows, title) if rows else b""


def _figures(
    target: str,
    sample: Sources,
    style: CutoutStyle,
    items: Sequence[ReviewItem],
    names: Sequence[str],
) -> dict[str, list[Figure]]:
    """Return figures: ``shown``, and as ``first`` the unusual ones, or others if there is none."""
    shown = _spread(names, SHOWN)
    first = [item.name for item in items if item.listed][:FIRST]
    first = first or _spread([name for name in names if name not in shown], FIRST)
    captions = {item.name: Caption(reasons=list(item.reasons)) for item in items if item.listed}
    wanted = {name: sample[name] for name in (*shown, *first)}
    for name in (name for name, source in wanted.items() if correction_of(source.entry)):
        captions.setdefault(name, Caption(lines=["Corrected"]))
    figures: dict[str, Figure] = {}
    for name, (image, photo, file) in _read(target, wanted):
        with contextlib.suppress(BadImageError):
            figures[name] = written_figure(image, photo, file, captions.get(name, Caption()), style)
    return {
        "shown": [figures[name] for name in shown if name in figures],
        "first": [figures[name] for name in first if name in figures],
    }


def _facts(run: "CutoutRun", out: str) -> dict[str, Any]:
    """Return made, model and lineage. Masks of this folder's submission are of its model."""
    checked, flags = run.checked, run.flags
    facts = describe_job(
        flags, checked.manifest, {"folder": checked.folder, "pictures": len(checked.entries)}
    )
    if flags.submission and storage.parent(storage.resolve(flags.submission)) == out:
        facts["model"] = builder.model_of(out, "predict")
    return facts
