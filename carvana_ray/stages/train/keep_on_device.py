"""The choice whether a training streams every epoch or keeps its first one on the device."""

from collections.abc import Generator, Iterator

import torch
from numpy.typing import NDArray

from carvana_ray.runtime.wording import count_of, format_bytes
from carvana_ray.stages.ingest.blocks import Columns, standardize
from carvana_ray.stages.train.assemble_batches import BatchSpec, gather_pairs
from carvana_ray.training import device_cache
from carvana_ray.training.device_cache import CachePlan
from carvana_ray.training.state import Batch


def keep_on_device(
    streamed: Generator[Batch],
    cache: CachePlan,
    spec: BatchSpec,
    device: torch.device,
    cache_bytes: int | None,
) -> Iterator[Batch]:
    """Return a worker's batches: all from its stream, or after the first epoch from its device.

    They come from the device if the images fit there on all workers, which wait for each other
    here. On a CPU they come from the stream unless `cache_bytes` is given.

    Args:
        streamed: the batches from ``cache.epoch`` on.
        cache: the rows.
        spec: of the stream.
        device: of the worker.
        cache_bytes: bytes that the images may take there; None for what a GPU has free.
    """
    if cache.epoch + 1 == cache.plan.epochs or (cache_bytes is None and device.type != "cuda"):
        return streamed
    limit = device_cache.free_bytes(device) if cache_bytes is None else cache_bytes
    kept = device_cache.allocate(cache, device, limit)
    fits = device_cache.on_all_workers(kept is not None, device)
    if cache.rank == 0:
        spec.progress.set_note.remote(describe(cache, fits))
    if kept is None or not fits:
        return streamed

    def fetch(images: NDArray) -> Columns:
        pairs = gather_pairs(spec, images)
        return pairs if cache.recipe.affine_augment else standardize(pairs)

    return device_cache.stream_once(streamed, cache, kept, fetch)


def describe(cache: CachePlan, fits: bool) -> str:
    """Return the choice in words."""
    pairs = count_of(cache.plan.train + cache.plan.val, "pairs")
    size = format_bytes(cache.nbytes)
    if fits:
        return f"{pairs} ({size}) stay on the GPU after the first epoch"
    return f"{pairs} ({size}) do not fit on the GPU: each epoch is streamed"
