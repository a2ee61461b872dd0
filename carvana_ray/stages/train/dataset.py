"""The stream of training batches: decoded once, in an order that is a function of the seed.

    names -> map_batches(load_pairs) -> uint8 chunks in the object store          once a run
    steps of the run -> map_batches(take) -> map_batches(standardize) -> workers   streaming

One stream holds all epochs, so that neither an epoch's end nor its validation makes the workers
wait: the next batches are under way already. Memory: 0.3 MB a picture and mask at a quarter, 1.6 GB
for all 5,088 of Kaggle, over the cluster's object stores (beyond them Ray spills to disk).
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from carvana_ray.data import quarantine
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import crash_isolation as poison
from carvana_ray.stages.ingest import read_pairs as reading_pairs
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.train import assemble_batches as take
from carvana_ray.stages.train.assemble_batches import CHUNK
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.run import TrainingRun

TASKS_A_WORKER = 2  # on CPUs, elastic
TASKS_A_GPU = 8  # a block of 64 pictures takes 0.13 s of a core, and an H200 17 of them a second
FILLED, LEAST_ROOM = 0.7, 150_000_000


def decode_pairs(
    course: TrainingRun,
    downscale: int,
    progress: Callable[[int], None] = lambda done: None,
    beside: int | None = None,
) -> tuple[list[Any], list[str]]:
    """Read and decode all pairs of a course in parallel.

    Args:
        course: says which, and where they are.
        downscale: see `images.load_gray`.
        progress: called with the number of pairs done.
        beside: of the cluster's CPUs, where workers start meanwhile: those are let through first,
            and get a quarter of them.

    Returns:
        the chunks, `CHUNK` pairs each, in order; and what is wrong with each pair, "" for nothing.

    Raises:
        Unfinished: a file cannot be reached, or kills each process that reads it.
    """
    rows = [
        reading_pairs.pairs_row(course.pairs[at : at + CHUNK], course.crcs)
        for at in range(0, len(course.pairs), CHUNK)
    ]
    load = functools.partial(
        reading_pairs.read_pairs if beside is None else reading_pairs.read_pairs_low_priority,
        pictures=course.pictures,
        masks=course.masks,
        downscale=downscale,
        size=course.size,
    )
    read = dataset.from_blocks(rows)
    read.context.execution_options.preserve_order = True
    decoded = read.map_batches(
        load,
        batch_size=None,
        num_cpus=1,
        max_retries=dataset.RETRIES,
        compute=None if beside is None else ray.data.TaskPoolStrategy(max(1, 3 * beside // 4)),
    )
    chunks: list[Any] = []
    done = 0
    try:
        bundles = decoded.iter_internal_ref_bundles()  # materialize() says nothing till the end
        for expected, bundle in zip(rows, bundles, strict=True):
            if len(bundle.block_refs) != 1 or bundle.num_rows() != len(expected["pairs"]):
                raise RuntimeError(f"a chunk of {len(expected['pairs'])} pairs came back otherwise")
            chunks += bundle.block_refs
            done += len(expected["pairs"])
            progress(done)
    except ray.exceptions.RayTaskError:
        raise  # an error of the program: no process died
    except ray.exceptions.RayError as error:
        names = poison.find_crashing(
            rows[len(chunks)]["pairs"], functools.partial(_alone, load, course)
        )
        if not names:
            raise
        raise InputError(f"--data: {names[0]} kills the process that reads it") from error
    table = ray.data.from_arrow_refs(chunks).select_columns(["error"])
    errors = [row["error"] for row in table.iter_rows()]
    if gone := [error for error in errors if f": {quarantine.UNREACHABLE}" in error]:
        raise IncompleteError(
            f"--data: {len(gone)} files cannot be reached, the first is {gone[0]}"
        )
    return chunks, errors


def _alone(load: Callable[[Columns], Columns], course: TrainingRun, pair: str) -> None:
    picture, mask = pair.split("/")
    row = reading_pairs.pairs_row([(picture, mask)], course.crcs)
    load({name: [value] for name, value in row.items()})


def store_budget(store: int, cached: int) -> int:
    """Return the bytes of the object stores that the stream may fill with batches.

    Ray spills objects to disk from 80 % on. Its own bound for a data set is half of the stores, as
    if nothing else were there; here the decoded pictures are. All 5,088 of Kaggle in the 2.4 GB of
    a machine with 8 GB: 1.56 GB, and room for a dozen batches of 16.

    Args:
        store: bytes of all object stores.
        cached: bytes of the decoded pictures.
    """
    return max(min(store // 2, int(store * FILLED) - cached), LEAST_ROOM)


def batch_stream(
    plan: BatchPlan,
    board: Any,
    kept: NDArray[np.int64],
    flip: bool,
    jitter: bool = False,
    first_epoch: int = 0,
    steps: int = 1,
    elastic: bool = False,
    on_gpu: bool = False,
) -> ray.data.Dataset:
    """Return the batches of a run from `first_epoch` on, a block for each worker in turn.

    Args:
        plan: of the run.
        board: has the chunks, or will have them.
        kept, flip: see `take.take`.
        jitter: likewise; the workers then move the pictures and standardize them, on their device.
        first_epoch: from 0.
        steps: whose pictures make a block.
        elastic: Ray Train decides the number of workers, and takes all CPUs for them where it can:
            the maps then run beside them without a CPU of their own.
        on_gpu: the workers are on GPUs, and may wait for the pictures before these are decoded:
            their maps must leave CPUs to that.
    """
    first = first_epoch * plan.steps_per_epoch
    batches = functools.partial(
        take.assemble_batches,
        plan=plan,
        board=board,
        kept=kept,
        flip=flip,
        jitter=jitter,
        first_step=first,
        steps=steps,
    )
    groups = -(-(plan.epochs * plan.steps_per_epoch - first) // steps)
    count = groups * plan.workers
    how: dict[str, Any] = {"batch_size": None}
    if elastic:  # not `range`: its tasks would ask for a CPU each
        blocks = dataset.from_blocks([{"id": number} for number in range(count)])
        how |= {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(TASKS_A_WORKER * plan.workers)}
    else:
        blocks = dataset.keep_blocks_whole(ray.data.range(count, override_num_blocks=count))
        if on_gpu:
            how["compute"] = ray.data.TaskPoolStrategy(TASKS_A_GPU * plan.workers)
    taken = blocks.map_batches(batches, **how)
    return taken if jitter else taken.map_batches(dataset.standardize, **how)
