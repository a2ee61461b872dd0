"""The batches of a run over a grid of sizes: which images, how often, and for which worker."""

import itertools

import numpy as np
import pytest

from carvana_ray.errors import InputError
from carvana_ray.training.batch_plan import BatchPlan, WorkerBatch

EPOCHS = 3
GRID = [
    (train, val, batch, workers)
    for train, val, batch, workers in itertools.product(
        (1, 4, 7, 16, 33), (0, 1, 4, 5, 8, 9), (1, 4, 6, 8), (1, 2, 3, 4, 7)
    )
    if workers <= batch <= train
]


def plan(
    train: int, val: int, batch: int, workers: int, epochs: int = EPOCHS, seed: int = 0
) -> BatchPlan:
    return BatchPlan(train=train, val=val, batch=batch, workers=workers, epochs=epochs, seed=seed)


def blocks(one: BatchPlan) -> list[WorkerBatch]:
    return [one.worker_batch(index) for index in range(one.epochs * one.blocks_per_epoch)]


def epoch(one: BatchPlan, number: int, training: bool) -> list[WorkerBatch]:
    return [b for b in blocks(one) if b.epoch == number and b.training == training]


def together(parts: list[WorkerBatch]) -> tuple[np.ndarray, np.ndarray]:
    images = np.concatenate([b.indices for b in parts]) if parts else np.empty(0, np.int64)
    weight = np.concatenate([b.weight for b in parts]) if parts else np.empty(0, np.float32)
    return images, weight


def real(block: WorkerBatch) -> list[int]:
    """Return the images of a worker batch without padding."""
    return block.indices[block.weight == 1].tolist()


def batches(one: BatchPlan) -> list[tuple[int, int, bool, list[int]]]:
    """Return the whole batches of a run, in order and without padding."""
    found = []
    for (number, step), group in itertools.groupby(blocks(one), key=lambda b: (b.epoch, b.step)):
        parts = list(group)
        columns = itertools.zip_longest(*(real(part) for part in parts))
        images = [image for column in columns for image in column if image is not None]
        found.append((number, step, parts[0].training, images))
    return found


@pytest.mark.parametrize(("train", "val", "batch", "workers"), GRID)
def test_an_epoch_uses_each_image_once(train: int, val: int, batch: int, workers: int) -> None:
    one = plan(train, val, batch, workers)
    assert one.blocks_per_epoch * EPOCHS == len(blocks(one))
    for number in range(EPOCHS):
        images, weight = together(epoch(one, number, training=True))
        seen = images[weight == 1].tolist()
        assert len(seen) == train - train % batch, "all but the remainder are seen"
        assert len(set(seen)) == len(seen), "no image is seen twice"
        assert set(images.tolist()) == set(seen) <= set(range(train)), "padding repeats images"
        assert set(weight.tolist()) <= {0.0, 1.0}

        images, weight = together(epoch(one, number, training=False))
        assert sorted(images[weight == 1].tolist()) == list(range(train, train + val))
        assert set(weight.tolist()) <= {0.0, 1.0}
        assert len(images) == -(-val // batch) * workers * one.per_worker, "whole batches"
        assert set(images.tolist()) <= set(range(train, train + val)), "padding too"


@pytest.mark.parametrize(("train", "val", "batch", "workers"), GRID)
def test_worker_batches_alternate_between_ranks_and_have_equal_length(
    train: int, val: int, batch: int, workers: int
) -> None:
    for index, one in enumerate(blocks(plan(train, val, batch, workers))):
        assert one.rank == index % workers
        assert one.indices.shape == one.weight.shape == (-(-batch // workers),)
        assert one.indices.dtype == np.int64
        assert one.weight.dtype == np.float32


@pytest.mark.parametrize(("train", "val", "batch", "workers"), GRID)
def test_batches_are_split_evenly_and_padding_comes_last(
    train: int, val: int, batch: int, workers: int
) -> None:
    one = plan(train, val, batch, workers)
    for block in blocks(one):
        count = len(real(block))
        assert block.weight.tolist() == [1.0] * count + [0.0] * (one.per_worker - count)
        if block.training:
            assert count == batch // workers + (block.rank < batch % workers)
            assert count >= 1, "every worker has something to learn from"
            assert set(block.indices[count:].tolist()) <= {real(block)[-1]}


def test_sixteen_images_are_six_five_and_five_for_three_workers() -> None:
    one = plan(33, 0, 16, 3)
    assert one.per_worker == 6
    assert [b.weight.sum() for b in blocks(one)[:3]] == [6, 5, 5]
    order = one.permutation(0)[:16].tolist()
    assert [real(b) for b in blocks(one)[:3]] == [order[0::3], order[1::3], order[2::3]]


def test_within_an_epoch_training_comes_first_and_steps_count_up() -> None:
    found = batches(plan(33, 9, 4, 2))
    assert [(number, step) for number, step, *_ in found] == [
        (number, step) for number in range(EPOCHS) for step in range(8 + 3)
    ]
    assert all(training == (step < 8) for _, step, training, *_ in found)


@pytest.mark.parametrize("batch", [1, 7, 8, 12, 16])
def test_the_batches_do_not_depend_on_the_number_of_workers(batch: int) -> None:
    alone = batches(plan(33, 9, batch, 1))
    steps = -(-9 // batch)
    assert sum(len(images) for *_, images in alone) == EPOCHS * (33 // batch * batch + 9)
    assert len(alone) == EPOCHS * (33 // batch + steps)
    for workers in range(1, batch + 1):
        assert batches(plan(33, 9, batch, workers)) == alone, workers


def test_epochs_differ_in_order_and_in_the_images_left_out() -> None:
    one = plan(33, 0, 8, 1, epochs=20)
    orders = [
        tuple(together(epoch(one, number, training=True))[0].tolist()) for number in range(20)
    ]
    assert len(set(orders)) == 20
    assert len({frozenset(order) for order in orders}) > 10


def test_an_order_is_a_permutation_of_seed_and_epoch() -> None:
    one = plan(33, 0, 8, 1)
    assert sorted(one.permutation(0).tolist()) == list(range(33))
    assert one.permutation(1).tolist() == plan(33, 5, 4, 2).permutation(1).tolist()
    assert one.permutation(1).tolist() != plan(33, 0, 8, 1, seed=1).permutation(1).tolist()
    assert one.permutation(1).tolist() != one.permutation(2).tolist()


def test_validation_images_keep_their_listed_order_in_every_epoch() -> None:
    one = plan(8, 9, 4, 1)
    for number in range(EPOCHS):
        images, weight = together(epoch(one, number, training=False))
        assert images[weight == 1].tolist() == list(range(8, 17))


def test_a_worker_batch_does_not_depend_on_those_before_it() -> None:
    one, other = plan(33, 9, 4, 2), plan(33, 9, 4, 2)
    assert np.array_equal(one.worker_batch(25).indices, blocks(other)[25].indices)


def test_the_generator_of_an_image_does_not_depend_on_its_row() -> None:
    draws = []
    for workers in (1, 2, 3, 4, 5, 8):
        one = plan(33, 0, 8, workers)
        draws.append(
            {
                (b.epoch, image): one.rng(b, row).random()
                for b in blocks(one)
                for row, image in enumerate(real(b))
            }
        )
    assert all(draw == draws[0] for draw in draws)
    assert len(set(draws[0].values())) == len(draws[0]), "each image and epoch has its own"


def test_the_generator_of_an_image_depends_on_the_seed() -> None:
    one, other = plan(8, 0, 8, 1), plan(8, 0, 8, 1, seed=1)
    block = one.worker_batch(0)
    assert one.rng(block, 0).random() != other.rng(block, 0).random()


@pytest.mark.parametrize(("batch", "workers"), [(1, 2), (2, 4), (16, 17)])
def test_more_workers_than_images_in_a_batch_are_an_error_that_names_both_flags(
    batch: int, workers: int
) -> None:
    with pytest.raises(InputError, match=rf"--batch-size {batch} .*--workers {workers} ") as caught:
        plan(100, 10, batch, workers)
    assert "\n" not in str(caught.value)
    assert plan(100, 10, batch, batch).per_worker == 1


def test_a_batch_above_the_training_set_names_its_flag() -> None:
    with pytest.raises(InputError, match=r"--batch-size 16 .* 15 "):
        plan(15, 10, 16, 1)
