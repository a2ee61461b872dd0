"""Batches that the device gathers are those that the stream would have brought."""

import dataclasses
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.training import disks
from torch import Tensor

from carvana_ray import images
from carvana_ray.config.recipes import RECIPES, Recipe
from carvana_ray.images import augment
from carvana_ray.training import device_cache
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.device_cache import CachePlan, allocate, stream_once
from carvana_ray.training.prefetch import Arrays
from carvana_ray.training.state import Batch

CPU = torch.device("cpu")
PLAN = BatchPlan(train=19, val=6, batch=4, workers=1, epochs=4, seed=3)  # 3 images are left out
GRAY, MASK = disks()


def of_images(recipe: Recipe, numbers: NDArray[np.int64]) -> Arrays:
    """The images as the stream has them before it mirrors any."""
    gray = GRAY[numbers]
    image = gray if recipe.affine_augment else images.standardize(gray)
    return {"image": image, "soft_mask": MASK[numbers]}


def streamed(plan: BatchPlan, recipe: Recipe, rank: int, first: int) -> Generator[Batch]:
    """A worker's batches, from the definition of the stream: mirrored, then standardized."""
    for index in range(first * plan.blocks_per_epoch, plan.epochs * plan.blocks_per_epoch):
        batch = plan.worker_batch(index)
        if batch.rank != rank:
            continue
        gray, mask = GRAY[batch.indices], MASK[batch.indices]
        rngs = [np.random.default_rng((plan.seed, batch.epoch, i, 1)) for i in batch.indices]
        block: Arrays = {"weight": batch.weight}
        if recipe.affine_augment:
            limits = recipe.flip, recipe.max_shift, recipe.max_log_scale
            block["affine"] = np.stack([augment.sample_affine(rng, *limits) for rng in rngs])
        elif recipe.flip and batch.training:
            turned = np.array([augment.coin(rng) for rng in rngs])[:, None, None]
            gray, mask = (np.where(turned, x[:, :, ::-1], x) for x in (gray, mask))
        block["image"] = gray if recipe.affine_augment else images.standardize(gray)
        block["soft_mask"] = mask
        yield {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in block.items()}


def exchange(workers: int) -> Callable[[int], Callable[[Tensor], None]]:
    """Return what `share_parts` is for workers in threads, by rank."""
    barrier, seen = threading.Barrier(workers, timeout=30), dict[int, Tensor]()

    def of_rank(rank: int) -> Callable[[Tensor], None]:
        def share(parts: Tensor) -> None:
            seen[rank] = parts[rank].clone()
            barrier.wait()
            parts.copy_(torch.stack([seen[other] for other in range(workers)]))
            barrier.wait()

        return share

    return of_rank


def cache_of(plan: BatchPlan, recipe: Recipe, rank: int, first: int, block: int) -> CachePlan:
    return CachePlan(plan=plan, recipe=recipe, epoch=first, rank=rank, grid=(32, 48), block=block)


def all_batches(plan: BatchPlan, recipe: Recipe, first: int, block: int) -> list[list[Batch]]:
    """The batches of all workers, by rank, of which only the first epoch is streamed."""
    share_of = exchange(plan.workers)

    def run(rank: int) -> list[Batch]:
        cache = cache_of(plan, recipe, rank, first, block)
        kept = allocate(cache, CPU, cache.nbytes)
        assert kept is not None
        for tensor in kept.values():
            tensor.fill_(77)
        stream = streamed(plan, recipe, rank, first)
        fetched = stream_once(stream, cache, kept, lambda n: of_images(recipe, n), share_of(rank))
        batches = [{name: value.clone() for name, value in batch.items()} for batch in fetched]
        assert next(stream, None) is None, "closed, though it had more epochs"
        return batches

    with ThreadPoolExecutor(plan.workers) as pool:
        return list(pool.map(run, range(plan.workers)))


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("recipe", ["best", "default", "2017"])
@pytest.mark.parametrize(("first", "block"), [(0, 1), (1, 3)])
def test_the_batches_are_those_of_the_stream(
    recipe: str, workers: int, first: int, block: int
) -> None:
    """Also after a resume, for images that the first epoch left out, and for padded batches."""
    plan = dataclasses.replace(PLAN, workers=workers)
    for rank, batches in enumerate(all_batches(plan, RECIPES[recipe], first, block)):
        expected = list(streamed(plan, RECIPES[recipe], rank, first))
        assert len(batches) == len(expected) == (4 - first) * plan.steps_per_epoch
        for batch, other in zip(batches, expected, strict=True):
            assert set(batch) == set(other)
            image, other_image = batch.pop("image"), other.pop("image")
            assert image.dtype == other_image.dtype
            # The mean of a mirrored image adds up in another order.
            torch.testing.assert_close(
                image, other_image, rtol=0, atol=1e-5 if recipe == "default" else 0
            )
            assert all(torch.equal(batch[name], value) for name, value in other.items())


def test_the_size_decides() -> None:
    """Five bytes for a standardized pixel and its mask, two for gray levels, in each row."""
    plan = BatchPlan(train=4800, val=288, batch=8, workers=1, epochs=5, seed=0)
    small = cache_of(plan, RECIPES["default"], 0, 0, 1)
    assert small.nbytes == 5 * 5088 * 32 * 48
    large = cache_of(plan, RECIPES["best"], 0, 0, 1)
    assert large.nbytes == 2 * 5088 * 32 * 48
    assert allocate(large, CPU, large.nbytes - 1) is None
    kept = allocate(large, CPU, large.nbytes)
    assert kept is not None
    assert sum(tensor.nbytes for tensor in kept.values()) == large.nbytes
    assert device_cache.free_bytes(CPU) == 0


def test_memory_that_is_gone_means_that_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", fail)
    assert allocate(cache_of(PLAN, RECIPES["best"], 0, 0, 1), CPU, 10**9) is None


def test_a_fault_of_the_fetch_is_raised() -> None:
    cache = cache_of(PLAN, RECIPES["best"], 0, 0, 1)
    kept = allocate(cache, CPU, cache.nbytes)
    assert kept is not None

    def fetch(numbers: NDArray[np.int64]) -> Arrays:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        list(stream_once(streamed(PLAN, RECIPES["best"], 0, 0), cache, kept, fetch))
