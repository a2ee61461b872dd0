"""Images that arrive on the GPU as JPEG files and are decoded there (`--decode gpu`).

Data-center GPUs have JPEG engines, an H200 seven, that torchvision drives through NVIDIA's nvJPEG:
some 5,000 images of 1280 x 1918 a second for 0.3 ms of a core each, where a core needs 4 ms at a
quarter of the size. nvJPEG decodes in full, so block means are taken of all pixels. They differ
from `images.load_gray` by 0.08 of a gray level on average.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carvana_ray import images
from carvana_ray.errors import BadImageError
from carvana_ray.inference import mask_kernels

log = logging.getLogger(__name__)

Decode = Callable[[Sequence[bytes]], list[Tensor]]  # JPEG files to uint8 [3, H, W] on a device


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images that reach the GPU as JPEG files and are decoded there when the network needs them.

    Attributes:
        files: the JPEG file of each image; empty for an image that was decoded on the CPU.
        gray: uint8 [h, w], the gray levels of each image without a file.
        sizes: full size (H, W) of each image.
        errors: reason why an image cannot be decoded, by its row; its gray levels are 0.
    """

    files: Sequence[bytes]
    gray: Sequence[NDArray[np.uint8]]
    sizes: Sequence[tuple[int, int]]
    downscale: int
    device: torch.device
    decode: Decode
    errors: dict[int, str] = dataclasses.field(default_factory=dict, init=False)

    def __len__(self) -> int:
        return len(self.files)

    def grid(self, row: int) -> tuple[int, int]:
        """Return the (h, w) of an image on the network's grid."""
        if not self.files[row]:
            h, w = self.gray[row].shape
            return h, w
        return images.grid_size(*self.sizes[row], self.downscale)

    def stack(self, rows: Sequence[int]) -> Tensor:
        """Return images of one full size: uint8 [len(rows), h, w] on the device."""
        stream = _stream(self.device)
        with torch.cuda.stream(stream):  # no-op when the stream is None (CPU)
            gray = self._stack(rows)
        if stream:
            network_stream = torch.cuda.current_stream(self.device)
            network_stream.wait_stream(stream)
            gray.record_stream(network_stream)
        return gray

    def _stack(self, rows: Sequence[int]) -> Tensor:
        encoded = [row for row in rows if self.files[row]]
        if not encoded:
            return self._upload(rows)
        if len(encoded) == len(rows):
            return self._decode_rows(rows)
        h, w = self.grid(rows[0])
        gray = torch.empty(len(rows), h, w, dtype=torch.uint8, device=self.device)
        is_encoded = torch.tensor([bool(self.files[row]) for row in rows], device=self.device)
        gray[is_encoded] = self._decode_rows(encoded)
        gray[~is_encoded] = self._upload([row for row in rows if not self.files[row]])
        return gray

    def _upload(self, rows: Sequence[int]) -> Tensor:
        gray = torch.from_numpy(np.stack([self.gray[row] for row in rows]))
        if self.device.type == "cuda":
            gray = gray.pin_memory()
        return gray.to(self.device, non_blocking=True)

    def _decode_rows(self, rows: Sequence[int]) -> Tensor:
        try:
            return self._decode_on_gpu(rows)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torchvision does not say which file is at fault
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # raises if the GPU itself is at fault
            if len(rows) == 1:
                log.debug("a JPEG is decoded on the CPU: %s", error)
                return self._decode_on_cpu(rows[0])[None]
        # One by one, so that a bad image does not change the decoder of its neighbors.
        return torch.cat([self._decode_rows([row]) for row in rows])

    def _decode_on_gpu(self, rows: Sequence[int]) -> Tensor:
        rgb = self.decode([self.files[row] for row in rows])
        if {tuple(image.shape[1:]) for image in rgb} != {self.sizes[row] for row in rows}:
            raise RuntimeError("an image differs in size from its header")
        return mask_kernels.block_means(torch.stack(rgb), self.downscale)

    def _decode_on_cpu(self, row: int) -> Tensor:
        try:
            gray = torch.tensor(images.load_gray(self.files[row], self.downscale))
        except BadImageError as error:
            self.errors[row] = str(error)
            gray = torch.zeros(self.grid(row), dtype=torch.uint8)
        return gray.to(self.device)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream for decoding, so that the network can work on earlier images meanwhile."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def make_decoder(device: torch.device) -> Decode:
    """Return a decoder of JPEG files for a GPU.

    Raises:
        ImportError: torchvision is missing or does not fit this torch.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(files: Sequence[bytes]) -> list[Tensor]:
        # torchvision writes from a stream of its own into memory that torch may just have taken
        # back from kernels that still read it. Without this wait nvJPEG has failed with illegal
        # memory accesses.
        torch.cuda.current_stream(device).synchronize()
        tensors = [torch.tensor(np.frombuffer(file, np.uint8)) for file in files]
        return decode_jpeg(tensors, mode=ImageReadMode.RGB, device=device)

    return decode
