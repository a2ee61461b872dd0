"""A folded batch has the pixels of `prepare_batch`, in the order that the network unfolds."""

import pytest
import torch
import torch.nn.functional as F
from support.folded import moved_batch, unfold

from carvana_ray.training.fused_input import MIN_CHANNELS, fold_batch
from carvana_ray.training.state import prepare_batch


@pytest.mark.parametrize("fold", [1, 2, 3, 4])
@pytest.mark.parametrize("training", [True, False])
def test_pixels_are_those_of_a_prepared_batch(fold: int, training: bool) -> None:
    batch = moved_batch(21, 35)
    image, soft_mask, weight = prepare_batch(batch, training)
    folded = fold_batch(batch, fold, 3, training)
    assert folded.size == (21, 35)
    assert folded.weight is weight
    found = unfold(folded.target, fold, 21, 35)
    assert found.dtype == torch.uint8
    torch.testing.assert_close(unfold(folded.x, fold, 21, 35), image, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.float(), soft_mask.float(), rtol=0, atol=0.5)
    assert torch.equal(found > 127, soft_mask > 127.5), "no pixel changes its side of a half"
    certain = (soft_mask == 0) | (soft_mask == 255)
    assert torch.equal(found[certain].float(), soft_mask[certain].float())
    assert certain.float().mean() > 0.5


def test_a_standardized_batch_is_folded_only() -> None:
    batch = moved_batch(21, 35)
    del batch["affine"]
    batch["image"] = torch.randn(4, 21, 35)
    folded = fold_batch(batch, 4, 3, training=True)
    assert torch.equal(unfold(folded.x, 4, 21, 35), batch["image"])
    assert torch.equal(unfold(folded.target, 4, 21, 35), batch["soft_mask"])


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_cells_fill_all_levels_by_the_last_row_and_column(fold: int) -> None:
    batch = moved_batch(21, 35)
    folded = fold_batch(batch, fold, 3, training=False)
    image, soft_mask, _ = prepare_batch(batch, training=False)
    height, width = (-(-length // (4 * fold)) * 4 * fold for length in (21, 35))
    channels = max(fold**2, MIN_CHANNELS)
    assert folded.x.shape == (4, channels, height // fold, width // fold)
    for found, plain in ((folded.x, image), (folded.target, soft_mask)):
        assert found.is_contiguous(memory_format=torch.channels_last)
        pad = (0, width - 35, 0, height - 21)
        expected = F.pad(plain[:, None].float(), pad, mode="replicate")[:, 0]
        assert torch.equal(unfold(found, fold, height, width).float(), expected)
    assert (folded.x[:, fold**2 :] == 0).all()
