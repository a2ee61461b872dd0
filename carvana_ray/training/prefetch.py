"""Batches from the CPU's memory to where the network is, while it works on those before."""

import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray]
Batch = dict[str, Tensor]

AHEAD = 2  # blocks that lie on the GPU and wait: 49 MB each, 64 pictures at a quarter


def prefetch_to_device(
    blocks: Iterable[Arrays], pictures: int, device: torch.device
) -> Iterator[Batch]:
    """Return an iterator of batches on a device, cut out of blocks of arrays.

    On a GPU a thread takes the blocks, from this call on, copies them to pinned memory and on, by a
    stream of its own: neither the CPU that launches kernels nor the GPU that runs them waits for a
    copy. An error of `blocks` is raised where its batch is due.

    Args:
        blocks: of several batches each, since each costs the interpreter some milliseconds, for
            which whoever launches kernels may have to wait.
        pictures: of a batch; blocks hold whole ones.
        device: where to.
    """
    if device.type != "cuda":
        there = ({name: torch.tensor(one) for name, one in block.items()} for block in blocks)
        return (batch for block in there for batch in _cut(block, pictures))
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
    over = threading.Event()
    threading.Thread(target=_move, args=(blocks, device, ready, over), daemon=True).start()
    return _arrived(ready, over, pictures, device)


def _cut(block: Batch, pictures: int) -> Iterator[Batch]:
    for parts in zip(*(one.split(pictures) for one in block.values()), strict=True):
        yield dict(zip(block, parts, strict=True))


def _arrived(
    ready: "queue.Queue[Batch | BaseException | None]",
    over: threading.Event,
    pictures: int,
    device: torch.device,
) -> Iterator[Batch]:
    try:
        while (block := ready.get()) is not None:
            if isinstance(block, BaseException):
                raise block
            for tensor in block.values():  # else its memory is taken again too early
                tensor.record_stream(torch.cuda.current_stream(device))
            yield from _cut(block, pictures)
    finally:
        over.set()


def _move(
    blocks: Iterable[Arrays],
    device: torch.device,
    ready: "queue.Queue[Batch | BaseException | None]",
    over: threading.Event,
) -> None:
    stream = torch.cuda.Stream(device)
    last: BaseException | None = None
    try:
        for block in blocks:
            with torch.cuda.stream(stream):
                moved = {
                    name: _pinned(one).to(device, non_blocking=True) for name, one in block.items()
                }
            stream.synchronize()  # this thread waits for the copy, nobody else
            ready.put(moved)
            if over.is_set():
                return
    except BaseException as error:  # it belongs to whoever asks for the batch
        last = error
    ready.put(last)


def _pinned(array: NDArray) -> Tensor:
    """Return a copy that the GPU can fetch by itself; torch keeps such memory for the next one."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    tensor = torch.empty(array.shape, dtype=dtype, pin_memory=True)
    np.copyto(
        tensor.numpy(), array
    )  # unlike `from_numpy`, it has no objection to what is read-only
    return tensor
