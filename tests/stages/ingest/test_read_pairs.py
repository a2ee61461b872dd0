"""The first map of training: each pair as the image functions load it."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.blocks import batch_of
from support.corpus import exif, save
from support.pairs import waves
from support.runs import SIZE, first_pairs, listed

from carvana_ray import images
from carvana_ray.cutouts.compositing import CutoutStyle, render
from carvana_ray.data.pairs import pair_with_masks
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


def read_pair(folder: Path, turn: int, image: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """Read one pair of stored pixels and a mask; the run expects 40 x 60."""
    (folder / "a.png").write_bytes(save(image, "PNG", exif=exif(turn)))
    (folder / "a_mask.png").write_bytes(save(mask, "PNG"))
    options = PairOptions(image_dir=str(folder), mask_dir=str(folder), downscale=4, size=(40, 60))
    return read_pairs(
        batch_of(pairs_row(listed([("a.png", "a_mask.png")], folder, folder), {})), options
    )


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_image_is_turned_to_its_upright_mask(tmp_path: Path, turn: int) -> None:
    upright = waves(40, 60)
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 30:] = 255
    loaded = read_pair(tmp_path, turn, images.to_stored(upright, turn), mask)
    assert loaded["error"].tolist() == [""]
    assert np.array_equal(loaded["image"][0], images.load_gray(save(upright, "PNG"), 4))
    assert np.array_equal(loaded["soft_mask"][0], images.shrink_mask(mask > 0, 4))


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_mask_of_the_stored_pixels_is_refused(tmp_path: Path, turn: int) -> None:
    stored = images.to_stored(waves(40, 60), turn)
    loaded = read_pair(tmp_path, turn, stored, np.zeros(stored.shape[:2], np.uint8))
    (error,) = loaded["error"]
    assert error.startswith("a_mask.png: orientation: "), error
    assert "60 x 40" in error
    assert f"EXIF orientation {turn}" in error


@pytest.mark.parametrize("turn", [1, 6])
def test_a_mask_of_another_size_is_refused_for_its_size(tmp_path: Path, turn: int) -> None:
    stored = images.to_stored(waves(40, 60), turn)
    loaded = read_pair(tmp_path, turn, stored, np.zeros((40, 61), np.uint8))
    assert loaded["error"][0].startswith("a_mask.png: wrong-size: ")


def read_corrected(folder: Path, turn: int, mask: np.ndarray) -> dict[str, Any]:
    """Read a pair of an image [40, 60], upright, and its mask in another folder."""
    for part in ("train", "fixed"):
        (folder / part).mkdir()
    stored = images.to_stored(waves(40, 60), turn)
    (folder / "train/a.png").write_bytes(save(stored, "PNG", exif=exif(turn)))
    (folder / "fixed/a_mask.png").write_bytes(save(mask, "PNG"))
    ((image, mask_file),) = listed([("a.png", "a_mask.png")], folder / "train", folder / "fixed")
    mask_file = dataclasses.replace(mask_file, name=f"{folder}/fixed/a_mask.png")
    options = PairOptions(
        image_dir=f"{folder}/train", mask_dir=f"{folder}/train_masks", downscale=4, size=(40, 60)
    )
    crcs = {"a_mask.png": 1}  # of the mask that is replaced
    return read_pairs(batch_of(pairs_row([(image, mask_file)], crcs)), options)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_corrected_mask_is_that_of_the_stored_pixels(tmp_path: Path, turn: int) -> None:
    upright = np.zeros((40, 60), np.uint8)
    upright[5:20, 30:] = 255
    loaded = read_corrected(tmp_path, turn, images.to_stored(upright, turn))
    assert loaded["error"].tolist() == [""]
    assert np.array_equal(loaded["soft_mask"][0], images.shrink_mask(upright > 0, 4))


@pytest.mark.parametrize(("turn", "expected"), [(1, "40 x 60"), (6, "60 x 40")])
def test_a_corrected_mask_of_another_size_is_named_with_its_folder(
    tmp_path: Path, turn: int, expected: str
) -> None:
    for mask in (np.zeros((41, 60), np.uint8), np.zeros((40, 60), np.uint8)):
        if f"{mask.shape[0]} x {mask.shape[1]}" == expected:
            continue
        (tmp_path / str(len(mask))).mkdir()
        (error,) = read_corrected(tmp_path / str(len(mask)), turn, mask)["error"]
        assert error.startswith(f"{tmp_path}/{len(mask)}/fixed/a_mask.png: wrong-size: "), error
        assert error.endswith(f"expected {expected}")


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


@pytest.mark.parametrize(
    ("car", "note"),
    [
        (slice(0, 0), "all ground"),
        (slice(0, 40), "all car"),
        (slice(10, 20), ""),
        (slice(0, 20), ""),
    ],
)
def test_a_mask_without_car_or_ground_is_noted(tmp_path: Path, car: slice, note: str) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[car] = 255
    loaded = read_pair(tmp_path, 1, waves(40, 60), mask)
    assert (loaded["error"].tolist(), loaded["note"].tolist()) == ([""], [note])


def test_a_mask_that_looks_inverted_is_noted(tmp_path: Path) -> None:
    mask = np.full((40, 60), 255, np.uint8)
    mask[10:30, 10:50] = 0
    loaded = read_pair(tmp_path, 1, waves(40, 60), mask)
    assert loaded["note"].tolist() == ["car in all four corners (inverted?)"]


@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize("soft", [True, False])
def test_the_mask_of_a_cut_out_is_that_of_its_image(tmp_path: Path, soft: bool, turn: int) -> None:
    """What `cutout --mask-only` writes as NAME.png, for an image with an EXIF orientation too."""
    upright = np.zeros((40, 60), np.uint8)
    upright[8:32, 12:48] = 255
    image = save(images.to_stored(waves(40, 60), turn), "PNG", exif=exif(turn))
    soft_mask = images.shrink_mask(images.to_stored(upright, turn) > 0, 4)
    style = CutoutStyle(soft=soft, background=None, format="png", mask_only=True)
    (tmp_path / "a.jpg").write_bytes(image)
    (tmp_path / "a.png").write_bytes(render(image, style, soft_mask))
    (pair,) = pair_with_masks(["a.jpg"], ["a.png"])
    options = PairOptions(
        image_dir=str(tmp_path), mask_dir=str(tmp_path), downscale=4, size=(40, 60)
    )
    files = listed([pair], tmp_path, tmp_path)
    loaded = read_pairs(batch_of(pairs_row(files, {})), options)
    assert loaded["error"].tolist() == [""]
    expected = images.shrink_mask(upright > 0, 4)
    assert np.abs(loaded["soft_mask"][0].astype(int) - expected).max() <= 64
    assert np.array_equal(loaded["soft_mask"][0] >= 128, expected >= 128)
