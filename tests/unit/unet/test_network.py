"""The network: its parameters, shapes, padding and initialization."""

from itertools import pairwise

import pytest
import torch

from carvana_ray.unet.network import UNet, UNetConfig, glorot_init_


def test_without_norm_it_is_the_network_of_2017() -> None:
    model = UNet(base=32, depth=5, in_channels=1, norm="none")
    # Two convolutions a level, by hand: weights and biases.
    widths = [32, 64, 128, 256, 512]
    expected = 0
    for before, width in zip([1, *widths[:-1]], widths, strict=True):
        expected += 9 * before * width + width + 9 * width * width + width
    for fine, coarse in pairwise(widths):
        expected += 4 * coarse * fine + fine
        expected += 9 * 2 * fine * fine + fine + 9 * fine * fine + fine
    expected += 32 + 1
    assert sum(p.numel() for p in model.parameters()) == expected == 7_759_521


@pytest.mark.parametrize("size", [(32, 48), (16, 16), (17, 31), (40, 60), (5, 7)])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_logits_have_the_size_of_the_image(size: tuple[int, int], norm: str) -> None:
    logits = UNet(base=2, norm=norm)(torch.zeros(2, 1, *size))
    assert logits.shape == (2, 1, *size)


@pytest.mark.parametrize("size", [(64, 128), (17, 31), (5, 7)])
def test_a_folded_network_has_a_logit_for_each_pixel(size: tuple[int, int]) -> None:
    logits = UNet(base=2, fold=4)(torch.zeros(2, 1, *size))
    assert logits.shape == (2, 1, *size)


def test_a_folded_network_is_a_network_on_the_blocks_of_an_image() -> None:
    """Pixels of a block become channels, and the logits return to their pixels."""
    torch.manual_seed(0)
    folded, plain = UNet(base=4, fold=2).eval(), UNet(base=4, in_channels=4).eval()
    plain.head = folded.head
    for inner in ("down", "up", "enlarge"):
        getattr(plain, inner).load_state_dict(getattr(folded, inner).state_dict())
    image = torch.randn(1, 1, 32, 64)
    blocks = torch.stack([image[0, 0, y::2, x::2] for y in (0, 1) for x in (0, 1)])
    logits = plain(blocks[None])[0]
    expected = torch.empty(32, 64)
    for channel, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        expected[y::2, x::2] = logits[channel]
    torch.testing.assert_close(folded(image)[0, 0], expected)


@pytest.mark.parametrize("fold", [1, 3, 4])
@pytest.mark.parametrize("size", [(64, 128), (17, 31)])
def test_with_an_encoder_there_is_a_logit_for_each_pixel(fold: int, size: tuple[int, int]) -> None:
    logits = UNet(base=2, fold=fold, encoder="lite0")(torch.randn(2, 1, *size))
    assert logits.shape == (2, 1, *size)


@pytest.mark.parametrize("fold", [1, 2])
def test_each_map_of_the_encoder_reaches_the_logits(fold: int) -> None:
    torch.manual_seed(0)
    model = UNet(base=4, fold=fold, encoder="lite0").eval()
    for one in model.modules():
        if isinstance(one, torch.nn.BatchNorm2d):  # else the maps of random blocks vanish
            torch.nn.init.normal_(one.bias)
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = model(image)
        for norm in model.encoder.norms:
            bias = norm.bias.clone()
            norm.bias += 1
            assert not torch.equal(model(image), before)
            norm.bias.copy_(bias)
        assert torch.equal(model(image), before)


@pytest.mark.parametrize("fold", [1, 4])
def test_a_config_builds_its_network(fold: int) -> None:
    config = UNetConfig(base=2, norm="none", fold=fold)
    expected = UNet(base=2, norm="none", fold=fold).state_dict()
    built = config.build().state_dict()
    assert {name: value.shape for name, value in built.items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_padding_repeats_the_last_row() -> None:
    torch.manual_seed(0)
    model = UNet(base=4, depth=3).eval()
    image = 3 * torch.randn(1, 1, 12, 16)
    whole = model(image)
    cut = model(image[..., :11, :])  # padded back to 12 by repeating row 11
    repeated = torch.cat([image[..., :11, :], image[..., 10:11, :]], dim=-2)
    torch.testing.assert_close(cut, model(repeated)[..., :11, :])
    assert not torch.allclose(cut, whole[..., :11, :])


def test_every_parameter_gets_a_gradient() -> None:
    model = UNet(base=2)
    model(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_glorot_keeps_to_its_bound_and_sets_biases_to_zero() -> None:
    torch.manual_seed(0)
    model = UNet(base=8, norm="none")
    glorot_init_(model)
    convolution = model.down[1][0]
    bound = (6 / (9 * 8 + 9 * 16)) ** 0.5
    assert convolution.weight.abs().max() <= bound
    assert convolution.weight.abs().max() > 0.95 * bound
    assert not convolution.bias.any()


def test_an_invalid_network_is_refused() -> None:
    with pytest.raises(ValueError, match="norm=layer"):
        UNet(norm="layer")
    for wrong in ({"norm": "none"}, {"depth": 4}, {"in_channels": 3}):
        with pytest.raises(ValueError, match="encoder=lite0"):
            UNet(**{"fold": 2, "encoder": "lite0", **wrong})
    with pytest.raises(ValueError, match="encoder=lite9"):
        UNet(fold=2, encoder="lite9")
