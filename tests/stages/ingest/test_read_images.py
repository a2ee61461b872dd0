"""Image names in, gray levels out: a bad image is a row with the reason."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.blocks import batch_of, listed
from support.corpus import exif, jpeg
from support.pairs import draw_pair

from carvana_ray import storage
from carvana_ray.images.turns import to_upright
from carvana_ray.stages.ingest import read_images as module
from carvana_ray.stages.ingest.read_images import (
    ReadOptions,
    block_row,
    file_columns,
    read_crcs,
    read_images,
)
from carvana_ray.storage import FileInfo

SIZE = (1280, 1918)


def read(folder: Path | str, names: list[str], **options: Any) -> dict[str, Any]:
    """Read one block of images at 1/8 of `SIZE`."""
    defaults = {"downscale": 8, "size": SIZE, "trained_size": SIZE}
    return read_images(
        batch_of(block_row("x", listed(folder, names))),
        ReadOptions(str(folder), **{**defaults, **options}),
    )


def first_words(batch: dict[str, Any]) -> list[str]:
    return [str(status).split(":")[0] for status in batch["status"]]


@pytest.fixture
def good(data: Path, tmp_path: Path) -> str:
    """The name of a good image, the only file in tmp_path."""
    name = storage.list_files(f"{data}/test")[0].name
    (tmp_path / name).write_bytes((data / "test" / name).read_bytes())
    return name


def test_a_bad_image_is_a_row_with_a_reason(good: str, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes((tmp_path / good).read_bytes()[:5000])
    (tmp_path / "text.jpg").write_bytes(b"text")
    block = read(tmp_path, ["cut.jpg", good, "text.jpg"])
    assert first_words(block) == ["truncated", "ok", "not-an-image"]
    assert block["image"].shape == (3, 160, 240)
    assert not block["image"][0].any()
    assert list(block["row"]) == [0, 1, 2]
    assert list(block["rows"]) == [3, 3, 3]


@pytest.mark.parametrize("turn", range(1, 9))
def test_gray_levels_are_upright_and_sizes_those_of_the_stored_pixels(
    tmp_path: Path, turn: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif(turn)))
    (tmp_path / "b.jpg").write_bytes(jpeg())
    block = read(tmp_path, ["a.jpg", "b.jpg"], size=None, trained_size=(320, 480))
    turned, plain = block["image"]
    assert np.array_equal(turned, to_upright(plain, turn))
    assert (block["height"][0], block["width"][0]) == (320, 480)
    assert block["orientation"].tolist() == [turn, 1]


def test_a_turned_or_scaled_image_is_not_left_to_the_gpu(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif(3)))
    (tmp_path / "b.jpg").write_bytes(jpeg())
    (tmp_path / "c.jpg").write_bytes(draw_pair(1, (160, 240))[0])
    names = ["a.jpg", "b.jpg", "c.jpg"]
    block = read(tmp_path, names, size=None, trained_size=(320, 480), keep_encoded=True)
    assert [bool(file) for file in block["encoded"]] == [False, True, False]
    assert [gray.shape for gray in block["image"]] == [(40, 60), (0, 0), (40, 60)]


def test_a_missing_image_is_a_row(good: str, tmp_path: Path) -> None:
    """Otherwise a run could never finish once an image of a pending shard is deleted."""
    block = read(tmp_path, [good, "gone.jpg"])
    assert first_words(block) == ["ok", "missing"]
    assert block["crc32"][1] == 0


@pytest.mark.parametrize("target", ["loop.jpg", "/proc/self/mem"])
def test_an_unreachable_image_is_not_a_bad_image(good: str, tmp_path: Path, target: str) -> None:
    (tmp_path / "loop.jpg").symlink_to(target)
    assert first_words(read(tmp_path, [good, "loop.jpg"])) == ["ok", "unreachable"]


def test_after_an_unreachable_image_no_other_is_tried(good: str, tmp_path: Path) -> None:
    """Each might take minutes to fail, and the shard cannot be written anyway."""
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    block = read(tmp_path, ["loop.jpg", good])
    first, second = block["status"]
    assert first == second
    assert str(first).startswith("unreachable")
    assert not block["image"].any()


def test_a_block_of_single_images_goes_on_after_an_unreachable_one(
    good: str, tmp_path: Path
) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    block = read(tmp_path, ["loop.jpg", good, "loop.jpg", good], whole_blocks=False)
    assert first_words(block) == ["unreachable", "ok"] * 2
    assert block["image"][1].any()


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.ray)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk or in S3."""
    if request.param == "disk":
        return str(tmp_path)
    return f"{request.getfixturevalue('bucket')(request.getfixturevalue('s3'))}/photos"


def test_an_image_that_changed_since_it_was_listed_is_not_read(folder: str) -> None:
    """Otherwise its shard would hold the mask of one version under the name of the other."""
    names = ["0.jpg", "1.jpg"]
    for number, name in enumerate(names):
        storage.write_atomic(f"{folder}/{name}", draw_pair(number, (300, 400))[0])
    options = ReadOptions(folder, 8, None, SIZE)
    entries = storage.list_files(folder)
    assert first_words(read_images(batch_of(block_row("x", entries)), options)) == ["ok", "ok"]
    storage.write_atomic(f"{folder}/1.jpg", draw_pair(2, (300, 400))[0], replace=True)
    block = read_images(batch_of(block_row("x", entries)), options)
    assert block["status"].tolist() == ["ok", "unreachable: it changed since it was listed"]
    assert block["crc32"][1] == 0
    assert not block["image"][1].any()
    again = read_images(batch_of(block_row("x", storage.list_files(folder))), options)
    assert first_words(again) == ["ok", "ok"], "a new listing has the new version"


def test_checksums_are_those_of_the_listed_files(folder: str) -> None:
    files = {f"{number}.jpg": f"image {number}".encode() for number in range(4)}
    for name, data in files.items():
        storage.write_atomic(f"{folder}/{name}", data)
    entries = storage.list_files(folder)
    found = read_crcs(batch_of(file_columns(entries)), folder=folder)
    assert found["img"].tolist() == list(files)
    assert found["crc32"].tolist() == [zlib.crc32(data) for data in files.values()]
    assert found["problem"].tolist() == [""] * 4
    storage.remove(f"{folder}/0.jpg")
    storage.write_atomic(f"{folder}/2.jpg", b"another", replace=True)
    found = read_crcs(batch_of(file_columns(entries)), folder=folder)
    assert found["img"].tolist() == ["1.jpg", "2.jpg"], "the missing is left out, 3 is not read"
    assert found["problem"].tolist() == ["", "it changed since it was listed"]


def test_an_image_of_another_size_than_required_is_bad(tmp_path: Path) -> None:
    for number, width in enumerate([400, 402]):
        (tmp_path / f"{number}.jpg").write_bytes(draw_pair(number, (300, width))[0])
    (tmp_path / "2.jpg").write_bytes(draw_pair(2, (300, 402))[0][:2000])  # its pixels are cut short
    names, size = ["0.jpg", "1.jpg", "2.jpg"], (300, 400)
    block = read(tmp_path, names, downscale=4, size=size, trained_size=size)
    assert first_words(block) == ["ok", "wrong-size", "wrong-size"]
    assert block["image"].shape == (3, 75, 100), "a placeholder"
    assert list(zip(block["height"], block["width"], strict=True)) == [size] * 3
    block = read(tmp_path, names, downscale=4, size=None, trained_size=size)
    assert first_words(block) == ["ok", "ok", "truncated"]
    assert (block["height"][2], block["width"][2]) == size, "of the placeholder"


def test_an_image_with_a_preset_status_is_not_read(tmp_path: Path) -> None:
    image = FileInfo("a.jpg", 1, "1")
    row = block_row("x", [image], {}, {image: "crash: it kills"})
    block = read_images(batch_of(row), ReadOptions(str(tmp_path), 8, None, SIZE))
    assert list(block["status"]) == ["crash: it kills"]


def test_an_image_with_another_checksum_is_bad(data: Path) -> None:
    entries = storage.list_files(f"{data}/test")[:2]
    crcs = [zlib.crc32((data / "test" / entry.name).read_bytes()) for entry in entries]
    row = block_row("x", entries, {entry.name: crcs[0] for entry in entries})
    block = read_images(batch_of(row), ReadOptions(f"{data}/test", 8, SIZE, SIZE))
    assert first_words(block) == ["ok", "checksum"]
    assert block["crc32"].tolist() == crcs


def test_a_block_holds_images_of_several_sizes(tmp_path: Path) -> None:
    sizes = [(300, 400), (256, 512), (300, 400)]
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.jpg").write_bytes(draw_pair(number, size)[0])
    block = read(
        tmp_path, ["0.jpg", "1.jpg", "2.jpg"], downscale=4, size=None, trained_size=(256, 512)
    )
    assert [gray.shape for gray in block["image"]] == [(75, 100), (64, 128), (75, 100)]
    assert list(zip(block["height"], block["width"], strict=True)) == sizes
    assert np.issubdtype(block["height"].dtype, np.integer)


def test_readers_next_to_a_gpu_lower_their_priority(
    good: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(module, "lower_priority", lambda: calls.append(True))
    read(tmp_path, [good])
    assert not calls
    read(tmp_path, [good], low_priority=True)
    assert calls == [True]
