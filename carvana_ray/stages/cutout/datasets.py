"""The two chains that make cut-outs: from a model, and from the rows of a submission.

read_images -> SoftMaskPredictor -> write_from_soft_masks
rows of the submission -> write_from_rows
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray.data

from carvana_ray.data.csv_reader import read_rows
from carvana_ray.data.quarantine import Bad
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.cutout.write_cutouts import (
    CutoutWriter,
    write_from_rows,
    write_from_soft_masks,
)
from carvana_ray.stages.ingest.blocks import RETRIES, from_blocks
from carvana_ray.stages.ingest.crash_isolation import run_with_isolation
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.stages.predict.mask_predictor import (
    SoftMaskPredictor,
    predict_one,
    reader_resources,
    replica_resources,
)
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import MIN_SHARD_SIZE

ROWS_AT_ONCE = 4096  # rows of a submission in memory: 36 MB of text


@dataclass(frozen=True)
class Block:
    """Images of one task."""

    name: str
    entries: tuple[FileInfo, ...]


@dataclass(frozen=True)
class CutoutJob:
    """Images to cut out.

    Attributes:
        entries: the images, named relative to the folder of `writer`.
        crcs: expected CRC-32 by image name, where known.
        writer: writes the cut-outs.
        on_rows: called with (name, status, CRC-32) of images that are done. An exception ends the
            job.
    """

    entries: Sequence[FileInfo]
    crcs: Mapping[str, int]
    writer: CutoutWriter
    on_rows: Callable[[list[Bad]], None]

    def render_from_model(
        self, options: ReadOptions, model: str, workers: WorkerAllocation
    ) -> None:
        """Cut out by the soft masks of a model.

        Args:
            options: how to read the images for the model.
            model: URI of the model folder.
            workers: the CPUs or GPUs that hold the model.
        """

        def run_blocks(
            blocks: Sequence[Block], preset_status: Mapping[str, str], max_lost: int
        ) -> set[str]:
            rows = [self._row(block, preset_status) for block in blocks]
            return self._run(
                from_blocks(rows, max_lost)
                .map_batches(partial(read_images, options=options), **reader_resources(workers))
                .map_batches(
                    SoftMaskPredictor,
                    fn_constructor_kwargs={"model": model, "workers": workers},
                    **replica_resources(workers, options.downscale),
                )
                .map_batches(
                    partial(write_from_soft_masks, writer=self.writer), **_writer_resources(workers)
                )
            )

        dry_run = partial(
            _dry_run,
            options=options,
            model=model,
            workers=workers,
            writer=replace(self.writer, target=None),
        )
        run_with_isolation(_blocks(self.entries), run_blocks, dry_run, workers)

    def render_from_submission(self, uri: str, cpus: int) -> None:
        """Cut out by the rows of a submission, which has one row per image.

        Args:
            uri: of the submission.
            cpus: number of tasks at a time.
        """
        for texts in _texts_by_name(uri, self.entries):
            self._render_rows(texts, cpus)

    def _render_rows(self, texts: Mapping[str, str], cpus: int) -> None:
        def run_blocks(
            blocks: Sequence[Block], preset_status: Mapping[str, str], max_lost: int
        ) -> set[str]:
            rows = [
                {
                    **self._row(block, preset_status),
                    "texts": [texts[entry.name] for entry in block.entries],
                }
                for block in blocks
            ]
            return self._run(
                from_blocks(rows, max_lost).map_batches(
                    partial(write_from_rows, writer=self.writer),
                    batch_size=None,
                    max_retries=RETRIES,
                    num_cpus=1,
                    compute=ray.data.TaskPoolStrategy(cpus),
                )
            )

        dry_run = partial(_dry_run_row, texts=texts, writer=replace(self.writer, target=None))
        entries = [entry for entry in self.entries if entry.name in texts]
        run_with_isolation(_blocks(entries), run_blocks, dry_run)

    def _row(self, block: Block, preset_status: Mapping[str, str]) -> dict[str, Any]:
        names = [entry.name for entry in block.entries]
        return block_row(block.name, names, self.crcs, preset_status)

    def _run(self, written: ray.data.Dataset) -> set[str]:
        """Run a chain to its end; return the names of the blocks that came through."""
        done = set()
        for batch in written.iter_batches(batch_size=None):
            done |= set(batch["file"].tolist())
            columns = (batch[name].tolist() for name in ("img", "status", "crc32"))
            self.on_rows(list(zip(*columns, strict=True)))
        return done


def _blocks(entries: Sequence[FileInfo]) -> list[Block]:
    """Return images in blocks of a batch on CPUs, the size of a small prediction's shards."""
    starts = range(0, len(entries), MIN_SHARD_SIZE)
    return [
        Block(f"{number:06d}", tuple(entries[start : start + MIN_SHARD_SIZE]))
        for number, start in enumerate(starts)
    ]


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


def _texts_by_name(uri: str, entries: Sequence[FileInfo]) -> Iterator[dict[str, str]]:
    """Yield the run-length texts of images by name, `ROWS_AT_ONCE` at a time."""
    wanted = {entry.name for entry in entries}
    rows = (row for row in read_rows(uri) if row[0] in wanted)
    while chunk := dict(itertools.islice(rows, ROWS_AT_ONCE)):
        yield chunk


def _dry_run(
    name: str, options: ReadOptions, model: str, workers: WorkerAllocation, writer: CutoutWriter
) -> None:
    """Cut out one image by a model without writing it."""
    soft_masks = predict_one(name, options, model, workers, SoftMaskPredictor)
    write_from_soft_masks(soft_masks, writer)


def _dry_run_row(name: str, texts: Mapping[str, str], writer: CutoutWriter) -> None:
    """Cut out one image by its row of a submission without writing it."""
    row = {**block_row("", [name]), "texts": [texts[name]]}
    write_from_rows({key: [value] for key, value in row.items()}, writer)
