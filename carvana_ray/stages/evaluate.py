"""Evaluate a model: Dice at full size on cars that training did not see.

held-out images -> read_images -> MaskPredictor -> score (against the true masks) -> tables, report
"""

import csv
import io
import json
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import images, rle, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints.manifest import resolve_model
from carvana_ray.checkpoints.model import ModelManifest, ModelRef
from carvana_ray.config import EvaluateFlags
from carvana_ray.data.cars import KAGGLE, CarNames
from carvana_ray.data.catalog import image_and_mask_dirs
from carvana_ray.data.listing import log_skipped, scan_folder
from carvana_ray.data.quarantine import OK, UNREACHABLE
from carvana_ray.errors import BadImageError, FileMissingError, IncompleteError, InputError
from carvana_ray.images.turns import turned_size
from carvana_ray.report import builder, figures
from carvana_ray.report.provenance import provenance
from carvana_ray.runtime.preflight import announce, describe_workers
from carvana_ray.runtime.progress import StageTimer
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages import ray_metrics
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.datasets import from_blocks
from carvana_ray.stages.ingest.read_images import block_row, read_images
from carvana_ray.stages.ingest.read_pairs import require_upright
from carvana_ray.stages.predict.mask_predictor import MaskPredictor, log_scaled, read_options
from carvana_ray.stages.predict.replica import (
    Replica,
    cpu_map_resources,
    reader_resources,
    replica_resources,
)
from carvana_ray.stages.predict.soft_masks import predict_soft_masks
from carvana_ray.submission.plan import MIN_SHARD_SIZE
from carvana_ray.training.run import Pairs, Rows, summarize
from carvana_ray.training.unseen import pairs_to_score
from carvana_ray.unet import metrics

log = logging.getLogger(__name__)

Score = dict[str, Any]  # a row of `score`
VALUES = "dice", "ceiling", "more", "less"


@dataclass(frozen=True)
class EvaluationJob:
    """Input of an evaluation.

    Attributes:
        model, folder, masks: URIs of the folders of the model, the images and the true masks.
        manifest, history: of the model.
        pairs: the (image, mask) files to score, as listed.
        note: which cars these are, if they are not those that the training held out.
        cars: how names give cars.
    """

    model: str
    manifest: ModelManifest
    history: Rows
    folder: str
    masks: str
    pairs: Pairs
    note: str = ""
    cars: CarNames = KAGGLE

    @property
    def mask_of(self) -> dict[str, str]:
        """Mask name by image name."""
        return {image.name: mask.name for image, mask in self.pairs}


def check(flags: EvaluateFlags) -> EvaluationJob:
    """Return the job: the model and the images of the cars to score.

    Raises:
        InputError: model or images are missing or invalid, or --out cannot be written.
    """
    model = resolve_model(flags.model_uri)
    _, manifest = checkpoint.load_model(model)
    history = checkpoint.load_history(model, manifest)
    folder, masks = image_and_mask_dirs(flags.data)
    storage.require_writable(storage.resolve(flags.out))
    pairs, note, cars = pairs_to_score(flags.data, manifest, flags.cars_by)
    pairs = pairs[: flags.limit or None]
    return EvaluationJob(model, manifest, history, folder, masks, pairs, note, cars)


def run(
    flags: EvaluateFlags, cluster: ClusterResources, job: EvaluationJob | None = None
) -> dict[str, Any]:
    """Score the model, write tables and report, and return the job's result.

    Args:
        flags: of the job.
        cluster: where to run.
        job: the result of `check`, if the caller has it.
    """
    began, timer = time.monotonic(), StageTimer()
    job = job or check(flags)
    workers = allocate_workers(flags, cluster)
    out = storage.resolve(flags.out)
    summary = f"{count_of(len(job.pairs), 'images')}; {checkpoint.describe_model(job.manifest)}"
    announce("evaluate", summary, out, describe_workers(workers))
    if job.note:
        log.info("%s", job.note)
    _, skipped = scan_folder(job.folder)
    log_skipped(skipped)
    timer.end("start, list the pictures")
    scores, rate = score_dataset(job, workers)
    timer.end("read, predict, compare")
    log_scaled(job.manifest, [row["height"] * row["width"] for row in scores])
    result = {**write_tables(out, job, scores), "skipped": dict(skipped)}
    write_report(flags, job, scores, rate, result, timer)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def score_dataset(job: EvaluationJob, workers: WorkerAllocation) -> tuple[list[Score], float]:
    """Predict the images of a job and compare the masks with the true ones.

    Returns:
        Rows of `score`, lowest Dice first, and the rate in images per second.

    Raises:
        IncompleteError: an image or a mask cannot be reached.
        InputError: an image or a mask is bad.
    """
    entries = [image for image, _ in job.pairs]
    blocks = [
        block_row("", entries[start : start + MIN_SHARD_SIZE])
        for start in range(0, len(entries), MIN_SHARD_SIZE)
    ]
    model = ModelRef(job.model, job.manifest.sha256)
    options = read_options(job.folder, job.manifest, None, workers)
    scored = (
        from_blocks(blocks)
        .map_batches(partial(read_images, options=options), **reader_resources(workers, entries))
        .map_batches(
            Replica,
            fn_constructor_kwargs={"kind": MaskPredictor, "model": model, "workers": workers},
            **replica_resources(workers, options.downscale),
        )
        .map_batches(
            partial(score, masks=job.masks, pairs=job.pairs, downscale=options.downscale),
            batch_size=None,
            **cpu_map_resources(workers),
        )
    )
    scores: list[Score] = []
    with ray_metrics.meter("evaluate", len(entries)) as meter, model.blamed():
        for row in scored.iter_rows():
            scores.append(row)
            meter.set(len(scores))
        _require_all_scored(scores)
    return sorted(scores, key=lambda row: row["dice"]), meter.rate


def _require_all_scored(scores: list[Score]) -> None:
    bad = [row for row in scores if row["status"] != OK]
    if not bad:
        return
    named = "; ".join(f"{row['img']}: {row['status']}" for row in bad[:3])
    if any(row["status"].startswith(UNREACHABLE) for row in bad):
        raise IncompleteError(f"--data: images or masks cannot be reached: {named}; run again")
    total = count_of(len(scores), "images")
    raise InputError(f"--data: {len(bad)} of {total} failed: {named}; repair or replace the files")


def score(batch: Columns, *, masks: str, pairs: Pairs, downscale: int) -> Columns:
    """Compare a batch of predicted masks with the true masks.

    A bad true mask gives its row a bad status.

    Args:
        batch: columns of `MaskPredictor`.
        masks, pairs: see `EvaluationJob`.
        downscale: of the model.

    Returns:
        columns [n]: img, height, width, orientation, crc32, rle_mask (of the stored pixels),
        status, and float64 `VALUES`: dice; ceiling, the Dice that a network without errors would
        reach on the model's grid; more and less, the false car and the false background pixels as
        fractions of the car's pixels.
    """
    values = np.zeros((len(batch["img"]), len(VALUES)))
    texts = np.array([rle.text_from_bounds(b) for b in batch["run_bounds"]], dtype=object)
    status = batch["status"].astype(object)
    mask_of = {image.name: mask for image, mask in pairs}
    for row, name in enumerate(batch["img"]):
        if status[row] != OK:  # the mask is a placeholder of any size
            continue
        stored, mask = (int(batch["height"][row]), int(batch["width"][row])), mask_of[name]
        turn = int(batch["orientation"][row])
        try:
            truth = images.load_mask(storage.read(storage.join(masks, mask.name), expected=mask))
            require_upright(truth.shape, turned_size(*stored, turn), stored, turn)
            predicted = images.to_upright(rle.decode(texts[row], *stored), turn)
            values[row] = _compare(predicted, truth, downscale)
        except (BadImageError, FileMissingError) as error:
            status[row] = f"{mask.name}: {error}"
        except OSError as error:
            status[row] = f"{UNREACHABLE}: {error}"
            break
    kept = {name: batch[name] for name in ("img", "height", "width", "orientation", "crc32")}
    scores = dict(zip(VALUES, values.T, strict=True))
    return {**kept, "rle_mask": texts, "status": status, **scores}


def _compare(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], downscale: int
) -> tuple[float, float, float, float]:
    """Return the `VALUES` of a predicted and a true mask, both bool [H, W]."""
    perfect = images.enlarge(images.shrink_mask(truth, downscale), *truth.shape)
    car = int(np.count_nonzero(truth)) or 1
    more, less = int(np.count_nonzero(mask & ~truth)), int(np.count_nonzero(truth & ~mask))
    return metrics.dice(mask, truth), metrics.dice(perfect, truth), more / car, less / car


def write_tables(out: str, job: EvaluationJob, scores: list[Score]) -> dict[str, Any]:
    """Write evaluation.json, evaluation.csv and sheets/worst.jpg; return the job's result."""
    result = {
        "images": len(scores),
        "dice": _mean([row["dice"] for row in scores]),
        "dice_min": round(scores[0]["dice"], 6),
        "report": storage.join(out, builder.PAGE),
    }
    means = {group: mean_dice_by(group, scores, job.cars) for group in ("view", "car")}
    worst = scores[: figures.WORST_ON_SHEET]
    files = {
        "evaluation.json": json.dumps({**result, "model": job.model, **means}, indent=1).encode(),
        "evaluation.csv": _to_csv(scores, job.cars),
        "sheets/worst.jpg": figures.worst_sheet(job.folder, job.masks, job.mask_of, worst),
    }
    for name, data in files.items():
        storage.write_atomic(storage.join(out, name), data, replace=True)
    return result


def mean_dice_by(group: str, scores: list[Score], cars: CarNames = KAGGLE) -> dict[str, float]:
    """Return the mean Dice of each ``car`` or each ``view``, in order."""
    groups: dict[Any, list[float]] = {}
    for row in scores:
        car, view = cars.parse(row["img"])
        groups.setdefault(car if group == "car" else view, []).append(row["dice"])
    return {str(name): _mean(groups[name]) for name in sorted(groups)}


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 6)


def _to_csv(scores: list[Score], cars: CarNames) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["img", "car", "view", "dice"])
    for row in sorted(scores, key=lambda row: row["img"]):
        table.writerow([row["img"], *cars.parse(row["img"]), f"{row['dice']:.6f}"])
    return text.getvalue().encode()


def write_report(
    flags: EvaluateFlags,
    job: EvaluationJob,
    scores: list[Score],
    rate: float,
    result: dict[str, Any],
    timer: StageTimer,
) -> None:
    """Write report/evaluate.json and the page. Arguments as `score_dataset` and `run` give them."""
    middle = max((len(scores) - figures.MEDIAN_FIGURES) // 2, 0)
    shown = {
        "worst": scores[: figures.WORST_FIGURES],
        "median": scores[middle : middle + figures.MEDIAN_FIGURES],
    }
    drawn = {
        name: figures.scored_figures(job.folder, job.masks, job.mask_of, rows)
        for name, rows in shown.items()
    }
    drawn["shown"] = _show_cutouts(job, scores)
    timer.end("write the results")
    crcs = {row["img"]: row["crc32"] for row in scores}
    training = summarize(job.history)
    section = {
        **provenance(flags, job.manifest, job.folder, crcs),
        **drawn,
        "result": result,
        "scores": [
            [row["img"], *job.cars.parse(row["img"]), *(round(row[key], 6) for key in VALUES)]
            for row in scores
        ],
        "history": job.history,
        "seconds": timer.seconds,
        "speed": {
            "Evaluation: pictures a second": round(rate, 1),
            "Training: seconds": round(sum(row.get("seconds", 0.0) for row in job.history), 1),
            "Training: pictures a second": training["images_per_second"],
            "Training: share of time that waited for pictures": training["data_wait_fraction"],
        },
    }
    builder.add_section(storage.resolve(flags.out), "evaluate", section)


def _show_cutouts(job: EvaluationJob, scores: list[Score]) -> list[figures.Figure]:
    """Return the figures of some images as `cutout` would write them."""
    cars: dict[str, list[Score]] = {}
    for row in sorted(scores, key=lambda row: row["img"]):
        cars.setdefault(job.cars.car_of(row["img"]), []).append(row)
    rows = figures.pick_rows(cars)
    names = {row["img"] for row in rows}
    entries = [image for image, _ in job.pairs if image.name in names]
    model = ModelRef(job.model, job.manifest.sha256)
    soft_masks = predict_soft_masks(job.folder, entries, model, job.manifest)
    return figures.cutout_figures(job.folder, rows, soft_masks)
