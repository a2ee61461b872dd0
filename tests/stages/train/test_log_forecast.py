"""Before a long training on CPUs the log says how long it takes and what is shorter."""

import logging
from pathlib import Path

import pytest

from carvana_ray.config import TrainFlags
from carvana_ray.stages.train import log_forecast
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.forecast import Network, StepCost
from carvana_ray.training.run import TrainingRun


def cost_of(network: Network) -> StepCost:
    """Return 1 CPU second per image for the default network, and 0.02 for a small one."""
    return StepCost(step=0, pixel=(1 if network.base == 32 else 0.02) / (320 * 480))


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> TrainingRun:
    """A run of 1,184 training images, on a quiet machine of two CPUs."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(log_forecast, "_measure", cost_of)
    monkeypatch.setattr(log_forecast, "_logged", set())
    monkeypatch.setattr(log_forecast, "_cpus", lambda: 2)
    monkeypatch.setattr(log_forecast, "_load", lambda: 0.0)
    caplog.set_level(logging.INFO)
    plan = BatchPlan(train=1184, val=128, batch=8, workers=1, epochs=5, seed=0)
    return TrainingRun(
        image_dir=str(tmp_path),
        mask_dir=str(tmp_path),
        pairs=[],
        cars=([], [], []),
        plan=plan,
        size=(1280, 1918),
        run_id="run",
        crcs={},
    )


def flags_of(folder: Path, **flags: object) -> TrainFlags:
    return TrainFlags(data="d", out=str(folder), device="cpu", **flags)  # type: ignore[arg-type]


def test_a_long_training_is_told_once_with_what_is_shorter(
    run: TrainingRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        log_forecast.log_training(flags_of(tmp_path), run)
    assert caplog.messages == [
        "train: takes about 55 min on 2 CPUs",
        "shorter: --downscale 8 --base 8 takes about 1 min; one H200 GPU takes about 1 min",
    ]


def test_the_best_recipe_is_shortened_by_the_default_one(
    run: TrainingRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_forecast.log_training(flags_of(tmp_path, recipe="best"), run)
    assert caplog.messages[1].startswith("shorter: --recipe default --downscale 8 --base 8 takes")


def test_a_short_training_is_one_line(
    run: TrainingRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_forecast.log_training(flags_of(tmp_path, downscale=8, base=8), run)
    assert caplog.messages == ["train: takes about 1 min on 2 CPUs"]


def test_epochs_that_are_done_do_not_count(
    run: TrainingRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "checkpoints/run/epoch-0004").mkdir(parents=True)
    log_forecast.log_training(flags_of(tmp_path), run)
    assert caplog.messages[0] == "train: takes about 10 min on 2 CPUs"
    (tmp_path / "checkpoints/run/epoch-0005").mkdir()
    caplog.clear()
    log_forecast.log_training(flags_of(tmp_path), run)
    assert caplog.messages == []


def test_a_prediction_is_told_if_it_is_long(
    run: TrainingRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_forecast.log_prediction(flags_of(tmp_path), run, 100)
    log_forecast.log_prediction(flags_of(tmp_path), run, 100_064)
    assert caplog.messages == [
        "predict: 100,064 images take about 5 h on 2 CPUs; --limit N for a try"
    ]


@pytest.mark.parametrize("reason", ["quiet", "cluster"])
def test_there_is_no_forecast_for_a_cluster_or_with_quiet(
    run: TrainingRun,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if reason == "cluster":
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    log_forecast.log_training(flags_of(tmp_path, quiet=reason == "quiet"), run)
    assert caplog.messages == []


def test_decoded_images_that_do_not_fit_the_store_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_forecast.warn_of_small_store(decoded=1_600_000_000, store=2_400_000_000)
    assert caplog.messages == []
    log_forecast.warn_of_small_store(decoded=6_400_000_000, store=2_400_000_000)
    (line,) = caplog.messages
    assert "take 6.4 GB, more than Ray's object store keeps in memory (1.7 GB)" in line
    assert "a machine with 30 GB of memory" in line
