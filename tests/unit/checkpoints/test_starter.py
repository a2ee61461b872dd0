"""The model that comes with the program: what it is, and that it cuts out cars it never saw."""

from pathlib import Path

import numpy as np
import pytest
import torch

from carvana_ray import images, sample
from carvana_ray.checkpoints.manifest import STARTER, model_file
from carvana_ray.checkpoints.model import WEIGHTS, load_history, load_model
from carvana_ray.config.recipes import RECIPES
from carvana_ray.inference.predictor import Predictor
from carvana_ray.training.state import unet_config


def test_the_starter_is_small_and_says_how_it_was_made() -> None:
    network, manifest = load_model(STARTER)
    assert Path(model_file(STARTER, WEIGHTS)).stat().st_size <= 8_000_000
    assert sum(value.numel() for value in network.parameters()) <= 4_000_000
    assert manifest.training["recipe"] == "starter"
    assert unet_config(manifest.unet.base, RECIPES["starter"]) == manifest.unet  # can be fine-tuned
    assert manifest.training["data"] == "runs/drawn"  # no path of one machine
    assert manifest.train_cars
    assert not manifest.started_from
    assert load_history(STARTER, manifest)


@pytest.mark.parametrize("scenes", ["varied", "studio"])
def test_the_starter_cuts_out_drawn_cars_that_it_never_saw(scenes: sample.Scenes) -> None:
    network, manifest = load_model(STARTER)
    predictor = Predictor(network, torch.device("cpu"), manifest.tta_flip)
    scores = []
    for number in range(3):
        rng = np.random.default_rng((2**30, number))  # no command draws with this seed
        image, truth = sample.photograph(sample.draw_car(rng, scenes), 1 + 5 * number, rng)
        gray = images.load_gray(sample.encode_jpeg(image), manifest.downscale)
        soft_mask = predictor.soft_masks(gray[None])[0].numpy()
        mask = images.enlarge(soft_mask, *truth.shape)
        scores.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert np.mean(scores) > 0.97
    assert min(scores) > 0.93
