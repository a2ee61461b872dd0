"""Which images make up which batch of a training run: a pure function of the seed.

This is an elastically deterministic sample order: one worker with a batch of 16, two with 8 each,
and three with 6, 5 and 5 see the same batches. A run is one list of steps. Each epoch has its
training batches in a new order, then the validation images in listed order, padded with weight 0 to
whole batches. Each batch is split into one part per worker. Shorter parts are padded with weight 0,
because all blocks of a Ray Data stream must have one length.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WorkerBatch:
    """One worker's part of one batch.

    Attributes:
        epoch, step, rank: counted from 0; the steps of an epoch begin with training.
        training: True for a training batch, False for a validation batch.
        indices: int64 [b], image numbers; training images are 0..train-1, validation images follow.
        weight: float32 [b], 0 for images that only pad the batch.
    """

    epoch: int
    step: int
    training: bool
    rank: int
    indices: NDArray[np.int64]
    weight: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The batches of a run over `train` training and `val` validation images.

    Images that do not fill a whole training batch are left out, different ones in each epoch.

    Raises:
        InputError: the batch is smaller than the number of workers or larger than the training set.
    """

    train: int
    val: int
    batch: int
    workers: int
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch < self.workers:
            raise InputError(
                f"--batch-size {self.batch} leaves some of --workers {self.workers} without an "
                "image; use a larger batch or fewer workers"
            )
        if self.train < self.batch:
            raise InputError(
                f"--batch-size {self.batch} is more than the {self.train} training images; use a "
                "smaller batch"
            )

    @property
    def per_worker(self) -> int:
        """Per-worker batch size, padding included."""
        return -(-self.batch // self.workers)

    @property
    def train_steps(self) -> int:
        """Training steps per epoch."""
        return self.train // self.batch

    @property
    def val_steps(self) -> int:
        """Validation steps per epoch."""
        return -(-self.val // self.batch)

    @property
    def steps_per_epoch(self) -> int:
        """Training and validation steps per epoch."""
        return self.train_steps + self.val_steps

    @property
    def total_steps(self) -> int:
        """Training and validation steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def blocks_per_epoch(self) -> int:
        """Worker batches per epoch, over all workers."""
        return self.steps_per_epoch * self.workers

    def permutation(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the training images in an epoch: int64 [train], read-only."""
        return _permutation(self.seed, epoch, self.train)

    def worker_batch(self, index: int) -> WorkerBatch:
        """Return worker batch `index` of the run, 0 <= index < epochs * blocks_per_epoch."""
        epoch, in_epoch = divmod(index, self.blocks_per_epoch)
        step, rank = divmod(in_epoch, self.workers)
        training = step < self.train_steps
        if training:
            batch = self.permutation(epoch)[step * self.batch : (step + 1) * self.batch]
            weight = np.ones(self.batch, dtype=np.float32)
        else:
            row = np.arange(self.batch) + (step - self.train_steps) * self.batch
            weight = (row < self.val).astype(np.float32)
            batch = self.train + np.minimum(row, self.val - 1)
        own = slice(rank, None, self.workers)
        indices, weight = batch[own], weight[own]
        padding = self.per_worker - len(indices)
        return WorkerBatch(
            epoch=epoch,
            step=step,
            training=training,
            rank=rank,
            indices=np.pad(indices, (0, padding), mode="edge"),
            weight=np.pad(weight, (0, padding)),
        )

    def rng(self, batch: WorkerBatch, row: int) -> np.random.Generator:
        """Return the generator for one image of a batch, seeded by (seed, epoch, image) alone."""
        return np.random.default_rng((self.seed, batch.epoch, int(batch.indices[row]), 1))


@functools.lru_cache(maxsize=4)  # each batch of an epoch is a slice of it
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False  # shared
    return order
