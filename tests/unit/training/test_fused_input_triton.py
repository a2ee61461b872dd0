"""Triton's passes over a batch equal torch's, to the precision of float16."""

from types import ModuleType

import pytest
import torch
from support.folded import moved_batch
from torch import Tensor

from carvana_ray.training import fused_input
from carvana_ray.training.fused_input import FoldedBatch, fold_batch

pytestmark = pytest.mark.gpu  # and without a GPU in Triton's interpreter


@pytest.fixture(autouse=True)
def small_tiles(triton_kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs for each image, so that they have to fit together."""
    monkeypatch.setattr(triton_kernels, "STORED", 256)
    monkeypatch.setattr(triton_kernels, "VALUES", 1024)


def by_kernels(
    batch: dict[str, Tensor], fold: int, training: bool, kernels: ModuleType, device: torch.device
) -> FoldedBatch:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_input, "load_triton", lambda device, name: kernels)
        batch = {name: value.to(device) for name, value in batch.items()}
        return fold_batch(batch, fold, 3, training)


def assert_same(found: FoldedBatch, expected: FoldedBatch, changed_levels: float) -> None:
    """`changed_levels`: fraction of the soft mask's levels that may round to their neighbor."""
    assert found.x.dtype == torch.float16
    assert found.size == expected.size
    for one in (found.x, found.target):
        assert one.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.x.cpu().float(), expected.x, rtol=5e-4, atol=5e-4)
    difference = (found.target.cpu().int() - expected.target.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= changed_levels


@pytest.mark.parametrize(("fold", "size"), [(1, (21, 35)), (2, (32, 48)), (4, (21, 35))])
@pytest.mark.parametrize("training", [True, False])
def test_kernels_move_standardize_and_fold_as_torch_does(
    fold: int,
    size: tuple[int, int],
    training: bool,
    triton_kernels: ModuleType,
    device: torch.device,
) -> None:
    batch = moved_batch(*size)
    found = by_kernels(batch, fold, training, triton_kernels, device)
    # A position half-way between levels may round either way.
    assert_same(found, fold_batch(batch, fold, 3, training), 0.01 if training else 0)


@pytest.mark.parametrize("fold", [1, 4])
def test_kernels_fold_a_standardized_batch(
    fold: int, triton_kernels: ModuleType, device: torch.device
) -> None:
    batch = moved_batch(21, 35)
    del batch["affine"]
    batch["image"] = torch.randn(4, 21, 35)
    found = by_kernels(batch, fold, True, triton_kernels, device)
    assert_same(found, fold_batch(batch, fold, 3, True), 0)


def test_moments_of_a_bright_even_image_are_exact(
    triton_kernels: ModuleType, device: torch.device
) -> None:
    """A sum of squares minus a square of the sum would lose a variance of 1/1000."""
    image = torch.full((2, 40, 50), 255, dtype=torch.uint8)
    image[1, 0, 0], image[1, 39, 49] = 254, 254
    identity = torch.eye(2, 3).repeat(2, 1, 1)
    batch = {"image": image, "soft_mask": image, "weight": torch.ones(2), "affine": identity}
    found = by_kernels(batch, 1, False, triton_kernels, device).x.double().cpu()
    assert found[0].abs().max() < 5e-5  # the mean is a float32
    variance = 2 / 2000 - (2 / 2000) ** 2
    assert found[1, 0, 0, 0].item() == pytest.approx(-0.999 / (variance + 1) ** 0.5, rel=1e-3)
    assert found[1, 0, 5, 5].item() == pytest.approx(0.001 / (variance + 1) ** 0.5, abs=5e-5)


def test_the_same_batch_gives_the_same_bits(
    triton_kernels: ModuleType, device: torch.device
) -> None:
    batch = moved_batch(21, 35)
    first, second = (by_kernels(batch, 2, True, triton_kernels, device) for _ in range(2))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.target, second.target)


def test_the_self_test_passes(triton_kernels: ModuleType, device: torch.device) -> None:
    triton_kernels.self_test(device)
