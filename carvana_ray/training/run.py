"""The plan and the summary of a training run: files, cars, batches, run id, result."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import storage
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.data.cars import describe_cars, load_car_names
from carvana_ray.data.catalog import image_and_mask_dirs, list_images_in, list_masks
from carvana_ray.data.checksums import load_checksums
from carvana_ray.data.pairs import pair_with_masks
from carvana_ray.data.split import split_cars
from carvana_ray.data.text import read_lines
from carvana_ray.errors import BadImageError, InputError
from carvana_ray.images.validate import open_image, upright_size
from carvana_ray.storage import FileInfo
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.corrected import Cars, CorrectedPairs, Pairs, find_corrected

Rows = list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """The input of a training run.

    Attributes:
        pairs: (image, mask) files, as listed; training pairs first, then validation pairs. The
            name of a file outside `image_dir` and `mask_dir` is its URI.
        cars: names of the (train, val, holdout) cars.
        size: (H, W) of all images.
        run_id: hash of everything that the model depends on.
        crcs: CRC-32 by file name, for files of known checksum.
        cars_in_words: see `describe_cars`.
        corrected: those of `pairs` whose masks a person has corrected.
    """

    image_dir: str
    mask_dir: str
    pairs: Pairs = field(repr=False)  # Ray's dashboard shows the repr of a run
    cars: Cars
    plan: BatchPlan
    size: tuple[int, int]
    run_id: str
    crcs: dict[str, int] = field(repr=False)
    base_model: ModelManifest | None = None
    cars_in_words: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)  # files that are no images, by kind
    corrected: CorrectedPairs = field(default_factory=CorrectedPairs, repr=False)


def plan_run(
    flags: TrainFlags, workers: int, base_model: ModelManifest | None = None
) -> TrainingRun:
    """List the images, split them by car, and plan the batches.

    The flags are those that `finetune.resolve_flags` returns for `base_model`.

    Raises:
        InputError: there are no images, an image has no mask, no car is left to train on, or the
            batch size does not fit.
    """
    image_dir, mask_dir = image_and_mask_dirs(flags.data)
    pairs, files, skipped = _list_pairs(image_dir, mask_dir, flags.limit)
    names = [image.name for image, _ in pairs]
    car_names = load_car_names(storage.resolve(flags.data), flags.cars_by, names)
    cars = _split_cars(flags, car_names.unique(names))
    own, val = (
        [pair for pair in pairs if car_names.car_of(pair[0].name) in names]
        for names in (set(cars[0]), set(cars[1]))
    )
    base_held_out = base_model.holdout_cars if base_model else []
    corrected = find_corrected(flags, pairs, cars, base_held_out, car_names.car_of)
    train = corrected.merge(own)
    names = sorted({*names, *corrected.pairs})
    return TrainingRun(
        image_dir=image_dir,
        mask_dir=mask_dir,
        pairs=train + val,
        cars=(sorted({*cars[0], *car_names.unique(corrected.pairs)}), cars[1], cars[2]),
        plan=BatchPlan(
            train=len(train),
            val=len(val),
            batch=flags.batch_size,
            workers=workers,
            epochs=flags.epochs,
            seed=flags.seed,
        ),
        size=_first_size(image_dir, own),
        run_id=_hash_run(flags, cars, (own, val), files, base_model, corrected),
        crcs=load_checksums(storage.resolve(flags.data)),
        base_model=base_model,
        cars_in_words=describe_cars(car_names, names),
        skipped=skipped,
        corrected=corrected,
    )


def _list_pairs(
    image_dir: str, mask_dir: str, limit: int
) -> tuple[Pairs, list[FileInfo], Mapping[str, int]]:
    """Return the (image, mask) files, all of both folders, and the number of others by kind."""
    image_files, skipped = list_images_in(image_dir)
    image_files = image_files[: limit or None]
    mask_files = list_masks(mask_dir)
    return pair_files(image_files, mask_files), image_files + mask_files, skipped


def pair_files(image_files: Sequence[FileInfo], mask_files: Sequence[FileInfo]) -> Pairs:
    """Return (image, mask) files, sorted by image; raises as `pair_with_masks`."""
    image_of = {file.name: file for file in image_files}
    mask_of = {file.name: file for file in mask_files}
    return [(image_of[i], mask_of[m]) for i, m in pair_with_masks(image_of, mask_of)]


def _split_cars(flags: TrainFlags, cars: list[str]) -> Cars:
    holdout: str | Sequence[str] = flags.holdout_cars
    if storage.exists(file := storage.resolve(flags.holdout_cars)):
        holdout = read_lines(file, "--holdout-cars")
    return split_cars(cars, holdout, flags.val_cars, flags.seed)


def _hash_run(
    flags: TrainFlags,
    cars: Cars,
    own: tuple[Pairs, Pairs],
    files: list[FileInfo],
    base_model: ModelManifest | None,
    corrected: CorrectedPairs,
) -> str:
    """Return the run id: a hash of all that a model depends on, which excludes the worker count.

    Args:
        flags, cars, files, base_model: of the training.
        own: pairs of --data (train, val) with their own masks.
        corrected: the pairs with corrected masks.
    """
    train, val = own
    used = {file.name for pair in train + val for file in pair}
    fields = {
        "recipe": RECIPES[flags.recipe].hash_fields(),
        "rate": flags.resolved_learning_rate,
        "downscale": flags.downscale,
        "base": flags.base,
        "epochs": flags.epochs,
        "batch": flags.batch_size,
        "seed": flags.seed,
        **({"on_bad_picture": "skip"} if flags.on_bad_picture == "skip" else {}),
        **({"encoder": flags.encoder} if flags.encoder != "none" else {}),
        **({"init": base_model.sha256} if base_model else {}),
        "holdout": cars[2],
        "train": [[image.name, mask.name] for image, mask in train],
        "val": [[image.name, mask.name] for image, mask in val],
        "files": [[file.name, file.size, file.version] for file in files if file.name in used],
        **({"corrections": corrected.hash_fields} if corrected.pairs else {}),
    }
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


def _first_size(image_dir: str, train: Pairs) -> tuple[int, int]:
    """Return the upright (H, W) of the first training image that is good.

    A bad one before it is named with all others after decoding.
    """
    for image, _ in train:
        uri = storage.join(image_dir, image.name)
        try:
            return upright_size(open_image(storage.read(uri)))
        except BadImageError as error:
            bad_image = InputError(f"{uri}: {error}")
    raise bad_image


def drop_bad_pairs(
    flags: TrainFlags, run: TrainingRun, errors: list[str], listed_in: str = ""
) -> tuple[NDArray[np.int64], BatchPlan]:
    """Return the rows of the usable pairs in ``run.pairs``, int64, and the plan for these pairs.

    Args:
        flags, run: of the training.
        errors: the error of each pair, empty for a good pair.
        listed_in: URI of the file that lists all of them, for error messages.

    Raises:
        InputError: bad pairs may not be skipped, there are too many of them, or too few are left.
    """
    bad = [error for error in errors if error]
    named = f"{'; '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}"
    named += f"; the full list is in {listed_in}" if listed_in else ""
    may_skip = flags.on_bad_picture == "skip"
    if len(bad) > (max(100, len(errors) // 100) if may_skip else 0):
        advice = "too many to skip; " if may_skip else "skip them with --on-bad-picture skip, or "
        raise InputError(
            f"--data: {len(bad)} of {len(errors)} training pairs cannot be used: {named}; "
            f"{advice}fix them"
        )
    kept = np.array([row for row, error in enumerate(errors) if not error], dtype=np.int64)
    train = int((kept < run.plan.train).sum())
    try:
        return kept, dataclasses.replace(run.plan, train=train, val=len(kept) - train)
    except InputError as error:
        raise InputError(
            f"{error}; {len(bad)} of {len(errors)} pairs cannot be used: {named}"
        ) from error


def summarize(history: Rows) -> dict[str, Any]:
    """Return the numbers of a job's result. Rates leave out the first step of each epoch."""
    images = [row["images"] for row in history]
    seconds = [row["images"] / row["images_per_second"] for row in history]
    wait_fractions = [row["data_wait_fraction"] for row in history]
    return {
        "epochs": len(history),
        "images": int(sum(images)),
        "images_per_second": round(sum(images) / sum(seconds), 1),
        "data_wait_fraction": round(float(np.average(wait_fractions, weights=seconds)), 4),
        "val_dice": best_epoch(history).get("val_dice"),
    }


def best_epoch(history: Rows) -> dict[str, float]:
    """Return the row of the epoch whose weights become the model.

    This is the last epoch with the best validation Dice; without validation, the last epoch.
    """
    if "val_dice" not in history[-1]:
        return history[-1]
    return max(history, key=lambda row: (row["val_dice"], row["epoch"]))
