"""Batches on their way to a device: complete, in order, with their errors."""

import threading
from collections.abc import Generator

import numpy as np
import pytest
import torch

from carvana_ray.training.prefetch import Arrays, prefetch_to_device

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
        ],
    ),
]


def some(count: int) -> Generator[Arrays]:
    for number in range(count):
        image = np.full((4, 32, 48), number, dtype=np.float32)
        image.flags.writeable = False  # as arrays from the object store are
        yield {"image": image, "soft_mask": np.full((4, 3), number, dtype=np.uint8)}


@pytest.mark.parametrize("device", DEVICES)
def test_all_batches_arrive_in_order(device: str) -> None:
    for number, batch in enumerate(prefetch_to_device(some(40), 4, torch.device(device))):
        assert batch["image"].device.type == device
        assert batch["image"].dtype == torch.float32
        assert batch["soft_mask"].dtype == torch.uint8
        total = batch["image"].sum().item(), batch["soft_mask"].sum().item()
        assert total == (number * 4 * 32 * 48, number * 12)
    assert number == 39


@pytest.mark.parametrize("device", DEVICES)
def test_blocks_of_several_batches_are_cut(device: str) -> None:
    blocks = ({"soft_mask": np.arange(start, start + 6, dtype=np.uint8)} for start in (0, 6))
    found = [
        batch["soft_mask"].tolist() for batch in prefetch_to_device(blocks, 2, torch.device(device))
    ]
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]


@pytest.mark.parametrize("device", DEVICES)
def test_an_error_comes_where_its_batch_is_due(device: str) -> None:
    def broken() -> Generator[Arrays]:
        yield from some(3)
        raise RuntimeError("the fourth")

    batches = prefetch_to_device(broken(), 4, torch.device(device))
    assert [int(next(batches)["soft_mask"][0, 0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="the fourth"):
        next(batches)


@pytest.mark.parametrize("device", DEVICES)
def test_a_consumer_may_stop_early(device: str) -> None:
    """The source is closed, so that Ray Data stops its work."""
    closed = threading.Event()

    def endless() -> Generator[Arrays]:
        try:
            while True:
                yield from some(1)
        finally:
            closed.set()

    batches = prefetch_to_device(endless(), 4, torch.device(device))
    next(batches)
    batches.close()
    assert closed.wait(10)
