"""Workers get all CPUs that fit, node by node; other requests are refused."""

import functools
import itertools

import pytest

from carvana_ray import config
from carvana_ray.errors import InputError
from carvana_ray.runtime import resources
from carvana_ray.runtime.resources import (
    ClusterResources,
    WorkerAllocation,
    _count_fitting,
    allocate_workers,
)

Nodes = tuple[tuple[int, int], ...]


def cluster(
    *each: tuple[int, int], autoscaler_max: tuple[int, int] | None = None
) -> ClusterResources:
    """Return a cluster of nodes of (CPUs, GPUs)."""
    cpus, gpus = (sum(node[kind] for node in each) for kind in (0, 1))
    return ClusterResources(cpus, gpus, len(each), each, autoscaler_max)


def flags(
    workers: int | None = None, device: str = "cpu", least: int | None = None
) -> config.TrainFlags:
    return config.TrainFlags(workers=workers, device=device, min_workers=least)  # type: ignore[arg-type]


def refused(flags: config.ModelFlags, available: ClusterResources) -> str:
    with pytest.raises(InputError) as error:
        allocate_workers(flags, available)
    assert "\n" not in str(error.value)
    return str(error.value)


@functools.cache
def most(each: Nodes, cpus: int, use_gpu: bool) -> int:
    """Return how many workers fit, by trying each node for each worker in turn."""
    tries = [0]
    for at, (free_cpus, free_gpus) in enumerate(each):
        left = (free_cpus - cpus, free_gpus - use_gpu)
        if min(left) >= 0:
            rest = tuple(sorted((*each[:at], left, *each[at + 1 :])))
            tries.append(1 + most(rest, cpus, use_gpu))
    return max(tries)


SMALL_NODES = [(c, g) for c in (0, 1, 2, 3, 5) for g in (0, 1, 3)]
SMALL_CLUSTERS: list[Nodes] = [
    each
    for count in (1, 2, 3)
    for each in itertools.combinations_with_replacement(SMALL_NODES, count)
]


@pytest.mark.parametrize("use_gpu", [False, True])
def test_workers_are_counted_as_an_exhaustive_search_counts_them(use_gpu: bool) -> None:
    for each, cpus in itertools.product(SMALL_CLUSTERS, (1, 2, 3, 4)):
        assert _count_fitting(each, cpus, use_gpu) == most(tuple(sorted(each)), cpus, use_gpu), each


def best(each: Nodes, count: int, use_gpu: bool) -> int:
    """Return the most CPUs a worker for `count` workers and one CPU besides; 0: they do not fit."""
    cpus = sum(node[0] for node in each)
    fits = [
        per
        for per in ((1,) if use_gpu else range(1, cpus + 1))
        if count * per + 1 <= cpus and most(tuple(sorted(each)), per, use_gpu) >= count
    ]
    return max(fits, default=0)


@pytest.mark.parametrize("use_gpu", [False, True])
def test_workers_get_the_most_cpus_that_fit_or_a_refusal(use_gpu: bool) -> None:
    given = kept = 0
    for each, count in itertools.product(SMALL_CLUSTERS, (1, 2, 3, 4, 6)):
        available, request = cluster(*each), flags(count, "cuda" if use_gpu else "cpu")
        if per := best(each, count, use_gpu):
            assert allocate_workers(request, available) == WorkerAllocation(count, per, use_gpu), (
                each
            )
            given += 1
        else:
            assert refused(request, available).startswith(("--workers ", "--device cuda")), each
            kept += 1
    assert min(given, kept) > 100


def test_a_worker_takes_its_cpus_from_one_node() -> None:
    assert allocate_workers(flags(2), cluster((5, 0))).cpus == 2
    assert allocate_workers(flags(2), cluster((3, 0), (2, 0))).cpus == 2
    assert allocate_workers(flags(2), cluster((4, 0), (1, 0))).cpus == 2
    assert allocate_workers(flags(2), cluster((3, 0), (1, 0), (1, 0))).cpus == 1
    assert allocate_workers(flags(1), cluster((2, 0), (2, 0), (2, 0))).cpus == 2


def test_a_worker_takes_its_gpu_from_the_node_of_its_cpu() -> None:
    apart = cluster((0, 2), (8, 0))
    assert "--workers 2: the nodes have room for 0" in refused(flags(2, "cuda"), apart)
    assert "CPU and GPU must be on one node" in refused(flags(2, "cuda"), apart)
    assert allocate_workers(flags(2), apart).use_gpu is False
    assert allocate_workers(flags(device="auto"), cluster((2, 1), (2, 1))) == WorkerAllocation(
        2, 1, True
    )


def test_a_cluster_without_a_list_of_nodes_is_one_node() -> None:
    for count in (1, 2, 3):
        assert allocate_workers(flags(count), ClusterResources(8, 0, 1)) == allocate_workers(
            flags(count), cluster((8, 0))
        )


def test_nodes_without_cpus_change_nothing() -> None:
    assert allocate_workers(flags(2), cluster((5, 0), (0, 0))) == allocate_workers(
        flags(2), cluster((5, 0))
    )
    assert "needs 2 CPUs" in refused(flags(), cluster((0, 0)))


def test_nodes_that_an_autoscaler_may_add_count() -> None:
    available = cluster((2, 0), autoscaler_max=(64, 8))
    assert allocate_workers(flags(8), available) == WorkerAllocation(8, 1, False)
    assert allocate_workers(flags(8, "cuda"), available) == WorkerAllocation(8, 1, True)
    assert allocate_workers(flags(device="auto"), available) == WorkerAllocation(1, 1, True)
    assert "needs 9 CPUs" in refused(flags(8), cluster((2, 0)))


def test_more_than_the_autoscaler_may_add_is_refused() -> None:
    available = cluster((2, 0), autoscaler_max=(4, 2))
    assert "the autoscaler provides up to 4 CPUs and 2 GPUs" in refused(flags(4), available)
    assert "--workers 3: each worker needs a GPU; the autoscaler" in refused(
        flags(3, "cuda"), available
    )
    assert "Ray finds no GPU" in refused(flags(1, "cuda"), cluster((2, 0), autoscaler_max=(4, 0)))


def test_the_minimum_number_of_workers_must_fit() -> None:
    available = cluster((3, 0), (2, 0))
    assert "--workers 8" in refused(flags(8), available)
    assert 4 <= allocate_workers(flags(8, least=4), available).count <= 8
    assert "--min-workers 5: needs 6 CPUs" in refused(flags(8, least=5), available)
    gpus = cluster((4, 1), (4, 1))
    assert 2 <= allocate_workers(flags(8, "cuda", least=2), gpus).count <= 8
    assert "--min-workers 3: each worker needs a GPU" in refused(flags(8, "cuda", least=3), gpus)
    apart = cluster((1, 8), (64, 0))
    assert "--min-workers 2: the nodes have room for 1" in refused(flags(8, "cuda", least=2), apart)


def test_a_refusal_names_the_resources_and_the_remedies() -> None:
    assert refused(flags(3), cluster((2, 0), (1, 0))) == (
        "--workers 3: needs 4 CPUs (one for each worker, one to read images); the cluster has 3 "
        "CPUs and 0 GPUs; use fewer workers, more nodes, or --num-cpus 4 on one machine"
    )
    assert "the cluster has 1 CPU and 0 GPUs" in refused(flags(1), cluster((1, 0)))


def test_gpus_decode_jpegs_on_request_if_torchvision_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one_gpu, decoding = cluster((4, 1)), config.PredictFlags(decode="gpu", device="cuda")
    monkeypatch.setattr(resources, "find_spec", lambda name: None)
    assert "--decode gpu: needs torchvision" in refused(decoding, one_gpu)
    plain = allocate_workers(config.PredictFlags(device="cuda"), one_gpu)
    assert plain == WorkerAllocation(1, 1, True)
    monkeypatch.setattr(resources, "find_spec", lambda name: name == "torchvision")
    assert allocate_workers(decoding, one_gpu) == WorkerAllocation(1, 1, True, decode_on_gpu=True)
    on_cpu = config.PredictFlags(decode="gpu", device="cpu")
    assert "--decode gpu: the model runs on CPUs here" in refused(on_cpu, one_gpu)
