"""The sample stage: an image that exists has its own mask."""

from pathlib import Path

import numpy as np
from support.blocks import batch_of

from carvana_ray import images, rle, sample
from carvana_ray.data.layout import TRAIN
from carvana_ray.stages.sample import SampleCar, draw_views


def test_a_mask_without_its_image_is_drawn_again(tmp_path: Path) -> None:
    name = SampleCar(TRAIN, 0, 1).image_name(1)
    mask = tmp_path / "train_masks" / name.replace(".jpg", "_mask.gif")
    mask.parent.mkdir()
    other = np.zeros((1280, 1918), bool)
    mask.write_bytes(sample.encode_mask(other))
    row = {"folder": TRAIN, "number": 0, "seed": 1, "views": [1]}
    drawn = draw_views(batch_of(row), out=str(tmp_path))
    assert (tmp_path / "train" / name).exists()
    text = rle.encode(images.load_mask(mask.read_bytes()))
    assert text == drawn["rle_mask"][0]
    assert text != rle.encode(other)
