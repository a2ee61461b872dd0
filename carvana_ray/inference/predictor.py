"""Gray pictures in, the ends of their masks' runs out: network and mask on one device.

A full-size mask is 2.4 MB and stays where it is made; its run ends are about 10 kB, as is the text
that others make of them. The network's share of car is rounded to uint8 before it is enlarged: from
there on the arithmetic is exact (see `images.enlarge`), and the CPU and every GPU make the same
mask of the same share.

On a GPU all networks of a call are queued at once, and the masks follow on a stream of their own:
the count of run ends, for which the CPU has to wait, is that of one batch while the next is under
way. One H200, batches of 64 at a quarter: network 6,240 pictures/s (see `fused`), masks 40,400 (see
`kernels`; 2026-11-23).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carvana_ray import images, rle
from carvana_ray.inference import fused
from carvana_ray.inference import mask_kernels as kernels
from carvana_ray.inference.nvjpeg import EncodedImages
from carvana_ray.unet import network
from carvana_ray.unet.network import UNet

PIXELS = 64 * 320 * 480  # that the network sees at a time
FULL_SIZE_AT_ONCE = 16  # 1280 x 1920 float32 are 9.8 MB, and three such arrays live at a time

RunBounds = NDArray[np.int32]
Grays = NDArray[np.uint8] | Tensor  # uint8 [B, h, w], in memory or on the device
ImageBatch = Sequence[NDArray[np.uint8]] | NDArray[np.uint8] | EncodedImages


def max_batch(h: int, w: int, fold: int = 1) -> int:
    """Return the number of pictures of h x w that the network sees at a time.

    Where it folds them, its own grid is a `fold` squared of that, but float32 logits are not.
    """
    return max(1, PIXELS * fold // (h * w))


class Predictor:
    """A network on its device, ready to be asked.

    Args:
        model: in any mode; it is set to evaluation.
        device: where it runs.
        mirror: ask it of each picture's mirror image, too, and take the mean of the two shares.
    """

    def __init__(self, model: UNet, device: torch.device, mirror: bool = False) -> None:
        self.device = device
        self._mirror, self._fold = mirror, model.fold
        self._dtype = network.compute_dtype(model, device)
        self.model = fused.FusedUNet(model).to(
            device=device,
            dtype=self._dtype,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self._exact = model.eval().to(device)  # for what half precision cannot hold
        self._on_gpu = device.type == "cuda"
        # Before the next network's kernels: somebody waits for these.
        self._masks_stream = torch.cuda.Stream(device, priority=-1) if self._on_gpu else None

    def logits(self, gray: Tensor) -> Tensor:
        """Return the network's logits: float32 [B, h, w] of uint8 [B, h, w], both on the device."""
        picture = images.standardize(gray).unsqueeze(1).to(self._dtype)
        return self.model(picture.contiguous(memory_format=torch.channels_last))[:, 0].float()

    @torch.inference_mode()
    def soft_masks(self, gray: Grays) -> Tensor:
        """Return the share of car of each block: uint8 [B, h, w] on the device, 255 for all car.

        Args:
            gray: uint8 [B, h, w], as `images.load_gray` gives it, or on the device already; B at
                most `at_once`.
        """
        return self._redo_non_finite(*self._forward(gray), gray)

    @torch.inference_mode()
    def _forward(self, gray: Grays) -> tuple[Tensor, Tensor]:
        """Return shares [B, h, w], and bool [B]: whether the network's answer was finite.

        On a GPU it may still be at work when this returns.
        """
        if isinstance(gray, np.ndarray):
            gray = torch.from_numpy(gray)
            if self._on_gpu:  # pinned, so that the copy waits for nothing
                gray = gray.pin_memory().to(self.device, non_blocking=True)
        logits = self._forward_tta(self.logits, gray)
        finite = [one.isfinite().all(-1).all(-1) for one in logits]
        return _share(logits), torch.stack(finite).all(0)

    def _forward_tta(self, ask: Callable[[Tensor], Tensor], picture: Tensor) -> list[Tensor]:
        """Return the answers to a picture [..., w], and to its mirror image where that is asked."""
        answers = [ask(picture)]
        if self._mirror:
            answers.append(ask(picture.flip(-1)).flip(-1))
        return answers

    def _redo_non_finite(self, share: Tensor, finite: Tensor, gray: Grays) -> Tensor:
        """Return the shares, those that half precision could not hold made anew in float32.

        Picture by picture, by the network as it was trained: a mask is its picture's alone.
        """
        for place in finite.logical_not().nonzero()[:, 0].tolist():
            there = images.standardize(torch.as_tensor(gray[place], device=self.device))
            share[place] = _share(self._forward_tta(self._exact, there[None, None]))[0, 0]
        return share

    def run_bounds(self, gray: NDArray[np.uint8], height: int, width: int) -> list[RunBounds]:
        """Return the run ends of each picture's mask at height x width, see `run_ends`.

        Args:
            gray: uint8 [B, h, w] of pictures of one full size.
            height, width: that size, H and W.
        """
        return self.run_bounds_mixed(gray, [(height, width)] * len(gray))

    @torch.inference_mode()
    def _ends_of_parts(self, parts: Iterable[Grays], height: int, width: int) -> list[RunBounds]:
        """Return `ends` of pictures that come in parts of at most `at_once`.

        On a GPU a part is asked for while the network is at work on those before.
        """
        found: list[RunBounds] = []
        if self._masks_stream is None:
            for part in parts:
                found += _bounds_from_soft(self.soft_masks(part), height, width)
            return found
        queued = []
        for part in parts:
            answer = self._forward(part)
            queued.append((part, *answer, _record_event()))
        for part, share, finite, ready in queued:
            ready.synchronize()
            with torch.cuda.stream(self._masks_stream):
                share.record_stream(self._masks_stream)
                finite.record_stream(self._masks_stream)
                found += _bounds_from_soft(
                    self._redo_non_finite(share, finite, part), height, width
                )
        return found

    def run_bounds_mixed(
        self, pictures: ImageBatch, sizes: Sequence[tuple[int, int]]
    ) -> list[RunBounds]:
        """Return the run ends of pictures of any sizes, in their order.

        Args:
            pictures: uint8 [h, w] each, or `Coded` ones.
            sizes: full size (H, W) of each.
        """
        ends: list[RunBounds] = [np.empty(0, np.int32)] * len(pictures)
        for size, places in _by_size(sizes):
            found = self._ends_of_parts(self._parts(pictures, places), *size)
            for place, one in zip(places, found, strict=True):
                ends[place] = one
        return ends

    def soft_masks_mixed(
        self, pictures: ImageBatch, sizes: Sequence[tuple[int, int]]
    ) -> list[NDArray[np.uint8]]:
        """Return the share of car of pictures of any sizes, uint8 [h, w] each, in their order.

        Args:
            pictures, sizes: see `ends_of_any`.
        """
        shares: list[NDArray[np.uint8]] = [np.empty((0, 0), np.uint8)] * len(pictures)
        for _, places in _by_size(sizes):
            parts = self._parts(pictures, places)
            found = (one for part in parts for one in self.soft_masks(part).cpu().numpy())
            for place, one in zip(places, found, strict=True):
                shares[place] = one
        return shares

    def _parts(self, pictures: ImageBatch, places: Sequence[int]) -> Iterator[Grays]:
        """Yield pictures of one size, as many at a time as the network may see."""
        first = places[0]
        h, w = (
            pictures.grid(first) if isinstance(pictures, EncodedImages) else pictures[first].shape
        )
        few = max_batch(h, w, self._fold)
        whole = len(places) == len(pictures)
        for start in range(0, len(places), few):
            part = places[start : start + few]
            if isinstance(pictures, EncodedImages):
                yield pictures.stack(part)
            elif isinstance(pictures, np.ndarray) and pictures.ndim == 3 and whole:
                yield pictures[start : start + few]
            else:  # not `asarray`: arrays of one size out of a block of several come as objects
                yield np.stack([pictures[place] for place in part])

    def rle_texts(self, gray: NDArray[np.uint8], height: int, width: int) -> list[str]:
        """Return the run-length text of each picture's mask, see `ends`."""
        return [
            rle.format_runs(one[0::2], one[1::2]) for one in self.run_bounds(gray, height, width)
        ]


def _by_size(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Yield each size and the rows of its images."""
    for size in dict.fromkeys(sizes):
        places = [place for place, other in enumerate(sizes) if other == size]
        yield size, places


def _share(answers: list[Tensor]) -> Tensor:
    share = torch.sigmoid(answers[0])
    for logits in answers[1:]:
        share += torch.sigmoid(logits)
    return (share * (255 / len(answers))).round().to(torch.uint8)


def _record_event() -> torch.cuda.Event:
    """Return an event at the end of what is queued; to wait for it leaves the core to others."""
    event = torch.cuda.Event(blocking=True)  # else CUDA asks in a loop: a core for each replica
    event.record()
    return event


def _bounds_from_soft(share: Tensor, height: int, width: int) -> list[RunBounds]:
    parts = share.split(FULL_SIZE_AT_ONCE)
    if not share.is_cuda:
        return [ends for few in parts for ends in to_run_bounds(few, height, width)]
    queued = [(kernels.run_boundaries(few, height, width), _record_event()) for few in parts]
    found: list[RunBounds] = []
    for few, ready in queued:
        ready.synchronize()
        found += _split_bounds(few)
    return found


def to_run_bounds(share: Tensor, height: int, width: int) -> list[RunBounds]:
    """Return the runs of ``images.enlarge(...)`` of each picture; only they leave the device.

    Args:
        share: uint8 [B, h, w].
        height, width: H and W.

    Returns:
        int32 [2 n] each: start (0-based) and end (exclusive) of the n runs in turn, as `rle.runs`.
    """
    return _split_bounds(kernels.run_boundaries(share, height, width))


def _split_bounds(found: Tensor) -> list[RunBounds]:
    picture, place = found.nonzero().to(torch.int32).cpu().numpy().T
    cuts = np.searchsorted(picture, np.arange(1, len(found)))
    return np.split(np.ascontiguousarray(place), cuts)
