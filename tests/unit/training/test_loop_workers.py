"""Steps of two workers, in processes of their own that reduce with gloo, against those of one."""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.multiprocessing
from support.training import PLAN, fresh, lone_worker, scaled, spoil, stream
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from carvana_ray.training import device_cache, loop
from carvana_ray.training.batch_plan import BatchPlan
from carvana_ray.training.state import Batch, TrainState

TWO = dataclasses.replace(PLAN, workers=2)
STEPS = 3


def all_reduce(value: Tensor) -> Tensor:
    total = value.clone()
    torch.distributed.all_reduce(total)
    return total


def own_batches(plan: BatchPlan, rank: int) -> Iterator[Batch]:
    return itertools.islice(stream(plan), rank, STEPS * plan.workers, plan.workers)


def take_steps(state: TrainState, batches: Iterator[Batch], worker: loop.WorkerContext) -> Tensor:
    """Take steps by plain gradient descent; Adam would hide a constant factor of the gradient."""
    state.optimizer = torch.optim.SGD(state.module.parameters(), lr=0.1)
    tallies = [loop.train_step(state, batch, worker)[0] for batch in batches]
    return torch.stack(tallies)


def weights_of(state: TrainState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.model.state_dict().items()}


def train_part(rank: int) -> dict[str, Any]:
    """Return the steps of a network without normalization layers, whose statistics would differ."""
    state, worker = fresh("2017"), lone_worker(count=2, all_reduce=all_reduce)
    state.wrapped = DistributedDataParallel(state.module, broadcast_buffers=False)
    tallies = take_steps(state, own_batches(TWO, rank), worker)
    return {"tallies": tallies, "weights": weights_of(state)}


def train_part_without_ddp(rank: int) -> dict[str, Any]:
    """Return the steps of `train_part`, the gradients added up as on GPUs."""
    state, worker = fresh("2017"), lone_worker(count=2, all_reduce=all_reduce)
    tallies = take_steps(state, own_batches(TWO, rank), worker)
    return {"tallies": tallies, "weights": weights_of(state)}


def overflow_in_one_worker(rank: int) -> list[dict[str, Tensor]]:
    """Return the network before the first step and after each; worker 0 overflows in the second."""
    state, worker = scaled(), lone_worker(count=2, all_reduce=all_reduce)
    state.wrapped = DistributedDataParallel(state.module, broadcast_buffers=False)
    if rank == 0:
        spoil(state, "activation", 1)
    found = [weights_of(state)]
    for batch in own_batches(TWO, rank):
        loop.train_step(state, batch, worker)
        found.append(weights_of(state))
    return found


def shared_parts(rank: int) -> dict[str, Any]:
    """Return what `device_cache` exchanges between workers."""
    parts = torch.zeros(2, 3, 5, dtype=torch.uint8)
    parts[rank] = 7 + rank
    device_cache.share_parts(parts)
    cpu = torch.device("cpu")
    agreed = [device_cache.on_all_workers(value, cpu) for value in (True, rank == 0, False)]
    return {"parts": parts, "agreed": agreed}


def run_worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    result = {
        "part": train_part(rank),
        "bare": train_part_without_ddp(rank),
        "overflow": overflow_in_one_worker(rank),
        "shared": shared_parts(rank),
    }
    torch.save(result, os.path.join(folder, f"{rank}.pt"))
    torch.distributed.barrier()  # neither may exit while the other still reduces
    # Not sys.exit: in about one of ten runs a thread of gloo still runs when Python exits, and C++
    # aborts the process ("terminate called without an active exception").
    os._exit(0)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of both workers."""
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(run_worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_workers_take_the_steps_of_one_with_the_whole_batch(
    results: list[dict[str, Any]],
) -> None:
    state = fresh("2017")
    before = weights_of(state)
    tallies = take_steps(state, own_batches(PLAN, 0), lone_worker())
    parts = [result["part"] for result in results]
    for part in parts:
        torch.testing.assert_close(part["tallies"][:, 2], tallies[:, 2] / 2)
        torch.testing.assert_close(part["tallies"][:, :2] * 2, tallies[:, :2])
        for name, expected in weights_of(state).items():
            moved, should_move = part["weights"][name] - before[name], expected - before[name]
            close = 1e-3 * should_move.abs().max().item()
            torch.testing.assert_close(moved, should_move, rtol=1e-3, atol=close, msg=name)
    torch.testing.assert_close(parts[0]["tallies"] + parts[1]["tallies"], tallies)


def test_gradients_added_up_in_one_reduction_are_those_of_ddp(
    results: list[dict[str, Any]],
) -> None:
    for result in results:
        torch.testing.assert_close(result["bare"]["tallies"], result["part"]["tallies"])
        for name, expected in result["part"]["weights"].items():
            torch.testing.assert_close(result["bare"]["weights"][name], expected, msg=name)
    bare = [result["bare"]["weights"] for result in results]
    assert all(torch.equal(value, bare[1][name]) for name, value in bare[0].items())


def test_a_step_that_overflows_in_one_worker_is_skipped_in_both(
    results: list[dict[str, Any]],
) -> None:
    for result in results:
        changed = [
            {name for name in before if not torch.equal(before[name], after[name])}
            for before, after in itertools.pairwise(result["overflow"])
        ]
        assert {name for name in changed[1] if "num_batches_tracked" not in name} == set()
        assert changed[0] == changed[2] == set(result["overflow"][0])
    for one, other in zip(results[0]["overflow"], results[1]["overflow"], strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one if "running" not in name)


def test_workers_exchange_their_parts_and_decide_alike(results: list[dict[str, Any]]) -> None:
    for result in results:
        parts = result["shared"]["parts"]
        assert (parts[0] == 7).all()
        assert (parts[1] == 8).all()
        assert result["shared"]["agreed"] == [True, False, False]
