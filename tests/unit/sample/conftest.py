"""One drawn car, and six of its images with their masks."""

import numpy as np
import pytest
from support.drawn_car import SEED, Mask, Pair, rng

from carvana_ray import sample


@pytest.fixture(scope="session")
def car() -> sample.Car:
    return sample.draw_car(rng(SEED))


@pytest.fixture(scope="session")
def pairs(car: sample.Car) -> dict[int, Pair]:
    """(image, mask) by view."""
    return {view: sample.photograph(car, view, rng(SEED, view)) for view in (1, 3, 5, 9, 13, 15)}


@pytest.fixture(scope="session")
def small_masks(pairs: dict[int, Pair]) -> dict[int, Mask]:
    """Masks by view, at a quarter of the size."""
    return {view: np.ascontiguousarray(mask[::4, ::4]) for view, (_, mask) in pairs.items()}
