"""The review of a prediction's masks, without ground truth: which should a person check first?

shards -> measure_masks (a task per shard) -> rank -> review.csv and figures of the report
"""

import functools
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data

from carvana_ray import storage
from carvana_ray.data import quarantine
from carvana_ray.data.catalog import Catalog
from carvana_ray.report.figures import unscored_figures
from carvana_ray.report.overlays import Caption
from carvana_ray.review.ranking import ReviewItem, rank, to_csv
from carvana_ray.review.shape import MaskShape
from carvana_ray.stages import ray_metrics
from carvana_ray.stages.ingest.blocks import RETRIES, Columns, from_blocks
from carvana_ray.stages.predict.measure_masks import FIELDS, measure_masks
from carvana_ray.submission.plan import PlanPart

log = logging.getLogger(__name__)

FILE = "review.csv"
MAX_FIGURES, MIN_FIGURES = 24, 8  # the minimum is shown even if no mask is unusual


@dataclass
class MaskMeasurements:
    """Measurements of all masks of a prediction.

    Attributes:
        shapes: shape of each mask, by image; without bad images.
        crcs: CRC-32 of each image, by name; with bad images.
        shard_uris: URI of the shard that holds an image, by the image's name.
    """

    shapes: dict[str, MaskShape] = field(default_factory=dict)
    crcs: dict[str, int] = field(default_factory=dict)
    shard_uris: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Columns) -> None:
        """Add rows of `measure_masks`."""
        columns = {name: column.tolist() for name, column in batch.items()}
        names = columns["img"]
        self.crcs |= zip(names, columns["crc32"], strict=True)
        self.shard_uris |= zip(names, columns["uri"], strict=True)
        shapes = zip(*(columns[name] for name in FIELDS), strict=True)
        for name, status, values in zip(names, columns["status"], shapes, strict=True):
            if status == quarantine.OK:
                self.shapes[name] = MaskShape(*values)


def review_masks(
    out: str, folder: str, parts: Sequence[PlanPart], catalog: Catalog, cpus: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """Write ``review.csv``.

    A failure does not fail the prediction: its cause is logged and shown in the report.

    Args:
        out: folder of all results.
        folder: folder of the run.
        parts: parts of its plan. All shards with images of the catalog exist.
        catalog: the images.
        cpus: CPUs of the cluster.

    Returns:
        The review section of the report, and the CRC-32 of each image, by name.
    """
    section = {"looked": 0, "listed": 0, "csv": FILE, "figures": []}
    measurements = MaskMeasurements()
    try:
        measurements = _measure_all(folder, parts, catalog, cpus)
        items = rank(measurements.shapes)
        table = to_csv(items, measurements.shapes)
        storage.write_atomic(storage.join(out, FILE), table, replace=True)
        listed = sum(item.listed for item in items)
        shown = items[: min(max(listed, MIN_FIGURES), MAX_FIGURES)]
        figures = _figures(catalog.folder, shown, measurements.shard_uris)
        section |= {"looked": len(items), "listed": listed, "figures": figures}
    except (OSError, ValueError, pa.ArrowException, ray.exceptions.RayError) as error:
        section["problem"] = str(error).splitlines()[0]
        log.warning("review.csv could not be written: %s", section["problem"])
    return section, measurements.crcs


def _measure_all(
    folder: str, parts: Sequence[PlanPart], catalog: Catalog, cpus: int
) -> MaskMeasurements:
    """Measure the masks of the catalog's images; the arguments are those of `review_masks`."""
    wanted = set(catalog.entries)
    rows = []
    for part in parts:
        for shard in range(part.shards):
            keep = [image in wanted for image in part.shard(shard)]
            if any(keep):
                uri = storage.join(folder, part.shard_name(shard))
                rows.append({"uri": uri, "keep": keep})
    dataset = from_blocks(rows).map_batches(
        measure_masks,
        batch_size=None,
        compute=ray.data.TaskPoolStrategy(size=max(min(cpus, len(rows)), 1)),
        num_cpus=0,  # the pool's size is the limit: idle replicas may still hold all CPUs
        max_retries=RETRIES,
    )
    measurements = MaskMeasurements()
    with ray_metrics.meter("review", len(catalog.entries)) as meter:
        for batch in dataset.iter_batches(batch_size=None):
            measurements.add(batch)
            meter.set(len(measurements.crcs))
    return measurements


def _figures(folder: str, items: Sequence[ReviewItem], shard_uris: dict[str, str]) -> list[Any]:
    """Return the report's figures of some images.

    Args:
        folder: folder of the images.
        items: the images.
        shard_uris: URI of the shard that holds an image, by the image's name.
    """
    rows = [_shard_row(shard_uris[item.name], item.name) for item in items]
    captions = [
        Caption(lines=[f"Score {item.score:.1f}"], reasons=list(item.reasons)) for item in items
    ]
    return unscored_figures(folder, rows, captions)


def _shard_row(uri: str, name: str) -> dict[str, Any]:
    """Return an image's row of a shard."""
    table = _load_table(uri)
    (row,) = table.filter(pc.equal(table["img"], name)).to_pylist()
    return row


@functools.lru_cache(maxsize=4)
def _load_table(uri: str) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read(uri)))
