"""Affine transforms of images and masks, against numpy and Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from carvana_ray.images.warp import apply_affine

RNG = np.random.default_rng(0)
IMAGE = torch.from_numpy(RNG.integers(0, 256, (2, 24, 35), dtype=np.uint8))
SOFT_MASK = torch.from_numpy(RNG.integers(0, 256, (2, 24, 35), dtype=np.uint8))


def matrices(*rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows)


def test_the_identity_changes_nothing_and_a_mirror_mirrors() -> None:
    same = [[1.0, 0, 0], [0, 1.0, 0]]
    mirror = [[-1.0, 0, 0], [0, 1.0, 0]]
    image, soft_mask = apply_affine(IMAGE, SOFT_MASK, matrices(same, mirror))
    assert image.dtype == soft_mask.dtype == torch.float32
    for moved, given in ((image, IMAGE), (soft_mask, SOFT_MASK)):
        torch.testing.assert_close(moved[0], given[0].float(), atol=2e-3, rtol=0)
        torch.testing.assert_close(moved[1], given[1].float().flip(-1), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-4, 5)])
def test_a_shift_by_whole_pixels_moves_them(right: int, down: int) -> None:
    height, width = IMAGE.shape[1:]
    matrix = matrices([[1.0, 0, -2 * right / width], [0, 1.0, -2 * down / height]])
    image, soft_mask = apply_affine(IMAGE[:1], SOFT_MASK[:1], matrix)
    ys = slice(max(0, down), height + min(0, down))
    xs = slice(max(0, right), width + min(0, right))
    for moved, given in ((image, IMAGE), (soft_mask, SOFT_MASK)):
        expected = torch.roll(given[0].float(), (down, right), (0, 1))
        torch.testing.assert_close(moved[0, ys, xs], expected[ys, xs], atol=5e-3, rtol=0)


def test_scaling_equals_pillow_s() -> None:
    size = 0.9  # nine tenths of the old image fill the new one
    matrix = matrices([[size, 0, 0.02], [0, size, -0.03]])
    image, soft_mask = apply_affine(IMAGE[:1], SOFT_MASK[:1], matrix)
    height, width = IMAGE.shape[1:]
    left = (1 - size + 0.02) * width / 2
    top = (1 - size - 0.03) * height / 2
    for moved, given in ((image, IMAGE), (soft_mask, SOFT_MASK)):
        expected = Image.fromarray(given[0].numpy().astype(np.float32)).transform(
            (width, height),
            Image.Transform.AFFINE,
            (size, 0, left, 0, size, top),
            Image.Resampling.BILINEAR,
        )
        inner = (slice(2, -2), slice(2, -2))
        torch.testing.assert_close(
            moved[0][inner], torch.from_numpy(np.array(expected))[inner], atol=0.05, rtol=0
        )


def test_an_image_is_mirrored_beyond_its_border() -> None:
    width = IMAGE.shape[2]
    matrix = matrices([[1.0, 0, 2 * 4 / width], [0, 1.0, 0]])
    image, _ = apply_affine(IMAGE[:1], SOFT_MASK[:1], matrix)
    torch.testing.assert_close(
        image[0, :, -4:], IMAGE[0, :, -4:].float().flip(-1), atol=5e-3, rtol=0
    )
