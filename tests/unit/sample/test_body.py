"""The shell of a car: closed, with outward normals."""

import numpy as np
from support.drawn_car import rng

from carvana_ray import sample
from carvana_ray.sample.body import shell_grid


def test_the_shell_of_every_style_is_closed_at_nose_and_tail() -> None:
    cars = {car.style: car for car in (sample.draw_car(rng(seed)) for seed in range(100))}
    assert len(cars) == 6
    for style, car in cars.items():
        points, normals, _ = shell_grid(car)
        assert np.abs(points[[0, -1], :, 1]).max() < 1e-9, style
        assert np.allclose(np.linalg.norm(normals, axis=-1), 1), style
        # Outward: to the left on the left flank, up in the middle of the roof.
        middle = len(points) // 2
        assert normals[middle, 5, 1] > 0.9, style
        assert normals[middle, points.shape[1] // 2, 2] > 0.5, style
