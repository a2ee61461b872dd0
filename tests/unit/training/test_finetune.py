"""Fine-tuning: what is inherited from the base model, what is refused, and its exact weights."""

import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import models
from support.pairs import draw_pair
from support.s3_servers import Server

from carvana_ray import config, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints import train_state as states
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.config.flags import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages import pipeline
from carvana_ray.stages.train import stage as train
from carvana_ray.training import finetune
from carvana_ray.training import state as learner
from carvana_ray.training.run import plan_run

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)  # as the fixture has it
FEW = {"batch_size": 8, "holdout_cars": "2", "val_cars": "1", "limit": 40}
TINY_RATE = 1e-30  # a step of Adam is at most the rate: far below what float32 adds to a weight


def write_model(
    folder: Path, seed: int = 0, recipe: str = "default", **changes: Any
) -> ModelManifest:
    """Write a model folder of a recipe, its weights drawn."""
    torch.manual_seed(seed)
    design = learner.unet_config(2, RECIPES[recipe])
    values: dict[str, Any] = {
        "unet": design,
        "training": {"recipe": recipe},
        "run": f"run-{seed}",
        "started_from": ["0f"],
        "train_cars": ["c", "d"],
    }
    return models.write_model(folder, design.build(), [{"epoch": 1}], **(values | changes))


def flags_of(tmp_path: Path, **changes: Any) -> TrainFlags:
    values = {"init_from": str(tmp_path / "model"), "out": str(tmp_path / "out"), **changes}
    return TrainFlags(**values)


def resolved(flags: TrainFlags) -> TrainFlags:
    return finetune.resolve_flags(flags, finetune.load_base_manifest(flags))


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_network_is_that_of_the_base_model(tmp_path: Path, recipe: str) -> None:
    write_model(tmp_path / "model", recipe=recipe)
    flags = resolved(flags_of(tmp_path, epochs=7))
    assert (flags.recipe, flags.base, flags.downscale) == (recipe, 2, 8)
    assert flags.epochs == 7
    assert flags.resolved_learning_rate == RECIPES[recipe].learning_rate
    assert resolved(flags) == flags
    assert resolved(flags_of(tmp_path, learning_rate=0.5)).resolved_learning_rate == 0.5


def test_workers_find_a_model_that_was_named_from_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    assert resolved(flags_of(tmp_path, init_from="model")).init_from == str(tmp_path / "model")


def test_without_a_model_nothing_changes() -> None:
    flags = TrainFlags()
    assert (flags.recipe, flags.base, flags.downscale) == ("default", 32, 4)
    assert flags.resolved_learning_rate == RECIPES["default"].learning_rate
    assert resolved(flags) is flags


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"base": 32}, "--base 32: the model of --init-from has 2"),
        ({"downscale": 4}, "--downscale 4: the model of --init-from has 8"),
        ({"recipe": "2017"}, "--recipe 2017: the model of --init-from has default"),
    ],
)
def test_a_contradicting_flag_is_refused_with_both_values(
    tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    """Also if the value is the default without a base model: the flag was given."""
    write_model(tmp_path / "model")
    with pytest.raises(InputError, match=reason) as error:
        resolved(flags_of(tmp_path, **given))
    assert "\n" not in str(error.value)
    same = flags_of(tmp_path, base=2, downscale=8, recipe="default")
    assert resolved(same).base == 2


def test_an_unknown_recipe_is_refused(tmp_path: Path) -> None:
    for said in (
        {},
        {"recipe": "2031"},
        {"recipe": "2017"},
        {"recipe": "best"},
    ):  # no norms; folded
        write_model(tmp_path / "model", training=said)
        with pytest.raises(InputError, match="its recipe is"):
            resolved(flags_of(tmp_path))


def test_a_missing_or_damaged_model_is_refused_with_the_name_of_the_flag(tmp_path: Path) -> None:
    flags = flags_of(tmp_path)
    with pytest.raises(InputError, match=r"--init-from .*no model there"):
        finetune.load_base_manifest(flags)
    manifest = write_model(tmp_path / "model")
    with pytest.raises(InputError, match="this run writes its own model there"):
        finetune.load_base_manifest(flags_of(tmp_path, out=str(tmp_path)))
    with pytest.raises(InputError, match="another model was written there"):
        finetune.load_base_weights(flags, "00")
    assert set(finetune.load_base_weights(flags, manifest.sha256)) == set(
        manifest.unet.build().state_dict()
    )
    data = bytearray((tmp_path / "model/model.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model/model.pt").write_bytes(data)
    with pytest.raises(InputError, match="damaged, its SHA-256"):
        finetune.load_base_weights(flags, manifest.sha256)


def test_a_pipeline_refuses_a_model_before_it_draws(tmp_path: Path) -> None:
    flags = config.PipelineFlags(init_from=str(tmp_path / "model"), out=str(tmp_path / "out"))
    with pytest.raises(InputError, match="model: no model there"):
        pipeline.check(flags)
    write_model(tmp_path / "model")
    pipeline.check(flags)
    with pytest.raises(InputError, match="--base 4: the model of --init-from has 2"):
        pipeline.check(dataclasses.replace(flags, base=4))


def test_the_base_model_may_be_in_s3(
    s3: Server, bucket: Callable[[Server], str], tmp_path: Path
) -> None:
    home = bucket(s3)
    manifest = write_model(tmp_path / "model")
    for name in (checkpoint.WEIGHTS, checkpoint.MANIFEST):
        data = (tmp_path / "model" / name).read_bytes()
        storage.write_atomic(f"{home}/model/{name}", data)
    flags = TrainFlags(init_from=f"{home}/model/", out=f"{home}/out")
    assert finetune.load_base_manifest(flags) == manifest
    assert resolved(flags).init_from == f"{home}/model"
    assert set(finetune.load_base_weights(flags, manifest.sha256)) == set(
        manifest.unet.build().state_dict()
    )
    storage.remove_dir(f"{home}/model")
    with pytest.raises(InputError, match=f"--init-from {home}/model: no model there"):
        finetune.load_base_manifest(flags)
    with pytest.raises(InputError, match=f"--init-from {home}/model: no model there"):
        finetune.load_base_weights(flags, manifest.sha256)


def test_scoring_cars_of_the_base_model_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    init = write_model(tmp_path / "model")
    with caplog.at_level(logging.WARNING):
        finetune.warn_on_leakage(init, (["c"], ["e"], ["f"]))
        assert caplog.text == ""
        finetune.warn_on_leakage(init, (["e"], ["d"], ["c"]))
    assert "trained on 2 of the cars" in caplog.text
    assert "--holdout-cars" in caplog.text


def test_the_run_id_depends_on_the_base_model(data: Path, tmp_path: Path) -> None:
    """Runs from other weights have other ids, and so other folders of checkpoints."""

    def name(seed: int | None) -> str:
        init = None if seed is None else write_model(tmp_path / "model", seed)
        flags = flags_of(tmp_path, data=str(data), **FEW) if init else None
        plain = TrainFlags(data=str(data), base=2, downscale=8, **FEW)  # type: ignore[arg-type]
        return plan_run(finetune.resolve_flags(flags or plain, init), 1, init).run_id

    assert len({name(None), name(0), name(1)}) == 3
    assert name(1) == name(1)


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return dict(checkpoint.load_model(str(folder))[0].state_dict())


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
    old = checkpoint.load_manifest(str(tmp_path / "first/model"))
    new = checkpoint.load_manifest(str(tmp_path / "out/model"))
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
    flags = flags_of(tmp_path, holdout_cars="1", val_cars="1", **values)
    train.run(flags, HERE)
    manifest = checkpoint.load_manifest(str(tmp_path / "out/model"))
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
    assert states.list_epochs(str(other)) == [1, 2]
