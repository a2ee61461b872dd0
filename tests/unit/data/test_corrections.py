"""Corrected masks of a folder: which image they belong to, and what their version is."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.data.corrections import (
    Corrections,
    correction_of,
    load_corrections,
    require_masks,
    stored_file,
)
from carvana_ray.data.pairs import UnpairedError
from carvana_ray.errors import InputError, StorageAccessError
from carvana_ray.storage import FileInfo

IMAGES = ["a.jpg", "b.jpg", "c.jpg"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on disk or in S3."""
    if request.param == "disk":
        return str(tmp_path / "fixed")
    return f"{request.getfixturevalue('bucket')(request.getfixturevalue('s3'))}/fixed"


def put(folder: str, *names: str) -> None:
    """Write files whose bytes are their names."""
    for name in names:
        storage.write_atomic(storage.join(folder, name), name.encode(), replace=True)


def reviewed(folder: str, masks: Any, number: int = 1) -> None:
    text = json.dumps({"format": number, "masks": masks}).encode()
    storage.write_atomic(storage.join(folder, "_review.json"), text, replace=True)


def test_masks_are_found_by_the_names_of_images_and_hashed(folder: str) -> None:
    put(folder, "a_mask.png", "B.gif", "other_mask.png", "notes.txt")
    found = load_corrections(folder, IMAGES)
    assert found.uris == {"a.jpg": f"{folder}/a_mask.png", "b.jpg": f"{folder}/B.gif"}
    assert found.digests == {"a.jpg": sha256(b"a_mask.png")[:16], "b.jpg": sha256(b"B.gif")[:16]}
    assert (found.unchanged, list(found.unused)) == (0, ["other_mask.png"])


def test_masks_are_those_of_train_masks_if_the_folder_has_it(folder: str) -> None:
    put(folder, "train/a.jpg", "train_masks/a_mask.png", "b_mask.png")
    assert load_corrections(folder, IMAGES).uris == {"a.jpg": f"{folder}/train_masks/a_mask.png"}


def test_a_mask_that_is_as_review_wrote_it_is_left_out(folder: str) -> None:
    names = [f"train_masks/{name}_mask.png" for name in "abc"]
    put(folder, *names, "train_masks/c.png")
    masks = {f"{name}_mask.png": sha256(f"train_masks/{name}_mask.png".encode()) for name in "acx"}
    reviewed(folder, {**masks, "b_mask.png": sha256(b"before")})
    found = load_corrections(folder, IMAGES)
    uris = {"b.jpg": f"{folder}/train_masks/b_mask.png", "c.jpg": f"{folder}/train_masks/c.png"}
    assert found.uris == uris, "c.png is saved under another name"
    assert (found.unchanged, list(found.unused)) == (2, [])
    reviewed(folder, masks)
    put(folder, "train_masks/a_mask.png")
    assert load_corrections(folder, IMAGES).unchanged == 2, "the same bytes at another time"


def test_images_of_sub_folders_have_their_masks_in_the_same_sub_folders(folder: str) -> None:
    put(folder, "a_mask.png", "monday/a_mask.png", "sunday/a_mask.png")
    found = load_corrections(folder, ["monday/a.jpg", "tuesday/a.jpg"])
    assert found.uris == {"monday/a.jpg": f"{folder}/monday/a_mask.png"}
    assert list(found.unused) == ["a_mask.png"]
    placed = load_corrections(folder, ["shop/a.jpg"], {"shop/a.jpg": ""})
    assert placed.uris == {"shop/a.jpg": f"{folder}/a_mask.png"}


def test_an_image_with_two_masks_is_an_error(folder: str) -> None:
    put(folder, "a_mask.png", "a_mask.gif", "b_mask.png")
    words = r"--corrections .*: the mask of 1 image is not clear: a\.jpg: several masks: a_mask"
    with pytest.raises(UnpairedError, match=words):
        load_corrections(folder, IMAGES)


def test_a_folder_that_does_not_exist_or_has_no_masks_is_an_error(folder: str) -> None:
    assert load_corrections("", IMAGES) == Corrections()
    for check in (require_masks, lambda uri: load_corrections(uri, IMAGES)):
        with pytest.raises(InputError, match=r"^--corrections .*/fixed: no such folder$"):
            check(folder)
    put(folder, "notes.txt", "a.heic")
    for check in (require_masks, lambda uri: load_corrections(uri, IMAGES)):
        with pytest.raises(InputError, match=r"^--corrections .*/fixed: no masks \(\.gif, \.png, "):
            check(folder)
    put(folder, "monday/a.png")
    require_masks(folder)  # which sub-folder counts depends on the images


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "masks": {}}', '{"format": 1}'])
def test_a_damaged_list_of_reviewed_masks_is_an_error(tmp_path: Path, text: str) -> None:
    put(str(tmp_path), "a_mask.png")
    (tmp_path / "_review.json").write_text(text)
    words = r"^--corrections .*/_review\.json: damaged \(.*\); without the file all masks"
    with pytest.raises(InputError, match=words):
        load_corrections(str(tmp_path), IMAGES)


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    put(str(tmp_path), "b_mask.png")
    (tmp_path / "a_mask.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match=r"^--corrections .*/a_mask\.png: "):
        load_corrections(str(tmp_path), IMAGES)


@pytest.mark.slow
def test_a_store_that_refuses_is_an_error_that_names_the_flag(
    s3: Server, bucket: Callable[[Server], str]
) -> None:
    bucket(s3)
    with pytest.raises(StorageAccessError, match=r"^--corrections s3://no-such-bucket-here/a/"):
        load_corrections("s3://no-such-bucket-here/a", IMAGES)


def test_the_version_of_a_corrected_image_names_its_mask() -> None:
    image, other = FileInfo("a.jpg", 7, "1700"), FileInfo("b.jpg", 7, "1700")
    found = Corrections({"a.jpg": "/a.png"}, {"a.jpg": "0123456789abcdef"})
    marked = found.mark(image)
    assert marked == FileInfo("a.jpg", 7, "1700 corrected 0123456789abcdef")
    assert (stored_file(marked), correction_of(marked)) == (image, "0123456789abcdef")
    assert found.mark(other) == other
    assert (stored_file(other), correction_of(other)) == (other, "")


@pytest.mark.parametrize(
    ("uris", "unchanged", "unused", "words"),
    [
        ("", 0, "", "0 masks of F are used as they are"),
        ("a", 1, "", "1 mask of F is used as it is; 1 is as review wrote it"),
        (
            "ab",
            3,
            "x",
            "2 masks of F are used as they are; 3 are as review wrote them; 1 belongs "
            "to no image: x",
        ),
        ("a", 0, "vwxy", "1 mask of F is used as it is; 4 belong to no image: v, w, x ..."),
    ],
)
def test_the_folder_is_described_in_a_sentence(
    uris: str, unchanged: int, unused: str, words: str
) -> None:
    found = Corrections({name: name for name in uris}, {}, unchanged, list(unused))
    assert found.describe("F") == words


def test_only_masks_of_the_job_s_images_are_read(tmp_path: Path) -> None:
    put(str(tmp_path), "a_mask.png")
    (tmp_path / "z_mask.png").symlink_to("nowhere.png")
    assert list(load_corrections(str(tmp_path), IMAGES).uris) == ["a.jpg"]
    os.remove(tmp_path / "z_mask.png")
