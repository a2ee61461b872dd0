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

AHEAD = 4  # batches that lie on the GPU and wait: 12 MB each, 16 pictures at a quarter


def on_device(batches: Iterable[Arrays], device: torch.device) -> Iterator[Batch]:
    """Return an iterator of batches of arrays as tensors on a device.

    On a GPU a thread takes them from `batches`, from this call on, copies them to pinned memory and
    on, by a stream of its own: neither the CPU that launches kernels nor the GPU that runs them
    waits for a copy. An error of `batches` is raised where its batch is due.
    """
    if device.type != "cuda":
        return ({name: torch.tensor(one) for name, one in batch.items()} for batch in batches)
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(AHEAD)
    over = threading.Event()
    threading.Thread(target=_move, args=(batches, device, ready, over), daemon=True).start()
    return _arrived(ready, over, device)


def _arrived(
    ready: "queue.Queue[Batch | BaseException | None]", over: threading.Event, device: torch.device
) -> Iterator[Batch]:
    try:
        while (batch := ready.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            current = torch.cuda.current_stream(device)
            for tensor in batch.values():
                tensor.record_stream(current)  # else its memory is taken again too early
            yield batch
    finally:
        over.set()


def _move(
    batches: Iterable[Arrays],
    device: torch.device,
    ready: "queue.Queue[Batch | BaseException | None]",
    over: threading.Event,
) -> None:
    stream = torch.cuda.Stream(device)
    last: BaseException | None = None
    try:
        for batch in batches:
            with torch.cuda.stream(stream):
                moved = {
                    name: _pinned(one).to(device, non_blocking=True) for name, one in batch.items()
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
