"""The forecast follows the network's work, not the load of the machine, and is said roughly."""

import pytest
import torch

from carvana_ray.training import forecast
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.forecast import Network, StepCost

SMALL = Network("default", 8, (160, 240), batch=8)
PLAN = BatchPlan(train=1000, val=0, batch=8, workers=1, epochs=5, seed=0)
COST = StepCost(step=0.08, pixel=1e-6)


def test_a_step_is_the_images_pixels_and_a_part_of_its_own() -> None:
    assert COST.image(SMALL) == pytest.approx(160 * 240 * 1e-6 + 0.01)


def test_a_training_is_its_start_its_decoding_and_its_steps() -> None:
    one = forecast.training_seconds(COST, SMALL, PLAN, cpus=1)
    expected = forecast.START_S + 1000 * forecast.DECODE_S + 5 * 1000 * COST.image(SMALL)
    assert one == pytest.approx(expected)
    two = forecast.training_seconds(COST, SMALL, PLAN, cpus=2)
    assert expected / 2 < two < expected
    best = Network("best", 8, (160, 240), batch=8)
    plain, flipped = (forecast.prediction_seconds(COST, n, 10_000, 2) for n in (SMALL, best))
    assert plain < flipped < 2 * plain, "each image and its mirror image"


def test_the_measured_cost_grows_with_the_network_and_changes_no_state_of_torch() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    small = forecast.measure(SMALL)
    large = forecast.measure(Network("default", 32, (320, 480), batch=8))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert 0 < 2 * small.pixel < large.pixel
    folded = forecast.measure(Network("best", 8, (1280, 1918), batch=8))
    assert folded.pixel < small.pixel, "16 pixels are one cell of the network"


def test_the_known_rates_of_a_gpu_come_out() -> None:
    default = Network("default", 32, (320, 480), batch=8)
    plan = BatchPlan(train=8500, val=0, batch=8, workers=1, epochs=1, seed=0)
    assert forecast.gpu_seconds(default, plan) == pytest.approx(forecast.GPU_START_S + 10)
    best = Network("best", 32, (1280, 1920), batch=8)
    assert forecast.gpu_seconds(best, plan) == pytest.approx(forecast.GPU_START_S + 10)


@pytest.mark.parametrize(
    ("seconds", "load", "said"),
    [
        (10_800, 0.5, "about 3 h on 2 CPUs"),
        (3600, 6.0, "about 1 h on 2 CPUs, up to 4 h while other programs use them as now"),
    ],
)
def test_a_busy_machine_is_said(seconds: float, load: float, said: str) -> None:
    assert forecast.describe(seconds, 2, load) == said
