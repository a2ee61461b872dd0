"""A training that keeps its images on the device: the choice in words, and the same model."""

import functools
import json
import logging
from pathlib import Path

import pytest
import torch

from carvana_ray.checkpoints.model import load_model
from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.train import progress_actor
from carvana_ray.stages.train import stage as train
from carvana_ray.stages.train.keep_on_device import describe
from carvana_ray.stages.train.trainer import start_training
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.device_cache import CachePlan

HERE = ClusterResources(cpus=4, gpus=0, nodes=1)  # as `ray_session` has it


def test_the_choice_in_words() -> None:
    plan = BatchPlan(train=4320, val=768, batch=8, workers=1, epochs=5, seed=0)
    recipe = RECIPES["default"]
    cache = CachePlan(plan=plan, recipe=recipe, epoch=0, rank=0, grid=(320, 480))
    assert describe(cache, fits=True) == (
        "5,088 pairs (3.9 GB) stay on the GPU after the first epoch"
    )
    assert describe(cache, fits=False) == (
        "5,088 pairs (3.9 GB) do not fit on the GPU: each epoch is streamed"
    )


@pytest.mark.ray
@pytest.mark.slow
def test_the_model_is_that_of_a_streamed_training(
    data: Path,
    ray_session: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two workers; each epoch leaves out another image; the stream ends early."""
    monkeypatch.setattr(progress_actor, "POLL_EVERY_S", 0.05)
    weights = {}
    for name, cache_bytes in (("streamed", None), ("kept", 10**9)):
        starter = functools.partial(start_training, cache_bytes=cache_bytes)
        monkeypatch.setattr(train, "start_training", starter)
        out = tmp_path / name
        flags = TrainFlags(
            data=str(data), out=str(out), recipe="best", base=2, downscale=8, epochs=3,
            workers=2, batch_size=5, holdout_cars="2", val_cars="1", profile=True,
        )  # type: ignore[arg-type]  # fmt: skip
        with caplog.at_level(logging.INFO):
            train.run(flags, HERE)
        weights[name] = load_model(str(out / "model"))[0].state_dict()
        blocks = (out / "profile/train-data.txt").read_text()
        assert "assemble_batches" in blocks
        history = json.loads((out / "model/history.json").read_text())
        assert [row["images"] for row in history] == [40, 40, 40]
    for name, value in weights["streamed"].items():
        assert torch.equal(value, weights["kept"][name]), name
    notes = [r.getMessage() for r in caplog.records if "stay on" in r.getMessage()]
    assert notes == ["train: 48 pairs (5 MB) stay on the GPU after the first epoch"]
