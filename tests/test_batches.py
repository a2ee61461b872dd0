"""The batches of a run: what is seen, how often and by whom, over a grid of sizes."""

import itertools

import numpy as np
import pytest

from carvana_ray.batches import BatchPlan, Block
from carvana_ray.errors import InputError

EPOCHS = 3
GRID = [
    (train, val, batch, workers)
    for train, val, batch, workers in itertools.product(
        (1, 4, 7, 16, 33), (0, 1, 4, 5, 8, 9), (1, 4, 6, 8), (1, 2, 3, 4)
    )
    if batch % workers == 0 and train >= batch
]


def plan(
    train: int, val: int, batch: int, workers: int, epochs: int = EPOCHS, seed: int = 0
) -> BatchPlan:
    return BatchPlan(train=train, val=val, batch=batch, workers=workers, epochs=epochs, seed=seed)


def blocks(one: BatchPlan) -> list[Block]:
    return [one.block(index) for index in range(one.epochs * one.blocks_per_epoch)]


def epoch(one: BatchPlan, number: int, training: bool) -> list[Block]:
    return [b for b in blocks(one) if b.epoch == number and b.training == training]


def together(parts: list[Block]) -> tuple[np.ndarray, np.ndarray]:
    pictures = np.concatenate([b.pictures for b in parts]) if parts else np.empty(0, np.int64)
    weight = np.concatenate([b.weight for b in parts]) if parts else np.empty(0, np.float32)
    return pictures, weight


def batches(one: BatchPlan) -> list[tuple[int, int, bool, list[int], list[float]]]:
    """Return the whole batches of a run, each sorted, so that workers can be compared."""
    found = []
    for (number, step), group in itertools.groupby(blocks(one), key=lambda b: (b.epoch, b.step)):
        parts = list(group)
        pictures, weight = together(parts)
        rows = sorted(zip(pictures.tolist(), weight.tolist(), strict=True))
        found.append((number, step, parts[0].training, [p for p, _ in rows], [w for _, w in rows]))
    return found


@pytest.mark.parametrize(("train", "val", "batch", "workers"), GRID)
def test_every_law_of_an_epoch(train: int, val: int, batch: int, workers: int) -> None:
    one = plan(train, val, batch, workers)
    assert one.blocks_per_epoch * EPOCHS == len(blocks(one))
    for number in range(EPOCHS):
        pictures, weight = together(epoch(one, number, training=True))
        assert len(pictures) == train - train % batch, "all but the remainder are seen"
        assert len(set(pictures.tolist())) == len(pictures), "no picture is seen twice"
        assert set(pictures.tolist()) <= set(range(train))
        assert (weight == 1).all()

        pictures, weight = together(epoch(one, number, training=False))
        assert sorted(pictures[weight == 1].tolist()) == list(range(train, train + val))
        assert set(weight.tolist()) <= {0.0, 1.0}
        assert len(pictures) == -(-val // batch) * batch, "whole batches"
        assert set(pictures.tolist()) <= set(range(train, train + val)), "fillers are pictures too"


@pytest.mark.parametrize(("train", "val", "batch", "workers"), GRID)
def test_blocks_go_round_the_ranks_and_have_equal_length(
    train: int, val: int, batch: int, workers: int
) -> None:
    for index, one in enumerate(blocks(plan(train, val, batch, workers))):
        assert one.rank == index % workers
        assert one.pictures.shape == one.weight.shape == (batch // workers,)
        assert one.pictures.dtype == np.int64
        assert one.weight.dtype == np.float32


def test_within_an_epoch_training_comes_first_and_steps_count_up() -> None:
    found = batches(plan(33, 9, 4, 2))
    assert [(number, step) for number, step, *_ in found] == [
        (number, step) for number in range(EPOCHS) for step in range(8 + 3)
    ]
    assert all(training == (step < 8) for _, step, training, *_ in found)


@pytest.mark.parametrize("batch", [8, 12])
def test_the_batches_do_not_depend_on_the_number_of_workers(batch: int) -> None:
    alone = batches(plan(33, 9, batch, 1))
    for workers in (2, 4, batch):
        assert batches(plan(33, 9, batch, workers)) == alone


def test_epochs_differ_in_order_and_in_what_is_left_out() -> None:
    one = plan(33, 0, 8, 1, epochs=20)
    orders = [
        tuple(together(epoch(one, number, training=True))[0].tolist()) for number in range(20)
    ]
    assert len(set(orders)) == 20
    assert len({frozenset(order) for order in orders}) > 10


def test_an_order_is_a_permutation_of_seed_and_epoch() -> None:
    one = plan(33, 0, 8, 1)
    assert sorted(one.order(0).tolist()) == list(range(33))
    assert one.order(1).tolist() == plan(33, 5, 4, 2).order(1).tolist()
    assert one.order(1).tolist() != plan(33, 0, 8, 1, seed=1).order(1).tolist()
    assert one.order(1).tolist() != one.order(2).tolist()


def test_the_validation_pictures_come_in_listed_order_in_every_epoch() -> None:
    one = plan(8, 9, 4, 1)
    for number in range(EPOCHS):
        pictures, weight = together(epoch(one, number, training=False))
        assert pictures[weight == 1].tolist() == list(range(8, 17))


def test_a_block_can_be_asked_for_without_those_before_it() -> None:
    one, other = plan(33, 9, 4, 2), plan(33, 9, 4, 2)
    assert np.array_equal(one.block(25).pictures, blocks(other)[25].pictures)


def test_the_generator_of_a_picture_does_not_depend_on_where_it_lies() -> None:
    draws = []
    for workers in (1, 2, 4):
        one = plan(33, 0, 8, workers)
        draws.append(
            {
                (b.epoch, int(picture)): one.rng(b, place).random()
                for b in blocks(one)
                for place, picture in enumerate(b.pictures)
            }
        )
    assert draws[0] == draws[1] == draws[2]
    assert len(set(draws[0].values())) == len(draws[0]), "each picture and epoch has its own"


def test_the_generator_of_a_picture_depends_on_the_seed() -> None:
    one, other = plan(8, 0, 8, 1), plan(8, 0, 8, 1, seed=1)
    block = one.block(0)
    assert one.rng(block, 0).random() != other.rng(block, 0).random()


def test_a_batch_that_cannot_be_shared_names_both_flags() -> None:
    with pytest.raises(InputError, match=r"--batch-size 16 .*--workers 3") as caught:
        plan(100, 10, 16, 3)
    assert "\n" not in str(caught.value)


def test_more_workers_than_pictures_in_a_batch_are_an_error() -> None:
    with pytest.raises(InputError, match=r"--batch-size 2 .*--workers 4"):
        plan(100, 10, 2, 4)


def test_a_batch_above_the_training_set_names_its_flag() -> None:
    with pytest.raises(InputError, match=r"--batch-size 16 .* 15 "):
        plan(15, 10, 16, 1)
