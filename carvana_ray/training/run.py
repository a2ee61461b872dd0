"""What a training run is made of, and what came of it: files, cars, batches, a name, a summary."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import storage
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.config.flags import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.data import layout as carvana
from carvana_ray.data import split as splits
from carvana_ray.data.checksums import load_checksums
from carvana_ray.errors import BadImageError, InputError
from carvana_ray.images import validate as formats
from carvana_ray.storage import FileInfo
from carvana_ray.training.batch_plan import BatchPlan

Rows = list[dict[str, float]]
Pairs = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a training run is made of.

    Attributes:
        pictures, masks: folders.
        pairs: (picture, mask) names: those trained on first, then those for validation.
        cars: (train, val, holdout).
        plan: which pairs make up which batch.
        size: (H, W) of all pictures.
        run: its name, a hash of all that the model depends on.
        crcs: the CRC-32 that files must have, where it is known.
        init: of the model that training starts from, if any.
    """

    pictures: str
    masks: str
    pairs: Pairs
    cars: tuple[list[str], list[str], list[str]]
    plan: BatchPlan
    size: tuple[int, int]
    run: str
    crcs: dict[str, int]
    init: ModelManifest | None = None


def plan_run(flags: TrainFlags, workers: int, init: ModelManifest | None = None) -> TrainingRun:
    """List and split the pictures.

    Args:
        flags: of the job, as `finetune.resolved` has them.
        workers: that share a batch.
        init: of the model that training starts from, if any.

    Raises:
        InputError: no pictures, a picture without mask, no cars left, a batch that does not fit.
    """
    if not flags.data:
        raise InputError("--data is missing: a folder with train/ and train_masks/")
    data = storage.resolve(flags.data)
    pictures, masks = image_and_mask_dirs(data)
    entries = storage.list_files(pictures, carvana.IMAGE_SUFFIXES)[: flags.limit or None]
    if not entries:
        raise InputError(f"--data: no pictures ({', '.join(carvana.IMAGE_SUFFIXES)}) in {pictures}")
    carvana.require_safe_names((entry.name for entry in entries), pictures)
    mask_entries = storage.list_files(masks, carvana.MASK_SUFFIXES)
    pairs = carvana.pair_with_masks([e.name for e in entries], [e.name for e in mask_entries])
    holdout: str | list[str] = flags.holdout_cars
    listed = storage.resolve(flags.holdout_cars)
    if storage.exists(listed):
        holdout = storage.read(listed).decode().splitlines()
    cars = splits.split_cars(
        carvana.unique_cars(name for name, _ in pairs), holdout, flags.val_cars, flags.seed
    )
    train = [pair for pair in pairs if carvana.car_of(pair[0]) in set(cars[0])]
    val = [pair for pair in pairs if carvana.car_of(pair[0]) in set(cars[1])]
    batches = BatchPlan(
        train=len(train),
        val=len(val),
        batch=flags.batch_size,
        workers=workers,
        epochs=flags.epochs,
        seed=flags.seed,
    )
    return TrainingRun(
        pictures=pictures,
        masks=masks,
        pairs=train + val,
        cars=cars,
        plan=batches,
        size=_size(flags, pictures, train),
        run=_name(flags, cars, train, val, entries + mask_entries, init),
        crcs=load_checksums(data),
        init=init,
    )


def _name(
    flags: TrainFlags,
    cars: tuple[list[str], ...],
    train: Pairs,
    val: Pairs,
    entries: list[FileInfo],
    init: ModelManifest | None,
) -> str:
    """Return a hash of all that a model folder depends on; the number of workers is none of it."""
    used = {name for pair in train + val for name in pair}
    depends = {
        "recipe": RECIPES[flags.recipe].hash_fields(),
        "rate": flags.resolved_learning_rate,
        "downscale": flags.downscale,
        "base": flags.base,
        "epochs": flags.epochs,
        "batch": flags.batch_size,
        "seed": flags.seed,
        **({"on_bad_picture": "skip"} if flags.on_bad_picture == "skip" else {}),
        **({"init": init.sha256} if init else {}),
        "holdout": cars[2],
        "train": train,
        "val": val,
        "files": [[e.name, e.size, e.version] for e in entries if e.name in used],
    }
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]


def _size(flags: TrainFlags, folder: str, train: Pairs) -> tuple[int, int]:
    """Return (H, W) of the first picture; where bad ones are skipped, of the first good one.

    Raises:
        InputError: it is none.
    """
    for name, _ in train:
        try:
            return formats.image_size(storage.read(storage.join(folder, name)))
        except BadImageError as error:
            if flags.on_bad_picture == "fail" or name == train[-1][0]:
                raise InputError(f"{storage.join(folder, name)}: {error}") from error
    raise AssertionError("a course has pictures to train on")


def drop_bad_pairs(
    flags: TrainFlags, course: TrainingRun, errors: list[str]
) -> tuple[NDArray[np.int64], BatchPlan]:
    """Return the places of the pairs that can be used, int64, and the plan of batches of these.

    Args:
        flags: whether bad ones may be left out.
        course: the pairs.
        errors: what is wrong with each pair, empty where all is well.

    Raises:
        InputError: bad ones that may not be left out, or too many of them.
    """
    bad = [error for error in errors if error]
    kept = np.array([place for place, error in enumerate(errors) if not error], dtype=np.int64)
    if bad and (flags.on_bad_picture == "fail" or len(bad) > max(100, len(errors) // 100)):
        advice = "mend them, or leave them out with --on-bad-picture skip"
        if flags.on_bad_picture == "skip":
            advice = "too many to leave out; mend them"
        raise InputError(
            f"--data: {len(bad)} of {len(errors)} training pairs cannot be used: "
            + "; ".join(bad[:3])
            + (f" ...; {advice}" if len(bad) > 3 else f"; {advice}")
        )
    train = int((kept < course.plan.train).sum())
    return kept, dataclasses.replace(course.plan, train=train, val=len(kept) - train)


def with_workers(plan: BatchPlan, workers: int) -> BatchPlan:
    """Return the same batches for another number of workers."""
    return dataclasses.replace(plan, workers=workers)


def image_and_mask_dirs(data: str) -> tuple[str, str]:
    """Return the folders of training pictures and masks of a data set."""
    return storage.join(data, carvana.TRAIN), storage.join(data, carvana.MASKS)


def summarize(history: Rows) -> dict[str, Any]:
    """Return the numbers of a job's result: rates over all steps but each epoch's first."""
    seconds = sum(row["images"] / row["images_per_second"] for row in history)
    images = sum(row["images"] for row in history)
    waited = sum(
        row["data_wait_fraction"] * row["images"] / row["images_per_second"] for row in history
    )
    best = best_epoch(history)
    return {
        "epochs": len(history),
        "images": int(images),
        "images_per_second": round(images / seconds, 1),
        "data_wait_fraction": round(waited / seconds, 4),
        "val_dice": best.get("val_dice"),
    }


def best_epoch(history: Rows) -> dict[str, float]:
    """Return the row of the epoch whose weights are kept: best validation Dice, else the last."""
    if "val_dice" not in history[-1]:
        return history[-1]
    # Of equals the last: Ray, which keeps the checkpoint, does the same.
    return max(history, key=lambda row: (row["val_dice"], row["epoch"]))
