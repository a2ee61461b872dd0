"""Which pictures make up which batch of a training run: a pure function of the seed.

A run is one long list of blocks. Epoch after epoch: the training batches of the epoch in a new
order, then the validation pictures in listed order, padded with weight 0 to whole batches. Each
batch of the run is cut into one block a worker, and blocks go round the workers in turn, so that
one worker with a batch of 16, two with 8 each and three with 6, 5 and 5 see the same batches; the
shorter ones of these are padded with weight 0, since Ray deals blocks of one length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carvana_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class WorkerBatch:
    """One worker's part of one batch.

    Attributes:
        epoch: counted from 0.
        step: of the epoch; training steps first.
        training: else validation.
        rank: the worker that it is for.
        pictures: int64 [b], indices; the training pictures first, then those for validation.
        weight: float32 [b], 0 for pictures that only fill up the batch.
    """

    epoch: int
    step: int
    training: bool
    rank: int
    indices: NDArray[np.int64]
    weight: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The batches of a run over `train` training and `val` validation pictures.

    The pictures left over by the last whole training batch sit out the epoch: other ones each time.

    Raises:
        InputError: the batch is smaller than the workers are many, or larger than the training
            set.
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
                f"--batch-size {self.batch} leaves some of --workers {self.workers} without a "
                "picture"
            )
        if self.train < self.batch:
            raise InputError(
                f"--batch-size {self.batch} is more than the {self.train} training pictures"
            )

    @property
    def train_steps(self) -> int:
        """Training steps an epoch."""
        return self.train // self.batch

    @property
    def val_steps(self) -> int:
        """Validation steps an epoch."""
        return -(-self.val // self.batch)

    @property
    def per_worker(self) -> int:
        """Pictures of a block, those that only fill it up included."""
        return -(-self.batch // self.workers)

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch, those of validation included."""
        return self.train_steps + self.val_steps

    @property
    def blocks_per_epoch(self) -> int:
        """Blocks an epoch, over all workers."""
        return self.steps_per_epoch * self.workers

    def permutation(self, epoch: int) -> NDArray[np.int64]:
        """Return the training pictures of an epoch in their order: int64 [train], a permutation."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.train)

    def worker_batch(self, index: int) -> WorkerBatch:
        """Return block `index` of the run, 0 <= index < epochs * blocks_per_epoch."""
        epoch, in_epoch = divmod(index, self.blocks_per_epoch)
        step, rank = divmod(in_epoch, self.workers)
        training = step < self.train_steps
        if training:
            batch = self.permutation(epoch)[step * self.batch : (step + 1) * self.batch]
            weight = np.ones(self.batch, dtype=np.float32)
        else:
            place = np.arange(self.batch) + (step - self.train_steps) * self.batch
            weight = (place < self.val).astype(np.float32)
            batch = self.train + np.minimum(place, self.val - 1)
        own = slice(rank, None, self.workers)
        pictures, weight = batch[own], weight[own]
        filler = self.per_worker - len(pictures)
        return WorkerBatch(
            epoch=epoch,
            step=step,
            training=training,
            rank=rank,
            indices=np.pad(pictures, (0, filler), mode="edge"),
            weight=np.pad(weight, (0, filler)),
        )

    def rng(self, block: WorkerBatch, place: int) -> np.random.Generator:
        """Return the generator of picture `place` of a block: of (seed, epoch, picture) alone."""
        return np.random.default_rng((self.seed, block.epoch, int(block.indices[place]), 1))
