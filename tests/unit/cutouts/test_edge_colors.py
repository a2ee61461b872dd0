"""Soft edges lose the color of the background, whatever the network's grid."""

import numpy as np
import pytest
from PIL import Image

from carvana_ray.cutouts.alpha import soft_alpha
from carvana_ray.cutouts.edge_colors import OPAQUE_FROM, decontaminate_edges


def disk_on_pale_background(
    height: int, width: int, half_width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a dark disk blended by soft alpha over a pale background; alpha; the disk's color."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - height / 2, x - width / 2) - min(height, width) / 3
    alpha = np.clip(128 - distance * 128 / half_width, 0, 255).astype(np.uint8)
    car, background = np.array([20.0, 40.0, 90.0]), np.array([230.0, 225.0, 220.0])
    a = alpha[..., None] / 255
    return np.rint(a * car + (1 - a) * background).astype(np.uint8), alpha, car


@pytest.mark.parametrize("half_width", [1, 2, 4, 8, 12])
@pytest.mark.parametrize("size", [(120, 150), (61, 77)])
def test_decontamination_moves_edge_colors_toward_the_car_and_changes_nothing_else(
    half_width: int, size: tuple[int, int]
) -> None:
    pixels, alpha, car = disk_on_pale_background(*size, half_width)
    result = np.asarray(decontaminate_edges(Image.fromarray(pixels), alpha)).astype(float)
    edge = (alpha > 0) & (alpha < 255)
    assert np.array_equal(result[~edge], pixels[~edge])
    before = np.abs(pixels[edge] - car).max(-1)
    after = np.abs(result[edge] - car).max(-1)
    assert (after <= before + 2).all()
    assert after.mean() < 0.5 * before.mean()


@pytest.mark.parametrize("ramp", [4, 8, 16])
@pytest.mark.parametrize("block", [1, 4, 8])
def test_ramps_are_cleaned_equally_on_all_grids(ramp: int, block: int) -> None:
    """A network on a fine grid may blur an edge over as many pixels as one on a coarse grid."""
    pixels, soft_mask, car = ramp_on_pale_background(ramp, block)
    alpha = soft_alpha(soft_mask, *pixels.shape[:2])
    result = np.asarray(decontaminate_edges(Image.fromarray(pixels), alpha)).astype(float)
    edge = (alpha > 0) & (alpha < 255)
    dirt = (1 - result[edge] @ [0, 0, 1] / 255) * alpha[edge] / 255  # over a dark background
    before = (1 - pixels[edge] @ [0, 0, 1] / 255) * alpha[edge] / 255
    assert edge.sum() >= ramp * 100
    assert (np.abs(result[edge] - car).max(-1) < 200).all(), "no edge pixel stays pale"
    assert 0.49 < dirt.mean() / before.mean() < 0.53, "half of the background's color"


def ramp_on_pale_background(ramp: int, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a blue area whose alpha rises over `ramp` pixels, blended over yellow, its soft mask
    on a grid of blocks, and its color."""
    x = np.arange(240) + 0.5
    soft_row = np.clip(0.5 + (120 - x) / (2 * ramp), 0, 1).astype(np.float32)
    soft_mask = np.rint(255 * soft_row.reshape(-1, block).mean(1)).astype(np.uint8)
    soft_mask = np.tile(soft_mask, (160 // block, 1))
    car, background = np.array([0.0, 0.0, 255.0]), np.array([255.0, 255.0, 0.0])
    a = soft_alpha(soft_mask, 160, 240)[..., None] / 255
    return np.rint(a * car + (1 - a) * background).astype(np.uint8), soft_mask, car


def test_decontamination_keeps_edges_without_opaque_pixels_nearby() -> None:
    pixels, alpha, _ = disk_on_pale_background(90, 90, 4)
    faint = np.minimum(alpha, OPAQUE_FROM - 1)
    result = decontaminate_edges(Image.fromarray(pixels), faint)
    assert np.array_equal(np.asarray(result), pixels)


@pytest.mark.parametrize("fill", [0, 255])
def test_decontamination_keeps_an_image_without_soft_edges(fill: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    result = decontaminate_edges(image, np.full((20, 30), fill, np.uint8))
    assert np.array_equal(np.asarray(result), np.asarray(image))


def test_decontamination_keeps_an_image_of_a_single_color() -> None:
    _, alpha, _ = disk_on_pale_background(80, 100, 4)
    image = Image.new("RGB", (100, 80), (90, 30, 200))
    result = np.asarray(decontaminate_edges(image, alpha)).astype(int)
    assert np.abs(result - np.array((90, 30, 200))).max() <= 2


def test_an_edge_takes_the_color_of_the_car_next_to_it() -> None:
    """The car's color changes in both directions; the ground is green."""
    _, alpha, _ = disk_on_pale_background(200, 240, 3)
    y, x = np.mgrid[:200, :240]
    car = np.stack([y * 1.2, np.zeros_like(y), x], axis=-1)
    a = alpha[..., None] / 255
    pixels = np.rint(a * car + (1 - a) * np.array([0, 255, 0])).astype(np.uint8)
    result = np.asarray(decontaminate_edges(Image.fromarray(pixels), alpha)).astype(float)
    edge = (alpha > 0) & (alpha < 255)
    weight = (alpha[edge] / 255)[:, None]
    expected = weight * pixels[edge] + (1 - weight) * car[edge]
    assert np.abs(result[edge] - expected)[:, [0, 2]].max() < 12
    assert np.abs(result[edge] - expected)[:, 1].max() <= 1
