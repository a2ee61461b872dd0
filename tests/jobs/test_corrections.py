"""The loop of corrections: the command lines of its page, run in order on drawn cars.

Ten images of two test cars have a board at the left that the model takes for a car. A person, here
the truth, corrects these ten masks. The next model knows better.
"""

import csv
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.commands import REPOSITORY, result_of
from support.documents import commands

from carvana_ray import images, rle
from carvana_ray.checkpoints.model import load_manifest, load_model
from carvana_ray.data.quarantine import CORRECTED
from carvana_ray.inference.predictor import Predictor
from carvana_ray.unet.metrics import dice

PAGE = REPOSITORY / "docs" / "corrections.md"
DRAW = "sample --out carvana --sample-cars 7 --sample-test-cars 0 --seed 3"
FIRST = "train --data carvana --out runs/first --downscale 8 --base 8 --epochs 25"
SPOILT = range(1, 16, 3)  # views of each test car, from 1
BOARD = 0.005, 0.1, 0.065, 0.62  # left, top, right, bottom, as fractions of the image

Masks = dict[str, np.ndarray]  # by image name, bool [H, W]


def run(folder: Path, argv: Iterable[str]) -> dict:
    """Run a command in a folder; return its result."""
    command = [sys.executable, "-m", "carvana_ray", *argv]
    return result_of(subprocess.run(command, cwd=folder, capture_output=True, text=True))


def prepare_test(data: Path) -> tuple[Masks, list[str]]:
    """Make the first two cars those of ``test/``; return their true masks and the spoilt images."""
    truth, spoilt = {}, []
    (data / "test").mkdir(exist_ok=True)
    for car in sorted({path.name[:12] for path in (data / "train").iterdir()})[:2]:
        for view in range(1, 17):
            name, mask = f"{car}_{view:02d}.jpg", data / f"train_masks/{car}_{view:02d}_mask.gif"
            truth[name] = images.load_mask(mask.read_bytes())
            mask.unlink()
            image = shutil.move(data / "train" / name, data / "test" / name)
            if view in SPOILT:
                spoilt.append(name)
                add_board(image, truth[name])
    (data / "sample_submission.csv").unlink(missing_ok=True)
    return truth, spoilt


def add_board(file: Path, mask: np.ndarray) -> None:
    """Put a board of the car's mean color behind the car."""
    pixels, (height, width) = np.array(Image.open(file).convert("RGB")), mask.shape
    left, top, right, bottom = BOARD
    board = np.zeros_like(mask)
    board[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    pixels[board & ~mask] = pixels[mask].mean(axis=0)
    Image.fromarray(pixels).save(file, quality=90)


def read_masks(out: Path, like: Masks) -> Masks:
    """Return the masks of a submission."""
    csv.field_size_limit(10**9)
    with (out / "submission.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["img"]: rle.decode(row["rle_mask"], *like[row["img"]].shape) for row in rows}


def mean_dice(found: Masks, truth: Masks, names: Iterable[str]) -> float:
    return float(np.mean([dice(found[name], truth[name]) for name in names]))


def held_out_dice(model: Path, data: Path, cars: Iterable[str]) -> float:
    """Return the mean Dice of a model on cars of the training folder."""
    network, manifest = load_model(str(model))
    ask = Predictor(network, torch.device("cpu"), manifest.tta_flip)
    scores = []
    for image in sorted(path for car in cars for path in (data / "train").glob(f"{car}_*")):
        truth = images.load_mask((data / f"train_masks/{image.stem}_mask.gif").read_bytes())
        gray = images.load_gray(image.read_bytes(), manifest.downscale)
        mask = images.enlarge(ask.soft_masks(gray[None])[0].numpy(), *truth.shape)
        scores.append(dice(mask, truth))
    return float(np.mean(scores))


@pytest.mark.slow
@pytest.mark.ray
def test_the_commands_of_the_page_correct_ten_masks_and_make_a_better_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    data, first, second = (tmp_path / name for name in ("carvana", "runs/first", "runs/second"))
    predict, review, again, train, at_last, *_ = commands(PAGE.read_text())
    names = [name for name, _ in (predict, review, again, train, at_last)]
    assert names == ["predict", "review", "predict", "train", "predict"]
    run(tmp_path, DRAW.split())
    truth, spoilt = prepare_test(data)
    run(tmp_path, FIRST.split())

    run(tmp_path, [predict[0], *predict[1]])
    before = read_masks(first, truth)
    with (first / "review.csv").open(newline="") as file:
        listed = {row["img"] for row in csv.DictReader(file) if row["look"] == "1"}
    assert len(spoilt) == 10
    assert set(spoilt) <= listed

    run(tmp_path, [review[0], *review[1]])
    masks = first / "review/train_masks"
    assert {path.name for path in masks.iterdir()} == {f"{name[:-4]}_mask.png" for name in listed}
    for name in listed:
        file = masks / f"{name[:-4]}_mask.png"
        assert np.array_equal(images.load_mask(file.read_bytes()), before[name])
        if name in spoilt:
            Image.fromarray(np.uint8(255) * truth[name]).save(file)

    result = run(tmp_path, [again[0], *again[1]])
    assert (result["corrected"], result["bad"]) == (10, 0)
    for name, mask in read_masks(first, truth).items():
        assert np.array_equal(mask, (truth if name in spoilt else before)[name]), name
    shards = [pq.read_table(shard).to_pylist() for shard in first.glob("predict/*/shards/*")]
    status = {row["img"] for rows in shards for row in rows if row["status"] == CORRECTED}
    assert status == set(spoilt)

    result = run(tmp_path, [train[0], *train[1]])
    assert result["corrected"] == 10
    unchanged = len(listed) - 10
    assert result["corrections_left_out"] == ({"unchanged": unchanged} if unchanged else {})
    held_out = load_manifest(str(second / "model")).holdout_cars
    assert held_out == load_manifest(str(first / "model")).holdout_cars
    assert {name[:12] for name in spoilt} <= set(load_manifest(str(second / "model")).train_cars)

    run(tmp_path, [at_last[0], *at_last[1]])
    after = read_masks(second, truth)
    others = sorted(set(truth) - set(spoilt))
    figures = {
        "corrected images": [mean_dice(found, truth, spoilt) for found in (before, after)],
        "other images of these cars": [
            mean_dice(found, truth, others) for found in (before, after)
        ],
        "held-out cars": [held_out_dice(out / "model", data, held_out) for out in (first, second)],
    }
    for what, (old, new) in figures.items():
        print(f"Dice of {what}: {old:.4f} before, {new:.4f} after")
    changes = {what: new - old for what, (old, new) in figures.items()}
    assert changes["corrected images"] > 0.01
    assert changes["held-out cars"] > -0.005
