"""The results of a prediction as `review` finds them, written without a network."""

import csv
import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from carvana_ray import config, rle
from carvana_ray.config import cli
from carvana_ray.review.ranking import ReviewItem, to_csv
from carvana_ray.review.shape import measure

Mask = NDArray[np.bool_]
SIZE = 40, 61  # of the images: height, width


def photo(seed: int, size: tuple[int, int] = SIZE, **save_options: Any) -> bytes:
    """Return a JPEG of a color of its own, with a dark corner at the top left."""
    height, width = size
    image = Image.new("RGB", (width, height), (seed * 40 % 256, 200, 90))
    ImageDraw.Draw(image).rectangle((0, 0, width // 3, height // 3), fill="black")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **save_options)
    return file.getvalue()


def blob(seed: int, size: tuple[int, int] = SIZE) -> Mask:
    """Return a mask of its own: two boxes, at other places for each seed."""
    mask = np.zeros(size, dtype=bool)
    mask[8 : 20 + seed, 5 + seed : 40] = True
    mask[30:33, 50 : 52 + seed] = True
    return mask


def png(pixels: NDArray[Any]) -> bytes:
    """Return pixels as a PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def predict_masks(
    out: Path, data: Path, masks: Mapping[str, Mask], listed: Collection[str] = (), **flags: Any
) -> None:
    """Write review.csv, the submission and the part of the report of a prediction.

    Args:
        out: folder of all results.
        data: folder of the images.
        masks: by image, in the order of review.csv.
        listed: the images to look at; without any, all.
        flags: of predict.
    """
    (out / "report").mkdir(parents=True, exist_ok=True)
    texts = {name: rle.encode(mask) for name, mask in masks.items()}
    shapes = {name: measure(texts[name], *mask.shape) for name, mask in masks.items()}
    scores = {name: 9.0 if name in (listed or masks) else 1.0 for name in masks}
    items = [ReviewItem(name, score, (f"reason of {name}",)) for name, score in scores.items()]
    (out / "review.csv").write_bytes(to_csv(items, shapes))
    made = config.PredictFlags(**{"data": str(data), "out": str(out), **flags})
    submission = out / made.submission
    with submission.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [("img", "rle_mask"), *sorted(texts.items())]
        )
    part = {
        "lineage": {
            "configuration of this job": cli.to_json(made),
            "data": {"folder": str(data)},
        },
        "result": {"submission": str(submission)},
    }
    (out / "report" / "predict.json").write_text(json.dumps(part))


def write_prediction(root: Path, names: Collection[str], **flags: Any) -> dict[str, Mask]:
    """Write images to ROOT/photos and a prediction to ROOT/out; return the masks."""
    (root / "photos").mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (root / "photos" / name).write_bytes(photo(seed))
    masks = {name: blob(seed) for seed, name in enumerate(names)}
    predict_masks(root / "out", root / "photos", masks, **flags)
    return masks
