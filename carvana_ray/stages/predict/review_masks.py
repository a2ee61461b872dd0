"""The review of a prediction's masks, without ground truth: which should a person check first?

shards -> measure_masks (a task per 256 images) -> rank -> review.csv and figures of the report
"""

import io
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from carvana_ray import storage
from carvana_ray.data.catalog import Catalog
from carvana_ray.data.quarantine import CORRECTED, is_good
from carvana_ray.report.figures import unscored_figures
from carvana_ray.report.overlays import Caption
from carvana_ray.review.ranking import EMPTY_SCORE, FILE, ReviewItem, rank, to_csv
from carvana_ray.review.shape import MaskShape
from carvana_ray.stages.engine import Engine
from carvana_ray.stages.predict.measure_masks import FIELDS, measure_masks
from carvana_ray.stages.ray_metrics import meter
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import SHARD_SIZE, PlanPart

log = logging.getLogger(__name__)

MAX_FIGURES, MIN_FIGURES = 24, 8  # the minimum is shown even if no mask is unusual


class MaskMeasurements(NamedTuple):
    """Measurements of all masks of a prediction, by image name."""

    shapes: dict[str, MaskShape]  # without bad images
    crcs: dict[str, int]
    shard_uris: dict[str, str]
    corrected: set[str]  # images whose mask a person has corrected


def review_masks(
    out: str,
    folder: str,
    parts: Sequence[PlanPart],
    catalog: Catalog,
    engine: Engine,
    is_current: Callable[[], bool] = lambda: True,
) -> tuple[dict[str, Any], dict[str, int]]:
    """Write ``review.csv``.

    A failure does not fail the prediction: its cause is logged and shown in the report.

    Args:
        out, folder: URIs of all results and of the run.
        parts: of the plan. All shards with images of the catalog exist.
        catalog: the images.
        engine: calls the map.
        is_current: returns whether the submission is still of this run; else the file stays.

    Returns:
        the review section of the report, and the CRC-32 of each image, by name.
    """
    section = {"looked": 0, "listed": 0, "csv": FILE, "figures": []}
    crcs: dict[str, int] = {}
    try:
        shapes, crcs, shard_uris, corrected = _measure_all(folder, parts, catalog, engine)
        items = rank(shapes, catalog.cars, corrected)
        if is_current():
            storage.write_atomic(storage.join(out, FILE), to_csv(items, shapes), replace=True)
        listed = sum(item.listed for item in items)
        shown = items[: min(max(listed, MIN_FIGURES), MAX_FIGURES)]
        rows = [_shard_row(shard_uris[item.name], item.name) for item in shown]
        captions = [_caption(item) for item in shown]
        figures = unscored_figures(catalog.folder, rows, captions)
        section |= {"looked": len(items), "listed": listed, "figures": figures}
    except (OSError, ValueError, pa.ArrowException, *engine.errors) as error:
        section["problem"] = str(error).splitlines()[0]
        log.warning("review.csv could not be written: %s", section["problem"])
    return section, crcs


def _caption(item: ReviewItem) -> Caption:
    """Return the words about an image. The score of an empty mask says nothing about it."""
    if item.corrected:
        return Caption(lines=["Corrected"])
    lines = [f"Score {item.score:.1f}"] if item.score < EMPTY_SCORE else []
    return Caption(lines=lines, reasons=list(item.reasons))


def _measure_all(
    folder: str, parts: Sequence[PlanPart], catalog: Catalog, engine: Engine
) -> MaskMeasurements:
    """Measure the masks of the catalog's images; the arguments are those of `review_masks`."""
    rows = _group_shards(folder, parts, set(catalog.entries))
    measured = MaskMeasurements({}, {}, {}, set())
    with meter("review", len(catalog.entries)) as progress:
        for batch in engine.map_files(rows, measure_masks, light=True):
            names = batch["img"].tolist()
            measured.crcs.update(zip(names, batch["crc32"].tolist(), strict=True))
            measured.shard_uris.update(zip(names, batch["uri"].tolist(), strict=True))
            shapes = zip(*(batch[name].tolist() for name in FIELDS), strict=True)
            for name, status, values in zip(names, batch["status"], shapes, strict=True):
                if is_good(status):
                    measured.shapes[name] = MaskShape(*values)
                if status == CORRECTED:
                    measured.corrected.add(name)
            progress.set(len(measured.crcs))
    return measured


def _group_shards(
    folder: str, parts: Sequence[PlanPart], wanted: set[FileInfo]
) -> list[dict[str, Any]]:
    """Return the rows of `measure_masks` for all shards with wanted images.

    A row is a task, which costs Ray 16 ms. So it has several shards if they are small, as those of
    a catalog that grows daily are.
    """
    rows: list[dict[str, Any]] = []
    for part in parts:
        for shard in range(part.shards):
            keep = [image in wanted for image in part.shard(shard)]
            if not any(keep):
                continue
            if not rows or len(rows[-1]["keep"]) + len(keep) > SHARD_SIZE:
                rows.append({"uris": [], "keep": []})
            rows[-1]["uris"].append(storage.join(folder, part.shard_name(shard)))
            rows[-1]["keep"] += keep
    return rows


def _shard_row(uri: str, name: str) -> dict[str, Any]:
    """Return an image's row of a shard."""
    table = pq.read_table(io.BytesIO(storage.read(uri)), filters=[("img", "=", name)])
    (row,) = table.to_pylist()
    return row
