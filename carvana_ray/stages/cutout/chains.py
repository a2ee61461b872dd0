"""The chains of a cut-out job, from a model and from the rows of a submission.

read_images -> SoftMaskPredictor -> write_from_soft_masks
read_images -> MaskPredictor     -> measure_masks
rows of the submission           -> write_from_rows or measure_rows
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from carvana_ray.checkpoints.model import ModelRef
from carvana_ray.cutouts.framing import Size
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.data.csv_reader import digest, read_rows
from carvana_ray.errors import IncompleteError
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.cutout.measure_cars import NO_CAR, measure_masks, measure_rows
from carvana_ray.stages.cutout.write_cutouts import (
    CutoutWriter,
    write_from_rows,
    write_from_soft_masks,
)
from carvana_ray.stages.engine import Engine, LastMap, Map, MaskMaps
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.crash_isolation import StartTrial, run_with_isolation
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.stages.predict.mask_predictor import MaskPredictor, SoftMaskPredictor
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import MIN_SHARD_SIZE

ROWS_AT_ONCE = 4096  # rows of a submission in memory: 36 MB of text

# Columns of an image that is tried: see `writing`.
NOT_WRITTEN = {"cutouts": [""], "tags": [""], "extents": [NO_CAR]}

# Makes results from rows of `block_row` and the number of blocks that may be lost.
MakeBlocks = Callable[[list[dict[str, Any]], int], Iterator[Columns]]


@dataclass(frozen=True)
class Block:
    """Images of one task."""

    name: str
    entries: Sequence[FileInfo]


@dataclass(frozen=True)
class MaskWork:
    """What a chain does with masks.

    Attributes:
        predictor: makes the masks of a model.
        on_masks: maps its columns, and those of `columns`, to results.
        on_rows: maps a row of `block_row`, with ``texts`` of masks, to results.
        try_masks, try_row: the same for one image, without results; the former is None if
            `on_masks` decodes no image.
        columns: returns further columns of images, one value for each.
    """

    predictor: type[MaskPredictor]
    on_masks: Map
    on_rows: Map
    try_masks: Map | None
    try_row: Callable[[dict[str, Any]], object]
    columns: Callable[[Sequence[FileInfo]], dict[str, list[Any]]] = lambda images: {}


def writing(
    writer: CutoutWriter,
    sources: Mapping[str, SourceImage],
    extents: Mapping[str, Size],
) -> MaskWork:
    """Return the work of a chain that writes cut-outs.

    Args:
        writer: of the cut-outs.
        sources: the images as the index lists them, by name.
        extents: see `compositing.render`, by image name.
    """

    def columns(images: Sequence[FileInfo]) -> dict[str, list[Any]]:
        listed = [sources[image.name] for image in images]
        return {
            "cutouts": [source.cutout(writer.style.suffix) for source in listed],
            "tags": [source.tag for source in listed],
            "extents": [extents.get(image.name, NO_CAR) for image in images],
        }

    dry = replace(writer, target=None)
    return MaskWork(
        SoftMaskPredictor,
        partial(write_from_soft_masks, writer=writer),
        partial(write_from_rows, writer=writer),
        partial(_try_to_write, writer=dry),
        partial(_try_row, work=partial(write_from_rows, writer=dry)),
        columns,
    )


def measuring(folder: str) -> MaskWork:
    """Return the work of a chain that measures cars.

    Args:
        folder: URI of the images.
    """
    rows = partial(measure_rows, folder=folder)
    masks = partial(measure_masks, folder=folder)
    return MaskWork(MaskPredictor, masks, rows, None, partial(_try_row, work=rows))


@dataclass(frozen=True)
class CutoutJob:
    """Images to cut out or to measure.

    Attributes:
        entries: the images, in the order of the blocks: see `FailureLimits.add_block`.
        crcs: expected CRC-32 by image name, where known.
        work: what to do with their masks.
        engine: calls the maps.
        on_results: called with the results of some images. An exception ends the job.
    """

    entries: Sequence[FileInfo]
    crcs: Mapping[str, int]
    work: MaskWork
    engine: Engine
    on_results: Callable[[Columns], None]

    def run_model(self, options: ReadOptions, model: ModelRef, workers: WorkerAllocation) -> None:
        """Work on the masks of a model."""
        read = partial(read_images, options=replace(options, whole_blocks=False))
        kind = self.work.predictor
        masks = MaskMaps(read, kind, model, workers, options.downscale, self.entries)
        last = LastMap(
            self.work.on_masks,
            at_once=None if workers.use_gpu else max(2, workers.count * workers.cpus),
            trial=self.work.try_masks,
        )

        def make_blocks(rows: list[dict[str, Any]], max_lost: int) -> Iterator[Columns]:
            return self.engine.chain(rows, masks, last, max_lost)

        held = self.engine.held * workers.count
        self._run(self.entries, make_blocks, self.engine.try_chain(masks, last), held)

    def run_submission(self, uri: str, digests: Mapping[str, str], cpus: int) -> None:
        """Work on the rows of a submission, which has one row per image.

        It begins at any row, and takes rows in random order: see `FailureLimits.add_block`.

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
            self._run_texts(texts, cpus)

    def _run_texts(self, texts: Mapping[str, str], cpus: int) -> None:
        """Work on run-length texts, by image name."""

        def with_texts(row: dict[str, Any]) -> dict[str, Any]:
            return {**row, "texts": [texts[name] for name in row["names"]]}

        def make_blocks(rows: list[dict[str, Any]], max_lost: int) -> Iterator[Columns]:
            work = self.work.on_rows
            return self.engine.map_images(list(map(with_texts, rows)), work, cpus, max_lost)

        def input_of(image: FileInfo) -> dict[str, Any]:
            return with_texts({**block_row("", [image]), **NOT_WRITTEN})

        # Without the texts: they are 36 MB.
        start = self.engine.try_map(self.work.try_row, input_of)
        entries = [entry for entry in self.entries if entry.name in texts]
        self._run(random.sample(entries, len(entries)), make_blocks, start)

    def _run(
        self,
        entries: Sequence[FileInfo],
        make_blocks: MakeBlocks,
        start: StartTrial,
        held: int = 0,
    ) -> None:
        """Run a chain on images in blocks, see `run_with_isolation`."""

        def run_blocks(
            blocks: Sequence[Block], preset_status: Mapping[FileInfo, str], max_lost: int
        ) -> set[str]:
            rows = [
                {
                    **block_row(block.name, block.entries, self.crcs, preset_status),
                    **self.work.columns(block.entries),
                }
                for block in blocks
            ]
            done = set()
            for batch in make_blocks(rows, max_lost):
                done |= set(batch["file"].tolist())
                self.on_results(batch)
            return done

        # A block is a batch on CPUs, the size of a small prediction's shards.
        blocks = [
            Block(f"{start:06d}", entries[start : start + MIN_SHARD_SIZE])
            for start in range(0, len(entries), MIN_SHARD_SIZE)
        ]
        run_with_isolation(blocks, run_blocks, start, held)


def _try_to_write(soft_masks: Columns, writer: CutoutWriter) -> Columns:
    return write_from_soft_masks({**soft_masks, **NOT_WRITTEN}, writer)


def _try_row(row: dict[str, Any], work: Map) -> None:
    work({name: [value] for name, value in row.items()})
