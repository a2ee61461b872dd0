"""The model folder of a training that has ended, also where two trainings share one --out."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import run_of

from carvana_ray import storage
from carvana_ray.checkpoints import train_state
from carvana_ray.checkpoints.model import load_manifest, load_model
from carvana_ray.config import TrainFlags
from carvana_ray.config.recipes import RECIPES
from carvana_ray.errors import IncompleteError
from carvana_ray.runtime.resources import ClusterResources, WorkerAllocation
from carvana_ray.stages.train.plan import TrainJob
from carvana_ray.stages.train.publish import load_published, publish_model
from carvana_ray.training.run import Rows
from carvana_ray.training.state import ModelWithLoss, build_model, init_state

DICE = 0.7, 0.9, 0.8  # of the epochs; the second is the best
RECIPE = RECIPES["default"]


def a_job(out: Path, run_id: str = "run") -> TrainJob:
    for name in ("a.jpg", "a_mask.gif"):
        storage.write_atomic(f"{out}/{name}", b"")
    run = run_of([("a.jpg", "a_mask.gif")], out, out)
    return TrainJob(
        flags=TrainFlags(out=str(out), recipe="default", epochs=3, base=2, downscale=8),
        run=dataclasses.replace(run, run_id=run_id),
        cluster=ClusterResources(cpus=2, gpus=0, nodes=1),
        workers=WorkerAllocation(1, 1, False),
        out=str(out),
    )


def history_of(training: int) -> Rows:
    return [
        {"epoch": epoch, "val_dice": dice, "seconds": training + epoch / 10}
        for epoch, dice in enumerate(DICE, 1)
    ]


def train(job: TrainJob, training: int = 0) -> list[dict[str, Any]]:
    """Write the checkpoints of a training, which differ with its number; return its states."""
    states = []
    for epoch in range(1, 4):
        module = ModelWithLoss(build_model(2, RECIPE, seed=10 * training + epoch))
        state = init_state(module, module, RECIPE, 0.01, 9)
        state.epoch, state.history = epoch, history_of(training)[:epoch]
        train_state.save(job.checkpoint_dir, state.state_dict(), job.network)
        states.append(state.state_dict())
    return states


def weights(job: TrainJob) -> dict[str, torch.Tensor]:
    return load_model(job.model_dir)[0].state_dict()


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_model_is_the_best_epoch(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    states = train(job)
    publish_model(job, ["a.jpg: truncated"])
    manifest, history = load_published(job)
    assert equal(weights(job), states[1]["model"])
    assert (manifest.metrics, manifest.skipped) == (history[1], ["a.jpg: truncated"])
    assert history == history_of(0)


def test_the_best_epoch_of_another_training_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two trainings of one run on a GPU write other weights under the same epoch."""
    job, other = a_job(tmp_path / "job"), a_job(tmp_path / "other")
    states = train(job)
    train(other, training=1)
    epoch = train_state.epoch_dir(job.checkpoint_dir, 2)
    shutil.copytree(train_state.epoch_dir(other.checkpoint_dir, 2), epoch, dirs_exist_ok=True)
    publish_model(job, [])
    manifest, history = load_published(job)
    assert equal(weights(job), states[2]["model"])
    assert manifest.metrics == history[2]
    assert "epoch 2 is of another training" in caplog.text


def test_a_model_of_another_training_in_the_same_folder_is_noticed(tmp_path: Path) -> None:
    job, other = a_job(tmp_path / "out"), a_job(tmp_path / "out", run_id="other")
    train(job)
    train(other, training=1)
    publish_model(job, [])
    publish_model(other, [])
    assert load_published(other)[0].run == "other"
    with pytest.raises(IncompleteError, match=f"--out {job.model_dir}: another training .* run"):
        load_published(job)


def test_a_model_that_two_trainings_have_mixed_is_noticed(tmp_path: Path) -> None:
    job, other = a_job(tmp_path / "job"), a_job(tmp_path / "other")  # of the same run
    train(job)
    train(other, training=1)
    publish_model(other, [])
    for name in ("model.pt", "history.json", "manifest.json"):
        publish_model(job, [])
        shutil.copy(f"{other.model_dir}/{name}", job.model_dir)
        with pytest.raises(IncompleteError, match=f"--out {job.model_dir}: another .*") as error:
            load_published(job)
        assert "\n" not in str(error.value)


def test_a_last_epoch_that_another_training_removed_is_one_line(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    train(job)
    shutil.rmtree(train_state.epoch_dir(job.checkpoint_dir, 3))
    with pytest.raises(IncompleteError, match=f"{job.checkpoint_dir}: the last epoch is missing"):
        publish_model(job, [])
    assert not Path(job.model_dir).exists()


def test_an_older_model_stays_until_the_new_one_is_there(tmp_path: Path) -> None:
    job, other = a_job(tmp_path), a_job(tmp_path, run_id="other")
    train(job)
    publish_model(job, [])
    with pytest.raises(IncompleteError):
        publish_model(other, [])
    assert load_manifest(job.model_dir).run == "run"
