"""Triton's sums and gradient equal torch's, to rounding."""

import math
from types import ModuleType

import pytest
import torch
from support.folded import disk_case, folded_case
from torch import Tensor

from carvana_ray.training import fused_loss
from carvana_ray.training.fused_input import FoldedBatch
from carvana_ray.training.fused_loss import folded_sums

pytestmark = pytest.mark.gpu  # and without a GPU in Triton's interpreter


@pytest.fixture(autouse=True)
def small_tiles(triton_kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs for each image, and several steps for each program."""
    monkeypatch.setattr(triton_kernels, "VALUES", 128)
    monkeypatch.setattr(triton_kernels, "PROGRAMS", 10)


def sums_and_gradient(
    logits: Tensor,
    folded: FoldedBatch,
    of_sums: Tensor,
    kernels: ModuleType | None,
    edge_weight: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums, counts and the gradient to the logits, by the kernels or by torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_loss, "load_triton", lambda device, name: kernels)
        logits = logits.detach().requires_grad_()
        sums, counts = folded_sums(logits, folded, edge_weight)
        (gradient,) = torch.autograd.grad(sums, logits, of_sums)
    return sums.detach(), counts, gradient


def on_device(
    fold: int, channels: int, dtype: torch.dtype, device: torch.device, count: int = 1
) -> tuple[Tensor, FoldedBatch, Tensor]:
    """Return the first images of `folded_case` and a gradient to their sums."""
    return moved_to(device, *folded_case(fold, channels, dtype), count)


def moved_to(
    device: torch.device, logits: Tensor, folded: FoldedBatch, count: int
) -> tuple[Tensor, FoldedBatch, Tensor]:
    target, weight = folded.target[:count].to(device), folded.weight[:count].to(device)
    of_sums = torch.tensor([0.5, -0.25, 0.125, 1.0], device=device)
    return logits[:count].to(device), FoldedBatch(target, target, weight, folded.size), of_sums


@pytest.mark.parametrize(
    ("fold", "channels", "dtype"),
    [
        (1, 1, torch.float32),
        (1, 8, torch.float16),
        (2, 8, torch.float16),
        (4, 16, torch.float32),
        (4, 16, torch.float16),
    ],
)
def test_kernels_equal_torch(
    fold: int,
    channels: int,
    dtype: torch.dtype,
    triton_kernels: ModuleType,
    device: torch.device,
) -> None:
    logits, folded, of_sums = on_device(fold, channels, dtype, device, 5)
    sums, counts, gradient = sums_and_gradient(logits, folded, of_sums, triton_kernels)
    expected = sums_and_gradient(logits, folded, of_sums, None)
    assert sums.dtype == torch.float32
    torch.testing.assert_close(sums, expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(counts, expected[1], rtol=1e-6, atol=0)
    assert not counts.requires_grad
    assert gradient.dtype == dtype
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    close = 1e-5 if dtype == torch.float32 else 1e-3
    torch.testing.assert_close(gradient, expected[2], rtol=close, atol=close * 1e-2)
    assert (gradient[:, fold**2 :] == 0).all()
    assert (gradient[3] == 0).all()


@pytest.mark.parametrize(
    ("fold", "channels", "dtype"),
    [(1, 8, torch.float16), (2, 8, torch.float16), (4, 16, torch.float32)],
)
def test_kernels_equal_torch_at_edges(
    fold: int,
    channels: int,
    dtype: torch.dtype,
    triton_kernels: ModuleType,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(triton_kernels, "VALUES", 1024)  # fewer programs, for the interpreter
    case = moved_to(device, *disk_case(fold, channels, dtype), 5)
    found = sums_and_gradient(*case, triton_kernels, 5.0)
    expected = sums_and_gradient(*case, None, 5.0)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
    assert torch.equal(found[1], sums_and_gradient(*case, triton_kernels)[1]), "metrics"
    close = 1e-5 if dtype == torch.float32 else 1e-3
    torch.testing.assert_close(found[2], expected[2], rtol=close, atol=close * 0.1)
    assert (found[2][3] == 0).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy in the interpreter
@pytest.mark.parametrize(
    ("odd", "level"),
    [(math.inf, 0), (math.inf, 255), (-math.inf, 0), (-math.inf, 100), (math.nan, 100)],
)
def test_numbers_that_are_not_finite_show_as_in_torch(
    odd: float, level: int, triton_kernels: ModuleType, device: torch.device
) -> None:
    logits, folded, of_sums = on_device(2, 8, torch.float16, device)
    logits[0, 1, 2, 3], folded.target[0, 1, 2, 3] = odd, level
    found = sums_and_gradient(logits, folded, of_sums, triton_kernels)
    expected = sums_and_gradient(logits, folded, of_sums, None)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
    assert not found[0].isfinite().all()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # numpy in the interpreter
def test_a_scale_that_is_too_large_gives_infinity(
    triton_kernels: ModuleType, device: torch.device
) -> None:
    """The scaler of the loss finds it, skips the step and takes a smaller scale."""
    logits, folded, of_sums = on_device(4, 16, torch.float16, device)
    scaled = of_sums * 2.0**18
    *_, found = sums_and_gradient(logits, folded, scaled, triton_kernels)
    *_, expected = sums_and_gradient(logits, folded, scaled, None)
    assert found.isinf().any()
    assert not found.isnan().any()
    assert torch.equal(found.isinf(), expected.isinf())


def test_the_loss_of_a_sure_pixel_is_accurate(
    triton_kernels: ModuleType, device: torch.device
) -> None:
    """In float32 log(1 + z) of a small z has few digits."""
    logits, folded, of_sums = on_device(4, 16, torch.float32, device)
    logits[:], folded.target[:] = 14, 255
    sums, *_ = sums_and_gradient(logits, folded, of_sums, triton_kernels)
    expected = sums[3].item() * math.log1p(math.exp(-14))
    assert sums[0].item() == pytest.approx(expected, rel=1e-5)


def test_the_same_logits_give_the_same_bits(
    triton_kernels: ModuleType, device: torch.device
) -> None:
    case = on_device(4, 16, torch.float16, device, 2)
    first, second = (sums_and_gradient(*case, triton_kernels) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_a_batch_of_padding_adds_nothing(triton_kernels: ModuleType, device: torch.device) -> None:
    logits, folded, of_sums = on_device(2, 8, torch.float16, device)
    folded.weight[:] = 0
    sums, counts, gradient = sums_and_gradient(logits, folded, of_sums, triton_kernels)
    assert sums.tolist() == [0, 0, 0, 0]
    assert counts.tolist() == [0, 0, 0]
    assert (gradient == 0).all()


def test_the_self_test_passes(triton_kernels: ModuleType, device: torch.device) -> None:
    triton_kernels.self_test(device)
