"""The size of a car is that of its box in the upright image, from run bounds or from a row."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.blocks import batch_of, listed

from carvana_ray import rle
from carvana_ray.data.quarantine import CORRECTED, CRASH, OK
from carvana_ray.images.turns import to_stored
from carvana_ray.stages.cutout.measure_cars import measure_masks, measure_rows
from carvana_ray.stages.ingest.read_images import block_row

HEIGHT, WIDTH = 60, 100


def upright_mask() -> np.ndarray:
    """A car of 40 x 21 pixels, a stray piece below 1 % of it, and no other."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[20:41, 30:70] = True
    mask[2:4, 95:98] = True
    return mask


def columns_of(masks: list[np.ndarray], turns: list[int], statuses: list[str]) -> dict[str, Any]:
    """Return columns as `MaskPredictor` returns them."""
    runs = [rle.mask_to_runs(mask) for mask in masks]
    bounds = [np.stack(pair, axis=1).astype(np.int32).tobytes() for pair in runs]
    data = np.empty(len(masks), dtype=object)
    for row, value in enumerate(bounds):
        data[row] = value
    return {
        "file": np.full(len(masks), "000000"),
        "img": np.array([f"{row}.jpg" for row in range(len(masks))]),
        "crc32": np.arange(len(masks)) + 7,
        "status": np.array(statuses),
        "width": np.array([mask.shape[1] for mask in masks]),
        "orientation": np.array(turns),
        "run_bounds": data,
    }


def sizes_of(batch: dict[str, Any]) -> list[tuple[int, int]]:
    return list(zip(batch["width"].tolist(), batch["height"].tolist(), strict=True))


def test_the_box_is_upright_and_without_stray_pieces() -> None:
    turns = list(range(1, 9))
    masks = [to_stored(upright_mask(), turn) for turn in turns]
    measured = measure_masks(columns_of(masks, turns, [OK] * 8), "/photos")
    assert sizes_of(measured) == [(40, 21)] * 8
    assert measured["status"].tolist() == [OK] * 8
    assert measured["crc32"].tolist() == list(range(7, 15))
    assert set(measured["file"].tolist()) == {"000000"}


def test_images_without_a_car_or_a_mask_have_no_size() -> None:
    empty = np.zeros((HEIGHT, WIDTH), bool)
    statuses = [OK, "truncated: half", "unreachable: input/output error", CRASH, CORRECTED]
    masks = [empty, empty, empty, empty, upright_mask()]
    measured = measure_masks(columns_of(masks, [1] * 5, statuses), "/photos")
    assert sizes_of(measured) == [(0, 0)] * 4 + [(40, 21)]
    unreachable = "problem: /photos/2.jpg: unreachable: input/output error"
    assert measured["status"].tolist() == [OK, statuses[1], unreachable, CRASH, CORRECTED]


def jpeg(orientation: int = 1) -> bytes:
    """A JPEG whose upright size is that of the mask."""
    size = (HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.effect_noise(size, 60).save(file, "JPEG", exif=exif)
    return file.getvalue()


def measured_rows(folder: Path, texts: dict[str, str], **row: Any) -> dict[str, Any]:
    entries = listed(folder, list(texts))
    values = {**block_row("000000", entries, **row), "texts": list(texts.values())}
    return measure_rows(batch_of(values), str(folder))


def test_a_row_gives_the_size_that_the_mask_has(tmp_path: Path) -> None:
    texts = {}
    for turn in range(1, 9):
        (tmp_path / f"{turn}.jpg").write_bytes(jpeg(turn))
        texts[f"{turn}.jpg"] = rle.encode(to_stored(upright_mask(), turn))
    measured = measured_rows(tmp_path, texts)
    assert sizes_of(measured) == [(40, 21)] * 8
    assert measured["status"].tolist() == [OK] * 8


def test_no_pixel_is_decoded_for_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg()[:700])
    assert sizes_of(measured_rows(tmp_path, {"a.jpg": rle.encode(upright_mask())})) == [(40, 21)]


def test_each_row_that_gives_no_size_has_its_reason(tmp_path: Path) -> None:
    names = ["crc", "text", "long", "odd", "crash", "mem", "gone"]
    for name in names[:5]:
        (tmp_path / f"{name}.jpg").write_bytes(b"text" if name == "text" else jpeg())
    (tmp_path / "mem.jpg").symlink_to("/proc/self/mem")  # a read of it fails
    texts = dict.fromkeys([f"{name}.jpg" for name in names], "1 1")
    texts |= {"long.jpg": f"{HEIGHT * WIDTH} 2", "odd.jpg": "5"}
    crash = {listed(tmp_path, ["crash.jpg"])[0]: CRASH}
    measured = measured_rows(tmp_path, texts, crcs={"crc.jpg": 1}, preset_status=crash)
    assert sizes_of(measured) == [(0, 0)] * 7
    statuses = measured["status"].tolist()
    starts = ["checksum:", "not-an-image:", "row: out-of-range", "row: odd-count", "crash:"]
    starts += [f"problem: {tmp_path}/mem.jpg: unreachable", "missing:"]
    for status, start in zip(statuses, starts, strict=True):
        assert status.startswith(start), status


@pytest.mark.parametrize("text", ["", "1 1"])
def test_a_car_of_one_pixel_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    assert sizes_of(measured_rows(tmp_path, {"a.jpg": text})) == [(1, 1) if text else (0, 0)]
