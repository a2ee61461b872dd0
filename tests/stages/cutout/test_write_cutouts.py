"""A cut-out is written whole and once; every other outcome has its reason."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carvana_ray.cutouts import index
from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.stages.cutout.write_cutouts import CutoutWriter, Place
from carvana_ray.storage import FileInfo

STYLE = CutoutStyle(soft=False, background=None, format="png", mask_only=True)
SIDE = 4


@pytest.fixture
def writer(tmp_path: Path) -> CutoutWriter:
    """A writer into tmp_path/out, and the image car.png in tmp_path."""
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(tmp_path / "car.png")
    return CutoutWriter(str(tmp_path), str(tmp_path / "out"), STYLE)


def listed(writer: CutoutWriter, version: str, *names: str) -> str:
    """Add images of a version to the index; return their tag."""
    sources = [SourceImage(writer.folder, FileInfo(name, 1, version)) for name in names]
    assert writer.target
    index.sync(writer.target, {}, index.by_output_name(sources, ".png"), ".png")
    return sources[0].tag


def write(writer: CutoutWriter, name: str, tag: str, text: str) -> str:
    """Cut an image out by a text; return the status."""
    (answer,) = writer.read(["car.png"])
    return writer.write(Place(name, name, tag), answer, None, text)


def test_a_file_with_other_bytes_is_told_with_both_names(
    writer: CutoutWriter, tmp_path: Path
) -> None:
    """As if another command was first, or Car.png and car.png were one file on this disk."""
    tag = listed(writer, "1", "Car.png", "car.png")
    assert write(writer, "Car.png", tag, "1 1") == "ok"
    os.link(tmp_path / "out/Car.png", tmp_path / "out/car.png")
    status = write(writer, "car.png", tag, "2 2")
    assert status.startswith(f"problem: {tmp_path}/out/car.png: holds other bytes")
    assert f"{tmp_path}/car.png;" in status
    assert np.asarray(Image.open(tmp_path / "out/car.png")).sum() == 1
    assert write(writer, "car.png", tag, "1 1") == "ok", "the same bytes"


def test_a_cutout_of_an_older_version_than_the_listed_one_is_taken_back(
    writer: CutoutWriter, tmp_path: Path
) -> None:
    old = listed(writer, "1", "car.png")
    assert write(writer, "car.png", old, "1 1") == "ok"
    new = listed(writer, "2", "car.png")
    status = write(writer, "car.png", old, "1 1")
    assert status.startswith(f"problem: {tmp_path}/car.png: it changed")
    assert not (tmp_path / "out/car.png").exists()
    assert write(writer, "car.png", new, "1 1") == "ok"


def test_without_a_target_nothing_is_written(writer: CutoutWriter, tmp_path: Path) -> None:
    assert write(replace(writer, target=None), "car.png", "", "1 1") == "ok"
    assert not (tmp_path / "out").exists()
