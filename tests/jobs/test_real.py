"""Masks and gray images of real data, against Kaggle's own rows; skipped without CARVANA_DATA.

CARVANA_DATA=/data/carvana python -m pytest tests/jobs/test_real.py
"""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carvana_ray import images, rle
from carvana_ray.unet import metrics

pytestmark = pytest.mark.slow


def test_every_mask_equals_its_row_of_train_masks_and_survives_downscaling(real_data: Path) -> None:
    csv.field_size_limit(10**9)
    with (real_data / "train_masks.csv").open(newline="") as file:
        rows = dict(list(csv.reader(file))[1:])
    masks = sorted((real_data / "train_masks").glob("*_mask.gif"))
    assert masks
    scores = []
    for path in masks:
        mask = images.load_mask(path.read_bytes())
        row = rows[path.name.replace("_mask.gif", ".jpg")]
        assert rle.encode(mask) == row, path.name
        assert np.array_equal(rle.decode(row, *mask.shape), mask), path.name
        scores.append(metrics.dice(images.enlarge(images.shrink_mask(mask), *mask.shape), mask))
    assert np.mean(scores) >= 0.9990
    assert np.min(scores) >= 0.998


def test_gray_is_the_exact_block_mean_for_both_chroma_subsamplings(real_data: Path) -> None:
    kinds: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for path in sorted((real_data / "train").glob("*_0[16].jpg")):
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data))
        chroma = image.layer[0][1:3]  # type: ignore[attr-defined]
        exact = np.asarray(image.convert("RGB"), dtype=np.float64).mean(-1)
        exact = np.pad(exact, ((0, 0), (0, 2)), mode="edge")
        exact = exact.reshape(320, 4, 480, 4).mean((1, 3))
        error = np.abs(images.load_gray(data) - exact)
        kinds.setdefault(chroma, []).append((error.mean(), error[:, -1].mean()))
    assert kinds.keys() == {(1, 1), (2, 2)}, "the images should have both 4:4:4 and 4:2:0"
    for chroma, errors in kinds.items():
        mean, last_column = np.max(errors, axis=0)
        assert mean < 1, chroma
        assert last_column < 1, chroma
