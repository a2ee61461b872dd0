"""Gray pictures in, run-length text out: network, mask and runs in one process, on one device.

A full-size mask is 2.4 MB and stays where it is made; the text is about 9 kB. The network's share
of car is rounded to uint8 before it is enlarged: from there on the arithmetic is exact (see
`images.enlarge`), and the CPU and every GPU make the same mask of the same share.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from carvana_ray import images, rle
from carvana_ray.unet import UNet

FULL_SIZE_AT_ONCE = 16  # 1280 x 1920 float32 are 9.8 MB, and three such arrays live at a time


class Predictor:
    """A network on its device, ready to be asked.

    Args:
        model: in any mode; it is set to evaluation.
        device: where it runs.
    """

    def __init__(self, model: UNet, device: torch.device) -> None:
        self.device = device
        self.model = model.eval().to(
            device=device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )

    @torch.inference_mode()
    def shares(self, gray: NDArray[np.uint8]) -> Tensor:
        """Return the share of car of each block: uint8 [B, h, w] on the device, 255 for all car.

        Args:
            gray: uint8 [B, h, w], as `images.load_gray` gives it.
        """
        picture = images.standardize(torch.from_numpy(gray).to(self.device)).unsqueeze(1)
        picture = picture.contiguous(memory_format=torch.channels_last)
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu):
            logits = self.model(picture)
        return (torch.sigmoid(logits[:, 0].float()) * 255).round().to(torch.uint8)

    def texts(self, gray: NDArray[np.uint8], height: int, width: int) -> list[str]:
        """Return the run-length text of each picture's mask at height x width.

        Args:
            gray: uint8 [B, h, w] of pictures of one full size.
            height, width: that size, H and W.
        """
        share = self.shares(gray)
        return [
            text for few in share.split(FULL_SIZE_AT_ONCE) for text in run_texts(few, height, width)
        ]

    def texts_of_any(
        self, grays: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """Return the texts of pictures of any sizes, [h, w] each, in their order.

        Args:
            grays: uint8 [h, w] each.
            sizes: full size (H, W) of each.
        """
        texts = [""] * len(grays)
        for size in dict.fromkeys(sizes):
            places = [place for place, other in enumerate(sizes) if other == size]
            stack = np.stack([grays[place] for place in places])
            for place, text in zip(places, self.texts(stack, *size), strict=True):
                texts[place] = text
        return texts


@torch.inference_mode()
def enlarge(share: Tensor, height: int, width: int) -> Tensor:
    """Return `images.enlarge` of uint8 [B, h, w] on the tensor's own device: bool [B, H, W]."""
    h, w = share.shape[-2:]
    times = images.factor(height, width, h, w)
    smooth = F.interpolate(
        share[:, None].float(), size=(h * times, w * times), mode="bilinear", align_corners=False
    )
    return smooth[:, 0, :height, :width] > 127.5


@torch.inference_mode()
def run_texts(share: Tensor, height: int, width: int) -> list[str]:
    """Return ``rle.encode(images.enlarge(...))`` of each picture; only run ends leave the device.

    Args:
        share: uint8 [B, h, w].
        height, width: H and W.
    """
    flat = enlarge(share, height, width).flatten(1)
    edges = torch.zeros(len(flat), height * width + 1, dtype=torch.bool, device=flat.device)
    edges[:, 0] = flat[:, 0]
    edges[:, -1] = flat[:, -1]
    torch.ne(flat[:, 1:], flat[:, :-1], out=edges[:, 1:-1])
    picture, place = edges.nonzero().cpu().numpy().T
    cuts = np.searchsorted(picture, np.arange(1, len(flat)))
    return [rle.to_text(ends[0::2], ends[1::2]) for ends in np.split(place, cuts)]
