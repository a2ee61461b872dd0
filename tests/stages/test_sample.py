"""The sample stage: an image that exists has its own mask, and scenes are not mixed."""

from dataclasses import asdict
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
    row = {**asdict(SampleCar(TRAIN, 0, 1)), "views": [1]}
    drawn = draw_views(batch_of(row), out=str(tmp_path))
    assert (tmp_path / "train" / name).exists()
    text = rle.encode(images.load_mask(mask.read_bytes()))
    assert text == drawn["rle_mask"][0]
    assert text != rle.encode(other)


def test_varied_scenes_are_other_images_under_other_names(tmp_path: Path) -> None:
    studio, varied = SampleCar(TRAIN, 0, 1), SampleCar(TRAIN, 0, 1, "varied")
    assert studio.name != varied.name
    drawn = draw_views(batch_of({**asdict(varied), "views": [2]}), out=str(tmp_path))
    assert drawn["img"].tolist() == [varied.image_name(2)]
    _, mask = sample.photograph(sample.draw_car(varied.rng(), scenes="varied"), 2, varied.rng(2))
    assert drawn["rle_mask"][0] == rle.encode(mask)
    assert (tmp_path / "train" / varied.image_name(2)).exists()
