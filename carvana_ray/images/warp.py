"""Pictures and masks moved and sized as `augment.draw` says, on the device where they are.

On a CPU a picture of 1280 x 1918 and its mask would take some 30 ms, more than to decode it; on a
GPU a batch of them is a few passes over memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def apply_affine(image: Tensor, share: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return pictures and their masks after the same movement, bilinear, mirrored at their borders.

    Args:
        image: [b, h, w], gray levels.
        share: [b, h, w], share of car, in any unit.
        matrix: float32 [b, 2, 3], see `augment.draw`.

    Returns:
        float32 [b, h, w] each, in the units that were given.
    """
    both = torch.stack([image, share], dim=1).float()
    grid = F.affine_grid(matrix, list(both.shape), align_corners=False)
    moved = F.grid_sample(
        both, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    return moved[:, 0], moved[:, 1]
