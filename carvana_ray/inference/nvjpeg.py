"""Images that arrive on the GPU as JPEG files and are decoded there (`--decode gpu`).

Data-center GPUs have JPEG engines next to their multiprocessors: an H200 has seven. They decode
some 5,000 images of 1280 x 1918 a second for 0.2 ms of a core each (0.1 ms more to read the file),
where a core needs 4 ms at a quarter of the size. torchvision's `decode_jpeg` drives them through
NVIDIA's nvJPEG. A reader on a CPU decodes what nvJPEG cannot, such as a progressive JPEG.

nvJPEG decodes in full, so block means are taken of all pixels. They differ from `images.load_gray`,
which leaves out the high frequencies of each block, by 0.08 of a gray level on average.
"""

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

Decode = Callable[[Sequence[bytes]], list[Tensor]]


class EncodedImages:
    """Images that reach the GPU as JPEG files and are decoded there when the network needs them.

    Args:
        files: the JPEG file of each image; empty for an image that was decoded on the CPU.
        gray: uint8 [h, w], the gray levels of each image without a file.
        sizes: full size (H, W) of each image.
        downscale: see `images.load_gray`.
        device: device of the results.
        decode: maps JPEG files to uint8 [3, H, W] each on that device, see `make_decoder`.

    Attributes:
        errors: reason why an image cannot be decoded, by its row; its gray levels are 0.
    """

    def __init__(
        self,
        files: Sequence[bytes],
        gray: Sequence[NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        downscale: int,
        device: torch.device,
        decode: Decode,
    ) -> None:
        self._files, self._decoded, self._sizes = files, gray, sizes
        self._downscale, self._device, self._decode = downscale, device, decode
        self.errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._files)

    def grid(self, row: int) -> tuple[int, int]:
        """Return the (h, w) of an image on the network's grid."""
        return images.grid_size(*self._sizes[row], self._downscale)

    def stack(self, rows: Sequence[int]) -> Tensor:
        """Return images of one full size: uint8 [len(rows), h, w] on the device."""
        stream = _stream(self._device)
        with torch.cuda.stream(stream):  # no-op when the stream is None (CPU)
            gray = self._stack(rows)
        if stream:
            network_stream = torch.cuda.current_stream(self._device)
            network_stream.wait_stream(stream)
            gray.record_stream(network_stream)
        return gray

    def _stack(self, rows: Sequence[int]) -> Tensor:
        encoded = [row for row in rows if self._files[row]]
        if not encoded:
            return self._upload(rows)
        if len(encoded) == len(rows):
            return self._decode_rows(rows)
        h, w = self.grid(rows[0])
        gray = torch.empty(len(rows), h, w, dtype=torch.uint8, device=self._device)
        is_encoded = torch.tensor([bool(self._files[row]) for row in rows], device=self._device)
        gray[is_encoded] = self._decode_rows(encoded)
        gray[~is_encoded] = self._upload([row for row in rows if not self._files[row]])
        return gray

    def _upload(self, rows: Sequence[int]) -> Tensor:
        gray = torch.from_numpy(np.stack([self._decoded[row] for row in rows]))
        if self._device.type == "cuda":
            gray = gray.pin_memory()
        return gray.to(self._device, non_blocking=True)

    def _decode_rows(self, rows: Sequence[int]) -> Tensor:
        try:
            return self._decode_on_gpu(rows)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torchvision does not say which file is at fault
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # raises if the GPU itself is at fault
            if len(rows) == 1:
                log.debug("a JPEG is decoded on the CPU: %s", error)
                return self._decode_on_cpu(rows[0])[None]
        # One by one, so that a bad image does not change the decoder of its neighbors.
        return torch.cat([self._decode_rows([row]) for row in rows])

    def _decode_on_gpu(self, rows: Sequence[int]) -> Tensor:
        rgb = self._decode([self._files[row] for row in rows])
        if {tuple(image.shape[1:]) for image in rgb} != {self._sizes[row] for row in rows}:
            raise RuntimeError("an image differs in size from its header")
        return mask_kernels.block_means(torch.stack(rgb), self._downscale)

    def _decode_on_cpu(self, row: int) -> Tensor:
        try:
            gray = torch.tensor(images.load_gray(self._files[row], self._downscale))
        except BadImageError as error:
            self.errors[row] = str(error)
            gray = torch.zeros(self.grid(row), dtype=torch.uint8)
        return gray.to(self._device)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream for decoding, so that the network can work on earlier images meanwhile."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def make_decoder(device: torch.device) -> Decode:
    """Return a decoder of JPEG files to uint8 [3, H, W] each on a GPU.

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
