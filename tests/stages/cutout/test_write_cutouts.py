"""A cut-out is written whole and once; every other outcome has its reason."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.stages.cutout.write_cutouts import CutoutWriter

STYLE = CutoutStyle(soft=False, background=None, format="png", mask_only=True)
SIDE = 4


@pytest.fixture
def writer(tmp_path: Path) -> CutoutWriter:
    """A writer into tmp_path/out, and the image car.png in tmp_path."""
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "car.png")
    (tmp_path / "out").mkdir()
    return CutoutWriter(str(tmp_path), str(tmp_path / "out"), STYLE)


def write(writer: CutoutWriter, name: str, text: str) -> str:
    """Cut an image out by a text; return the status."""
    (answer,) = writer.read(["car.png"])
    return writer.write(name, answer, None, text=text)


def test_a_file_with_other_bytes_is_told_with_both_names(
    writer: CutoutWriter, tmp_path: Path
) -> None:
    """As if another command was first, or Car.png and car.png were one file on this disk."""
    assert write(writer, "Car.png", "1 1") == "ok"
    os.link(tmp_path / "out/Car.png", tmp_path / "out/car.png")
    status = write(writer, "car.png", "2 2")
    assert status.startswith(f"problem: {tmp_path}/out/car.png: holds other bytes")
    assert f"{tmp_path}/car.png;" in status
    assert np.asarray(Image.open(tmp_path / "out/car.png")).sum() == 1
    assert write(writer, "car.png", "1 1") == "ok", "the same bytes"
