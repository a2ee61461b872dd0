"""Images that arrive on the GPU as JPEG files and are decoded there (`--decode gpu`).

Data-center GPUs have JPEG engines, an H100 seven, which NVIDIA's nvJPEG drives: some 4,600 images
of 1280 x 1918 a second for 0.2 ms of a core each. A core needs 4 ms at a quarter of the size.
nvJPEG decodes in full, so block means are taken of all pixels. They differ from `images.load_gray`
by 0.09 of a gray level on average.

`Decoder` calls nvJPEG itself. torchvision, which brings the library along, makes a tensor of each
file and initializes the engines for each batch: 2,900 images/s, and 1.3 ms of a core each.
"""

import contextlib
import ctypes
import dataclasses
import functools
import glob
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carvana_ray import images
from carvana_ray.errors import BadImageError
from carvana_ray.inference import mask_kernels

log = logging.getLogger(__name__)

Size = tuple[int, int]  # height, width
# JPEG files of one size (H, W), and a downscale, to their `block_means`, uint8 [B, h, w].
Decode = Callable[[Sequence[bytes], Size, int], Tensor]


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
        size = self.sizes[rows[0]]
        try:
            return self.decode([self.files[row] for row in rows], size, self.downscale)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # nvJPEG does not say which file is at fault
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # raises if the GPU itself is at fault
            if len(rows) == 1:
                log.debug("a JPEG is decoded on the CPU: %s", error)
                return self._decode_on_cpu(rows[0])[None]
        # One by one, so that a bad image does not change the decoder of its neighbors.
        return torch.cat([self._decode_rows([row]) for row in rows])

    def _decode_on_cpu(self, row: int) -> Tensor:
        try:
            gray = torch.tensor(images.load_gray(self.files[row], self.downscale))
        except BadImageError as error:
            self.errors[row] = str(error)
            gray = torch.zeros(self.grid(row), dtype=torch.uint8)
        return gray.to(self.device)


class _Image(ctypes.Structure):
    """nvjpegImage_t: address and row length of each plane."""

    _fields_ = (("plane", ctypes.c_void_p * 4), ("pitch", ctypes.c_size_t * 4))


class Decoder:
    """nvJPEG on a GPU, for any number of threads: a `Decode`.

    Its engines are started by the first call. The memory of the decoded pixels is kept, 7.4 MB for
    each image of the largest batch.

    Raises:
        ImportError: libnvjpeg is missing.
    """

    HARDWARE, DEFAULT = 3, 0  # nvjpegBackend_t
    RGB = 3  # nvjpegOutputFormat_t: three planes
    NO_ENGINES = 7  # nvjpegStatus_t

    def __init__(self, device: torch.device) -> None:
        self._library = _load_library()
        self._device = device
        self._lock = threading.Lock()
        # Its own, so that nvJPEG never waits for kernels of the network.
        self._stream = torch.cuda.Stream(device, priority=-1)
        self._handle, self._state = ctypes.c_void_p(), ctypes.c_void_p()
        self._batch_size = 0  # that nvJPEG is set up for
        self._pixels = torch.empty(0, dtype=torch.uint8, device=device)

    def __call__(self, files: Sequence[bytes], size: Size, downscale: int) -> Tensor:
        """Return `block_means` of JPEG files of one size (H, W): uint8 [B, h, w] on the GPU.

        Raises:
            RuntimeError: nvJPEG rejects a file, or a file has another size.
        """
        network_stream = torch.cuda.current_stream(self._device)
        with self._lock, torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            if not self._state:
                self._start()
            for file in files:
                self._require_size(file, size)
            try:
                rgb = self._decode(files, size)
            except RuntimeError:  # perhaps the rest of an earlier failure
                self._stop()
                self._start()
                rgb = self._decode(files, size)
            gray = mask_kernels.block_means(rgb, downscale)
            done = torch.cuda.Event(blocking=True)
            done.record()
            done.synchronize()  # the memory of the pixels is free for the next call
        gray.record_stream(network_stream)
        return gray

    def _start(self) -> None:
        handle = ctypes.byref(self._handle)
        create = self._library.nvjpegCreateEx
        status = create(self.HARDWARE, None, None, 0, handle)
        if status == self.NO_ENGINES:
            status = create(self.DEFAULT, None, None, 0, handle)
        _require_success(status)
        _require_success(
            self._library.nvjpegJpegStateCreate(self._handle, ctypes.byref(self._state))
        )

    def _stop(self) -> None:
        """Free nvJPEG's state: after a bad file it may reject good ones."""
        self._stream.synchronize()
        self._library.nvjpegJpegStateDestroy(self._state)
        self._library.nvjpegDestroy(self._handle)
        self._handle, self._state = ctypes.c_void_p(), ctypes.c_void_p()
        self._batch_size = 0

    def _require_size(self, file: bytes, size: Size) -> None:
        """Raise `RuntimeError` if nvJPEG would write another number of pixels than expected."""
        channels, subsampling = ctypes.c_int(), ctypes.c_int()
        widths, heights = (ctypes.c_int * 4)(), (ctypes.c_int * 4)()
        info = ctypes.byref(channels), ctypes.byref(subsampling), widths, heights
        length = ctypes.c_size_t(len(file))
        _require_success(self._library.nvjpegGetImageInfo(self._handle, file, length, *info))
        if (heights[0], widths[0]) != size:
            raise RuntimeError("an image differs in size from its header")

    def _decode(self, files: Sequence[bytes], size: Size) -> Tensor:
        """Return the pixels, uint8 [B, 3, H, W], which the next call overwrites."""
        count, (height, width) = len(files), size
        library, pixels = self._library, height * width
        if self._pixels.numel() < count * 3 * pixels:
            self._pixels = torch.empty(count * 3 * pixels, dtype=torch.uint8, device=self._device)
        first = self._pixels.data_ptr()
        planes = (_Image * count)()
        for index, image in enumerate(planes):
            for channel in range(3):
                image.plane[channel] = first + (3 * index + channel) * pixels
                image.pitch[channel] = width
        if count != self._batch_size:
            self._batch_size = 0
            setup = self._handle, self._state, count, 1, self.RGB
            _require_success(library.nvjpegDecodeBatchedInitialize(*setup))
        self._batch_size = 0  # a batch that fails must be set up anew
        data = (ctypes.c_char_p * count)(*files)
        lengths = (ctypes.c_size_t * count)(*map(len, files))
        stream = ctypes.c_void_p(self._stream.cuda_stream)
        _require_success(
            library.nvjpegDecodeBatched(self._handle, self._state, data, lengths, planes, stream)
        )
        self._batch_size = count
        return self._pixels[: count * 3 * pixels].view(count, 3, height, width)


def _require_success(status: int) -> None:
    if status:
        raise RuntimeError(f"nvJPEG ends with status {status}")


@functools.cache
def _load_library() -> ctypes.CDLL:
    """Return libnvjpeg: torchvision's, that of NVIDIA's package, or the system's."""
    for name in _library_names():
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    raise ImportError("--decode gpu: libnvjpeg is missing; install torchvision built for CUDA")


def _library_names() -> Iterator[str]:
    for folder in sys.path:
        for pattern in ("torchvision.libs/libnvjpeg*.so*", "nvidia/*/lib/libnvjpeg.so.*"):
            yield from sorted(glob.glob(f"{glob.escape(folder)}/{pattern}"))
    yield from ("libnvjpeg.so.13", "libnvjpeg.so.12")
