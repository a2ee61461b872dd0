"""The index lists pending cut-outs; other settings, changed and foreign files are never reused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.cutout_race import race
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.index import CutoutIndex, SourceImage
from carvana_ray.errors import InputError
from carvana_ray.storage import FileInfo

SETTINGS = {"model": "abc", "edge": "soft", "background": [1, 2, 3]}


def sources_of(*names: str, folder: str = "/photos", version: str = "1") -> dict[str, SourceImage]:
    images = [SourceImage(folder, FileInfo(name, 5, version)) for name in names]
    return index.by_output_name(images, ".png")


def pending(out: Path, wanted: dict[str, SourceImage], **changes: object) -> list[str]:
    return index.sync(str(out), {**SETTINGS, **changes}, wanted, ".png")


def make(out: Path, *names: str) -> None:
    for name in names:
        (out / name).write_bytes(b"made")


def test_an_index_survives_the_round_trip_through_bytes() -> None:
    original = CutoutIndex(
        SETTINGS, {**sources_of("a.jpg", "b b.JPG"), **sources_of("c.webp", folder="s3://b")}
    )
    assert CutoutIndex.from_bytes(original.to_bytes()) == original


@pytest.mark.parametrize(
    ("image", "name"),
    [("a.jpg", "a.png"), ("Käfer, rot.JPEG", "Käfer, rot.png"), ("x/y/a.b.webp", "a.b.png")],
)
def test_a_cutout_has_the_name_of_its_image(image: str, name: str) -> None:
    assert index.cutout_name(image, ".png") == name


def test_two_images_with_the_same_output_name_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"/photos/a.jpg and /photos/a.png: both would become a.png"
    ):
        sources_of("a.jpg", "a.png")


def test_existing_cutouts_are_not_pending(tmp_path: Path) -> None:
    wanted = sources_of("a.jpg", "b.jpg", "c.jpg")
    assert pending(tmp_path / "out", wanted) == ["a.png", "b.png", "c.png"]
    make(tmp_path / "out", "b.png")
    before = (tmp_path / "out" / index.FILE).stat().st_mtime_ns
    assert pending(tmp_path / "out", wanted) == ["a.png", "c.png"]
    assert (tmp_path / "out" / index.FILE).stat().st_mtime_ns == before
    more = {**wanted, **sources_of("d.jpg", folder="/others")}
    assert pending(tmp_path / "out", more) == ["a.png", "c.png", "d.png"]
    assert pending(tmp_path / "out", sources_of("b.jpg")) == []


def test_the_cutout_of_a_changed_image_is_removed_and_pending(tmp_path: Path) -> None:
    pending(tmp_path, sources_of("a.jpg", "b.jpg"))
    make(tmp_path, "a.png", "b.png")
    changed = {**sources_of("a.jpg", version="2"), **sources_of("b.jpg")}
    assert pending(tmp_path, changed) == ["a.png"]
    assert not (tmp_path / "a.png").exists(), "the old cut-out must not pass for the new one"
    assert pending(tmp_path, changed) == ["a.png"]
    make(tmp_path, "a.png")
    assert pending(tmp_path, changed) == []


def test_other_settings_are_named_and_refused(tmp_path: Path) -> None:
    pending(tmp_path, sources_of("a.jpg"))
    with pytest.raises(
        InputError, match=r"edge: was soft, is now hard; .*more: was None, is now 1"
    ):
        pending(tmp_path, sources_of("a.jpg"), edge="hard", more=1)


def test_the_same_name_from_another_folder_is_refused(tmp_path: Path) -> None:
    pending(tmp_path, sources_of("a.jpg"))
    with pytest.raises(
        InputError, match=r"cut-out of /photos/a.jpg has the name that /new/a.jpg needs"
    ):
        pending(tmp_path, sources_of("a.jpg", folder="/new"))


def test_unlisted_files_are_never_overwritten(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    for _ in range(2):
        with pytest.raises(
            InputError, match=f"a.png: the file exists, but {index.FILE} does not list it"
        ):
            pending(tmp_path, sources_of("a.jpg"))
        pending(tmp_path, sources_of("b.jpg"))
    assert (tmp_path / "a.png").read_bytes() == b"made"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": 1}', b'{"format": 2}'])
def test_a_damaged_index_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / index.FILE).write_bytes(data)
    with pytest.raises(InputError, match=f"{index.FILE}: damaged"):
        pending(tmp_path, sources_of("a.jpg"))


def test_a_new_version_of_one_image_makes_one_cutout_pending(tmp_path: Path) -> None:
    wanted = sources_of("a.jpg", "b.jpg")
    pending(tmp_path, wanted)
    make(tmp_path, "a.png", "b.png")
    entry = replace(wanted["b.png"].entry, size=6)
    assert pending(tmp_path, {**wanted, "b.png": SourceImage("/photos", entry)}) == ["b.png"]
    assert (tmp_path / "a.png").exists()


def test_commands_at_once_lose_no_entry_on_disk(tmp_path: Path) -> None:
    check_no_entry_is_lost(str(tmp_path), 40)


def test_commands_at_once_lose_no_entry_in_s3(s3: Server, bucket: Callable[[Server], str]) -> None:
    check_no_entry_is_lost(bucket(s3), 12)


def check_no_entry_is_lost(home: str, rounds: int) -> None:
    """The same four commands again find their cut-outs listed and finished."""
    turns = race(home, commands=4, rounds=rounds)
    names = [f"{command}.png" for command in range(4)]
    assert turns == [[[name], []] for name in names for _ in range(rounds)]
    for turn in range(rounds):
        body = json.loads(storage.read(storage.join(home, str(turn), index.FILE)))
        assert [row[0] for row in body["pictures"]["/photos"]] == names
