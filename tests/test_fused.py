"""The fused network computes what the trained one does."""

import pytest
import torch
import torch.nn.functional as F

from carvana_ray import fused, kernels
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
        expected, found = model(picture), fused.Fused(model)(picture)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_half_precision_is_for_normalized_networks_on_gpus() -> None:
    plain, normalized = UNet(base=2, norm="none"), UNet(base=2)
    assert fused.dtype_for(normalized, torch.device("cpu")) == torch.float32
    assert fused.dtype_for(normalized, torch.device("cuda")) == torch.float16
    assert fused.dtype_for(plain, torch.device("cuda")) == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.gpu
@pytest.mark.parametrize("base", [3, 12, 32])
@pytest.mark.parametrize("size", [(32, 48), (70, 110)])
def test_kernels_between_levels_do_what_torch_does(base: int, size: tuple[int, int]) -> None:
    device = torch.device("cuda")
    fast = kernels.triton_for(device, "levels_triton")
    assert fast, "Triton runs where the tests of a GPU do"
    torch.manual_seed(0)
    x, coarse = torch.randn(5, base, *size), torch.randn(5, 2 * base, size[0] // 2, size[1] // 2)
    x[0, 0, 3, 3], x[1, 0, 0, 0] = torch.nan, torch.inf
    x, coarse = (one.to(device, torch.float16) for one in (x, coarse))
    enlarge = torch.nn.ConvTranspose2d(2 * base, base, 2, stride=2).to(device, torch.float16)
    with torch.inference_mode():
        kept, small = fast.halve(x)
        torch.testing.assert_close(small, F.max_pool2d(x, 2), rtol=0, atol=0, equal_nan=True)
        found = fast.join(kept, coarse, enlarge)
        expected = torch.cat([x, enlarge.float()(coarse.float())], dim=1)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3, equal_nan=True)
