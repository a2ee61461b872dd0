"""A trained network on one device: gray images in, the run bounds of their masks out.

The network turns standardized gray levels [h, w] into logits, and these become a soft mask, uint8
[h, w]. From there on the arithmetic is exact, see `images.enlarge`: the CPU and every GPU make the
same full-size mask. Only its run bounds leave the device, 10 kB an image instead of 2.4 MB.

`Predictor` cuts the images of a call into *parts*: at most `max_batch` images of one size. On a CPU
a part is one image, and its mask has the same bits whichever images come with it. On a GPU the
network of all parts is queued on the current stream at once, and masks and run bounds follow on a
stream of their own. So the CPU waits for one part while the network is at work on the next.
Several threads may call one `Predictor`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carvana_ray import images, rle
from carvana_ray.inference.fused import FusedUNet
from carvana_ray.inference.mask_kernels import run_boundaries
from carvana_ray.inference.nvjpeg import EncodedImages
from carvana_ray.unet.network import UNet, compute_dtype

PIXELS = 64 * 320 * 480  # that the network sees at a time on a GPU
DECODED_PARTS = 2  # that nvJPEG decodes in one call: it is faster the more files it gets
FULL_SIZE_PIXELS = 16 * 1280 * 1920  # three float32 arrays of this size exist at a time: 472 MB

Size = tuple[int, int]  # height, width
RunBounds = NDArray[np.int32]
GrayBatch = NDArray[np.uint8] | Tensor  # uint8 [B, h, w], in memory or on the device
Result = TypeVar("Result")
ImageBatch = Sequence[NDArray[np.uint8]] | NDArray[np.uint8] | EncodedImages


def max_batch(h: int, w: int, fold: int = 1, on_gpu: bool = True) -> int:
    """Return the number of images of h x w that the network sees at a time.

    A network that folds (see `UNet`) has a grid of 1 / fold^2 of the pixels, but logits for all.
    On a CPU it is 1: for several images torch takes other kernels than for one, whose sums differ
    in their last bits. Now and then a pixel of a soft mask would differ by a level.
    """
    return max(1, PIXELS * fold // (h * w)) if on_gpu else 1


def full_size_batch(height: int, width: int) -> int:
    """Return the number of masks of height x width that are in memory at a time."""
    return max(1, FULL_SIZE_PIXELS // (height * width))


class Predictor:
    """A network on a device, ready for inference.

    Args:
        model: the network; it is set to evaluation mode.
        tta_flip: test-time flip. The network also sees each image mirrored, and the soft mask is
            the mean of the two.
    """

    def __init__(self, model: UNet, device: torch.device, tta_flip: bool = False) -> None:
        self.device = device
        self._tta_flip, self._fold = tta_flip, model.fold
        self._dtype = compute_dtype(model, device)
        self.model = FusedUNet(model).to(device, self._dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._exact = model.eval().to(device)  # float32, for numbers beyond half precision
        self._on_gpu = device.type == "cuda"
        # Not the default stream, for which other libraries wait, such as nvJPEG.
        self._stream = torch.cuda.Stream(device) if self._on_gpu else None
        # High priority: the CPU waits for the masks, but not for the network of later parts.
        self._masks_stream = torch.cuda.Stream(device, priority=-1) if self._on_gpu else None

    def logits(self, gray: Tensor) -> Tensor:
        """Return the logits, float32 [B, h, w], of uint8 [B, h, w] on the device."""
        x = images.standardize(gray).unsqueeze(1).to(self._dtype)
        return self.model(x.contiguous(memory_format=torch.channels_last))[:, 0].float()

    @torch.inference_mode()
    def soft_masks(self, gray: GrayBatch) -> Tensor:
        """Return soft masks, uint8 [B, h, w] on the device, 255 for a block that is all car.

        Args:
            gray: uint8 [B, h, w] as `images.load_gray` returns it, or on the device; B at most
                `max_batch` of a GPU.
        """
        if not self._on_gpu and len(gray) > 1:
            return torch.cat([self.soft_masks(gray[row : row + 1]) for row in range(len(gray))])
        return self._redo_non_finite(*self._forward(gray), gray)

    def soft_masks_mixed(
        self,
        batch: ImageBatch,
        sizes: Sequence[Size],
        orientations: Sequence[int] | None = None,
    ) -> list[NDArray[np.uint8]]:
        """Return the soft masks of images of any sizes, uint8 [h, w] each, in their order.

        Args:
            batch, sizes, orientations: see `run_bounds_mixed`.
        """

        def infer(
            parts: Iterable[GrayBatch], size: Size, grid: Size, turn: int
        ) -> Iterator[NDArray[np.uint8]]:
            for part in parts:
                for soft_mask in self.soft_masks(part).cpu().numpy():
                    yield images.to_stored(soft_mask, turn)

        return self._for_each_kind(infer, batch, sizes, orientations)

    def run_bounds_mixed(
        self,
        batch: ImageBatch,
        sizes: Sequence[Size],
        orientations: Sequence[int] | None = None,
    ) -> list[RunBounds]:
        """Return the run bounds of the masks of images of any sizes, in their order.

        They are those of `to_run_bounds`. Masks of images that are turned or not on the grid of a
        downscale (`scale.network_grid`) are enlarged by the CPU, so that every device makes the
        same mask.

        Args:
            batch: upright gray levels, uint8 [h, w] for each image, or `EncodedImages`.
            sizes: full size (H, W) of each image as it is stored.
            orientations: of EXIF, 1 to 8, of each image; None if all are 1. Masks are those of the
                stored pixels.
        """

        def infer(
            parts: Iterator[GrayBatch], size: Size, grid: Size, turn: int
        ) -> Iterable[RunBounds]:
            grids = [images.grid_size(*size, downscale) for downscale in images.DOWNSCALES]
            if turn == 1 and grid in grids:
                return self._run_bounds_of_parts(parts, *size)
            return [
                _run_bounds(images.enlarge(images.to_stored(soft_mask, turn), *size))
                for part in parts
                for soft_mask in self.soft_masks(part).cpu().numpy()
            ]

        return self._for_each_kind(infer, batch, sizes, orientations)

    def _for_each_kind(
        self,
        infer: Callable[[Iterator[GrayBatch], Size, Size, int], Iterable[Result]],
        batch: ImageBatch,
        sizes: Sequence[Size],
        orientations: Sequence[int] | None,
    ) -> list[Result]:
        """Return the results of `infer` for images of any sizes, grids and orientations, in order.

        `infer` gets the images of one kind in parts, and their full size, grid and orientation.
        """
        turns = orientations or [1] * len(sizes)
        rows_of: dict[tuple[Size, Size, int], list[int]] = {}
        for row, (size, turn) in enumerate(zip(sizes, turns, strict=True)):
            rows_of.setdefault((size, _grid_of(batch, row), turn), []).append(row)
        results: dict[int, Result] = {}
        with torch.cuda.stream(self._stream):  # no-op when the stream is None (CPU)
            for kind, rows in rows_of.items():
                results |= zip(rows, infer(self._parts(batch, rows), *kind), strict=True)
        return [results[row] for row in range(len(batch))]

    @torch.inference_mode()
    def _run_bounds_of_parts(
        self, parts: Iterable[GrayBatch], height: int, width: int
    ) -> list[RunBounds]:
        """Return the run bounds of all parts. On a GPU each is fetched while the network works."""
        bounds: list[RunBounds] = []
        if self._masks_stream is None:
            for part in parts:
                bounds += to_run_bounds(self.soft_masks(part), height, width)
            return bounds
        queued = []
        for part in parts:
            result = self._forward(part)
            queued.append((part, *result, _record_event()))
        for part, soft_masks, finite, ready in queued:
            ready.synchronize()
            with torch.cuda.stream(self._masks_stream):
                # Tells torch that a second stream still uses this memory.
                soft_masks.record_stream(self._masks_stream)
                finite.record_stream(self._masks_stream)
                soft_masks = self._redo_non_finite(soft_masks, finite, part)
                bounds += _to_run_bounds_in_chunks(soft_masks, height, width)
        return bounds

    @torch.inference_mode()
    def _forward(self, gray: GrayBatch) -> tuple[Tensor, Tensor]:
        """Return soft masks [B, h, w], and bool [B]: whether all logits of an image are finite.

        On a GPU the results may still be under way when this returns.
        """
        if isinstance(gray, np.ndarray):
            gray = torch.from_numpy(gray)
            if self._on_gpu:  # pinned memory, so that the copy does not block
                gray = gray.pin_memory().to(self.device, non_blocking=True)
        logits = self._forward_tta(self.logits, gray)
        finite = [one.isfinite().all(-1).all(-1) for one in logits]
        return _soft_mask(logits), torch.stack(finite).all(0)

    def _forward_tta(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
        """Return the logits of x [..., w] and, with the test-time flip, of its mirror image."""
        logits = [forward(x)]
        if self._tta_flip:
            logits.append(forward(x.flip(-1)).flip(-1))  # mirrored back
        return logits

    def _redo_non_finite(self, soft_masks: Tensor, finite: Tensor, gray: GrayBatch) -> Tensor:
        """Return the soft masks; those with non-finite logits are computed anew in float32.

        Image by image, by the network as it was trained: a mask must not depend on other images.
        """
        for row in finite.logical_not().nonzero()[:, 0].tolist():
            x = images.standardize(torch.as_tensor(gray[row], device=self.device))
            soft_masks[row] = _soft_mask(self._forward_tta(self._exact, x[None, None]))[0, 0]
        return soft_masks

    def _parts(self, batch: ImageBatch, rows: Sequence[int]) -> Iterator[GrayBatch]:
        """Yield the images of one grid, as many at a time as the network may see."""
        h, w = _grid_of(batch, rows[0])
        count = max_batch(h, w, self._fold, self._on_gpu)
        is_whole_batch = len(rows) == len(batch)
        if isinstance(batch, EncodedImages):
            for start in range(0, len(rows), DECODED_PARTS * count):
                yield from batch.stack(rows[start : start + DECODED_PARTS * count]).split(count)
            return
        for start in range(0, len(rows), count):
            part = rows[start : start + count]
            if isinstance(batch, np.ndarray) and batch.ndim == 3 and is_whole_batch:
                yield batch[start : start + count]
            else:  # not `asarray`: a batch cut out of a block of several sizes is an object array
                yield np.stack([batch[row] for row in part])


def _grid_of(batch: ImageBatch, row: int) -> Size:
    h, w = batch.grid(row) if isinstance(batch, EncodedImages) else batch[row].shape
    return h, w


def _soft_mask(logits: list[Tensor]) -> Tensor:
    """Return the mean probability of several logits, scaled to uint8."""
    total = torch.sigmoid(logits[0])
    for more in logits[1:]:
        total += torch.sigmoid(more)
    return (total * (255 / len(logits))).round().to(torch.uint8)


def _record_event() -> torch.cuda.Event:
    """Return an event that completes after everything that is queued on the current stream."""
    event = torch.cuda.Event(blocking=True)  # by default CUDA busy-waits: a core for each replica
    event.record()
    return event


def _to_run_bounds_in_chunks(soft_masks: Tensor, height: int, width: int) -> list[RunBounds]:
    """Return `to_run_bounds` on a GPU, with few full-size masks in memory at a time."""
    chunks = soft_masks.split(full_size_batch(height, width))
    queued = [(run_boundaries(chunk, height, width), _record_event()) for chunk in chunks]
    bounds: list[RunBounds] = []
    for boundaries, ready in queued:
        ready.synchronize()
        bounds += _split_by_image(boundaries)
    return bounds


def to_run_bounds(soft_masks: Tensor, height: int, width: int) -> list[RunBounds]:
    """Return the run bounds of the masks of soft masks, uint8 [B, h, w].

    Returns:
        int32 [2 n] for each image: start (from 0) and end (exclusive) of each of the n runs in
        turn, as `rle.mask_to_runs`.
    """
    return _split_by_image(run_boundaries(soft_masks, height, width))


def _run_bounds(mask: NDArray[np.bool_]) -> RunBounds:
    """Return the run bounds of a mask [H, W], as `to_run_bounds`."""
    return np.stack(rle.mask_to_runs(mask), axis=1).reshape(-1).astype(np.int32)


def _split_by_image(boundaries: Tensor) -> list[RunBounds]:
    """Return the positions of the True values in each row of bool [B, n]."""
    image, position = boundaries.nonzero().to(torch.int32).cpu().numpy().T
    cuts = np.searchsorted(image, np.arange(1, len(boundaries)))
    return np.split(np.ascontiguousarray(position), cuts)
