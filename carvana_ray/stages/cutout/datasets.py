"""The two chains that make cut-outs: from a model, and from the rows of a submission.

read_images -> SoftMaskPredictor -> write_from_soft_masks
rows of the submission -> write_from_rows
"""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray.data

from carvana_ray.checkpoints.model import ModelRef
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.data.csv_reader import digest, read_rows
from carvana_ray.data.quarantine import Bad
from carvana_ray.errors import IncompleteError
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.cutout.write_cutouts import (
    CutoutWriter,
    write_from_rows,
    write_from_soft_masks,
)
from carvana_ray.stages.ingest.crash_isolation import NO_REPLICAS, itself, run_with_isolation
from carvana_ray.stages.ingest.datasets import RETRIES, from_blocks
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.stages.predict.mask_predictor import SoftMaskPredictor
from carvana_ray.stages.predict.replica import (
    Replica,
    predict_one,
    reader_resources,
    replica_resources,
)
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import MIN_SHARD_SIZE

ROWS_AT_ONCE = 4096  # rows of a submission in memory: 36 MB of text

# Makes the dataset of cut-outs from rows of `block_row` and the number of blocks that may be lost.
MakeDataset = Callable[[list[dict[str, Any]], int], ray.data.Dataset]


@dataclass(frozen=True)
class Block:
    """Images of one task."""

    name: str
    entries: Sequence[FileInfo]


@dataclass(frozen=True)
class CutoutJob:
    """Images to cut out.

    Attributes:
        entries: the images, named relative to the folder of `writer`.
        sources: the images as the index lists them, by name.
        crcs: expected CRC-32 by image name, where known.
        writer: writes the cut-outs.
        on_rows: called with the images that are done. An exception ends the job.
        on_sizes: called with the numbers of pixels of images that the network has seen.
    """

    entries: Sequence[FileInfo]
    sources: Mapping[str, SourceImage]
    crcs: Mapping[str, int]
    writer: CutoutWriter
    on_rows: Callable[[list[Bad]], None]
    on_sizes: Callable[[list[int]], None] = lambda pixels: None

    def render_from_model(
        self, options: ReadOptions, model: ModelRef, workers: WorkerAllocation
    ) -> None:
        """Cut out by the soft masks of a model."""
        dry_writer = replace(self.writer, target=None)
        options = replace(options, whole_blocks=False)

        def make_dataset(rows: list[dict[str, Any]], max_lost: int) -> ray.data.Dataset:
            return (
                from_blocks(rows, max_lost)
                .map_batches(
                    partial(read_images, options=options),
                    **reader_resources(workers, self.entries),
                )
                .map_batches(
                    Replica,
                    fn_constructor_kwargs={
                        "kind": SoftMaskPredictor,
                        "model": model,
                        "workers": workers,
                    },
                    **replica_resources(workers, options.downscale),
                )
                .map_batches(
                    partial(write_from_soft_masks, writer=self.writer), **_writer_resources(workers)
                )
            )

        def dry_run(image: FileInfo) -> None:
            soft_masks = predict_one(image, options, model, workers, SoftMaskPredictor)
            write_from_soft_masks({**soft_masks, "cutouts": [""], "tags": [""]}, dry_writer)

        self._run(self.entries, make_dataset, dry_run, workers)

    def render_from_submission(self, uri: str, digests: Mapping[str, str], cpus: int) -> None:
        """Cut out by the rows of a submission, which has one row per image.

        It begins at any row: see `FailureLimits.add_block`.

        Args:
            uri: of the submission.
            digests: the result of `csv_reader.digests` when the job was planned.
            cpus: number of tasks.

        Raises:
            IncompleteError: another submission was written there meanwhile.
        """
        wanted = {entry.name for entry in self.entries}
        passes = [(row for row in read_rows(uri) if row[0] in wanted) for _ in range(2)]
        first = random.randrange(len(wanted))
        rows = itertools.chain(
            itertools.islice(passes[0], first, None), itertools.islice(passes[1], first)
        )
        while texts := dict(itertools.islice(rows, ROWS_AT_ONCE)):
            for name, text in texts.items():
                if digest(text) != digests[name]:
                    raise IncompleteError(f"{uri}: the row of {name} has changed; run again")
            self._render_from_texts(texts, cpus)

    def _render_from_texts(self, texts: Mapping[str, str], cpus: int) -> None:
        """Cut out by run-length texts, by image name."""
        dry_writer = replace(self.writer, target=None)

        def with_texts(row: dict[str, Any]) -> dict[str, Any]:
            return {**row, "texts": [texts[name] for name in row["names"]]}

        def make_dataset(rows: list[dict[str, Any]], max_lost: int) -> ray.data.Dataset:
            return from_blocks([with_texts(row) for row in rows], max_lost).map_batches(
                partial(write_from_rows, writer=self.writer),
                batch_size=None,
                max_retries=RETRIES,
                num_cpus=1,
                compute=ray.data.TaskPoolStrategy(cpus),
            )

        def input_of(image: FileInfo) -> dict[str, Any]:
            return with_texts({**block_row("", [image]), "cutouts": [""], "tags": [""]})

        def dry_run(row: dict[str, Any]) -> None:  # holds no texts: they are 36 MB
            write_from_rows({key: [value] for key, value in row.items()}, dry_writer)

        entries = [entry for entry in self.entries if entry.name in texts]
        self._run(entries, make_dataset, dry_run, input_of=input_of)

    def _run(
        self,
        entries: Sequence[FileInfo],
        make_dataset: MakeDataset,
        dry_run: Callable[[Any], None],
        workers: WorkerAllocation = NO_REPLICAS,
        input_of: Callable[[FileInfo], object] = itself,
    ) -> None:
        """Run a chain on images in blocks, see `run_with_isolation`."""
        suffix = self.writer.style.suffix

        def run_blocks(
            blocks: Sequence[Block], preset_status: Mapping[FileInfo, str], max_lost: int
        ) -> set[str]:
            rows = [
                {
                    **block_row(block.name, block.entries, self.crcs, preset_status),
                    "cutouts": [self.sources[e.name].cutout(suffix) for e in block.entries],
                    "tags": [self.sources[entry.name].tag for entry in block.entries],
                }
                for block in blocks
            ]
            done = set()
            for batch in make_dataset(rows, max_lost).iter_batches(batch_size=None):
                done |= set(batch["file"].tolist())
                columns = (batch[name].tolist() for name in ("img", "status", "crc32"))
                self.on_rows(list(zip(*columns, strict=True)))
                self.on_sizes(batch["pixels"][batch["pixels"] > 0].tolist())
            return done

        # A block is a batch on CPUs, the size of a small prediction's shards. Its images come from
        # anywhere in the list: see `FailureLimits.add_block`.
        entries = random.sample(entries, len(entries))
        blocks = [
            Block(f"{start:06d}", entries[start : start + MIN_SHARD_SIZE])
            for start in range(0, len(entries), MIN_SHARD_SIZE)
        ]
        run_with_isolation(blocks, run_blocks, dry_run, workers, input_of)


def _writer_resources(workers: WorkerAllocation) -> dict[str, Any]:
    """Return the arguments of `map_batches` for a writer next to the model's replicas.

    Next to replicas on CPUs, which take all of them, writers request no CPU (see
    `cpu_map_resources`). Their number is that of the replicas' CPUs.
    """
    resources: dict[str, Any] = {"num_cpus": 1}
    if not workers.use_gpu:
        count = max(2, workers.count * workers.cpus)
        resources = {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(count)}
    return {"batch_size": None, "max_retries": RETRIES, **resources}
