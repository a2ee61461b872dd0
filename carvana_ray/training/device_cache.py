"""Images that were streamed once and stay on the device, where later epochs are gathered from them.

The batches of the first streamed epoch pass as they are, and are copied into the cache. Then the
stream ends: the batches of all later epochs come from the cache, the same images in the same order
with the same random moves. Several workers exchange what they hold once, after the first epoch.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carvana_ray.config.recipes import Recipe
from carvana_ray.runtime.background import run_in_background
from carvana_ray.training import moves
from carvana_ray.training.batch_plan import BatchPlan, WorkerBatch
from carvana_ray.training.prefetch import Arrays, split_block
from carvana_ray.training.state import Batch

MIN_RESERVE = 2_000_000_000  # bytes of a GPU
Fetch = Callable[[NDArray[np.int64]], Arrays]


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """Which image is in which row of the cache: a pure function of the plan of the batches.

    A row is one image of the first epoch. The rows of a worker are in the order of its batches,
    padding included, after those of the workers before it. The images that this epoch leaves out
    come last.

    Attributes:
        epoch: the first epoch, counted from 0, which is streamed.
        rank: of the worker.
        grid: (h, w) of the images.
        block: batches that are gathered at once.
    """

    plan: BatchPlan
    recipe: Recipe
    epoch: int
    rank: int
    grid: tuple[int, int]
    block: int = 1

    @property
    def rows_per_worker(self) -> int:
        """Rows that a worker fills from its stream."""
        return self.plan.steps_per_epoch * self.plan.per_worker

    @property
    def shared_rows(self) -> int:
        """Rows that the workers fill from their streams."""
        return self.rows_per_worker * self.plan.workers

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (rows, h, w) of the cache."""
        return self.shared_rows + len(self.left_out()), *self.grid

    @property
    def nbytes(self) -> int:
        """Bytes of the cache: an image as uint8 or as float32 and a soft mask as uint8 per row."""
        return int(np.prod(self.shape)) * (2 if self.recipe.affine_augment else 5)

    def left_out(self) -> NDArray[np.int64]:
        """Return the training images that the first epoch leaves out, fewer than a batch: int64."""
        return self.plan.permutation(self.epoch)[self.plan.train_steps * self.plan.batch :]

    def batches(self, epoch: int, rank: int) -> list[WorkerBatch]:
        """Return a worker's batches of an epoch."""
        per_epoch = self.plan.blocks_per_epoch
        numbers = range(epoch * per_epoch + rank, (epoch + 1) * per_epoch, self.plan.workers)
        return [self.plan.worker_batch(number) for number in numbers]

    def place(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return each image's row, int64 [images], and whether it is mirrored there, bool."""
        plan, left_out = self.plan, self.left_out()
        rows = np.empty(plan.train + plan.val, dtype=np.int64)
        mirrored = np.zeros(len(rows), dtype=np.bool_)
        for rank in range(plan.workers):
            batches = self.batches(self.epoch, rank)
            images = np.concatenate([batch.indices for batch in batches])
            rows[images] = rank * self.rows_per_worker + np.arange(len(images))
            drawn = [moves.draw_mirrored(plan, batch, self.recipe) for batch in batches]
            mirrored[images] = np.concatenate(drawn)
        rows[left_out] = self.shared_rows + np.arange(len(left_out))
        return rows, mirrored


def free_bytes(device: torch.device) -> int:
    """Return the bytes of a GPU that a cache may take, after a step of training; 0 for a CPU.

    As much as training has taken at its peak stays free, because validation may need as much again.
    """
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return free - max(MIN_RESERVE, torch.cuda.max_memory_allocated(device))


def allocate(cache: CachePlan, device: torch.device, limit: int) -> Batch | None:
    """Return ``image`` and ``soft_mask`` [rows, h, w], unset; None if they exceed `limit` bytes."""
    if cache.nbytes > limit:
        return None
    dtype = torch.uint8 if cache.recipe.affine_augment else torch.float32
    try:
        return {
            "image": torch.empty(cache.shape, dtype=dtype, device=device),
            "soft_mask": torch.empty(cache.shape, dtype=torch.uint8, device=device),
        }
    except torch.OutOfMemoryError:  # another process took the memory meanwhile
        return None


def on_all_workers(value: bool, device: torch.device) -> bool:
    """Return whether a value is true on all workers, each of which calls this."""
    if not torch.distributed.is_initialized():
        return value
    least = torch.tensor(int(value), device=device)
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return bool(least)


def share_parts(parts: Tensor) -> None:
    """Set each worker's part of a tensor [workers, ...] to what that worker has there."""
    if len(parts) > 1:
        own = parts[torch.distributed.get_rank()]
        torch.distributed.all_gather_into_tensor(parts.flatten(0, 1), own)


def stream_once(
    streamed: Generator[Batch],
    cache: CachePlan,
    kept: Batch,
    fetch: Fetch,
    share: Callable[[Tensor], None] = share_parts,
) -> Iterator[Batch]:
    """Yield a worker's batches: those of the first epoch from its stream, all others from `kept`.

    Args:
        streamed: the batches from the first epoch on; closed after this epoch.
        cache: the rows.
        kept: as returned by `allocate`; filled here.
        fetch: returns ``image`` and ``soft_mask`` [n, h, w] of image numbers, as they are streamed,
            but never mirrored; called in another thread.
        share: see `share_parts`.
    """
    left_out, plan = cache.left_out(), cache.plan
    fetched = run_in_background(lambda: fetch(left_out) if len(left_out) else {})
    placed = run_in_background(cache.place)
    tables = run_in_background(lambda: _draw_tables(cache, cache.epoch + 1, placed))
    first = cache.rank * cache.rows_per_worker
    for row in range(first, first + cache.rows_per_worker, plan.per_worker):
        batch = next(streamed)
        for name, images in kept.items():
            images[row : row + plan.per_worker].copy_(batch[name])
        yield batch
    streamed.close()
    for name, images in kept.items():
        share(images[: cache.shared_rows].unflatten(0, (plan.workers, cache.rows_per_worker)))
        if len(left_out):
            images[cache.shared_rows :].copy_(torch.tensor(fetched.result()[name]))
    for epoch in range(cache.epoch + 1, plan.epochs):
        drawn = tables.result()
        if epoch + 1 < plan.epochs:
            tables = run_in_background(partial(_draw_tables, cache, epoch + 1, placed))
        yield from _gather(kept, drawn, cache)


def _draw_tables(
    cache: CachePlan, epoch: int, placed: "Future[tuple[NDArray[np.int64], NDArray[np.bool_]]]"
) -> Batch:
    """Return what tells a worker's images of an epoch: one value per image, in order, on the CPU.

    Returns:
        ``row`` int64 [n] and ``weight`` float32 [n]; for a recipe that mirrors, ``turn`` bool [n],
        whether to mirror the row; for one that transforms, ``affine`` float32 [n, 2, 3].
    """
    plan, recipe = cache.plan, cache.recipe
    rows, mirrored = placed.result()
    batches = cache.batches(epoch, cache.rank)
    images = np.concatenate([batch.indices for batch in batches])
    tables = {
        "row": rows[images],
        "weight": np.concatenate([batch.weight for batch in batches]),
    }
    if recipe.affine_augment:
        drawn = [moves.draw_matrices(plan, batch, recipe) for batch in batches]
        tables["affine"] = np.concatenate(drawn)
    elif recipe.flip:
        wanted = [moves.draw_mirrored(plan, batch, recipe) for batch in batches]
        tables["turn"] = np.concatenate(wanted) != mirrored[images]
    return {name: torch.from_numpy(table) for name, table in tables.items()}


def _gather(kept: Batch, tables: Batch, cache: CachePlan) -> Iterator[Batch]:
    """Yield the batches of an epoch. The device does not wait for the CPU, nor the CPU for it."""
    device = kept["image"].device
    if device.type == "cuda":
        tables = {name: table.pin_memory() for name, table in tables.items()}
    tables = {name: table.to(device, non_blocking=True) for name, table in tables.items()}
    per_block = cache.block * cache.plan.per_worker
    for parts in zip(*(table.split(per_block) for table in tables.values()), strict=True):
        block = dict(zip(tables, parts, strict=True))
        rows, turn = block.pop("row"), block.pop("turn", None)
        for name, images in kept.items():
            block[name] = images.index_select(0, rows)
            if turn is not None:
                block[name] = block[name].flip(-1).where(turn[:, None, None], block[name])
        yield from split_block(block, cache.plan.per_worker)
