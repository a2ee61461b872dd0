"""Network, loss and metrics as one module of kernels that pass over memory few times."""

import torch
from torch import Tensor, nn

from carvana_ray.training.fused_input import FoldedBatch, fold_batch
from carvana_ray.training.fused_loss import folded_sums
from carvana_ray.training.fused_unet import FusedTrainingUNet, fuse
from carvana_ray.training.state import Batch, ModelWithLoss
from carvana_ray.unet.network import UNet


class FusedModelWithLoss(nn.Module):
    """What `ModelWithLoss` is, to rounding; the image stays folded from the first pass to the last.

    Args:
        network: the network, whose weights `fused` shares.
        edge_weight: as that of `ModelWithLoss`.
    """

    def __init__(self, network: UNet, fused: FusedTrainingUNet, edge_weight: float = 1.0) -> None:
        super().__init__()
        self.network, self._fused, self.edge_weight = network, fused, edge_weight

    def prepare(self, batch: Batch, training: bool) -> tuple[FoldedBatch]:
        """Return what `forward` takes of a batch as `prepare_batch` takes it."""
        return (fold_batch(batch, self.network.fold, len(self.network.down), training),)

    def forward(self, folded: FoldedBatch) -> tuple[Tensor, Tensor]:
        """Return `loss.loss_sums` [4] and `metrics.metric_sums` [3]."""
        edge_weight = self.edge_weight if self.training else 1.0
        return folded_sums(self._fused(folded.x), folded, edge_weight)


def with_loss(
    network: UNet, device: torch.device, edge_weight: float = 1.0
) -> ModelWithLoss | FusedModelWithLoss:
    """Return the fastest module that computes a network's loss on a device; moves it there."""
    network = network.to(device)
    if fused := fuse(network, device):
        return FusedModelWithLoss(network, fused, edge_weight)
    return ModelWithLoss(network, edge_weight)
