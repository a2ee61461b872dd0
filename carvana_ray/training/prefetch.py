"""Batches from CPU memory to the device, while the network works on the batches before them."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carvana_ray.training.state import Batch

Arrays = dict[str, NDArray]
Ready = queue.Queue[Batch | BaseException | None]  # None ends the stream

MAX_QUEUED = 2  # blocks waiting on the GPU: 49 MB each, for 64 images at downscale 4


def prefetch_to_device(
    blocks: Generator[Arrays], per_worker: int, device: torch.device
) -> Generator[Batch]:
    """Return a generator of batches of `per_worker` images, cut from blocks of whole batches.

    On a GPU a thread starts at once: it copies each block to pinned memory and from there to the
    GPU on a stream of its own. Neither the CPU that launches kernels nor the GPU waits for a copy.
    A block costs the interpreter some milliseconds, so it should hold several batches. An error
    raised by `blocks` is raised where its batch is due. When the result is closed, so is `blocks`.
    """
    if device.type != "cuda":
        return _copy_here(blocks, per_worker)
    ready: Ready = queue.Queue(MAX_QUEUED)
    stop = threading.Event()
    threading.Thread(target=_copy_blocks, args=(blocks, device, ready, stop), daemon=True).start()
    return _receive(ready, stop, per_worker, device)


def split_block(block: Batch, per_worker: int) -> Iterator[Batch]:
    """Yield the batches of a block, as views."""
    for parts in zip(*(tensor.split(per_worker) for tensor in block.values()), strict=True):
        yield dict(zip(block, parts, strict=True))


def _copy_here(blocks: Generator[Arrays], per_worker: int) -> Generator[Batch]:
    with contextlib.closing(blocks):
        for block in blocks:
            tensors = {name: torch.tensor(array) for name, array in block.items()}
            yield from split_block(tensors, per_worker)


def _receive(
    ready: Ready, stop: threading.Event, per_worker: int, device: torch.device
) -> Generator[Batch]:
    try:
        while (block := ready.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            for tensor in block.values():  # keeps the allocator from reusing the memory too early
                tensor.record_stream(torch.cuda.current_stream(device))
            yield from split_block(block, per_worker)
    finally:
        stop.set()
        with contextlib.suppress(queue.Empty):  # the thread may wait for space
            while True:
                ready.get_nowait()


def _copy_blocks(
    blocks: Generator[Arrays], device: torch.device, ready: Ready, stop: threading.Event
) -> None:
    stream = torch.cuda.Stream(device)
    last: BaseException | None = None
    try:
        with contextlib.closing(blocks):
            for block in blocks:
                if stop.is_set():
                    return
                with torch.cuda.stream(stream):
                    copied = {
                        name: _pin(array).to(device, non_blocking=True)
                        for name, array in block.items()
                    }
                stream.synchronize()  # only this thread waits for the copy
                ready.put(copied)
    except BaseException as error:  # re-raised by `_receive`
        last = error
    ready.put(last)


def _pin(array: NDArray) -> Tensor:
    """Return a copy in pinned memory, which torch caches and reuses."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    tensor = torch.empty(array.shape, dtype=dtype, pin_memory=True)
    np.copyto(tensor.numpy(), array)  # `from_numpy` would warn about read-only arrays
    return tensor
