"""The published weights of an encoder: from an installed package, or an error that names it."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support import lite0

from carvana_ray.errors import InputError
from carvana_ray.training import pretrained
from carvana_ray.unet.lite import Lite0
from carvana_ray.unet.network import UNet


def test_the_blocks_get_the_weights_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "drawn_lite0")  # not the real one, which may be here
    weights = lite0.install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    network = UNet(base=2, fold=2, encoder="lite0")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pretrained.load_published(network)
    assert isinstance(network.encoder, Lite0)
    found = network.encoder.blocks[1].depthwise.conv.weight
    assert torch.equal(found, weights["_blocks.1._depthwise_conv.weight"])
    for name, value in network.state_dict().items():
        assert name.startswith("encoder.") or torch.equal(value, before[name])


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    network = UNet(base=2, fold=2, encoder="lite0")
    with pytest.raises(InputError, match=r"pip install 'carvana-ray\[lite0\]'") as error:
        pretrained.load_published(network)
    assert "\n" not in str(error.value)


def test_a_network_without_encoder_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "no_such_package")
    pretrained.load_published(UNet(base=2, fold=2))


@pytest.mark.skipif(
    not importlib.util.find_spec(pretrained.PACKAGE), reason="needs carvana-ray[lite0]"
)
def test_the_published_maps_have_deviations_as_of_photographs() -> None:
    """With a weight or layer in the wrong place they vanish or explode from block to block."""
    torch.manual_seed(0)
    sides = (4, 8, 16, 32, 64)  # shapes of all sizes, the fine ones faint
    shapes = (F.interpolate(torch.randn(1, 1, n, n), (256, 384), mode="bicubic") for n in sides)
    image = sum(shape / n**0.5 for shape, n in zip(shapes, sides, strict=True))
    image = (image - image.mean()) / image.std()
    planes = F.pixel_unshuffle(image, 4)
    network = UNet(base=2, fold=4, encoder="lite0").eval()
    pretrained.load_published(network)
    assert isinstance(network.encoder, Lite0)
    with torch.no_grad():
        maps = network.encoder.features(planes)
    expected = (4.6, 8.3, 7.5, 6.3, 2.3)  # ten photographs of cars
    for one, deviation in zip(maps, expected, strict=True):
        assert deviation / 2 < float(one.std()) < 2 * deviation
