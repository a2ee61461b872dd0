"""Triton's edge weights equal torch's to the bit."""

from types import ModuleType

import pytest
import torch
from support.folded import disk_case, unfold

from carvana_ray.unet import loss

pytestmark = pytest.mark.gpu  # and without a GPU in Triton's interpreter


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_each_cell_weighs_what_its_pixels_weigh(
    fold: int, triton_kernels: ModuleType, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several programs an image. Repeated pixels hold noise."""
    monkeypatch.setattr(triton_kernels, "VALUES", 128)
    _, folded = disk_case(fold, 16, torch.float32)
    cells = triton_kernels.edge_weights(folded.target.to(device), folded.size, 5.0)
    pixels = cells.cpu()[:, None].expand(-1, fold**2, -1, -1)
    target = unfold(folded.target, fold, *folded.size)[:, None] / 255
    expected = loss.edge_weights(target, fold, 5.0)
    assert expected is not None
    assert torch.equal(unfold(pixels, fold, *folded.size)[:, None], expected)
    assert (expected[1:3] == 1).all()
    assert expected[0].unique().tolist() == [1, 5]


def test_the_self_test_passes(triton_kernels: ModuleType, device: torch.device) -> None:
    triton_kernels.self_test(device)
