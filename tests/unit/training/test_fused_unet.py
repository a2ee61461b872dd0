"""The fused network computes what the plain network computes, forward and backward."""

import copy
import importlib
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from support.trained import randomize_norms

from carvana_ray.inference import mask_kernels
from carvana_ray.training import fused_unet
from carvana_ray.unet.network import UNet

FIXED = ("encoder.stem.", "encoder.blocks.")
gpu = pytest.mark.gpu  # and without a GPU in Triton's interpreter


@pytest.fixture(scope="module")
def kernels(device: torch.device) -> ModuleType:
    if device.type == "cpu":
        return importlib.import_module(fused_unet.TRITON)
    found = mask_kernels.load_triton(device, fused_unet.TRITON)
    assert found, "GPU tests need Triton"
    return found


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default cuDNN rounds float32 to the 10 bits of TF32 for convolutions."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def random_network(base: int, depth: int, fold: int, encoder: str = "none") -> UNet:
    """A network whose normalization layers look trained."""
    torch.manual_seed(0)
    network = UNet(base, depth, fold=fold, encoder=encoder).to(memory_format=torch.channels_last)
    return randomize_norms(network)


def folded(image: torch.Tensor, fold: int, channels: int, dtype: torch.dtype) -> torch.Tensor:
    x = F.pixel_unshuffle(image, fold)
    return F.pad(x, (0, 0, 0, 0, 0, channels - fold**2)).to(dtype)


@gpu
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("base", "depth", "fold", "dtype", "close"),
    [
        (4, 3, 1, torch.float32, 1e-4),
        (22, 2, 2, torch.float32, 1e-4),
        (12, 2, 4, torch.float32, 1e-4),
        (4, 1, 3, torch.float32, 1e-4),
        (16, 2, 1, torch.float16, 6e-2),
    ],
)
def test_fused_equals_the_plain_network(
    base: int,
    depth: int,
    fold: int,
    dtype: torch.dtype,
    close: float,
    training: bool,
    kernels: ModuleType,
    device: torch.device,
) -> None:
    """Logits, gradients and running statistics, against the plain network in float64."""
    network = random_network(base, depth, fold).to(device).train(training)
    plain = copy.deepcopy(network).double()
    fused = fused_unet.FusedTrainingUNet(network, kernels)
    image = torch.randn(2, 1, fold * 4, fold * 8, device=device).to(dtype)
    exact = image.double().requires_grad_()
    expected = plain(exact)
    grad = torch.randn_like(expected)
    expected.backward(grad)

    x = folded(image, fold, max(8, fold**2), dtype).requires_grad_()
    logits = fused(x)
    assert logits.dtype == dtype
    assert logits.is_contiguous(memory_format=torch.channels_last)
    assert logits.shape == (2, fold**2, 4, 8)
    logits.backward(folded(grad, fold, fold**2, dtype))
    rows = {
        "logits": (F.pixel_shuffle(logits, fold), expected),
        "image": (F.pixel_shuffle(x.grad[:, : fold**2], fold), exact.grad),
    }
    for (name, one), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert one.grad.dtype == torch.float32
        rows[name] = (one.grad, other.grad)
    for (name, one), other in zip(network.named_buffers(), plain.buffers(), strict=True):
        rows[name] = (one, other)
    assert_close(rows, close)


def assert_close(rows: dict[str, tuple[torch.Tensor, torch.Tensor]], close: float) -> None:
    for name, (one, other) in rows.items():
        error = (one.double() - other).norm() / other.double().norm().clamp(min=1e-9)
        assert error < close, name


@gpu
@pytest.mark.parametrize(("fold", "training"), [(1, True), (2, True), (2, False)])
def test_an_encoder_joins_the_levels_as_in_the_plain_network(
    fold: int, training: bool, kernels: ModuleType, device: torch.device
) -> None:
    """Its blocks are left as they are; the normalization of its maps learns."""
    network = random_network(4, 5, fold, encoder="lite0").to(device).train(training)
    plain = copy.deepcopy(network).double()
    fused = fused_unet.FusedTrainingUNet(network, kernels)
    assert list(fused.parameters()) == list(network.parameters()), "no copies that learn"
    image = torch.randn(2, 1, 64, 64, device=device)
    expected = plain(image.double())
    grad = torch.randn_like(expected)
    expected.backward(grad)
    before = copy.deepcopy(network.encoder.blocks.state_dict())

    logits = fused(folded(image, fold, 8, torch.float32))
    logits.backward(folded(grad, fold, fold**2, torch.float32))
    rows = {"logits": (F.pixel_shuffle(logits, fold), expected)}
    for (name, one), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == name.startswith(FIXED)
        if one.grad is not None:
            rows[name] = (one.grad, other.grad)
    for (name, one), other in zip(network.named_buffers(), plain.buffers(), strict=True):
        rows[name] = (one, other)
    assert_close(rows, 1e-3)
    after = network.encoder.blocks.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@gpu
def test_one_value_per_channel_is_an_error(kernels: ModuleType, device: torch.device) -> None:
    fused = fused_unet.FusedTrainingUNet(UNet(4, depth=1).to(device), kernels)
    with pytest.raises(ValueError, match="more than one value per channel"):
        fused(torch.zeros(1, 8, 1, 1, device=device))


def test_other_networks_and_devices_keep_the_plain_network() -> None:
    assert fused_unet.fuse(UNet(4), torch.device("cpu")) is None
    assert fused_unet.fuse(UNet(4, norm="none"), torch.device("cuda", 7)) is None
