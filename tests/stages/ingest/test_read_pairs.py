"""The first map of training: each pair as the image functions load it."""

from pathlib import Path

import numpy as np
from support.blocks import batch_of
from support.runs import SIZE, first_pairs, listed

from carvana_ray import images
from carvana_ray.stages.ingest.read_pairs import PairOptions, pairs_row, read_pairs


def test_a_pair_is_loaded_as_the_image_functions_load_it(data: Path) -> None:
    pairs = first_pairs(data, 3)
    options = PairOptions(
        image_dir=f"{data}/train", mask_dir=f"{data}/train_masks", downscale=8, size=SIZE
    )
    files = listed(pairs, data / "train", data / "train_masks")
    loaded = read_pairs(batch_of(pairs_row(files, {})), options)
    assert list(loaded["error"]) == [""] * 3
    for index, (image, mask) in enumerate(pairs):
        gray = images.load_gray((data / "train" / image).read_bytes(), 8)
        truth = images.load_mask((data / "train_masks" / mask).read_bytes())
        assert np.array_equal(loaded["image"][index], gray)
        assert np.array_equal(loaded["soft_mask"][index], images.shrink_mask(truth, 8))
