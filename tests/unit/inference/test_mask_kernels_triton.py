"""Triton's passes over full-size images equal torch's, to the bit."""

from types import ModuleType

import numpy as np
import pytest
import torch

from carvana_ray import images
from carvana_ray.inference import mask_kernels

pytestmark = pytest.mark.gpu  # and without a GPU in Triton's interpreter
# Rows of more than one program, borders that cut blocks, and all downscales.
SIZES = [(21, 35, 2), (6, 9, 1), (9, 1030, 4), (13, 19, 8), (8, 8, 8)]
if torch.cuda.is_available():  # too much for the interpreter
    SIZES += [(1280, 1918, 4), (1280, 1918, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_run_boundaries_are_those_of_torch(
    size: tuple[int, int, int], triton_kernels: ModuleType, device: torch.device
) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (3, *images.grid_size(*size)), np.uint8)
    levels[1] = 255
    soft_masks = torch.from_numpy(levels)
    found = triton_kernels.run_boundaries(soft_masks.to(device), *size[:2]).cpu()
    assert found.equal(mask_kernels.run_boundaries(soft_masks, *size[:2]))


@pytest.mark.parametrize("size", SIZES)
def test_block_means_are_those_of_torch(
    size: tuple[int, int, int], triton_kernels: ModuleType, device: torch.device
) -> None:
    levels = np.random.default_rng(1).integers(0, 256, (2, 3, *size[:2]), np.uint8)
    levels[0, :, -1] = 255
    rgb = torch.from_numpy(levels)
    found = triton_kernels.block_means(rgb.to(device), size[2]).cpu()
    assert found.equal(mask_kernels.block_means(rgb, size[2]))


def test_the_self_test_passes(triton_kernels: ModuleType, device: torch.device) -> None:
    triton_kernels.self_test(device)
