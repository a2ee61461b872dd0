"""A second look at the masks of a prediction, without a truth: which should a person see first?

shards -> facts of each mask (a task a shard) -> a verdict on each -> review.csv, and figures
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
from carvana_ray.report import figures as sheets
from carvana_ray.review import ranking as review
from carvana_ray.review.shape import MaskShape
from carvana_ray.stages import ray_metrics as gauges
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.predict.measure_masks import FIELDS, measure_masks
from carvana_ray.submission.plan import PlanPart

log = logging.getLogger(__name__)

FILE = "review.csv"
MAX_FIGURES, MIN_FIGURES = 24, 8  # figures; the fewest are shown even if nothing is unusual


@dataclass
class MaskMeasurements:
    """What was found.

    Attributes:
        facts: of each mask, by picture.
        crcs: of each picture, bad ones too.
        shard: that has a picture, by its name.
    """

    shapes: dict[str, MaskShape] = field(default_factory=dict)
    crcs: dict[str, int] = field(default_factory=dict)
    shard_uris: dict[str, str] = field(default_factory=dict)


def review_masks(
    out: str, folder: str, parts: Sequence[PlanPart], catalogue: Catalog, cpus: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """Write ``review.csv``; return the review of the report, and the CRC-32 of each picture.

    A list that cannot be made is no reason to lose a submission: its cause is in the report.

    Args:
        out: folder of all results.
        folder: of the run.
        parts: of its plan; all shards that hold pictures of the catalogue are there.
        catalogue: the pictures.
        cpus: of the cluster.
    """
    part = {"looked": 0, "listed": 0, "csv": FILE, "figures": []}
    seen = MaskMeasurements()
    try:
        seen = _look_at_all(folder, parts, catalogue, cpus)
        verdicts = review.rank(seen.shapes)
        data = review.to_csv(verdicts, seen.shapes)
        storage.write_atomic(storage.join(out, FILE), data, replace=True)
        listed = sum(one.listed for one in verdicts)
        shown = verdicts[: min(max(listed, MIN_FIGURES), MAX_FIGURES)]
        rows = [_row(seen.shard_uris[one.name], one.name) for one in shown]
        words = [
            {"lines": [f"Score {one.score:.1f}"], "reasons": list(one.reasons)} for one in shown
        ]
        figures = sheets.unscored_figures(catalogue.folder, rows, words)
        part |= {"looked": len(verdicts), "listed": listed, "figures": figures}
    except (OSError, ValueError, pa.ArrowException, ray.exceptions.RayError) as error:
        part["problem"] = str(error).splitlines()[0]
        log.warning("the review list could not be made: %s", part["problem"])
    return part, seen.crcs


def _look_at_all(
    folder: str, parts: Sequence[PlanPart], catalogue: Catalog, cpus: int
) -> MaskMeasurements:
    wanted = set(catalogue.entries)
    rows = []
    for part in parts:
        for shard in range(part.shards):
            keep = [entry in wanted for entry in part.shard(shard)]
            if any(keep):
                uri = storage.join(folder, part.shard_name(shard))
                rows.append({"uri": uri, "keep": keep})
    looked = dataset.from_blocks(rows).map_batches(
        measure_masks,
        batch_size=None,
        compute=ray.data.TaskPoolStrategy(size=max(min(cpus, len(rows)), 1)),
        num_cpus=0,  # bounded by their number: replicas may still have all CPUs
        max_retries=dataset.RETRIES,
    )
    seen = MaskMeasurements()
    with gauges.meter("review", len(catalogue.entries)) as meter:
        for batch in looked.iter_batches(batch_size=None):
            columns = {name: column.tolist() for name, column in batch.items()}
            names = columns["img"]
            seen.crcs |= zip(names, columns["crc32"], strict=True)
            seen.shard_uris |= zip(names, columns["uri"], strict=True)
            facts = zip(*(columns[key] for key in FIELDS), strict=True)
            for name, status, values in zip(names, columns["status"], facts, strict=True):
                if status == quarantine.OK:
                    seen.shapes[name] = MaskShape(*values)
            meter.set(len(seen.crcs))
    return seen


@functools.lru_cache(maxsize=4)
def _shard(uri: str) -> pa.Table:
    return pq.read_table(io.BytesIO(storage.read(uri)))


def _row(uri: str, name: str) -> dict[str, Any]:
    """Return the row of a picture of a shard."""
    table = _shard(uri)
    (row,) = table.filter(pc.equal(table["img"], name)).to_pylist()
    return row
