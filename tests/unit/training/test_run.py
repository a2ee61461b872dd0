"""A training run's summary and the pairs that it skips; test_input has its input."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.corpus import save

from carvana_ray import config
from carvana_ray.errors import InputError
from carvana_ray.storage import FileInfo
from carvana_ray.training import run as runs
from carvana_ray.training.batch_plan import BatchPlan


def row(epoch: int, val_dice: float, images: int = 100, rate: float = 50.0) -> dict[str, float]:
    return {
        "epoch": epoch,
        "val_dice": val_dice,
        "images": images,
        "images_per_second": rate,
        "data_wait_fraction": 0.5 / epoch,
    }


def test_the_last_of_the_best_epochs_is_kept() -> None:
    assert runs.best_epoch([row(1, 0.5), row(2, 0.7), row(3, 0.6)])["epoch"] == 2
    assert runs.best_epoch([row(1, 0.5), row(2, 0.5), row(3, 0.4)])["epoch"] == 2


def test_without_validation_the_last_epoch_is_kept() -> None:
    rows = [{"epoch": 1.0, "dice": 0.9}, {"epoch": 2.0, "dice": 0.8}]
    assert runs.best_epoch(rows)["epoch"] == 2


def test_rates_are_means_over_time_not_over_epochs() -> None:
    summary = runs.summarize([row(1, 0.1, 100, 100.0), row(2, 0.2, 100, 25.0)])
    assert summary["images"] == 200
    assert summary["images_per_second"] == 40.0  # 200 in 1 + 4 seconds
    assert summary["data_wait_fraction"] == pytest.approx((0.5 * 1 + 0.25 * 4) / 5)
    assert summary["val_dice"] == 0.2


def a_run(train: int, val: int, batch: int = 4, workers: int = 1) -> runs.TrainingRun:
    names = [f"{at:012x}_01" for at in range(train + val)]
    return runs.TrainingRun(
        image_dir="/data/train",
        mask_dir="/data/train_masks",
        pairs=[
            (FileInfo(f"{name}.jpg", 1, "1"), FileInfo(f"{name}_mask.gif", 1, "1"))
            for name in names
        ],
        cars=([], [], []),
        plan=BatchPlan(train=train, val=val, batch=batch, workers=workers, epochs=3, seed=1),
        size=(1280, 1918),
        run_id="abc",
        crcs={},
    )


def errors_at(run: runs.TrainingRun, *rows: int) -> list[str]:
    """Return the errors of `decode_pairs` if the images in these rows are bad."""
    return [
        f"{run.image_dir}/{image.name}: truncated" if row in rows else ""
        for row, (image, _) in enumerate(run.pairs)
    ]


def flags(on_bad_picture: str = "fail", **others: int) -> config.TrainFlags:
    return config.TrainFlags(on_bad_picture=on_bad_picture, **others)  # type: ignore[arg-type]


def test_without_bad_pairs_all_are_kept_and_the_plan_stays() -> None:
    run = a_run(20, 6)
    for kind in ("fail", "skip"):
        kept, plan = runs.drop_bad_pairs(flags(kind), run, errors_at(run))
        assert kept.tolist() == list(range(26))
        assert kept.dtype == np.int64
        assert plan == run.plan


@pytest.mark.parametrize("rows", [(0,), (3, 21), (1, 2, 25), (0, 1, 2, 3, 24)])
def test_bad_pairs_are_an_error_of_one_line_that_names_three_of_them(
    rows: tuple[int, ...],
) -> None:
    run = a_run(20, 6)
    errors = errors_at(run, *rows)
    with pytest.raises(InputError, match=f"--data: {len(rows)} of 26 ") as caught:
        runs.drop_bad_pairs(flags(), run, errors)
    text = str(caught.value)
    assert "\n" not in text
    assert "--on-bad-picture skip" in text
    for count, row in enumerate(rows):
        assert (errors[row] in text) == (count < 3)
    assert ("..." in text) == (len(rows) > 3)


@pytest.mark.parametrize("rows", [(0,), (3, 21), (20, 21, 22, 23, 24, 25), tuple(range(16))])
def test_skipping_keeps_the_good_pairs_in_order_and_the_plan_counts_them(
    rows: tuple[int, ...],
) -> None:
    run = a_run(20, 6)
    kept, plan = runs.drop_bad_pairs(flags("skip"), run, errors_at(run, *rows))
    assert kept.tolist() == [row for row in range(26) if row not in rows]
    assert plan.train == sum(row < 20 for row in kept)
    assert plan.val == sum(row >= 20 for row in kept)
    assert (plan.batch, plan.epochs, plan.seed) == (4, 3, 1)
    # Training pairs stay training pairs, and validation pairs stay validation pairs.
    for index in range(plan.epochs * plan.blocks_per_epoch):
        block = plan.worker_batch(index)
        assert ((kept[block.indices] < 20) == block.training).all()


def test_too_many_bad_pairs_are_an_error_even_with_skip() -> None:
    """The limit is 100 or one in a hundred, the larger of the two."""
    for total, most in ((400, 100), (10_000, 100), (30_000, 300)):
        run = a_run(total - 50, 50)
        kept, _ = runs.drop_bad_pairs(flags("skip"), run, errors_at(run, *range(most)))
        assert len(kept) == total - most
        with pytest.raises(InputError, match=f"--data: {most + 1} of {total} ") as caught:
            runs.drop_bad_pairs(flags("skip"), run, errors_at(run, *range(most + 1)))
        assert "too many to skip" in str(caught.value)
        assert "--on-bad-picture skip" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_too_few_good_pairs_for_a_batch_are_an_error_that_names_its_flag() -> None:
    run = a_run(20, 6)
    with pytest.raises(InputError, match=r"--batch-size 4 .* 3 "):
        runs.drop_bad_pairs(flags("skip"), run, errors_at(run, *range(17)))


def own_data(folder: Path, names: list[str]) -> Path:
    for name in names:
        for part, file in (("train", f"{name}.png"), ("train_masks", f"{name}_mask.png")):
            (folder / part).mkdir(exist_ok=True, parents=True)
            (folder / part / file).write_bytes(save(np.zeros((8, 12), np.uint8), "PNG"))
    return folder


def planned(data: Path, **changes: Any) -> runs.TrainingRun:
    values = {"batch_size": 1, "val_cars": "0", **changes}
    return runs.plan_run(config.TrainFlags(data=str(data), **values), 1)


def test_each_own_image_is_a_car_unless_the_data_or_a_flag_say_otherwise(tmp_path: Path) -> None:
    names = [f"{car}_{view:02d}" for car in ("cara", "carb", "carc") for view in (1, 2)]
    data = own_data(tmp_path, names)
    alone = planned(data, holdout_cars="2")
    assert [len(part) for part in alone.cars] == [4, 0, 2]
    assert len(alone.pairs) == 4
    assert alone.cars_in_words == (
        "6 cars (each image is one; --cars-by CAR_VIEW makes them 3 cars)"
    )
    grouped = planned(data, holdout_cars="1", cars_by="CAR_VIEW")
    assert [len(part) for part in grouped.cars] == [2, 0, 1]
    assert len(grouped.pairs) == 4
    assert grouped.cars_in_words == "3 cars"
    (data / "metadata.csv").write_text("id\ncara\ncarb\ncarc\n")
    listed = planned(data, holdout_cars="1")
    assert (listed.cars, listed.run_id) == (grouped.cars, grouped.run_id)


def test_the_run_id_depends_on_the_encoder(tmp_path: Path) -> None:
    """Without an encoder it is that of versions before encoders."""
    data = own_data(tmp_path, ["a", "b", "c"])
    flags = {"recipe": "best", "holdout_cars": "1"}
    assert planned(data, **flags).run_id == planned(data, **flags, encoder="none").run_id
    assert planned(data, **flags).run_id != planned(data, **flags, encoder="lite0").run_id


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_held_out_cars_may_come_from_any_editor(tmp_path: Path, encoding: str) -> None:
    data = own_data(tmp_path, ["K\u00e4fer", "sedan", "van"])
    (tmp_path / "cars.txt").write_bytes("K\u00e4fer \r\nvan\r\n\r\n".encode(encoding))
    run = planned(data, holdout_cars=str(tmp_path / "cars.txt"))
    assert run.cars == (["sedan"], [], ["K\u00e4fer", "van"])


def test_errors_about_bad_pairs_say_where_all_are_listed_and_why_none_are_left() -> None:
    run = a_run(20, 6)
    with pytest.raises(InputError, match=r"\.\.\.; the full list is in /out/quarantine\.csv; "):
        runs.drop_bad_pairs(flags(), run, errors_at(run, *range(5)), "/out/quarantine.csv")
    for left in (0, 3):
        errors = errors_at(run, *range(left, 26))
        with pytest.raises(InputError, match=f"the {left} training images") as caught:
            runs.drop_bad_pairs(flags("skip"), run, errors, "/out/quarantine.csv")
        text = str(caught.value)
        assert f"{26 - left} of 26 pairs cannot be used: {errors[left]}; " in text
        assert text.endswith(" ...; the full list is in /out/quarantine.csv")
