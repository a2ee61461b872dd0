"""Triton's batch normalization, ReLU, pooling and joining equal torch's, forward and backward."""

import copy
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

pytestmark = pytest.mark.gpu  # and without a GPU in Triton's interpreter
# Channels that fill a program, that do not, and that are more than one program has; pixels that
# fill no tile. With (8, 6, 10) two programs have several small tiles each, the last one not full.
FEW = (8, 6, 10)
SHAPES = [FEW, (22, 4, 6), (72, 4, 6)]


def channels_last(*shape: int) -> torch.Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def random_norm(channels: int, training: bool) -> torch.nn.BatchNorm2d:
    norm = torch.nn.BatchNorm2d(channels)
    for value, mean in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0)):
        torch.nn.init.normal_(value, mean, 0.3)
    norm.running_var.uniform_(0.2, 3)
    return norm.train(training)


def statistics_of(kernels: ModuleType, z: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
    if norm.training:
        return kernels.batch_statistics(z, norm)
    return torch.stack([norm.running_mean, torch.rsqrt(norm.running_var + norm.eps)])


def reference(
    z: torch.Tensor, norm: torch.nn.BatchNorm2d, grad: torch.Tensor, grad_pooled: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Output, pooled output, gradients of z, bias and weight by torch in float64."""
    exact = copy.deepcopy(norm).double()
    z = z.double().requires_grad_()
    y = F.relu(exact(z))
    pooled = F.max_pool2d(y, 2)
    torch.autograd.backward([y, pooled], [grad.double(), grad_pooled.double()])
    norms = (exact.bias.grad, exact.weight.grad, exact.running_mean, exact.running_var)
    return y.detach(), pooled.detach(), z.grad, *norms


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("channels", "height", "width"), SHAPES)
def test_kernels_equal_batch_norm_relu_and_pooling(
    channels: int,
    height: int,
    width: int,
    training: bool,
    pool: bool,
    triton_kernels: ModuleType,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if (channels, height, width) == FEW:
        sizes = {"VALUES": 512, "SUM_VALUES": 512, "POOL_VALUES": 128, "SUM_POOL_VALUES": 128}
        for name, value in {"PROGRAMS": 2, **sizes}.items():
            monkeypatch.setattr(f"carvana_ray.training.normalize_triton.{name}", value)
    torch.manual_seed(0)
    shift = 30 * torch.arange(channels).view(-1, 1, 1) / channels  # means far from 0
    z = (channels_last(3, channels, height, width) + shift).to(device)
    grad = channels_last(3, 2 * channels if pool else channels, height, width).to(device)
    grad_pooled = channels_last(3, channels, height // 2, width // 2).to(device) * pool
    norm = random_norm(channels, training).to(device)
    y, pooled, *expected = reference(z, norm, grad[:, :channels], grad_pooled)
    statistics = statistics_of(triton_kernels, z, norm)
    if pool:
        buffer, small = triton_kernels.normalize_pool(z, statistics, norm)
        assert buffer.shape[1] == 2 * channels
        torch.testing.assert_close(small.double(), pooled, rtol=1e-4, atol=1e-4)
    else:
        buffer = triton_kernels.normalize(z, statistics, norm)
    torch.testing.assert_close(buffer[:, :channels].double(), y, rtol=1e-4, atol=1e-4)
    grad_z, sums = triton_kernels.normalize_backward(
        z, statistics, norm, grad, grad_pooled if pool else None, not training
    )
    found = (grad_z, *sums, norm.running_mean, norm.running_var)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_the_first_of_equal_maxima_gets_the_gradient(
    triton_kernels: ModuleType, device: torch.device
) -> None:
    """All 81 blocks of the values -1, 1 and 2. torch does the same in float32."""
    values = torch.tensor([-1.0, 1.0, 2.0])
    blocks = torch.cartesian_prod(values, values, values, values).view(9, 9, 2, 2)
    z = blocks.permute(0, 2, 1, 3).reshape(1, 1, 18, 18)
    z = z.expand(1, 8, 18, 18).contiguous(memory_format=torch.channels_last).to(device)
    norm = torch.nn.BatchNorm2d(8, eps=1e-30).to(device).eval()  # torch on a GPU refuses 0
    grad_pooled = channels_last(1, 8, 9, 9).to(device)
    grad = torch.zeros_like(z)
    _, _, expected, *_ = reference(z, norm, grad, grad_pooled)
    buffer = torch.cat([grad, torch.full_like(grad, torch.nan)], 1)
    buffer = buffer.contiguous(memory_format=torch.channels_last)
    statistics = statistics_of(triton_kernels, z, norm)
    found, _ = triton_kernels.normalize_backward(z, statistics, norm, buffer, grad_pooled, True)
    assert torch.equal(found.double(), expected)


def test_a_value_that_is_not_finite_stays_visible(
    triton_kernels: ModuleType, device: torch.device
) -> None:
    """A step whose activations overflow is skipped, so the overflow must reach the loss."""
    z = channels_last(1, 8, 4, 4).to(device)
    z[0, 3, 1, 1] = torch.inf
    norm = random_norm(8, training=True).to(device)
    buffer, pooled = triton_kernels.normalize_pool(z, statistics_of(triton_kernels, z, norm), norm)
    assert buffer[:, 3].isnan().all()
    assert pooled[:, 3].isnan().all()
    assert pooled[:, [0, 1, 2, 4]].isfinite().all()


@pytest.mark.parametrize(("channels", "height", "width"), SHAPES)
def test_the_upper_half_is_gathered_by_blocks(
    channels: int, height: int, width: int, triton_kernels: ModuleType, device: torch.device
) -> None:
    grad = channels_last(3, 2 * channels, height, width).to(device)
    columns, sums = triton_kernels.gather_upper(grad)
    upper = grad[:, channels:]
    blocks = upper.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))  # [B, C, h, 2, w, 2]
    assert torch.equal(columns, blocks.permute(0, 2, 4, 3, 5, 1).reshape(columns.shape))
    torch.testing.assert_close(sums, upper.sum((0, 2, 3)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("channels", "outputs"), [(4, 1), (22, 4), (32, 16)])
def test_kernels_equal_the_last_level_and_the_head(
    channels: int,
    outputs: int,
    training: bool,
    triton_kernels: ModuleType,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"PROGRAMS": 2, "VALUES": 256}.items():
        monkeypatch.setattr(f"carvana_ray.training.head_triton.{name}", value)
    torch.manual_seed(0)
    z = channels_last(3, channels, 4, 6).to(device)
    grad = channels_last(3, outputs, 4, 6).to(device)
    norm = random_norm(channels, training).to(device)
    head = torch.nn.Conv2d(channels, outputs, 1).to(device)
    exact = copy.deepcopy(torch.nn.Sequential(norm, torch.nn.ReLU(), head)).double()
    exact_z = z.double().requires_grad_()
    expected = exact(exact_z)
    expected.backward(grad.double())
    statistics = statistics_of(triton_kernels, z, norm)
    logits = triton_kernels.head_logits(z, statistics, norm, head)
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)
    found = triton_kernels.head_backward(z, statistics, norm, head, grad, not training)
    weights = (exact[0].bias, exact[0].weight, exact[2].weight, exact[2].bias)
    for one, other in zip(found, (exact_z, *weights), strict=True):
        torch.testing.assert_close(one.double(), other.grad, rtol=1e-4, atol=1e-4)


def test_the_self_test_passes(triton_kernels: ModuleType, device: torch.device) -> None:
    triton_kernels.self_test(device)
