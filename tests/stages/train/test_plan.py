"""The plan of a training job: faults of its input are listed before anything starts."""

import csv
from pathlib import Path

import pytest
from support.corpus import jpeg

from carvana_ray import config
from carvana_ray.errors import InputError
from carvana_ray.stages.train.plan import check_run
from carvana_ray.training import pretrained


def test_all_images_without_a_mask_are_listed(tmp_path: Path) -> None:
    for name in range(9):
        (tmp_path / "data/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/train/{name}.jpg").write_bytes(jpeg())
    (tmp_path / "data/train_masks").mkdir()
    out = tmp_path / "out"
    flags = config.TrainFlags(data=str(tmp_path / "data"), out=str(out))
    with pytest.raises(InputError, match=rf"no mask .* 9 of 9 .* list is in {out}/quarantine\.csv"):
        check_run(flags)
    with open(out / "quarantine.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["img", "reason"],
            *([f"{name}.jpg", f"no mask (expected {name}_mask.png)"] for name in range(9)),
        ]


def test_missing_weights_of_an_encoder_are_an_error_before_the_data_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    flags = config.TrainFlags(data=str(tmp_path), out=str(tmp_path / "out"), encoder="lite0")
    with pytest.raises(InputError, match="lite0: its weights are not installed"):
        check_run(flags)
