"""The fused network computes what the trained one does."""

import pytest
import torch

from carvana_ray import fused
from carvana_ray.unet import UNet


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
    picture = torch.randn(2, 1, *size, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        expected, found = model(picture), fused.fuse(model)(picture)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_half_precision_is_for_normalized_networks_on_gpus() -> None:
    plain, normalized = UNet(base=2, norm="none"), UNet(base=2)
    assert fused.dtype_for(normalized, torch.device("cpu")) == torch.float32
    assert fused.dtype_for(normalized, torch.device("cuda")) == torch.float16
    assert fused.dtype_for(plain, torch.device("cuda")) == torch.bfloat16
