"""The two chains that make cut-outs: by a network, and by the rows of a submission.

load_pictures -> Shares (a replica a GPU) -> compose.from_shares
rows of a submission -> compose.from_rows
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray.data

from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.data import csv_reader
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.cutout import write_cutouts as compose
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import crash_isolation as poison
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.crash_isolation import LOST_A_REPLICA, LOST_BLOCKS
from carvana_ray.stages.ingest.read_images import ReadOptions
from carvana_ray.stages.predict.mask_predictor import (
    SoftMaskPredictor,
    predict_dataset,
    predict_one,
)
from carvana_ray.storage import FileInfo
from carvana_ray.submission import plan

ROWS_AT_ONCE = 4096  # of a submission: 36 MB of text

See = Callable[[list[tuple[str, str, int]]], None]


@dataclass(frozen=True)
class Block:
    """Pictures that are worked on together."""

    name: str
    entries: tuple[FileInfo, ...]

    def row(self, crcs: Mapping[str, int], verdicts: Mapping[str, str]) -> dict[str, Any]:
        """Return the row that `reading.load_pictures` takes."""
        names = [entry.name for entry in self.entries]
        return reading.block_row(self.name, names, crcs, verdicts)


def blocks(entries: Sequence[FileInfo]) -> list[Block]:
    """Return pictures in blocks of a batch on a CPU, those of a small prediction's shards."""
    size = plan.MIN_SHARD_SIZE
    parts = (entries[start : start + size] for start in range(0, len(entries), size))
    return [Block(f"{number:06d}", tuple(part)) for number, part in enumerate(parts)]


@dataclass(frozen=True)
class CutoutJob:
    """Pictures to cut out, and where and how.

    Attributes:
        entries: names from `folder` on.
        folder, target: of the pictures, and of the cut-outs.
        crcs: CRC-32 that a picture must have, where it is known.
        style: how cut-outs are to look.
        see: is told name, status and CRC-32 of pictures, some at a time; may raise to end it all.
    """

    entries: Sequence[FileInfo]
    folder: str
    target: str
    crcs: Mapping[str, int]
    style: CutoutStyle
    see: See

    def from_model(self, options: ReadOptions, model: str, workers: WorkerAllocation) -> None:
        """Cut out by the masks of a network.

        Args:
            options: of `read_options`.
            model: its folder.
            workers: that hold it.
        """

        def make(few: Sequence[Block], verdicts: Mapping[str, str], lost: int) -> set[str]:
            rows = [block.row(self.crcs, verdicts) for block in few]
            shares = predict_dataset(rows, options, model, workers, lost, asked=SoftMaskPredictor)
            return self._written(shares, compose.from_shares, **_beside(workers))

        trial = functools.partial(
            _try, options=options, model=model, workers=workers, style=self.style
        )
        poison.run_with_isolation(
            blocks(self.entries),
            make,
            LOST_BLOCKS + LOST_A_REPLICA * workers.count,
            lambda names: poison.find_crashing(names, trial, workers.cpus, int(workers.use_gpu)),
        )

    def from_submission(self, uri: str, cpus: int) -> None:
        """Cut out by the rows of a submission, which has one for each picture.

        Args:
            uri: its place.
            cpus: tasks at a time.
        """
        for texts in _texts(uri, self.entries):
            self._by_texts(texts, cpus)

    def _by_texts(self, texts: Mapping[str, str], cpus: int) -> None:
        def make(few: Sequence[Block], verdicts: Mapping[str, str], lost: int) -> set[str]:
            rows = [
                {**block.row(self.crcs, verdicts), "texts": [texts[e.name] for e in block.entries]}
                for block in few
            ]
            read = dataset.from_blocks(rows)
            read.context.max_errored_blocks = lost
            compute = ray.data.TaskPoolStrategy(cpus)
            return self._written(read, compose.from_rows, num_cpus=1, compute=compute)

        trial = functools.partial(_try_row, folder=self.folder, style=self.style, texts=texts)
        poison.run_with_isolation(
            blocks([entry for entry in self.entries if entry.name in texts]),
            make,
            LOST_BLOCKS,
            lambda names: poison.find_crashing(names, trial),
        )

    def _written(self, masks: ray.data.Dataset, write: Any, **resources: Any) -> set[str]:
        """Run a chain to its end; return the names of the blocks that came through."""
        done = set()
        how = {"folder": self.folder, "target": self.target, "style": self.style}
        written = masks.map_batches(
            functools.partial(write, **how),
            batch_size=None,
            max_retries=dataset.RETRIES,
            **resources,
        )
        for batch in written.iter_batches(batch_size=None):
            done |= set(batch["file"].tolist())
            facts = (batch[name].tolist() for name in ("img", "status", "crc32"))
            self.see(list(zip(*facts, strict=True)))
        return done


def _beside(workers: WorkerAllocation) -> dict[str, Any]:
    """Return the resources of the tasks that write, beside replicas of the network.

    Beside replicas on CPUs, which take all of them, they ask for none (see `masks.beside`), and are
    no more than these have.
    """
    if workers.use_gpu:
        return {"num_cpus": 1}
    most = max(2, workers.count * workers.cpus)
    return {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(most)}


def _texts(uri: str, entries: Sequence[FileInfo]) -> Iterator[dict[str, str]]:
    """Yield the masks of pictures by their names, some thousand at a time."""
    wanted = {entry.name for entry in entries}
    rows = (row for row in csv_reader.read_rows(uri) if row[0] in wanted)
    while few := dict(itertools.islice(rows, ROWS_AT_ONCE)):
        yield few


def _try(
    name: str, options: ReadOptions, model: str, workers: WorkerAllocation, style: CutoutStyle
) -> None:
    """Cut out a picture and drop it."""
    shares = predict_one(name, options, model, workers, SoftMaskPredictor)
    compose.from_shares(shares, folder=options.folder, target=None, style=style)


def _try_row(name: str, folder: str, style: CutoutStyle, texts: Mapping[str, str]) -> None:
    """The same, by a row of a submission."""
    row = {**reading.block_row("", [name]), "texts": [texts[name]]}
    batch = {key: [value] for key, value in row.items()}
    compose.from_rows(batch, folder=folder, target=None, style=style)
