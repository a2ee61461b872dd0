"""The fused encoder computes the same as the encoder it was made of."""

import importlib
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from support.trained import randomize_norms

from carvana_ray.inference import fused_lite, mask_kernels
from carvana_ray.unet.lite import Lite0


def trained_encoder(fold: int) -> Lite0:
    """An encoder whose normalization layers look trained."""
    torch.manual_seed(0)
    return randomize_norms(Lite0(fold).double().eval())


@pytest.mark.parametrize("fold", [1, 2])
def test_fused_is_the_same_function(fold: int) -> None:
    encoder = trained_encoder(fold)
    x = torch.randn(2, fold**2, 16, 48, dtype=torch.float64)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.no_grad():
        expected, found = encoder(x), fused_lite.FusedLite(encoder)(x)
    assert (found[0] is None) == (expected[0] is None) == bool(fold % 2)
    for one, other in zip(found[fold % 2 :], expected[fold % 2 :], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    after = encoder.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_blocks_use_the_kernel_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernels:
        calls = 0

        def depthwise_relu6(
            self, x: torch.Tensor, before: torch.Tensor | None, conv: torch.nn.Conv2d
        ) -> torch.Tensor:
            self.calls += 1
            return F.relu6(conv(x if before is None else F.relu6(x + before[:, None, None])))

    kernels, encoder = Kernels(), trained_encoder(2)
    monkeypatch.setattr(mask_kernels, "load_triton", lambda *_: kernels)
    x = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        found, expected = fused_lite.FusedLite(encoder)(x), encoder(x)
    assert kernels.calls == 16
    torch.testing.assert_close(found[-1], expected[-1])


@pytest.fixture(scope="module")
def kernels(device: torch.device) -> ModuleType:
    if device.type == "cpu":
        return importlib.import_module(fused_lite.TRITON)
    found = mask_kernels.load_triton(device, fused_lite.TRITON)
    assert found, "GPU tests need Triton"
    return found


@pytest.mark.gpu  # and without a GPU in Triton's interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(
    ("side", "stride", "channels", "size"),
    [(3, 1, 24, (5, 7)), (3, 2, 40, (6, 9)), (5, 1, 64, (4, 3)), (5, 2, 16, (7, 8))],
)
def test_the_kernel_is_the_convolution_between_two_relu6(
    side: int,
    stride: int,
    channels: int,
    size: tuple[int, int],
    shifted: bool,
    dtype: torch.dtype,
    kernels: ModuleType,
    device: torch.device,
) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(channels, channels, side, stride, side // 2, groups=channels)
    conv = conv.to(device, dtype)
    x = 4 * torch.randn(2, channels, *size, device=device, dtype=dtype)
    before = torch.randn(channels, device=device, dtype=dtype) if shifted else None
    if before is None:
        x = F.relu6(x)
    found = kernels.depthwise_relu6(x, before, conv)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = conv.double()
    inner = x.double() if before is None else x.double() + before.double()[:, None, None]
    expected = F.relu6(exact(F.relu6(inner)))
    assert 0 < float((expected == 0).double().mean()) < 1
    close = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.double(), expected, rtol=close, atol=close)


@pytest.mark.gpu
def test_not_a_number_stays(kernels: ModuleType, device: torch.device) -> None:
    conv = torch.nn.Conv2d(16, 16, 3, padding=1, groups=16).to(device)
    x = torch.zeros(1, 16, 3, 3, device=device)
    x[0, 0, 0, 0] = torch.nan
    found = kernels.depthwise_relu6(x, torch.zeros(16, device=device), conv)
    assert found[0, 0, :2, :2].isnan().all()
    assert not found[0, 1].isnan().any()
