"""The fused network computes the same as the trained network."""

import pytest
import torch
import torch.nn.functional as F

from carvana_ray.inference import fused
from carvana_ray.inference import mask_kernels as kernels
from carvana_ray.unet import network
from carvana_ray.unet.network import UNet


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("fold", [1, 4])
@pytest.mark.parametrize("size", [(32, 48), (21, 35)])
def test_fused_is_the_same_function(norm: str, fold: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = UNet(base=4, norm=norm, fold=fold).double()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # as if trained: no statistic is 0 or 1
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    image = torch.randn(2, 1, *size, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        expected, found = model(image), fused.FusedUNet(model)(image)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_half_precision_is_for_normalized_networks_on_gpus() -> None:
    plain, normalized = UNet(base=2, norm="none"), UNet(base=2)
    assert network.compute_dtype(normalized, torch.device("cpu")) == torch.float32
    assert network.compute_dtype(normalized, torch.device("cuda")) == torch.float16
    assert network.compute_dtype(plain, torch.device("cuda")) == torch.bfloat16


class TorchKernels:
    """Stands in for `unet_kernels_triton`, by torch: a buffer with spare channels, filled later."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pool_into(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls.append("pool_into")
        return torch.cat([x, torch.full_like(x, torch.nan)], dim=1), F.max_pool2d(x, 2)

    def upconv_into(
        self, kept: torch.Tensor, coarse: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        self.calls.append("upconv_into")
        kept[:, len(bias) :] = F.conv_transpose2d(coarse, weight, bias, stride=2)
        return kept


@pytest.mark.parametrize("few", [False, True])
def test_a_level_is_pooled_and_joined_by_the_same_kernels(
    few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels count in 32 bits: torch does both steps of a level that is too large for them."""
    torch_kernels = TorchKernels()
    monkeypatch.setattr(kernels, "load_triton", lambda device, name: torch_kernels)
    model = UNet(base=4).eval()
    image = torch.randn(2, 1, 32, 48)
    if few:  # the two coarser levels only: 64 * 8 * 12 of the second is less, of the first more
        monkeypatch.setattr(fused, "MAX_VALUES", 64 * 16 * 24)
    with torch.no_grad():
        torch.testing.assert_close(fused.FusedUNet(model)(image), model(image))
    assert torch_kernels.calls == ["pool_into"] * (2 if few else 4) + ["upconv_into"] * (
        2 if few else 4
    )
