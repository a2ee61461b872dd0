"""Whole trainings: from a base model, resumed, with event files."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from support.event_files import expected, read_back
from support.finetuning import flags_of, write_model
from support.pairs import draw_pair

from carvana_ray import config, images, storage
from carvana_ray.checkpoints.model import load_manifest, load_model
from carvana_ray.checkpoints.train_state import list_epochs
from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages import pipeline
from carvana_ray.stages.train import stage as train
from carvana_ray.stages.train.dataset import decode_pairs
from carvana_ray.training import tensorboard as events

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)  # as `ray_session` has it
FEW = {"batch_size": 8, "holdout_cars": "2", "val_cars": "1", "limit": 40}
TINY_RATE = 1e-30  # a step is at most 30 times the rate: far below what float32 adds to a weight


def test_a_pipeline_refuses_a_model_before_it_draws(tmp_path: Path) -> None:
    flags = config.PipelineFlags(init_from=str(tmp_path / "model"), out=str(tmp_path / "out"))
    with pytest.raises(InputError, match="model: no model there"):
        pipeline.check(flags)
    write_model(tmp_path / "model")
    pipeline.check(flags)
    with pytest.raises(InputError, match="--base 4: the model of --init-from has 2"):
        pipeline.check(dataclasses.replace(flags, base=4))


def test_a_training_that_is_stopped_says_what_is_kept_and_lost(tmp_path: Path) -> None:
    def note(trained: int) -> str:
        return train.stop_note(str(tmp_path / "run"), 5, trained, per_epoch=1000)

    anew = "no epoch has ended, so nothing is saved: the same command starts anew"
    assert note(0) == anew
    assert note(264) == f"{anew} (264 images lost)"
    for epoch in (1, 2, 3):
        (tmp_path / f"run/epoch-{epoch:04d}").mkdir(parents=True)
        if epoch < 3:  # the third is still being written
            (tmp_path / f"run/epoch-{epoch:04d}/manifest.json").touch()
    assert note(2000) == "the same command continues after epoch 2 of 5"
    assert note(2264).endswith("after epoch 2 of 5; 264 images of epoch 3 are trained again")


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(str(folder))[0].state_dict())


def of_norms(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(("recipe", "workers"), [("default", 1), ("2017", 2)])
def test_at_a_learning_rate_near_zero_the_weights_stay_those_of_the_base_model(
    data: Path, ray_session: None, tmp_path: Path, recipe: str, workers: int
) -> None:
    first = TrainFlags(
        data=str(data), out=str(tmp_path / "first"), recipe=recipe, base=2, downscale=8, epochs=2,
        workers=workers, **FEW,
    )  # type: ignore[arg-type]  # fmt: skip
    trained = train.run(first, HERE)
    flags = TrainFlags(
        data=str(data), out=str(tmp_path / "out"), init_from=str(tmp_path / "first/model"),
        epochs=1, learning_rate=TINY_RATE, workers=workers, **FEW,
    )  # type: ignore[arg-type]  # fmt: skip
    tuned = train.run(flags, HERE)
    before, after = weights_in(tmp_path / "first/model"), weights_in(tmp_path / "out/model")
    for name, value in before.items():
        assert torch.equal(value, after[name]) or of_norms(name), name
    if RECIPES[recipe].norm == "none":
        assert tuned["val_dice"] == trained["val_dice"]
    else:  # normalization statistics do not depend on the learning rate
        assert after["down.0.1.num_batches_tracked"] > before["down.0.1.num_batches_tracked"]
    old = load_manifest(str(tmp_path / "first/model"))
    new = load_manifest(str(tmp_path / "out/model"))
    assert (old.started_from, new.started_from) == ([], [old.sha256])
    assert new.train_cars == old.train_cars
    assert old.train_cars


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_resumes_and_belongs_to_one_base_model(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    """Own images of another size; the base model is moved, then replaced by another one."""
    photos = tmp_path / "photos"
    for name in ("train", "train_masks"):
        (photos / name).mkdir(parents=True)
    for car in range(4):
        for view in range(1, 5):
            image, mask = draw_pair(10 * car + view, (301, 402))
            (photos / f"train/car{car}_{view:02d}.jpg").write_bytes(image)
            (photos / f"train_masks/car{car}_{view:02d}_mask.gif").write_bytes(mask)
    old = write_model(tmp_path / "model")
    values: dict[str, Any] = {"data": str(photos), "epochs": 2, "batch_size": 4}
    flags = flags_of(tmp_path, holdout_cars="1", val_cars="1", cars_by="CAR_VIEW", **values)
    train.run(flags, HERE)
    manifest = load_manifest(str(tmp_path / "out/model"))
    assert (manifest.height, manifest.width) == (301, 402)
    assert manifest.started_from == [old.sha256, "0f"]
    expected = weights_in(tmp_path / "out/model")
    # As after a crash in the second epoch.
    (run,) = (tmp_path / "out/checkpoints").iterdir()
    shutil.rmtree(run / "epoch-0002")
    shutil.rmtree(tmp_path / "out/model")
    train.run(flags, HERE)
    again = weights_in(tmp_path / "out/model")
    assert all(torch.equal(value, again[name]) for name, value in expected.items())
    # Without its base model a run neither starts nor resumes.
    shutil.move(tmp_path / "model", tmp_path / "moved")
    with pytest.raises(InputError, match=rf"--init-from {tmp_path}/model: no model there"):
        train.check(flags)
    # Another model in its place makes another run.
    write_model(tmp_path / "model", seed=1)
    train.run(flags, HERE)
    (other,) = set((tmp_path / "out/checkpoints").iterdir()) - {run}
    assert list_epochs(str(other)) == [1, 2]


@pytest.mark.ray
@pytest.mark.slow
def test_corrected_masks_are_trained_on_and_counted(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    """Of two folders: masks alone, and images with masks; a mask of another size is named."""
    values = {"data": str(data), "base": 2, "downscale": 8, "epochs": 1, **FEW}
    train_cars, _, held_out = train.check(TrainFlags(out=str(tmp_path), **values)).cars
    image, mask = draw_pair(9999)
    new, known, held = "0123456789ab_07", f"{train_cars[0]}_02", f"{held_out[0]}_02"
    for stem in (new, known, held):
        for part, name, content in (
            ("train", f"{stem}.jpg", image),
            ("train_masks", f"{stem}_mask.gif", mask),
        ):
            (tmp_path / "fixed" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "fixed" / part / name).write_bytes(content)
    flags = TrainFlags(
        out=str(tmp_path / "out"), corrections=str(tmp_path / "fixed"), **values
    )  # type: ignore[arg-type]  # fmt: skip
    run = train.check(flags)
    chunks, errors = decode_pairs(run, 8)
    assert errors == [""] * len(run.pairs)
    soft_masks = np.concatenate(
        [ray.get(chunk).column("soft_mask").chunk(0).to_numpy() for chunk in chunks]
    )
    expected = images.shrink_mask(images.load_mask(mask), 8)
    names = [storage.name(image.name) for image, _ in run.pairs]
    decoded = zip(names, soft_masks, strict=True)
    same = {name for name, found in decoded if np.array_equal(found, expected)}
    assert same == {f"{new}.jpg", f"{known}.jpg"}

    result = train.run(flags, HERE, run)
    assert result["corrected"] == 2
    assert result["corrections_left_out"] == {"held_out": 1}
    assert load_manifest(result["model"]).train_cars == sorted(["0123456789ab", *train_cars])

    wrong = tmp_path / f"fixed/train_masks/{new}_mask.gif"
    wrong.write_bytes(draw_pair(9999, (20, 30))[1])
    with pytest.raises(InputError, match=f"1 of {len(names)} .* {wrong}: wrong-size: 20 x 30"):
        train.run(flags, HERE)
    assert str(wrong) in (tmp_path / "out/quarantine.csv").read_text()


def test_without_the_package_one_line_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    flags: dict[str, Any] = {"out": str(tmp_path), "tensorboard": True}
    for check in (
        lambda: train.check(config.TrainFlags(data=str(data), **flags)),
        lambda: pipeline.check(config.PipelineFlags(**flags)),
        lambda: pipeline.check(config.PipelineFlags(data=str(data), **flags)),
    ):
        with pytest.raises(InputError, match="pip install tensorboard") as caught:
            check()
        assert "\n" not in str(caught.value)
    without = config.TrainFlags(data=str(data), out=str(tmp_path))
    assert train.check(without), "only --tensorboard needs the package"


@pytest.mark.ray
@pytest.mark.slow
def test_a_resumed_training_has_each_epoch_once(
    data: Path, ray_session: None, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    flags = config.TrainFlags(
        data=str(data),
        out=str(tmp_path),
        epochs=3,
        downscale=8,
        base=4,
        batch_size=8,
        holdout_cars="5",
        val_cars="1",
        tensorboard=True,
    )
    train.run(flags, HERE)
    (folder,) = (tmp_path / events.FOLDER).iterdir()
    history = json.loads((tmp_path / "model/history.json").read_text())
    assert read_back(folder) == expected(history)

    shutil.rmtree(tmp_path / "model")  # as if it had been killed in its last epoch
    shutil.rmtree(tmp_path / "checkpoints" / folder.name / "epoch-0003")
    (folder / events.file_name({"epoch": 2})).unlink()
    train.run(flags, HERE)
    again = json.loads((tmp_path / "model/history.json").read_text())
    assert [row["epoch"] for row in again] == [1, 2, 3]
    assert again[2]["seconds"] != history[2]["seconds"], "it was trained again"
    assert read_back(folder) == expected(again)

    shutil.rmtree(folder)  # as if --tensorboard were given only after training
    train.run(flags, HERE)
    assert read_back(folder) == expected(again)
