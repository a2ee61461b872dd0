"""`review` writes what a person needs to correct masks, and keeps what a person has corrected."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.corpus import exif
from support.reviews import blob, photo, png, predict_masks, write_prediction
from support.s3_buckets import download, upload
from support.s3_servers import Server

from carvana_ray import config, images, storage
from carvana_ray.config import cli
from carvana_ray.data.corrections import load_corrections
from carvana_ray.data.pairs import pair_with_masks
from carvana_ray.errors import InputError, StorageUnavailableError
from carvana_ray.stages import review

NAMES = ["b.jpg", "a (2), é.jpeg", "c.b.jpg", "d.jpg", "車.jpg"]


def run(root: Path, **flags: Any) -> dict[str, Any]:
    return review.run(config.ReviewFlags(out=str(root / "out"), **flags))


def files_in(folder: Path) -> dict[str, bytes]:
    """Return all files by their paths, without hidden ones."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_the_folder_has_images_and_exactly_the_masks_of_the_submission(tmp_path: Path) -> None:
    masks = write_prediction(tmp_path, NAMES, listed=NAMES[:3], model="starter")
    result = run(tmp_path)
    folder = tmp_path / "out" / "review"
    counts = {name: result[name] for name in ("images", "listed", "missing", "kept", "earlier")}
    assert counts == {"images": 3, "listed": 3, "missing": 0, "kept": 0, "earlier": 0}
    assert result["folder"] == str(folder)
    found = files_in(folder)
    listed = sorted(NAMES[:3])
    pairs = pair_with_masks(
        [path.name for path in (folder / "train").iterdir()],
        [path.name for path in (folder / "train_masks").iterdir()],
    )
    assert [image for image, _ in pairs] == listed
    for image, mask in pairs:
        assert found[f"train/{image}"] == (tmp_path / "photos" / image).read_bytes()
        assert np.array_equal(images.load_mask(found[f"train_masks/{mask}"]), masks[image])
        outline = f"outlines/{image.rsplit('.', 1)[0]}.png"
        assert Image.open(folder / outline).size == Image.open(folder / "train" / image).size
    notes = {"README.txt", "_review.json", "coco.json"}
    assert {name for name in found if "/" not in name} == notes
    assert len(found) == 3 * 3 + len(notes)
    coco = json.loads(found["coco.json"])
    numbers = {image["file_name"]: image["id"] for image in coco["images"]}
    assert numbers == {name: number for number, name in enumerate(NAMES[:3], start=1)}
    areas = {annotation["image_id"]: annotation["area"] for annotation in coco["annotations"]}
    assert areas == {numbers[name]: masks[name].sum() for name in NAMES[:3]}


def test_the_text_names_the_images_and_the_next_command(tmp_path: Path) -> None:
    write_prediction(tmp_path, NAMES, listed=NAMES[:3], model="starter")
    result = run(tmp_path)
    text = (tmp_path / "out" / "review" / "README.txt").read_text()
    for name in NAMES:
        assert (f"  {name}\n      reason of {name}" in text) == (name in NAMES[:3])
    assert f"  carvana-ray {result['next']}\n" in text
    name, *words = shlex.split(result["next"])
    flags = cli.parse(config.PredictFlags, name, words)
    assert flags.corrections == result["folder"]
    assert (flags.data, flags.model) == (str(tmp_path / "photos"), "starter")


def test_again_a_corrected_mask_stays_and_all_else_is_refreshed(tmp_path: Path) -> None:
    write_prediction(tmp_path, NAMES[:4], listed=NAMES[:3])
    run(tmp_path)
    folder = tmp_path / "out" / "review"
    before = files_in(folder)
    assert run(tmp_path)["kept"] == 0
    assert files_in(folder) == before
    mine = png(blob(4))
    (folder / "train_masks" / "b_mask.png").write_bytes(mine)
    (folder / "train" / "b.jpg").write_bytes(b"painted over")
    shifted = {name: np.roll(blob(seed), 1, axis=1) for seed, name in enumerate(NAMES[:4])}
    predict_masks(tmp_path / "out", tmp_path / "photos", shifted, listed=[NAMES[0], NAMES[3]])
    result = run(tmp_path)
    counts = {name: result[name] for name in ("images", "listed", "missing", "kept", "earlier")}
    assert counts == {"images": 2, "listed": 2, "missing": 0, "kept": 1, "earlier": 2}
    after = files_in(folder)
    assert before.keys() <= after.keys()
    assert after["train_masks/b_mask.png"] == mine
    assert after["train/b.jpg"] == before["train/b.jpg"]
    assert np.array_equal(images.load_mask(after["train_masks/d_mask.png"]), shifted["d.jpg"])
    assert after["train_masks/c.b_mask.png"] == before["train_masks/c.b_mask.png"]
    coco = json.loads(after["coco.json"])
    areas = {annotation["id"]: annotation["area"] for annotation in coco["annotations"]}
    assert areas[1] == blob(4).sum(), "annotation tools see the corrected mask"
    outline = np.asarray(Image.open(folder / "outlines" / "b.png"))[..., 3] > 0
    assert outline[blob(4) & ~np.roll(blob(4), 1, axis=0)].all(), "the outline is the corrected one"


def test_a_corrected_mask_that_cannot_be_used_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_prediction(tmp_path, NAMES)
    run(tmp_path)
    mask = tmp_path / "out" / "review" / "train_masks" / "d_mask.png"
    mask.write_bytes(png(blob(1, (10, 80))))
    caplog.clear()
    assert run(tmp_path)["kept"] == 1
    (message,) = caplog.messages
    assert message.startswith("1 changed mask cannot be used as it is: d_mask.png: wrong-size")
    assert mask.read_bytes() == png(blob(1, (10, 80)))


def test_the_limit_takes_the_most_unusual_images(tmp_path: Path) -> None:
    write_prediction(tmp_path, NAMES, listed=NAMES[1:])
    result = run(tmp_path, limit=2, to=str(tmp_path / "two"))
    assert (result["listed"], result["folder"]) == (2, str(tmp_path / "two"))
    assert {path.name for path in (tmp_path / "two" / "train").iterdir()} == set(NAMES[1:3])
    assert not (tmp_path / "out" / "review").exists()
    assert run(tmp_path, to=str(tmp_path / "two"))["images"] == 4


def test_an_image_that_is_gone_is_named_and_the_others_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_prediction(tmp_path, NAMES)
    (tmp_path / "photos" / "b.jpg").unlink()
    (tmp_path / "photos" / "c.b.jpg").write_bytes(photo(2, (50, 50)))
    result = run(tmp_path)
    assert (result["images"], result["missing"]) == (3, 2)
    (message,) = caplog.messages
    assert message.startswith("left out: 2 of 5 listed images: b.jpg: no such file; c.b.jpg: wrong")
    folder = tmp_path / "out" / "review"
    assert len(list((folder / "train").iterdir())) == 3
    assert "b.jpg" not in (folder / "README.txt").read_text()
    with pytest.raises(InputError, match=r"--data .*none of 5 listed images can be used"):
        run(tmp_path, data=str(tmp_path / "out"), to=str(tmp_path / "none"))


def test_a_turned_image_lies_as_its_mask(tmp_path: Path) -> None:
    write_prediction(tmp_path, NAMES)
    (tmp_path / "photos" / "d.jpg").write_bytes(photo(3, exif=exif(6)))
    run(tmp_path)
    folder = tmp_path / "out" / "review"
    with Image.open(folder / "train" / "d.png") as image:
        assert image.size == (61, 40)
        assert not image.getexif()
    assert not (folder / "train" / "d.jpg").exists()
    names = [path.name for path in (folder / "train_masks").iterdir()]
    assert dict(pair_with_masks(["d.png"], names))["d.png"] == "d_mask.png"
    assert dict(pair_with_masks(["d.jpg"], names))["d.jpg"] == "d_mask.png"


def test_only_changed_masks_are_corrections_also_of_a_turned_image(tmp_path: Path) -> None:
    write_prediction(tmp_path, NAMES)
    (tmp_path / "photos" / "d.jpg").write_bytes(photo(3, exif=exif(6)))
    folder = run(tmp_path)["folder"]
    found = load_corrections(folder, NAMES)
    assert (found.uris, found.unchanged, found.unused) == ({}, 5, [])
    mask = Path(folder) / "train_masks" / "d_mask.png"
    mask.write_bytes(png(blob(1)))
    assert run(tmp_path)["kept"] == 1
    found = load_corrections(folder, NAMES)
    assert (found.uris, found.unchanged, found.unused) == ({"d.jpg": str(mask)}, 4, [])


def test_without_listed_images_nothing_is_written(tmp_path: Path) -> None:
    write_prediction(tmp_path, NAMES, listed=["none"])
    result = run(tmp_path)
    assert (result["images"], result["listed"]) == (0, 0)
    assert not (tmp_path / "out" / "review").exists()


def test_more_images_than_are_in_memory_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "AT_ONCE", 2)
    masks = write_prediction(tmp_path, NAMES)
    assert run(tmp_path)["images"] == 5
    folder = tmp_path / "out" / "review" / "train_masks"
    found = {path.name: images.load_mask(path.read_bytes()) for path in folder.glob("*.png")}
    for name, mask in masks.items():
        assert np.array_equal(found[f"{name.rsplit('.', 1)[0]}_mask.png"], mask)


def test_a_disk_that_fails_ends_the_command_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prediction(tmp_path, NAMES)
    read = storage.read

    def failing(uri: str, *args: Any, **options: Any) -> bytes:
        if uri.endswith("d.jpg"):
            raise StorageUnavailableError(5, "the disk fails", uri)
        return read(uri, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr("carvana_ray.storage.router.read", failing)
        with pytest.raises(StorageUnavailableError):
            run(tmp_path)
    assert not (tmp_path / "out" / "review" / "coco.json").exists()
    assert run(tmp_path)["images"] == 5


def test_a_prediction_with_corrections_of_another_folder_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_prediction(tmp_path, NAMES, corrections=str(tmp_path / "first"))
    run(tmp_path, to=str(tmp_path / "first"))
    assert caplog.messages == []
    run(tmp_path)
    (message,) = caplog.messages
    assert f"--to {tmp_path}/first" in message


def test_a_folder_of_training_data_is_never_written_to(tmp_path: Path) -> None:
    write_prediction(tmp_path, NAMES)
    (tmp_path / "photos").rename(tmp_path / "train")
    before = files_in(tmp_path)
    with pytest.raises(InputError, match=r"--to .*: has train/ but no _review.json"):
        run(tmp_path, data=str(tmp_path / "train"), to=str(tmp_path))
    assert files_in(tmp_path) == before


def reviewed(server: Server, home: str) -> dict[str, bytes]:
    """Return the files of OUT/review in a bucket."""
    found = download(server, f"{home}/out").items()
    return {key.removeprefix("review/"): data for key, data in found if key.startswith("review/")}


def test_the_folder_in_s3_is_that_on_disk(
    tmp_path: Path, s3: Server, bucket: Callable[[Server], str]
) -> None:
    home = bucket(s3)
    write_prediction(tmp_path, NAMES)
    upload(s3, tmp_path / "photos", f"{home}/photos")
    upload(s3, tmp_path / "out", f"{home}/out")
    run(tmp_path)
    flags = config.ReviewFlags(out=f"{home}/out", data=f"{home}/photos")
    assert review.run(flags)["images"] == 5
    here, there = files_in(tmp_path / "out" / "review"), reviewed(s3, home)
    here.pop("README.txt")
    assert f"--corrections {home}/out/review" in there.pop("README.txt").decode()
    assert there == here
    mine = png(blob(4))
    s3.client().put_object(
        Bucket=home.removeprefix("s3://"), Key="out/review/train_masks/b_mask.png", Body=mine
    )
    assert review.run(flags)["kept"] == 1
    assert reviewed(s3, home)["train_masks/b_mask.png"] == mine
