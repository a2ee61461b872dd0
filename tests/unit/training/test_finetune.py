"""Fine-tuning: what is inherited from the base model, what is refused, and its exact weights."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.finetuning import flags_of, write_model
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.checkpoints.manifest import MANIFEST
from carvana_ray.checkpoints.model import WEIGHTS
from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import InputError
from carvana_ray.training import finetune
from carvana_ray.training.run import plan_run
from carvana_ray.training.state import unet_config

FEW = {"batch_size": 8, "holdout_cars": "2", "val_cars": "1", "limit": 40}


def resolved(flags: TrainFlags) -> TrainFlags:
    return finetune.resolve_flags(flags, finetune.load_base_manifest(flags))


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_network_is_that_of_the_base_model(tmp_path: Path, recipe: str) -> None:
    write_model(tmp_path / "model", recipe=recipe)
    flags = resolved(flags_of(tmp_path, epochs=7))
    assert (flags.recipe, flags.base, flags.downscale) == (recipe, 2, 8)
    assert flags.epochs == 7
    expected = {"default": 5e-4, "best": 5e-4, "starter": 2e-3, "2017": 1e-3}  # Muon's is lower
    assert flags.resolved_learning_rate == expected[recipe]
    assert resolved(flags) == flags
    assert resolved(flags_of(tmp_path, learning_rate=0.5)).resolved_learning_rate == 0.5


def test_the_encoder_is_that_of_the_base_model(tmp_path: Path) -> None:
    """Its weights are those of the model: the package of the published ones is not needed."""
    design = unet_config(2, RECIPES["best"], "lite0")
    manifest = write_model(tmp_path / "model", recipe="best", unet=design)
    flags = resolved(flags_of(tmp_path))
    assert flags.encoder == "lite0"
    assert "encoder.stem.conv.weight" in finetune.load_base_weights(flags, manifest.sha256)


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
        ({"encoder": "lite0"}, "--encoder lite0: the model of --init-from has none"),
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
    # The model has normalization layers, which 2017 lacks, and is not folded, which best is.
    for training in ({}, {"recipe": "2031"}, {"recipe": "2017"}, {"recipe": "best"}):
        write_model(tmp_path / "model", training=training)
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


def test_the_base_model_may_be_in_s3(
    s3: Server, bucket: Callable[[Server], str], tmp_path: Path
) -> None:
    home = bucket(s3)
    manifest = write_model(tmp_path / "model")
    for name in (WEIGHTS, MANIFEST):
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
