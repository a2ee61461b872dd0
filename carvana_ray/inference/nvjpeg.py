"""Pictures that come as JPEG files, decoded by the GPU that looks at them.

A data-centre GPU has engines for JPEG beside its multiprocessors: seven on an H200, which decode
some 5,000 pictures of 1280 x 1918 a second for 0.2 ms of a core each (0.1 more to read the file),
where a core takes 4 ms at a quarter of the size. torchvision's `decode_jpeg` drives them (NVIDIA's
nvJPEG); a progressive JPEG or another format is decoded by whoever reads it, as on a CPU.

The engines decode in full, so block means are taken of all pixels: 0.08 of a gray level from
`images.load_gray` on average, which leaves the high frequencies out of each block instead.
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
from carvana_ray.inference import mask_kernels as kernels

log = logging.getLogger(__name__)

Decode = Callable[[Sequence[bytes]], list[Tensor]]


class EncodedImages:
    """Pictures, some of which are JPEG files still: they are decoded as they are asked for.

    Args:
        data: of each picture its gray levels uint8 [h, w], or a JPEG file uint8 [1, length].
        coded: bool each: which of the two.
        sizes: full size (H, W) of each.
        downscale: see `images.load_gray`.
        device: where they are to be.
        decode: JPEG files to uint8 [3, H, W] each, on that device; see `engines`.

    Attributes:
        bad: why pictures cannot be decoded after all, by their place; their gray levels are 0.
    """

    def __init__(
        self,
        data: Sequence[NDArray[np.uint8]],
        coded: Sequence[bool],
        sizes: Sequence[tuple[int, int]],
        downscale: int,
        device: torch.device,
        decode: Decode,
    ) -> None:
        self._data, self._coded, self._sizes = data, coded, sizes
        self._downscale, self._device, self._decode = downscale, device, decode
        self.errors: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._data)

    def grid(self, place: int) -> tuple[int, int]:
        """Return the (h, w) of a picture on the network's grid."""
        return images.grid_size(*self._sizes[place], self._downscale)

    def gray_first(self, places: Sequence[int]) -> list[int]:
        """Return places in the order to ask for them in: the network sees those that are gray
        already while the engines are at work."""
        return sorted(places, key=lambda place: bool(self._coded[place]))

    def stack(self, places: Sequence[int]) -> Tensor:
        """Return pictures of one size: uint8 [len(places), h, w] on the device."""
        stream = _stream(self._device)
        with torch.cuda.stream(stream):  # of None: as if this line were not there
            gray = self._stack(places)
        if stream:
            asking = torch.cuda.current_stream(self._device)
            asking.wait_stream(stream)
            gray.record_stream(asking)
        return gray

    def _stack(self, places: Sequence[int]) -> Tensor:
        ready = [place for place in places if not self._coded[place]]
        files = [place for place in places if self._coded[place]]
        parts = [make(some) for make, some in ((self._gray, ready), (self._decoded, files)) if some]
        gray = torch.cat(parts) if len(parts) > 1 else parts[0]
        if list(places) == ready + files:
            return gray
        at = {place: row for row, place in enumerate(ready + files)}
        return gray[[at[place] for place in places]]

    def _gray(self, places: Sequence[int]) -> Tensor:
        gray = torch.from_numpy(np.stack([self._data[place] for place in places]))
        if self._device.type == "cuda":
            gray = gray.pin_memory()
        return gray.to(self._device, non_blocking=True)

    def _decoded(self, places: Sequence[int]) -> Tensor:
        try:
            return self._by_engines(places)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # one of them, but of which torchvision says nothing
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)  # raises where the GPU itself is at fault
            if len(places) == 1:
                log.debug("a JPEG is decoded on the CPU: %s", error)
                return self._on_cpu(places[0])[None]
        # Each alone: what stands beside a bad picture is decoded as it always is.
        return torch.cat([self._decoded([place]) for place in places])

    def _by_engines(self, places: Sequence[int]) -> Tensor:
        rgb = self._decode([self._data[place].tobytes() for place in places])
        if {tuple(one.shape[1:]) for one in rgb} != {self._sizes[place] for place in places}:
            raise RuntimeError("a picture of another size than its header says")
        return kernels.block_means(torch.stack(rgb), self._downscale)

    def _on_cpu(self, place: int) -> Tensor:
        try:
            gray = torch.tensor(images.load_gray(self._data[place].tobytes(), self._downscale))
        except BadImageError as bad:
            self.errors[place] = str(bad)
            gray = torch.zeros(self.grid(place), dtype=torch.uint8)
        return gray.to(self._device)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream | None:
    """Return a stream of its own for decoding: the network is at work meanwhile on those before."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def make_decoder(device: torch.device) -> Decode:
    """Return what decodes JPEG files on a GPU.

    Raises:
        ImportError: torchvision is not there, or of another torch.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(files: Sequence[bytes]) -> list[Tensor]:
        # What it returns lies in memory that torch may just have taken back from kernels that still
        # read it, and it writes there from a stream of its own.
        torch.cuda.current_stream(device).synchronize()
        tensors = [torch.tensor(np.frombuffer(file, np.uint8)) for file in files]
        return decode_jpeg(tensors, mode=ImageReadMode.RGB, device=device)

    return decode
