"""The folder of a review: masks of a person stay, whatever happens."""

import hashlib
import json
from pathlib import Path

import pytest

from carvana_ray import storage
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.review.folder import ReviewFolder, StoredMask


def write(root: Path, **masks: bytes) -> set[str]:
    """Write masks as a new command does; return the names of those that stay."""
    folder = ReviewFolder.open(str(root))
    return folder.write_masks([(n, data, folder.read_mask(n)) for n, data in masks.items()])


def stored(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "train_masks").glob("[!.]*")}


def noted(root: Path) -> dict[str, str]:
    body = json.loads((root / "_review.json").read_text())
    assert body["format"] == 1
    return body["masks"]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_masks_are_noted_with_the_hash_of_their_bytes(tmp_path: Path) -> None:
    assert write(tmp_path, a=b"1", b=b"2") == set()
    assert stored(tmp_path) == {"a": b"1", "b": b"2"}
    assert noted(tmp_path) == {"a": sha256(b"1"), "b": sha256(b"2")}


def test_an_unchanged_mask_follows_the_prediction_and_a_changed_one_stays(tmp_path: Path) -> None:
    write(tmp_path, a=b"1", b=b"2", c=b"3")
    (tmp_path / "train_masks" / "b").write_bytes(b"mine")
    assert write(tmp_path, a=b"new", b=b"new", d=b"4") == {"b"}
    assert stored(tmp_path) == {"a": b"new", "b": b"mine", "c": b"3", "d": b"4"}
    notes = noted(tmp_path)
    assert notes["a"] == sha256(b"new")
    assert notes["b"] == sha256(b"2"), "the mask of a person still differs from its note"
    assert notes["c"] == sha256(b"3"), "a mask that is no longer listed is still known"
    assert write(tmp_path, b=b"again") == {"b"}


def test_a_mask_of_a_person_that_was_never_noted_stays(tmp_path: Path) -> None:
    write(tmp_path, a=b"1")
    (tmp_path / "train_masks" / "b").write_bytes(b"mine")
    assert write(tmp_path, b=b"2") == {"b"}
    assert stored(tmp_path)["b"] == b"mine"
    assert noted(tmp_path).get("b") != sha256(b"mine")


def test_a_mask_that_is_saved_while_the_command_runs_stays(tmp_path: Path) -> None:
    write(tmp_path, a=b"1")
    folder = ReviewFolder.open(str(tmp_path))
    masks = [("a", b"new", folder.read_mask("a")), ("b", b"2", StoredMask())]
    for name in "ab":
        (tmp_path / "train_masks" / name).write_bytes(b"mine")
    assert folder.write_masks(masks) == {"a", "b"}
    assert stored(tmp_path) == {"a": b"mine", "b": b"mine"}
    assert sha256(b"mine") not in noted(tmp_path).values()


@pytest.mark.parametrize("calls", range(4))
def test_a_killed_command_leaves_no_correction_after_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    write(tmp_path, a=b"1", b=b"mine to be")
    (tmp_path / "train_masks" / "b").write_bytes(b"mine")
    left = calls
    write_atomic = storage.write_atomic

    def killed(*args: object, **options: object) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return write_atomic(*args, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(storage, "write_atomic", killed)
        try:
            write(tmp_path, a=b"new", b=b"new", c=b"3")
        except KeyboardInterrupt:
            assert calls < 3
        else:
            assert calls == 3
    assert stored(tmp_path).get("c") is None or noted(tmp_path)["c"] == sha256(b"3")
    assert write(tmp_path, a=b"new", b=b"new", c=b"3") == {"b"}
    assert stored(tmp_path) == {"a": b"new", "b": b"mine", "c": b"3"}
    assert noted(tmp_path)["a"] == sha256(b"new")


def test_a_folder_of_another_origin_is_refused(tmp_path: Path) -> None:
    for name in ("train", "train_masks", "outlines"):
        folder = tmp_path / f"of {name}"
        (folder / name).mkdir(parents=True)
        with pytest.raises(InputError, match=f"--to {folder}: has {name}/ but no _review.json"):
            ReviewFolder.open(str(folder))
    assert ReviewFolder.open(str(tmp_path / "new")).noted == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "masks": {}}', "\xff"])
def test_damaged_notes_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "_review.json").write_text(text)
    with pytest.raises(InputError, match=r"_review.json: damaged .*review needs another folder"):
        ReviewFolder.open(str(tmp_path))


def test_two_commands_at_once_do_not_lose_notes(tmp_path: Path) -> None:
    first, second = (ReviewFolder.open(str(tmp_path)) for _ in range(2))
    first.write_masks([("a", b"1", StoredMask())])
    with pytest.raises(IncompleteError, match="another review writes"):
        second.write_masks([("b", b"2", StoredMask())])
    assert noted(tmp_path) == {"a": sha256(b"1")}
    assert stored(tmp_path) == {"a": b"1"}
