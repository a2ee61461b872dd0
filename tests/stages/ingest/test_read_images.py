"""Names in, gray levels out: a bad picture is a row with its reason."""

import zlib
from pathlib import Path
from typing import Any

from support.blocks import batch_of
from support.pairs import draw_pair

from carvana_ray import storage
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.read_images import ReadOptions

SIZE = (1280, 1918)


def block_of(file: str, names: list[str]) -> dict[str, Any]:
    return batch_of(reading.block_row(file, names))


def test_a_bad_picture_is_a_row_with_a_reason(data: Path, tmp_path: Path) -> None:
    good = storage.list_files(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    (tmp_path / "cut.jpg").write_bytes((data / "test" / good).read_bytes()[:5000])
    (tmp_path / "text.jpg").write_bytes(b"text")
    names = ["cut.jpg", good, "text.jpg"]
    loaded = reading.read_images(block_of("x", names), ReadOptions(str(tmp_path), 8, SIZE, SIZE))
    assert [str(status).split(":")[0] for status in loaded["status"]] == [
        "truncated",
        "ok",
        "not-an-image",
    ]
    assert loaded["image"].shape == (3, 160, 240)
    assert not loaded["image"][0].any()
    assert list(loaded["row"]) == [0, 1, 2]


def test_a_picture_that_is_gone_is_a_row_too(data: Path, tmp_path: Path) -> None:
    """Else a run that was stopped could never end once a picture of an open shard is deleted."""
    good = storage.list_files(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    loaded = reading.read_images(
        block_of("x", [good, "gone.jpg"]), ReadOptions(str(tmp_path), 8, SIZE, SIZE)
    )
    assert [str(status).split(":")[0] for status in loaded["status"]] == ["ok", "missing"]
    assert loaded["crc32"][1] == 0


def test_a_picture_that_cannot_be_reached_is_no_bad_picture(data: Path, tmp_path: Path) -> None:
    good = storage.list_files(f"{data}/test")[0].name
    (tmp_path / good).write_bytes((data / "test" / good).read_bytes())
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "mem.jpg").symlink_to("/proc/self/mem")
    names = [good, "loop.jpg", "mem.jpg"]
    loaded = reading.read_images(block_of("x", names), ReadOptions(str(tmp_path), 8, SIZE, SIZE))
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
        block_of("x", ["loop.jpg", good]), ReadOptions(str(tmp_path), 8, SIZE, SIZE)
    )
    first, second = loaded["status"]
    assert first == second
    assert str(first).startswith("unreachable")
    assert not loaded["image"].any()


def test_a_picture_of_another_size_than_all_others_is_a_bad_one(tmp_path: Path) -> None:
    for number, size in enumerate([(300, 400), (300, 402)]):
        (tmp_path / f"{number}.jpg").write_bytes(draw_pair(number, size)[0])
    (tmp_path / "2.jpg").write_bytes(draw_pair(2, (300, 402))[0][:2000])  # its pixels are cut short
    names = ["0.jpg", "1.jpg", "2.jpg"]
    size, folder = (300, 400), str(tmp_path)
    loaded = reading.read_images(block_of("x", names), ReadOptions(folder, 4, size, size))
    kinds = [str(status).split(":")[0] for status in loaded["status"]]
    assert kinds == ["ok", "wrong-size", "wrong-size"]
    assert loaded["image"].shape == (3, 75, 100), "a blank one in its place"
    assert list(zip(loaded["height"], loaded["width"], strict=True)) == [(300, 400)] * 3
    loaded = reading.read_images(block_of("x", names), ReadOptions(folder, 4, None, size))
    assert [str(status).split(":")[0] for status in loaded["status"]] == ["ok", "ok", "truncated"]
    assert (loaded["height"][2], loaded["width"][2]) == (300, 400), "as what cannot be opened"


def test_what_is_known_of_a_picture_is_not_read_again(data: Path, tmp_path: Path) -> None:
    row = reading.block_row("x", ["a.jpg"], {}, {"a.jpg": "crash: it kills"})
    loaded = reading.read_images(batch_of(row), ReadOptions(str(tmp_path), 8, None, SIZE))
    assert list(loaded["status"]) == ["crash: it kills"]


def test_a_picture_of_another_checksum_is_a_bad_one(data: Path) -> None:
    name, other = (entry.name for entry in storage.list_files(f"{data}/test")[:2])
    right = zlib.crc32((data / "test" / name).read_bytes())
    row = reading.block_row("x", [name, other], {name: right, other: right})
    loaded = reading.read_images(batch_of(row), ReadOptions(f"{data}/test", 8, SIZE, SIZE))
    assert [str(status).split(":")[0] for status in loaded["status"]] == ["ok", "checksum"]


def test_pictures_of_several_sizes_are_one_block(tmp_path: Path) -> None:
    for number, size in enumerate([(300, 400), (256, 512), (300, 400)]):
        (tmp_path / f"{number}.jpg").write_bytes(draw_pair(number, size)[0])
    loaded = reading.read_images(
        block_of("x", ["0.jpg", "1.jpg", "2.jpg"]),
        ReadOptions(str(tmp_path), 4, None, SIZE),
    )
    assert [gray.shape for gray in loaded["image"]] == [(75, 100), (64, 128), (75, 100)]
    assert list(zip(loaded["height"], loaded["width"], strict=True)) == [
        (300, 400),
        (256, 512),
        (300, 400),
    ]
