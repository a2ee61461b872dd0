"""Calls the maps of a job in this process and in a few children, without Ray; see `Engine`.

The children read and decode images, and make cut-outs. So an image that crashes the decoder kills
a child only. The network runs in this process.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from carvana_ray.errors import IncompleteError, first_line
from carvana_ray.runtime.children import ChildDiedError, Children
from carvana_ray.stages.engine import LastMap, Map, MaskMaps, Rows
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.crash_isolation import Death, StartTrial, Trial
from carvana_ray.stages.ingest.read_images import block_row
from carvana_ray.storage import FileInfo

if TYPE_CHECKING:  # torch takes seconds to import, and the children start before it
    from carvana_ray.stages.predict.mask_predictor import MaskPredictor

AHEAD = 2  # blocks that are being read, and blocks that are being written, at a time


class LocalEngine:
    """The engine of a few images.

    Args:
        children: the processes that decode images.
    """

    held = 0
    errors: tuple[type[Exception], ...] = ()

    def __init__(self, children: Children) -> None:
        self._children = children
        self._loaded: tuple[object, MaskPredictor] | None = None  # of these maps

    def chain(self, rows: Rows, masks: MaskMaps, last: LastMap, max_lost: int) -> Iterator[Columns]:
        """See `Engine.chain`."""
        losses, writing = _Losses(max_lost), deque[list[Future[Columns]]]()
        for read in self._submit_ahead(rows, masks.read, lambda: self._predictor(masks)):
            for block in losses.survivors([read]):
                writing.append(self._start_last(_predict(self._predictor(masks), block), last))
            while len(writing) > AHEAD or (writing and all(one.done() for one in writing[0])):
                yield from losses.survivors(writing.popleft())
        for futures in writing:
            yield from losses.survivors(futures)

    def map_images(
        self, rows: Rows, work: Map, at_once: int, max_lost: int = 0
    ) -> Iterator[Columns]:
        """See `Engine.map_images`. There is a child for each call at a time."""
        losses = _Losses(max_lost)
        for future in self._submit_ahead(rows, work):
            yield from losses.survivors([future])

    def map_files(self, rows: Rows, work: Map, light: bool = False) -> Iterator[Columns]:
        """See `Engine.map_files`. The calls are made in this process, one after the other."""
        return (work(_batch_of(row)) for row in rows)

    def try_chain(self, masks: MaskMaps, last: LastMap | None = None) -> StartTrial:
        """See `Engine.try_chain`. Without the network, whose process is this one."""
        work = partial(_try_chain, read=masks.read, trial=last.trial if last else None)
        return self.try_map(work, lambda image: image)

    def try_map(
        self, work: Callable[[Any], object], input_of: Callable[[FileInfo], object]
    ) -> StartTrial:
        """See `Engine.try_map`."""

        def start(image: FileInfo) -> Trial:
            return partial(_death, self._children.submit(work, input_of(image)))

        return start

    def _submit_ahead(
        self, rows: Rows, work: Map, meanwhile: Callable[[], object] = int
    ) -> Iterator["Future[Columns]"]:
        """Yield the future result of each row, in order. The next rows are worked on meanwhile."""
        waiting, futures = deque(map(_batch_of, rows)), deque[Future[Columns]]()
        while waiting or futures:
            while waiting and len(futures) < max(AHEAD, self._children.count):
                futures.append(self._children.submit(work, waiting.popleft()))
            meanwhile()
            yield futures.popleft()

    def _predictor(self, masks: MaskMaps) -> "MaskPredictor":
        key = masks.kind, masks.model, masks.workers
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = key, masks.kind(masks.model, masks.workers)
        return self._loaded[1]

    def _start_last(self, block: Columns, last: LastMap) -> list["Future[Columns]"]:
        """Start the last map of a block, on parts of it if the map takes images."""
        if last.tables:
            done: Future[Columns] = Future()
            done.set_result(_call_on_table(last.work, block))
            return [done]
        count = len(block["img"])
        each = -(-count // self._children.count)
        return [
            self._children.submit(
                last.work, {name: column[row : row + each] for name, column in block.items()}
            )
            for row in range(0, count, each)
        ]


class _Losses:
    """Counts the blocks that are lost with their processes."""

    def __init__(self, allowed: int) -> None:
        self._left = allowed

    def survivors(self, parts: list["Future[Columns]"]) -> list[Columns]:
        """Return the result of a block as a list of one, or an empty list if the block is lost.

        Raises:
            IncompleteError: more blocks are lost than are allowed to be.
        """
        results, death = [], None
        for part in parts:
            try:
                results.append(part.result())
            except ChildDiedError as error:
                death = error
        if death is None:
            return [_joined(results)]
        if not self._left:
            raise IncompleteError(f"{death}; run the same command again to continue") from death
        self._left -= 1
        return []


def _joined(parts: list[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _predict(predictor: "MaskPredictor", block: Columns) -> Columns:
    import torch

    try:
        return predictor(block)
    except torch.AcceleratorError as error:  # CUDA no longer works in this process
        raise IncompleteError(
            f"GPU fault ({first_line(error)}); run the same command again to continue"
        ) from error


def _batch_of(row: dict[str, Any]) -> Columns:
    return {name: [value] for name, value in row.items()}


def _call_on_table(work: Callable[[Any], Any], block: Columns) -> Columns:
    import pyarrow as pa  # for predictions only

    table = pa.table({name: pa.array(column.tolist()) for name, column in block.items()})
    return {name: np.array(values) for name, values in work(table).to_pydict().items()}


def _try_chain(image: FileInfo, read: Map, trial: Map | None) -> None:
    """Read an image. The last map gets its gray levels as a mask: it decodes the image again."""
    batch = read(_batch_of(block_row("", [image])))
    if trial:
        trial({**batch, "soft_mask": batch["image"]})


def _death(work: "Future[object]") -> Death | None:
    """Return how the child that did some work died; None if it lives."""
    error = work.exception()
    if isinstance(error, ChildDiedError):
        return Death("memory" if error.killed else "crash", str(error))
    if isinstance(error, IncompleteError):
        raise error
    return None
