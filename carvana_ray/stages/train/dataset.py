"""Ray Data's part of training: every pair is decoded once, then all epochs are one stream.

    names -> read_pairs -> uint8 chunks in the object store                        once per run
    block numbers -> assemble_batches -> standardize -> Ray Train's workers        streaming

One stream holds all epochs, so neither the end of an epoch nor its validation makes the workers
wait. Workers on GPUs that keep the images of the first epoch end it then.

A pair takes 0.3 MB at downscale 4, the 5,088 pairs of Kaggle 1.6 GB of the object stores.
"""

import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import ray
import ray.data

from carvana_ray.data import quarantine
from carvana_ray.errors import IncompleteError, InputError, first_line
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.ingest.blocks import standardize
from carvana_ray.stages.ingest.crash_isolation import find_crashing
from carvana_ray.stages.ingest.datasets import RETRIES, from_blocks, keep_blocks_whole
from carvana_ray.stages.ingest.ray_trials import in_ray_tasks
from carvana_ray.stages.ingest.read_pairs import (
    ALL_CAR,
    ALL_GROUND,
    PairOptions,
    pairs_row,
    read_pairs,
)
from carvana_ray.stages.train.assemble_batches import CHUNK, BatchSpec, assemble_batches
from carvana_ray.storage import FileInfo
from carvana_ray.training.run import TrainingRun

log = logging.getLogger(__name__)

TASKS_PER_CPU_WORKER = 2  # with elastic workers
TASKS_PER_GPU_WORKER = 8  # a block of 64 images takes 0.13 s of a core; an H200 uses 14 per second
MAX_STORE_FRACTION = 0.7  # Ray spills objects to disk from 0.8 on
MIN_STREAM_BYTES = 150_000_000


def decode_pairs(
    run: TrainingRun,
    downscale: int,
    on_progress: Callable[[int], None] = lambda done: None,
    shared_cpus: int | None = None,
) -> tuple[list[Any], list[str]]:
    """Read and decode all pairs of a run in parallel.

    Args:
        run: the pairs and their folders.
        downscale: divisor of the images' height and width.
        on_progress: called with the number of pairs done.
        shared_cpus: CPUs of the cluster if workers start meanwhile. Decoding then runs at low
            priority and leaves a quarter of the CPUs to them.

    Returns:
        the references of the chunks, `CHUNK` pairs each, in order; and the error of each pair,
        empty for a good pair.

    Raises:
        IncompleteError: a file cannot be reached.
        InputError: a file crashes every process that decodes it, or all masks are empty or full.
    """
    starts = range(0, len(run.pairs), CHUNK)
    rows = [pairs_row(run.pairs[start : start + CHUNK], run.crcs) for start in starts]
    options = PairOptions(
        image_dir=run.image_dir,
        mask_dir=run.mask_dir,
        downscale=downscale,
        size=run.size,
        low_priority=shared_cpus is not None,
    )
    names = from_blocks(rows)
    names.context.execution_options.preserve_order = True
    tasks = max(1, 3 * shared_cpus // 4) if shared_cpus else None
    decoded = names.map_batches(
        functools.partial(read_pairs, options=options),
        batch_size=None,
        num_cpus=1,
        max_retries=RETRIES,
        compute=ray.data.TaskPoolStrategy(tasks),
    )
    chunks: list[Any] = []
    try:
        bundles = decoded.iter_internal_ref_bundles()  # materialize() would report no progress
        for bundle, row in zip(bundles, rows, strict=True):
            if len(bundle.block_refs) != 1 or bundle.num_rows() != len(row["image_names"]):
                raise RuntimeError("Ray Data cut or joined a chunk of pairs")
            chunks.append(bundle.block_refs[0])
            on_progress(min(len(chunks) * CHUNK, len(run.pairs)))
    except ray.exceptions.RayTaskError:
        raise  # an exception of the task, not a crash
    except ray.exceptions.RayError as error:
        _raise_crash(run, options, len(chunks) * CHUNK, error)
    errors, notes = _collect_remarks(chunks)
    _warn_of_unusual_masks(run, errors, notes)
    return chunks, errors


def _raise_crash(
    run: TrainingRun, options: PairOptions, first: int, error: ray.exceptions.RayError
) -> NoReturn:
    """Raise the reason why a chunk was lost. It is any of those that begin at pair `first`.

    Raises:
        InputError: a pair crashes the process that decodes it.
        IncompleteError: a process or a machine was lost for another reason.
    """
    mask_of = dict(run.pairs)

    def row_of(image: FileInfo) -> dict[str, Any]:
        return pairs_row([(image, mask_of[image])], run.crcs)

    def read_alone(row: dict[str, Any]) -> None:
        read_pairs({name: [value] for name, value in row.items()}, options)

    for start in range(first, len(run.pairs), CHUNK):
        images = [image for image, _ in run.pairs[start : start + CHUNK]]
        for image in find_crashing(images, in_ray_tasks(read_alone, input_of=row_of)):
            raise InputError(
                f"--data: {image.name} or {mask_of[image].name} crashes the process that decodes "
                "it; replace these files"
            ) from error
    raise IncompleteError(
        f"--data: a process or a machine was lost while it decoded images ({first_line(error)}); "
        "run again"
    ) from error


@ray.remote(num_cpus=1, max_retries=RETRIES)  # without a CPU each would start a process
def _remarks_of(chunk: Any) -> tuple[list[str], list[str]]:
    """Return the errors and the notes of a chunk's pairs; runs where the chunk is."""
    return chunk.column("error").to_pylist(), chunk.column("note").to_pylist()


def _collect_remarks(chunks: list[Any]) -> tuple[list[str], list[str]]:
    """Return the errors and the notes of all pairs; raise `IncompleteError` if storage failed."""
    found = ray.get([_remarks_of.remote(chunk) for chunk in chunks])
    errors = [error for chunk_errors, _ in found for error in chunk_errors]
    notes = [note for _, chunk_notes in found for note in chunk_notes]
    if unreachable := [error for error in errors if f": {quarantine.UNREACHABLE}" in error]:
        files = count_of(len(unreachable), "files")
        raise IncompleteError(
            f"--data: {files} cannot be reached, the first is {unreachable[0]}; run again"
        )
    return errors, notes


def _warn_of_unusual_masks(run: TrainingRun, errors: list[str], notes: list[str]) -> None:
    """Count masks that are all car or all ground in one line.

    Raises:
        InputError: all good masks are.
    """
    first = dict(zip(reversed(notes), [mask.name for _, mask in reversed(run.pairs)], strict=True))
    counts = Counter(filter(None, notes))
    if not counts:
        return
    words = "; ".join(f"{count} {note}, such as {first[note]}" for note, count in counts.items())
    good = errors.count("")
    if counts[ALL_GROUND] + counts[ALL_CAR] == good:
        raise InputError(f"--data: no mask shows a car and ground: of {good} masks {words}")
    log.warning("look at these of %s: %s", count_of(good, "masks"), words)


def store_budget(store: int, cached: int) -> int:
    """Return the bytes of the object stores that the stream may fill with batches.

    Ray Data's own limit is half of the `store` bytes, and ignores the `cached` bytes of the decoded
    chunks. The 5,088 pairs of Kaggle take 1.56 GB of the 2.4 GB of a machine with 8 GB, which
    leaves space for a dozen batches of 16.
    """
    return max(min(store // 2, int(store * MAX_STORE_FRACTION) - cached), MIN_STREAM_BYTES)


def batch_stream(
    spec: BatchSpec,
    first_epoch: int = 0,
    steps: int = 1,
    elastic: bool = False,
    on_gpu: bool = False,
) -> ray.data.Dataset:
    """Return the batches of a run from `first_epoch` on, one block for each worker in turn.

    Args:
        spec: plan, chunks and augmentation.
        first_epoch: counted from 0.
        steps: steps in a block, see `steps_per_block`.
        elastic: Ray Train may reserve all CPUs for its workers, so the maps reserve none.
        on_gpu: workers on GPUs may start before the pairs are decoded. The number of tasks is
            limited, so that decoding has CPUs left.
    """
    plan = spec.plan
    first_step = first_epoch * plan.steps_per_epoch
    groups = -(-(plan.total_steps - first_step) // steps)
    count = groups * plan.workers
    num_cpus, tasks = None, TASKS_PER_GPU_WORKER * plan.workers if on_gpu else None
    if elastic:  # the tasks of `range` would each reserve a CPU
        numbers = from_blocks([{"id": number} for number in range(count)])
        num_cpus, tasks = 0, TASKS_PER_CPU_WORKER * plan.workers
    else:
        numbers = keep_blocks_whole(ray.data.range(count, override_num_blocks=count))
    compute = ray.data.TaskPoolStrategy(tasks)
    assemble = functools.partial(assemble_batches, spec=spec, first_step=first_step, steps=steps)
    batches = numbers.map_batches(assemble, batch_size=None, num_cpus=num_cpus, compute=compute)
    if spec.recipe.affine_augment:
        return batches
    return batches.map_batches(standardize, batch_size=None, num_cpus=num_cpus, compute=compute)
