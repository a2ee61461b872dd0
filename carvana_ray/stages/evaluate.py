"""Evaluation: Dice at full size, on cars that the model was not trained on.

held-out pictures -> load_pictures -> Masks -> score (against the mask) -> by picture, view, car
"""

import csv
import functools
import io
import json
import time
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from carvana_ray import config, images, rle, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.data import layout as carvana
from carvana_ray.data import quarantine
from carvana_ray.data.quarantine import UNREACHABLE
from carvana_ray.errors import BadImageError, FileMissingError, IncompleteError, InputError
from carvana_ray.report import builder as parts
from carvana_ray.report import figures as sheets
from carvana_ray.report import provenance as lineage
from carvana_ray.runtime import preflight as outlook
from carvana_ray.runtime.progress import StageTimer
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation, allocate_workers
from carvana_ray.stages import ray_metrics as gauges
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.predict.mask_predictor import beside, predict_dataset, read_options
from carvana_ray.submission import plan
from carvana_ray.training import run as course
from carvana_ray.unet import metrics

Score = dict[str, Any]
SHOWN = "dice", "ceiling", "more", "less"
Checked = tuple[ModelManifest, list[tuple[str, str]]]


def check(flags: config.EvaluateFlags) -> Checked:
    """Return the model's manifest and the (picture, mask) names of its held-out cars.

    Raises:
        InputError: model or pictures cannot be, or --out cannot be written.
    """
    if not flags.data:
        raise InputError("--data is missing: a folder with train/ and train_masks/")
    _, manifest = checkpoint.load_model(storage.resolve(flags.model_uri))
    folders = course.image_and_mask_dirs(storage.resolve(flags.data))
    storage.require_writable(storage.resolve(flags.out))
    return manifest, held_out(*folders, manifest.holdout_cars)[: flags.limit or None]


def run(
    flags: config.EvaluateFlags, cluster: ClusterResources, checked: Checked | None = None
) -> dict[str, Any]:
    """Score the model and write what was found; return the job's result.

    Args:
        flags, cluster: what to do, and where.
        checked: what `check` has returned, if it was asked already.
    """
    began, laps = time.monotonic(), StageTimer()
    model, out = storage.resolve(flags.model_uri), storage.resolve(flags.out)
    manifest, pairs = checked or check(flags)
    folder, masks = course.image_and_mask_dirs(storage.resolve(flags.data))
    rows = [
        reading.block_row("", [name for name, _ in pairs[start : start + plan.MIN_SHARD_SIZE]])
        for start in range(0, len(pairs), plan.MIN_SHARD_SIZE)
    ]
    workers = allocate_workers(flags, cluster)
    options = read_options(folder, manifest, None, workers)
    what = f"{outlook.count_of(len(pairs), 'pictures')}; {checkpoint.of_model(manifest)}"
    outlook.announce("evaluate", what, out, outlook.describe_workers(workers))
    chain = predict_dataset(rows, options, model, workers)
    laps.end("start, list the pictures")
    scores, rate = _score(chain, masks, dict(pairs), manifest.downscale, workers)
    laps.end("read, predict, compare")
    scores.sort(key=lambda score: score["dice"])
    worst = sheets.worst_sheet(folder, masks, dict(pairs), scores[: sheets.WORST_ON_SHEET])
    values = [score["dice"] for score in scores]
    result = {
        "images": len(scores),
        "dice": round(float(np.mean(values)), 6),
        "dice_min": round(values[0], 6),
        "report": storage.join(out, parts.PAGE),
    }
    tables = {"view": by(scores, 1), "car": by(scores, 0)}
    files = {
        "evaluation.json": json.dumps({**result, "model": model, **tables}, indent=1).encode(),
        "evaluation.csv": _csv(scores),
        "sheets/worst.jpg": worst,
    }
    for name, data in files.items():
        storage.write_atomic(storage.join(out, name), data, replace=True)
    shown = {
        "worst": scores[: sheets.WORST_FIGURES],
        "median": _middle(scores, sheets.MEDIAN_FIGURES),
    }
    figures = {
        name: sheets.scored_figures(folder, masks, dict(pairs), found)
        for name, found in shown.items()
    }
    laps.end("write the results")
    history = checkpoint.load_history(model)
    learned = course.summarize(history)
    found = {
        **figures,
        "result": result,
        "scores": [
            [one["img"], *carvana.parse_name(one["img"]), *(round(one[key], 6) for key in SHOWN)]
            for one in scores
        ],
        "history": history,
        "seconds": laps.seconds,
        "speed": {
            "Evaluation: pictures a second": round(rate, 1),
            "Training: seconds": round(sum(row.get("seconds", 0.0) for row in history), 1),
            "Training: pictures a second": learned["images_per_second"],
            "Training: share of time that waited for pictures": learned["data_wait_fraction"],
        },
    }
    pictures = {one["img"]: one["crc32"] for one in scores}
    parts.add_section(
        out, "evaluate", {**lineage.provenance(flags, manifest, folder, pictures), **found}
    )
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _middle(scores: list[Score], count: int) -> list[Score]:
    """Return the rows in the middle of a sorted list."""
    start = max((len(scores) - count) // 2, 0)
    return scores[start : start + count]


def held_out(folder: str, masks: str, cars: list[str]) -> list[tuple[str, str]]:
    """Return the (picture, mask) names of held-out cars.

    Raises:
        InputError: the model held none out, or they are not there.
    """
    if not cars:
        raise InputError("--model: it held out no cars; train with --holdout-cars to score it")
    entries = storage.list_files(folder, carvana.IMAGE_SUFFIXES)
    names = [entry.name for entry in entries if carvana.car_of(entry.name) in set(cars)]
    if missing := sorted(set(cars) - set(carvana.unique_cars(names))):
        raise InputError(
            f"--data: {folder} has no pictures of {len(missing)} of the {len(cars)} cars that the "
            f"model held out, the first is {missing[0]}"
        )
    return carvana.pair_with_masks(
        names, [e.name for e in storage.list_files(masks, carvana.MASK_SUFFIXES)]
    )


def _score(
    chain: ray.data.Dataset,
    masks: str,
    mask_of: dict[str, str],
    downscale: int,
    workers: WorkerAllocation,
) -> tuple[list[Score], float]:
    """Run the chain; return what `score` says of each picture, and pictures a second."""
    scored = chain.map_batches(
        functools.partial(score, masks=masks, mask_of=mask_of, downscale=downscale),
        batch_size=None,
        **beside(workers),
    )
    scores: list[Score] = []
    with gauges.meter("evaluate", len(mask_of)) as meter:
        for row in scored.iter_rows():
            scores.append(row)
            meter.set(len(scores))
    if bad := [one for one in scores if one["status"] != quarantine.OK]:
        named = "; ".join(f"{one['img']}: {one['status']}" for one in bad[:3])
        if any(one["status"].startswith(UNREACHABLE) for one in bad):
            raise IncompleteError(f"--data: pictures or masks cannot be reached: {named}")
        raise InputError(f"--data: {len(bad)} of {len(scores)} pictures cannot be scored: {named}")
    return scores, meter.rate


def score(batch: Columns, *, masks: str, mask_of: dict[str, str], downscale: int) -> Columns:
    """Compare a batch of masks with the true ones; a bad true mask is a bad status.

    Returns:
        columns [n]: img, height, width, crc32, rle_mask, status, and of `SHOWN`, float64: dice;
        ceiling, the Dice that a network without any error would have on the grid of `downscale`;
        more and less, pixels of mask without car and of car without mask, as shares of the car.
    """
    found = np.zeros((len(batch["img"]), len(SHOWN)))
    texts = np.array([rle.text_from_bounds(ends) for ends in batch["run_bounds"]], dtype=object)
    status = batch["status"].astype(object)
    for place, name in enumerate(batch["img"]):
        if status[place] != quarantine.OK:  # a blank one of any size stands for it
            continue
        size = int(batch["height"][place]), int(batch["width"][place])
        try:
            truth = images.load_mask(storage.read(storage.join(masks, mask_of[name])))
            if truth.shape != size:
                raise BadImageError(f"wrong-size: the mask is {truth.shape}, the picture {size}")
            found[place] = _compared(rle.decode(texts[place], *size), truth, downscale)
        except (BadImageError, FileMissingError) as bad:
            status[place] = f"{mask_of[name]}: {bad}"
        except OSError as gone:
            status[place] = f"{UNREACHABLE}: {gone}"
            break
    keep = {name: batch[name] for name in ("img", "height", "width", "crc32")}
    scores = dict(zip(SHOWN, found.T, strict=True))
    return {**keep, "rle_mask": texts, "status": status, **scores}


def _compared(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], downscale: int
) -> tuple[float, float, float, float]:
    """Return the values of `SHOWN`."""
    perfect = images.enlarge(images.shrink_mask(truth, downscale), *truth.shape)
    car = int(np.count_nonzero(truth)) or 1
    more, less = int(np.count_nonzero(mask & ~truth)), int(np.count_nonzero(truth & ~mask))
    return metrics.dice(mask, truth), metrics.dice(perfect, truth), more / car, less / car


def by(scores: list[Score], part: int) -> dict[str, float]:
    """Return the mean Dice by car (part 0) or by view (part 1), in order."""
    groups: dict[Any, list[float]] = {}
    for one in scores:
        groups.setdefault(carvana.parse_name(one["img"])[part], []).append(one["dice"])
    return {str(name): round(float(np.mean(groups[name])), 6) for name in sorted(groups)}


def _csv(scores: list[Score]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["img", "car", "view", "dice"])
    for one in sorted(scores, key=lambda one: one["img"]):
        table.writerow([one["img"], *carvana.parse_name(one["img"]), f"{one['dice']:.6f}"])
    return text.getvalue().encode()
