"""Triton's steps between two levels of a network equal torch's."""

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

pytestmark = pytest.mark.gpu  # and without a GPU in Triton's interpreter
CUDA = torch.cuda.is_available()
# The interpreter computes with numpy, which has no bfloat16, and slowly. These shapes have
# more pixels, columns and depth than one program computes, and numbers that fill no program.
DTYPES = [torch.float16, torch.bfloat16] if CUDA else [torch.float16]
SHAPES = [(3, 34, 50), (12, 8, 12), (32, 8, 12), (48, 6, 4)]
if CUDA:
    SHAPES += [(128, 8, 12), (12, 34, 50), (32, 34, 50), (48, 34, 50), (128, 34, 50)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("base", "height", "width"), SHAPES)
def test_kernels_between_levels_equal_torch(
    base: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    triton_kernels: ModuleType,
    device: torch.device,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, base, height, width)
    coarse = torch.randn(3, 2 * base, height // 2, width // 2)
    x[0, 0, 3, 3], x[1, 0, 0, 0] = torch.nan, torch.inf
    x, coarse = (one.to(device, dtype) for one in (x, coarse))
    enlarge = torch.nn.ConvTranspose2d(2 * base, base, 2, stride=2).to(device, dtype)
    with torch.inference_mode():
        kept, small = triton_kernels.pool_into(x)
        torch.testing.assert_close(small, F.max_pool2d(x, 2), rtol=0, atol=0, equal_nan=True)
        found = triton_kernels.upconv_into(kept, coarse, enlarge.weight, enlarge.bias)
        expected = torch.cat([x.float(), enlarge.float()(coarse.float())], dim=1)
    assert found.is_contiguous(memory_format=torch.channels_last)
    close = 1e-3 if dtype == torch.float16 else 1e-2
    torch.testing.assert_close(found.float(), expected, rtol=close, atol=close, equal_nan=True)


def test_the_self_test_passes(triton_kernels: ModuleType, device: torch.device) -> None:
    triton_kernels.self_test(device)
