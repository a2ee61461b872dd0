"""What is left to cut out: whatever was made otherwise, or of other pictures, is never taken."""

from dataclasses import replace
from pathlib import Path

import pytest

from carvana_ray.cutouts import index as ledger
from carvana_ray.cutouts.index import CutoutIndex, SourceImage
from carvana_ray.errors import InputError
from carvana_ray.storage.router import FileInfo

SETTINGS = {"model": "abc", "edge": "soft", "background": [1, 2, 3]}


def sources(*names: str, folder: str = "/photos", version: str = "1") -> dict[str, SourceImage]:
    found = [SourceImage(folder, FileInfo(name, 5, version)) for name in names]
    return ledger.by_output_name(found, ".png")


def left(out: Path, wanted: dict[str, SourceImage], **changes: object) -> list[str]:
    return ledger.sync(str(out), {**SETTINGS, **changes}, wanted, ".png")


def make(out: Path, *names: str) -> None:
    for name in names:
        (out / name).write_bytes(b"made")


def test_a_ledger_goes_round_through_its_file() -> None:
    one = CutoutIndex(
        SETTINGS, {**sources("a.jpg", "b b.JPG"), **sources("c.webp", folder="s3://b")}
    )
    assert CutoutIndex.from_bytes(one.to_bytes()) == one


@pytest.mark.parametrize(
    ("picture", "name"),
    [("a.jpg", "a.png"), ("Käfer, rot.JPEG", "Käfer, rot.png"), ("x/y/a.b.webp", "a.b.png")],
)
def test_a_cut_out_keeps_its_name(picture: str, name: str) -> None:
    assert ledger.cutout_name(picture, ".png") == name


def test_two_pictures_of_one_name_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"/photos/a.jpg and /photos/a.png: both would become a.png"
    ):
        sources("a.jpg", "a.png")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    wanted = sources("a.jpg", "b.jpg", "c.jpg")
    assert left(tmp_path / "out", wanted) == ["a.png", "b.png", "c.png"]
    make(tmp_path / "out", "b.png")
    before = (tmp_path / "out" / ledger.FILE).stat().st_mtime_ns
    assert left(tmp_path / "out", wanted) == ["a.png", "c.png"]
    assert (tmp_path / "out" / ledger.FILE).stat().st_mtime_ns == before
    more = {**wanted, **sources("d.jpg", folder="/others")}
    assert left(tmp_path / "out", more) == ["a.png", "c.png", "d.png"]
    assert left(tmp_path / "out", sources("b.jpg")) == []


def test_a_changed_picture_is_made_again_whenever_the_run_dies(tmp_path: Path) -> None:
    left(tmp_path, sources("a.jpg", "b.jpg"))
    make(tmp_path, "a.png", "b.png")
    changed = {**sources("a.jpg", version="2"), **sources("b.jpg")}
    assert left(tmp_path, changed) == ["a.png"]
    assert not (tmp_path / "a.png").exists(), "it would pass for the new one's"
    assert left(tmp_path, changed) == ["a.png"]
    make(tmp_path, "a.png")
    assert left(tmp_path, changed) == []


def test_other_settings_are_named_and_refused(tmp_path: Path) -> None:
    left(tmp_path, sources("a.jpg"))
    with pytest.raises(InputError, match=r"edge: soft there, hard now; .*more: None there, 1 now"):
        left(tmp_path, sources("a.jpg"), edge="hard", more=1)


def test_the_same_name_from_another_folder_is_refused(tmp_path: Path) -> None:
    left(tmp_path, sources("a.jpg"))
    with pytest.raises(InputError, match=r"is of /photos/a.jpg, and /new/a.jpg would become"):
        left(tmp_path, sources("a.jpg", folder="/new"))


def test_files_that_nobody_knows_are_never_touched(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    for _ in range(2):
        with pytest.raises(InputError, match=f"a.png: is there, but no {ledger.FILE}"):
            left(tmp_path, sources("a.jpg"))
        left(tmp_path, sources("b.jpg"))
    assert (tmp_path / "a.png").read_bytes() == b"made"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": 1}', b'{"format": 2}'])
def test_a_damaged_ledger_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / ledger.FILE).write_bytes(data)
    with pytest.raises(InputError, match=f"{ledger.FILE}: damaged"):
        left(tmp_path, sources("a.jpg"))


def test_versions_are_of_one_picture_alone(tmp_path: Path) -> None:
    wanted = sources("a.jpg", "b.jpg")
    left(tmp_path, wanted)
    make(tmp_path, "a.png", "b.png")
    entry = replace(wanted["b.png"].entry, size=6)
    assert left(tmp_path, {**wanted, "b.png": SourceImage("/photos", entry)}) == ["b.png"]
    assert (tmp_path / "a.png").exists()
