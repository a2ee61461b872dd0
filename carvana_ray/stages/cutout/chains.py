"""The two chains that make cut-outs: from a model, and from the rows of a submission.

read_images -> SoftMaskPredictor -> write_from_soft_masks
rows of the submission -> write_from_rows
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

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
from carvana_ray.stages.engine import Engine, LastMap, MaskMaps
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.crash_isolation import StartTrial, run_with_isolation
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.stages.predict.mask_predictor import SoftMaskPredictor
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import MIN_SHARD_SIZE

ROWS_AT_ONCE = 4096  # rows of a submission in memory: 36 MB of text

# Makes cut-outs from rows of `block_row` and the number of blocks that may be lost.
MakeBlocks = Callable[[list[dict[str, Any]], int], Iterator[Columns]]


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
        engine: calls the maps.
        on_rows: called with the images that are done. An exception ends the job.
        on_sizes: called with the numbers of pixels of images that the network has seen.
    """

    entries: Sequence[FileInfo]
    sources: Mapping[str, SourceImage]
    crcs: Mapping[str, int]
    writer: CutoutWriter
    engine: Engine
    on_rows: Callable[[list[Bad]], None]
    on_sizes: Callable[[list[int]], None] = lambda pixels: None

    def render_from_model(
        self, options: ReadOptions, model: ModelRef, workers: WorkerAllocation
    ) -> None:
        """Cut out by the soft masks of a model."""
        read = partial(read_images, options=replace(options, whole_blocks=False))
        masks = MaskMaps(read, SoftMaskPredictor, model, workers, options.downscale, self.entries)
        last = LastMap(
            partial(write_from_soft_masks, writer=self.writer),
            at_once=None if workers.use_gpu else max(2, workers.count * workers.cpus),
            trial=partial(_try_to_write, writer=replace(self.writer, target=None)),
        )

        def make_blocks(rows: list[dict[str, Any]], max_lost: int) -> Iterator[Columns]:
            return self.engine.chain(rows, masks, last, max_lost)

        held = self.engine.held * workers.count
        self._run(self.entries, make_blocks, self.engine.try_chain(masks, last), held)

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

        def with_texts(row: dict[str, Any]) -> dict[str, Any]:
            return {**row, "texts": [texts[name] for name in row["names"]]}

        def make_blocks(rows: list[dict[str, Any]], max_lost: int) -> Iterator[Columns]:
            work = partial(write_from_rows, writer=self.writer)
            return self.engine.map_images(list(map(with_texts, rows)), work, cpus, max_lost)

        def input_of(image: FileInfo) -> dict[str, Any]:
            return with_texts({**block_row("", [image]), "cutouts": [""], "tags": [""]})

        # Without the texts: they are 36 MB.
        dry_run = partial(_try_to_write_row, writer=replace(self.writer, target=None))
        entries = [entry for entry in self.entries if entry.name in texts]
        self._run(entries, make_blocks, self.engine.try_map(dry_run, input_of))

    def _run(
        self,
        entries: Sequence[FileInfo],
        make_blocks: MakeBlocks,
        start: StartTrial,
        held: int = 0,
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
            for batch in make_blocks(rows, max_lost):
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
        run_with_isolation(blocks, run_blocks, start, held)


def _try_to_write(soft_masks: Columns, writer: CutoutWriter) -> Columns:
    return write_from_soft_masks({**soft_masks, "cutouts": [""], "tags": [""]}, writer)


def _try_to_write_row(row: dict[str, Any], writer: CutoutWriter) -> None:
    write_from_rows({name: [value] for name, value in row.items()}, writer)
