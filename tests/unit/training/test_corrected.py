"""Corrected masks among the training pairs: which are used, and what stays as it was."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.blocks import batch_of
from support.corpus import save
from support.finetuning import write_model
from support.s3_servers import Server

from carvana_ray import config, storage
from carvana_ray.data.corrections import Corrections
from carvana_ray.errors import InputError
from carvana_ray.stages.ingest.read_pairs import PairOptions, pairs_row, read_pairs
from carvana_ray.training import run as runs
from carvana_ray.training.corrected import choose

CARS = [f"{car:012x}" for car in range(10)]
GROUND, CAR = (np.full((8, 12), level, np.uint8) for level in (0, 255))


def write(folder: Path, stems: Iterable[str], mask: np.ndarray = GROUND) -> None:
    """Write an image and a mask for each stem, with a fixed time."""
    for stem in stems:
        for part, name in (("train", f"{stem}.bmp"), ("train_masks", f"{stem}_mask.bmp")):
            file = folder / part / name
            file.parent.mkdir(exist_ok=True, parents=True)
            file.write_bytes(save(mask, "BMP"))
            os.utime(file, ns=(10**18, 10**18))


def correct(folder: Path, stems: Iterable[str], mask: np.ndarray = CAR) -> None:
    """Write corrections as masks alone."""
    folder.mkdir(exist_ok=True)
    for stem in stems:
        (folder / f"{stem}_mask.bmp").write_bytes(save(mask, "BMP"))  # of one size


def stems_of(cars: Iterable[str]) -> list[str]:
    return [f"{car}_{view:02d}" for car in cars for view in (1, 2)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data", stems_of(CARS))
    return tmp_path / "data"


def planned(data: Path, corrections: Path | str = "", **changes: Any) -> runs.TrainingRun:
    values = {"batch_size": 1, "holdout_cars": "2", "val_cars": "2", **changes}
    values["corrections"] = str(corrections)
    base_model = values.pop("base_model", None)
    return runs.plan_run(config.TrainFlags(data=str(data), **values), 1, base_model)


def masks_of(run: runs.TrainingRun) -> dict[str, str]:
    """Return the mask of each image of a run, both as names or URIs."""
    return {image.name: mask.name for image, mask in run.pairs}


def test_without_corrections_a_run_has_the_id_of_versions_before_them(data: Path) -> None:
    assert planned(data).run_id == "8a2a2d655b2e9f57"


def test_a_training_image_gets_its_corrected_mask_in_its_place(data: Path, tmp_path: Path) -> None:
    before = planned(data)
    fixed = f"{before.cars[0][1]}_02"
    correct(tmp_path / "fixed", [fixed])
    after = planned(data, tmp_path / "fixed")
    assert after.cars == before.cars
    assert after.plan == before.plan
    expected = masks_of(before) | {f"{fixed}.bmp": f"{tmp_path}/fixed/{fixed}_mask.bmp"}
    assert masks_of(after) == expected
    assert list(masks_of(after)) == list(masks_of(before))
    assert (len(after.corrected.pairs), after.corrected.replaced) == (1, 1)
    assert after.corrected.left_out == {}


def test_a_copy_of_another_suffix_is_no_other_image(data: Path, tmp_path: Path) -> None:
    """As `review` writes an image that EXIF turns."""
    stem = stems_of(planned(data).cars[0])[0]
    write(tmp_path / "fixed", [stem], CAR)
    copy = tmp_path / "fixed/train" / f"{stem}.bmp"
    copy.rename(copy.with_suffix(".png"))
    run = planned(data, tmp_path / "fixed")
    assert run.plan == planned(data).plan
    assert masks_of(run)[f"{stem}.bmp"] == f"{tmp_path}/fixed/train_masks/{stem}_mask.bmp"
    assert (len(run.corrected.pairs), run.corrected.left_out) == (1, {})


def test_a_car_without_a_mask_becomes_a_training_car(data: Path, tmp_path: Path) -> None:
    before = planned(data)
    new, known = "0123456789ab_07", f"{before.cars[0][0]}_09"
    write(tmp_path / "fixed", [new, known], CAR)
    after = planned(data, tmp_path / "fixed")
    assert after.cars[0] == sorted([*before.cars[0], "0123456789ab"])
    assert after.cars[1:] == before.cars[1:]
    assert after.cars_in_words == "11 cars"
    assert (after.plan.train, after.plan.val) == (before.plan.train + 2, before.plan.val)
    added = set(masks_of(after).items()) - set(masks_of(before).items())
    assert added == {
        (f"{tmp_path}/fixed/train/{stem}.bmp", f"{tmp_path}/fixed/train_masks/{stem}_mask.bmp")
        for stem in (new, known)
    }
    names = [storage.name(image.name) for image, _ in after.pairs[: after.plan.train]]
    assert names == sorted(names)
    assert after.pairs[after.plan.train :] == before.pairs[before.plan.train :]
    assert (len(after.corrected.pairs), after.corrected.replaced) == (2, 0)


def test_images_of_masks_alone_are_those_of_the_test_folder(data: Path, tmp_path: Path) -> None:
    (data / "test").mkdir()
    (data / "test" / "0123456789ab_07.bmp").write_bytes(save(GROUND, "BMP"))
    correct(tmp_path / "fixed", ["0123456789ab_07", "stranger"])
    run = planned(data, tmp_path / "fixed")
    expected = f"{data}/test/0123456789ab_07.bmp", f"{tmp_path}/fixed/0123456789ab_07_mask.bmp"
    assert expected in masks_of(run).items()
    assert run.corrected.left_out == {"unused": 1}


def test_corrections_of_cars_that_score_are_left_out(data: Path, tmp_path: Path) -> None:
    before = planned(data)
    train, val, held = before.cars
    write(tmp_path / "fixed", stems_of([*val, *held, train[0]]), CAR)
    write(tmp_path / "fixed", [f"{held[0]}_09"], CAR)  # another image of a held-out car
    base_model = write_model(tmp_path / "model", holdout_cars=[train[0], held[0]])
    own = {"recipe": "default", "base": 2}
    after = planned(data, tmp_path / "fixed", **own, base_model=base_model)
    assert after.pairs == before.pairs
    assert after.corrected.left_out == {"held_out": 5, "validation": 4, "base_held_out": 2}
    assert after.run_id == planned(data, **own, base_model=base_model).run_id


@pytest.mark.parametrize("seed", range(8))
def test_no_held_out_car_is_ever_trained_on(data: Path, tmp_path: Path, seed: int) -> None:
    write(tmp_path / "fixed", [*stems_of(CARS), "0123456789ab_07", f"{CARS[seed % 10]}_09"], CAR)
    before = planned(data, seed=seed)
    after = planned(data, tmp_path / "fixed", seed=seed)
    car_of = {storage.name(image.name)[:12] for image, _ in after.pairs[: after.plan.train]}
    assert car_of == {*before.cars[0], "0123456789ab"} == set(after.cars[0])
    assert after.cars[1:] == before.cars[1:]
    assert after.pairs[after.plan.train :] == before.pairs[before.plan.train :]
    assert len(after.pairs) == len({storage.name(image.name) for image, _ in after.pairs})
    left_out = sum(after.corrected.left_out.values())
    assert len(after.corrected.pairs) + left_out == 2 * len(CARS) + 2


def test_every_correction_is_used_or_left_out_for_one_reason() -> None:
    names = [f"{car}_01.jpg" for car in "abcdefgh"]
    found = Corrections(
        uris={name: f"/x/{name}" for name in names},
        digests=dict.fromkeys(names, "0" * 16),
        unchanged=3,
        unused=["z.png"],
    )
    for a, b, c, d in itertools.product(range(3), repeat=4):  # train, val or holdout
        groups = dict(zip("abcd", (a, b, c, d), strict=True))
        train, val, held = ([car for car in groups if groups[car] == at] for at in range(3))
        used, left_out = choose(found, (train, val, held), ["a", "e"], lambda name: name[0])
        assert used == [f"{car}_01.jpg" for car in "abcdefgh" if car in {*train, *"fgh"} - {"a"}]
        assert sum(left_out.values()) == len(names) - len(used) + 3 + 1
        assert left_out.get("held_out", 0) == len(held)
        assert left_out.get("validation", 0) == len(val)


def test_the_run_id_depends_on_what_was_corrected_alone(data: Path, tmp_path: Path) -> None:
    stem, other = stems_of(planned(data).cars[0][:1])
    correct(tmp_path / "one", [stem])
    run_id = planned(data, tmp_path / "one").run_id
    assert run_id != planned(data).run_id
    mask = tmp_path / "one" / f"{stem}_mask.bmp"
    os.utime(mask, ns=(10**18, 10**18))
    assert planned(data, tmp_path / "one").run_id == run_id, "the time of a copy"
    (tmp_path / "one").rename(tmp_path / "two")
    assert planned(data, tmp_path / "two").run_id == run_id, "the folder"
    ids = {run_id}
    correct(tmp_path / "two", [other])
    ids.add(planned(data, tmp_path / "two").run_id)
    changed = CAR.copy()
    changed[0] = 0
    correct(tmp_path / "two", [other], changed)
    ids.add(planned(data, tmp_path / "two").run_id)
    (tmp_path / "two" / f"{stem}_mask.bmp").unlink()
    ids.add(planned(data, tmp_path / "two").run_id)
    assert len(ids) == 4


def test_masks_as_they_were_written_are_no_corrections(data: Path, tmp_path: Path) -> None:
    stems = stems_of(planned(data).cars[0][:1])
    write(tmp_path / "review", stems, CAR)
    masks = sorted((tmp_path / "review/train_masks").iterdir())
    sums = {mask.name: hashlib.sha256(mask.read_bytes()).hexdigest() for mask in masks}
    (tmp_path / "review/_review.json").write_text(json.dumps({"format": 1, "masks": sums}))
    run = planned(data, tmp_path / "review")
    assert run.run_id == planned(data).run_id
    assert run.corrected.left_out == {"unchanged": 2}
    masks[1].write_bytes(save(GROUND, "BMP"))
    run = planned(data, tmp_path / "review")
    assert list(run.corrected.pairs) == [f"{stems[1]}.bmp"]
    assert masks_of(run)[f"{stems[1]}.bmp"] == str(masks[1]), "the image of --data"
    assert run.corrected.left_out == {"unchanged": 1}


def test_a_folder_of_a_review_is_a_data_set(tmp_path: Path) -> None:
    write(tmp_path / "review", stems_of(CARS[:4]), CAR)
    (tmp_path / "review/outlines").mkdir()
    (tmp_path / "review/_review.json").write_text('{"format": 1, "masks": {}}')
    run = planned(tmp_path / "review", holdout_cars="1", val_cars="1")
    assert [len(cars) for cars in run.cars] == [2, 1, 1]
    again = planned(tmp_path / "review", tmp_path / "review", holdout_cars="1", val_cars="1")
    assert (again.cars, again.plan) == (run.cars, run.plan)
    assert again.corrected.left_out == {"held_out": 2, "validation": 2}


def test_the_size_is_that_of_the_data(data: Path, tmp_path: Path) -> None:
    write(tmp_path / "fixed", ["000000000000_00"], np.zeros((9, 9), np.uint8))
    assert planned(data, tmp_path / "fixed").size == (8, 12)


def test_a_folder_that_does_not_exist_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none"):
        planned(data, tmp_path / "none")


def test_one_line_says_what_is_used(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    planned(data).corrected.log()
    assert caplog.messages == []
    train, val, held = planned(data).cars
    fixed = [*stems_of([train[0], held[1]]), f"{val[0]}_01", "0123456789ab_07"]
    write(tmp_path / "fixed", fixed, CAR)
    for at in range(4):
        (tmp_path / "fixed/train_masks" / f"z{at}.png").write_bytes(save(CAR, "PNG"))
    planned(data, tmp_path / "fixed").corrected.log()
    assert caplog.messages == [
        "corrected masks: 1 pair added, 2 pairs replaced; left out: 2 of held-out cars, "
        "1 of validation cars, 4 of no image (z0.png, z1.png, z2.png ...)"
    ]


def test_corrections_in_s3_are_those_of_the_disk(
    data: Path, tmp_path: Path, s3: Server, bucket: Callable[[Server], str]
) -> None:
    uri = f"{bucket(s3)}/fixed"
    write(tmp_path / "fixed", ["0123456789ab_07", f"{planned(data).cars[0][0]}_01"], CAR)
    for file in (tmp_path / "fixed").rglob("*.bmp"):
        key = file.relative_to(tmp_path / "fixed")
        storage.write_atomic(f"{uri}/{key}", file.read_bytes())
    here, there = planned(data, tmp_path / "fixed"), planned(data, uri)
    assert (there.cars, there.plan) == (here.cars, here.plan)
    names = {name.replace(str(tmp_path / "fixed"), uri) for name in masks_of(here).values()}
    assert set(masks_of(there).values()) == names
    options = PairOptions(
        image_dir=there.image_dir, mask_dir=there.mask_dir, downscale=1, size=(8, 12)
    )
    read = read_pairs(batch_of(pairs_row(there.pairs, {})), options)
    assert set(read["error"]) == {""}
    assert read["soft_mask"].any(axis=(1, 2)).sum() == 2
