"""Passes over full-size images: torch equals numpy, and Triton equals torch, to the bit."""

import sys

import numpy as np
import pytest
import torch

from carvana_ray import images
from carvana_ray.inference import fused
from carvana_ray.inference import mask_kernels as kernels

SIZES = [(1280, 1918, 4), (1280, 1918, 8), (61, 35, 2), (16, 24, 1), (9, 1030, 4), (8, 8, 8)]


def soft_masks(size: tuple[int, int, int], count: int = 3) -> torch.Tensor:
    h, w = images.grid_size(*size)
    levels = np.random.default_rng(0).integers(0, 256, (count, h, w), dtype=np.uint8)
    levels[0] = 255
    return torch.from_numpy(levels)


def rgb_images(size: tuple[int, int, int], count: int = 3) -> torch.Tensor:
    levels = np.random.default_rng(1).integers(0, 256, (count, 3, *size[:2]), dtype=np.uint8)
    return torch.from_numpy(levels)


@pytest.mark.parametrize("size", SIZES)
def test_enlarging_on_a_device_is_enlarging_an_image(size: tuple[int, int, int]) -> None:
    soft_mask = soft_masks(size)
    expected = images.enlarge(soft_mask.numpy(), *size[:2])
    assert np.array_equal(kernels.enlarge(soft_mask, *size[:2]).numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
def test_run_boundaries_are_where_a_mask_changes(size: tuple[int, int, int]) -> None:
    soft_mask = soft_masks(size)
    flat = images.enlarge(soft_mask.numpy(), *size[:2]).reshape(len(soft_mask), -1)
    expected = np.diff(flat.astype(np.int8), axis=1, prepend=0, append=0) != 0
    assert np.array_equal(kernels.run_boundaries(soft_mask, *size[:2]).numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
def test_block_means_are_those_of_numpy(size: tuple[int, int, int]) -> None:
    rgb, downscale = rgb_images(size, 2), size[2]
    total = rgb.numpy().astype(np.int64).sum(1)
    values = np.full(total.shape, 3)
    for axis in (1, 2):
        starts = np.arange(0, total.shape[axis], downscale)
        total, values = (np.add.reduceat(one, starts, axis=axis) for one in (total, values))
    expected = (2 * total + values) // (2 * values)
    result = kernels.block_means(rgb, downscale).numpy()
    assert result.shape == (2, *images.grid_size(*size))
    assert np.array_equal(result, expected)


def test_triton_does_not_load_for_a_cpu() -> None:
    assert kernels.load_triton(torch.device("cpu"), kernels.TRITON) is None


@pytest.mark.parametrize("name", [kernels.TRITON, fused.TRITON])
def test_a_missing_triton_is_a_warning(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # an ImportError
    monkeypatch.delitem(sys.modules, name, raising=False)
    kernels.load_triton.cache_clear()
    assert kernels.load_triton(torch.device("cuda", 7), name) is None
    assert f"{name.rpartition('.')[2]} does not run here" in caplog.text
