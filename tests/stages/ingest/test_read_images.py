"""Names in, gray levels out: a bad picture is a row with its reason."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from support.pairs import draw_pair

from carvana_ray import storage
from carvana_ray.stages.ingest import read_images as reading

SIZE = (1280, 1918)


def batch_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the batch of one row as Ray Data gives it."""
    batch = {}
    for name, value in row.items():
        batch[name] = np.empty(1, dtype=object)
        batch[name][0] = value
    return batch


def block_of(file: str, names: list[str]) -> dict[str, Any]:
    return batch_of(reading.block_row(file, names))


def test_a_bad_picture_is_a_row_with_a_reason(data: Path, tmp_path: Path) -> None:
    good = storage.list_files(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    (tmp_path / "cut.jpg").write_bytes((data / "test" / good).read_bytes()[:5000])
    (tmp_path / "text.jpg").write_bytes(b"text")
    names = ["cut.jpg", good, "text.jpg"]
    loaded = reading.read_images(
        block_of("x", names), folder=str(tmp_path), downscale=8, size=SIZE, blank=SIZE
    )
    assert [str(status).split(":")[0] for status in loaded["status"]] == [
        "truncated",
        "ok",
        "not-an-image",
    ]
    assert loaded["gray"].shape == (3, 160, 240)
    assert not loaded["gray"][0].any()
    assert list(loaded["place"]) == [0, 1, 2]


def test_a_picture_that_is_gone_is_a_row_too(data: Path, tmp_path: Path) -> None:
    """Else a run that was stopped could never end once a picture of an open shard is deleted."""
    good = storage.list_files(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    loaded = reading.read_images(
        block_of("x", [good, "gone.jpg"]), folder=str(tmp_path), downscale=8, size=SIZE, blank=SIZE
    )
    assert [str(status).split(":")[0] for status in loaded["status"]] == ["ok", "missing"]
    assert loaded["crc32"][1] == 0


def test_a_picture_that_cannot_be_reached_is_no_bad_picture(data: Path, tmp_path: Path) -> None:
    good = storage.list_files(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "mem.jpg").symlink_to("/proc/self/mem")
    names = [good, "loop.jpg", "mem.jpg"]
    loaded = reading.read_images(
        block_of("x", names), folder=str(tmp_path), downscale=8, size=SIZE, blank=SIZE
    )
    assert [str(status).split(":")[0] for status in loaded["status"]] == [
        "ok",
        "unreachable",
        "unreachable",
    ]


def test_after_one_that_cannot_be_reached_no_other_is_tried(data: Path, tmp_path: Path) -> None:
    """Each might take minutes to fail, and the shard cannot be written anyway."""
    good = storage.list_files(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    loaded = reading.read_images(
        block_of("x", ["loop.jpg", good]), folder=str(tmp_path), downscale=8, size=SIZE, blank=SIZE
    )
    first, second = loaded["status"]
    assert first == second
    assert str(first).startswith("unreachable")
    assert not loaded["gray"].any()


def test_a_picture_of_another_size_than_all_others_is_a_bad_one(tmp_path: Path) -> None:
    for number, size in enumerate([(300, 400), (300, 402)]):
        (tmp_path / f"{number}.jpg").write_bytes(draw_pair(number, size)[0])
    (tmp_path / "2.jpg").write_bytes(draw_pair(2, (300, 402))[0][:2000])  # its pixels are cut short
    names = ["0.jpg", "1.jpg", "2.jpg"]
    how = {"folder": str(tmp_path), "downscale": 4, "blank": (300, 400)}
    loaded = reading.read_images(block_of("x", names), size=(300, 400), **how)  # type: ignore[arg-type]
    kinds = [str(status).split(":")[0] for status in loaded["status"]]
    assert kinds == ["ok", "wrong-size", "wrong-size"]
    assert loaded["gray"].shape == (3, 75, 100), "a blank one in its place"
    assert list(zip(loaded["height"], loaded["width"], strict=True)) == [(300, 400)] * 3
    loaded = reading.read_images(block_of("x", names), size=None, **how)  # type: ignore[arg-type]
    assert [str(status).split(":")[0] for status in loaded["status"]] == ["ok", "ok", "truncated"]
    assert (loaded["height"][2], loaded["width"][2]) == (300, 400), "as what cannot be opened"


def test_what_is_known_of_a_picture_is_not_read_again(data: Path, tmp_path: Path) -> None:
    row = reading.block_row("x", ["a.jpg"], {}, {"a.jpg": "crash: it kills"})
    loaded = reading.read_images(
        batch_of(row), folder=str(tmp_path), downscale=8, size=None, blank=SIZE
    )
    assert list(loaded["status"]) == ["crash: it kills"]


def test_a_picture_of_another_checksum_is_a_bad_one(data: Path) -> None:
    name, other = (entry.name for entry in storage.list_files(f"{data}/test")[:2])
    right = zlib.crc32((data / "test" / name).read_bytes())
    row = reading.block_row("x", [name, other], {name: right, other: right})
    loaded = reading.read_images(
        batch_of(row), folder=f"{data}/test", downscale=8, size=SIZE, blank=SIZE
    )
    assert [str(status).split(":")[0] for status in loaded["status"]] == ["ok", "checksum"]


def test_pictures_of_several_sizes_are_one_block(tmp_path: Path) -> None:
    for number, size in enumerate([(300, 400), (256, 512), (300, 400)]):
        (tmp_path / f"{number}.jpg").write_bytes(draw_pair(number, size)[0])
    loaded = reading.read_images(
        block_of("x", ["0.jpg", "1.jpg", "2.jpg"]),
        folder=str(tmp_path),
        downscale=4,
        size=None,
        blank=SIZE,
    )
    assert [gray.shape for gray in loaded["gray"]] == [(75, 100), (64, 128), (75, 100)]
    assert list(zip(loaded["height"], loaded["width"], strict=True)) == [
        (300, 400),
        (256, 512),
        (300, 400),
    ]
