"""The first map of training: each pair as the image functions load it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
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


@pytest.mark.parametrize("changed", ["train", "train_masks"])
def test_a_pair_that_changed_since_it_was_listed_is_not_read(
    data: Path, tmp_path: Path, changed: str
) -> None:
    names = first_pairs(data, 2)
    for image, mask in names:
        for folder, name in [("train", image), ("train_masks", mask)]:
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy2(data / folder / name, tmp_path / folder)
    files = listed(names, tmp_path / "train", tmp_path / "train_masks")
    name = names[0][changed == "train_masks"]
    shutil.copy(data / changed / name, tmp_path / changed)  # the same bytes with another time
    options = PairOptions(
        image_dir=str(tmp_path / "train"),
        mask_dir=str(tmp_path / "train_masks"),
        downscale=8,
        size=SIZE,
    )
    loaded = read_pairs(batch_of(pairs_row(files, {})), options)
    assert loaded["error"][0] == f"{name}: unreachable: it changed since it was listed"
