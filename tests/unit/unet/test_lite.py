"""The encoder: shapes, the folded first convolution, published names, what does not learn."""

import pytest
import torch
import torch.nn.functional as F
from support.lite0 import published

from carvana_ray.unet.lite import Block, Lite0, from_published, level_channels


@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("size", [(16, 32), (48, 80)])
def test_each_level_has_a_map_of_its_size(fold: int, size: tuple[int, int]) -> None:
    """The image at the size of the grid itself has no map for the finest level."""
    maps = Lite0(fold)(torch.randn(2, fold**2, *size))
    for level, (one, channels) in enumerate(zip(maps, level_channels(fold), strict=True)):
        if fold % 2 and level == 0:
            assert (one, channels) == (None, 0)
            continue
        assert one is not None
        assert one.shape == (2, channels, size[0] >> level, size[1] >> level)


def test_the_coarsest_map_of_the_grid_is_enlarged_to_the_last_level() -> None:
    torch.manual_seed(0)
    encoder = Lite0(1).eval()
    features = [torch.randn(1, channels, 3, 5) for channels in (16, 24, 40, 112)]
    features.append(torch.randn(1, 320, 2, 3))  # of a grid of 48 x 80 cells
    last = encoder.normalize(features)[-1]
    assert last is not None
    expected = features[-1].repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :3, :5]
    torch.testing.assert_close(last[:, 112:] * (1 + 1e-5) ** 0.5, expected)


def test_a_block_clips_inside_and_adds_what_it_finds_to_its_input() -> None:
    torch.manual_seed(0)
    block = Block(8, 8, 3, 1, 6).eval().requires_grad_(False)
    x = 100 * torch.randn(1, 8, 5, 5)
    assert block.expand is not None
    inner = block.expand(x)
    assert (float(inner.min()), float(inner.max())) == (0, 6)
    added = block.project(block.depthwise(inner))
    assert float(added.min()) < 0 < float(added.max())
    assert torch.equal(block(x), x + added)


def test_all_published_weights_of_the_blocks_have_a_place() -> None:
    weights, encoder = published(), Lite0(4)
    found = encoder.load_state_dict(from_published(weights, 4), strict=False)
    assert not found.unexpected_keys
    assert all(name.startswith("norms.") for name in found.missing_keys)
    for name, (block, layer) in {
        "_blocks.0._bn1.bias": (0, "depthwise.norm.bias"),
        "_blocks.7._expand_conv.weight": (7, "expand.conv.weight"),
        "_blocks.9._bn0.running_var": (9, "expand.norm.running_var"),
        "_blocks.15._bn2.running_mean": (15, "project.norm.running_mean"),
        "_blocks.15._project_conv.weight": (15, "project.conv.weight"),
    }.items():
        assert torch.equal(encoder.blocks[block].state_dict()[layer], weights[name])
    assert torch.equal(encoder.stem.norm.weight, weights["_bn0.weight"])


@pytest.mark.parametrize("fold", [1, 3])
def test_the_first_convolution_is_that_of_the_gray_image_at_the_size_of_the_grid(
    fold: int,
) -> None:
    weight = published()["_conv_stem.weight"]
    folded = from_published({"_conv_stem.weight": weight}, fold)["stem.conv.weight"]
    image = torch.randn(2, 1, 4 * fold, 6 * fold)
    found = F.conv2d(F.pixel_unshuffle(image, fold), folded, stride=2, padding=1)
    cells = F.avg_pool2d(image, fold).expand(-1, 3, -1, -1) / 2
    torch.testing.assert_close(
        found, F.conv2d(cells, weight, stride=2, padding=1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("fold", [2, 4])
def test_the_first_convolution_is_that_of_the_gray_image_at_twice_the_grid(fold: int) -> None:
    """Stride 2, padded at the lower right; three equal colors have the sum of the weights."""
    weight = published()["_conv_stem.weight"]
    folded = from_published({"_conv_stem.weight": weight}, fold)["stem.conv.weight"]
    image = torch.randn(2, 1, 4 * fold, 6 * fold)
    found = F.conv2d(F.pixel_unshuffle(image, fold), folded, padding=1)
    halves = F.avg_pool2d(image, fold // 2).expand(-1, 3, -1, -1) / 2
    expected = F.conv2d(F.pad(halves, (0, 1, 0, 1)), weight, stride=2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_training_changes_the_normalization_of_the_maps_alone() -> None:
    torch.manual_seed(0)
    encoder = Lite0(2).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.1)
    maps = encoder(torch.randn(2, 4, 32, 32))
    sum((one * torch.randn_like(one)).sum() for one in maps if one is not None).backward()
    optimizer.step()
    after = encoder.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {name for name in before if name.startswith("norms.")}
