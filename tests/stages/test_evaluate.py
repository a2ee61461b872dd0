"""Scores are Kaggle's Dice at full size; bad images and masks keep their status."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.runs import first_pairs, listed

from carvana_ray import images, rle
from carvana_ray.config.cars_flag import car_pattern
from carvana_ray.data.cars import CarNames
from carvana_ray.stages import evaluate
from carvana_ray.training.run import Pairs
from carvana_ray.unet import metrics

SIZE = (1280, 1918)


def pairs_of(data: Path, count: int) -> Pairs:
    return listed(first_pairs(data, count), data / "train", data / "train_masks")


def batch_of(
    names: list[str], masks: list[np.ndarray], turns: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Return the columns that prediction gives for these masks."""
    bounds = [np.int32(rle.mask_to_runs(mask)).T.tobytes() for mask in masks]
    return {
        "img": np.array(names),
        "height": np.array([mask.shape[0] for mask in masks]),
        "width": np.array([mask.shape[1] for mask in masks]),
        "run_bounds": np.array(bounds, dtype=object),
        "status": np.array(["ok"] * len(masks)),
        "crc32": np.arange(len(masks)),
        "orientation": np.array(turns or [1] * len(masks)),
    }


def test_scores_are_kaggles_dice(data: Path) -> None:
    pairs = pairs_of(data, 2)
    truth = images.load_mask((data / "train_masks" / pairs[0][1].name).read_bytes())
    shifted = np.roll(truth, 40, axis=1)
    batch = batch_of([image.name for image, _ in pairs], [shifted, np.zeros(SIZE, np.bool_)])
    keywords: Any = {"masks": f"{data}/train_masks", "pairs": pairs, "downscale": 4}
    scored = evaluate.score(batch, **keywords)
    expected = 2 * (shifted & truth).sum() / (2 * truth.sum())
    assert scored["dice"][0] == pytest.approx(expected)
    assert scored["rle_mask"].tolist() == [rle.encode(shifted), ""]
    assert scored["dice"][1] == 0
    perfect = images.enlarge(images.shrink_mask(truth, 4), *SIZE)
    assert scored["ceiling"][0] == pytest.approx(metrics.dice(perfect, truth))
    car = truth.sum()
    assert scored["more"][0] == pytest.approx((shifted & ~truth).sum() / car)
    assert scored["less"].tolist() == [pytest.approx((truth & ~shifted).sum() / car), 1]
    batch |= {"height": np.array([7, 7]), "status": np.array(["unreachable: x", "truncated: y"])}
    scored = evaluate.score(batch, **keywords)
    assert scored["status"].tolist() == ["unreachable: x", "truncated: y"], "size is not compared"


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_mask_of_a_turned_image_is_compared_upright(tmp_path: Path, turn: int) -> None:
    truth = np.zeros((40, 60), np.bool_)
    truth[5:20, 30:] = True
    Image.fromarray(truth).save(tmp_path / "a_mask.png")
    pairs = listed([("a_mask.png", "a_mask.png")], tmp_path, tmp_path)
    keywords: Any = {"masks": str(tmp_path), "pairs": pairs, "downscale": 4}
    stored = images.to_stored(truth, turn)
    scored = evaluate.score(batch_of(["a_mask.png"], [stored], (turn,)), **keywords)
    assert scored["status"].tolist() == ["ok"]
    assert scored["dice"].tolist() == [1]
    if turn >= 5:
        scored = evaluate.score(batch_of(["a_mask.png"], [truth], (turn,)), **keywords)
        assert scored["status"][0].startswith("a_mask.png: orientation: ")


def test_a_bad_true_mask_is_a_bad_status(data: Path, tmp_path: Path) -> None:
    pairs = pairs_of(data, 2)
    (_, mask), (_, other) = pairs
    shutil.copy2(data / "train_masks" / other.name, tmp_path)
    blank = np.zeros((10, 20), np.bool_)
    batch = batch_of([image.name for image, _ in pairs], [blank, blank])
    scored = evaluate.score(batch, masks=str(tmp_path), pairs=pairs, downscale=4)
    assert scored["status"][0].startswith(f"{mask.name}: ")
    assert scored["status"][1].startswith(f"{other.name}: wrong-size: ")


def test_a_true_mask_that_changed_since_it_was_listed_is_not_compared(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    names = first_pairs(data, 1)
    image, mask = names[0]
    shutil.copy2(data / "train_masks" / mask, tmp_path / "m")
    pairs = listed(names, data / "train", tmp_path / "m")
    (tmp_path / "m" / mask).write_bytes((data / "train_masks" / mask).read_bytes())
    truth = images.load_mask((tmp_path / "m" / mask).read_bytes())
    scored = evaluate.score(
        batch_of([image], [truth]), masks=str(tmp_path / "m"), pairs=pairs, downscale=4
    )
    assert scored["status"][0].startswith("unreachable: ")
    assert "changed since it was listed" in scored["status"][0]


def test_means_are_those_of_each_car_and_view_in_order() -> None:
    scores = [
        {"img": "b_02.jpg", "dice": 0.5},
        {"img": "a_10.jpg", "dice": 1.0},
        {"img": "a_02.jpg", "dice": 0.9},
    ]
    cars = CarNames(car_pattern("CAR_VIEW"))
    assert list(evaluate.mean_dice_by("car", scores, cars).items()) == [("a", 0.95), ("b", 0.5)]
    assert list(evaluate.mean_dice_by("view", scores, cars).items()) == [("2", 0.7), ("10", 1.0)]
    assert list(evaluate.mean_dice_by("car", scores)) == ["a_02", "a_10", "b_02"]
