"""The network as an actor: a GPU fault, and the resources of the maps around it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.blocks import batch_of, listed
from support.pairs import draw_pair
from support.watched import make_model

from carvana_ray.checkpoints.model import ModelRef, load_manifest
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest.ray_trials import LOST_A_REPLICA
from carvana_ray.stages.ingest.read_images import ReadOptions, block_row, read_images
from carvana_ray.stages.predict import replica
from carvana_ray.stages.predict.mask_predictor import MaskPredictor
from carvana_ray.stages.predict.replica import Replica
from carvana_ray.storage import FileInfo

SIZE = (320, 480)
ON_CPU = WorkerAllocation(1, 1, False)


def test_a_gpu_fault_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA repeats the error in that process; Ray starts a new process and repeats the block."""

    class EndedError(Exception):
        pass

    def end(code: int) -> None:
        raise EndedError(code)

    monkeypatch.setattr("os._exit", end)
    image = draw_pair(0, SIZE)[0]
    (tmp_path / "0.jpg").write_bytes(image)
    make_model(tmp_path / "model", [image])
    model = str(tmp_path / "model")
    actor = Replica(MaskPredictor, ModelRef(model, load_manifest(model).sha256), ON_CPU)
    row = block_row("x", listed(tmp_path, ["0.jpg"]))
    batch = read_images(batch_of(row), ReadOptions(str(tmp_path), 8, None, SIZE))

    def fault(*_: object) -> list[Any]:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(actor._predict._predictor, "run_bounds_mixed", fault)
    with pytest.raises(EndedError):
        actor(batch)


def test_files_that_the_readers_must_decode_get_all_cpus() -> None:
    small, large = (FileInfo("a.jpg", size, "1") for size in (2**20, 2**20 + 1))
    workers = WorkerAllocation(1, 1, True, decode_on_gpu=True)
    few = replica.reader_resources(workers, [small, large])
    assert few["compute"].size == replica.READERS_OF_FILES
    many = replica.reader_resources(workers, [small, large, large])
    assert "compute" not in many


def test_the_blocks_that_a_worker_holds_may_be_lost_with_its_machine() -> None:
    for decode_on_gpu in (False, True):
        workers = WorkerAllocation(1, 1, True, decode_on_gpu)
        pool = replica.replica_resources(workers, 4)["compute"]
        assert pool.max_size * pool.max_tasks_in_flight_per_actor <= LOST_A_REPLICA


@pytest.mark.parametrize(
    ("decode_on_gpu", "downscale", "batch", "replicas", "calls"),
    [(False, 4, 128, 2, 1), (True, 4, 256, 1, 3), (False, 1, 64, 2, 1), (True, 1, 64, 1, 3)],
)
def test_a_gpu_that_decodes_gets_larger_batches_in_one_process(
    decode_on_gpu: bool, downscale: int, batch: int, replicas: int, calls: int
) -> None:
    gpu = replica.replica_resources(WorkerAllocation(3, 1, True, decode_on_gpu), downscale)
    pool = gpu["compute"]
    assert (gpu["batch_size"], gpu["num_gpus"]) == (batch, 1 / replicas)
    assert (pool.min_size, pool.max_concurrent_calls_per_actor) == (3 * replicas, calls)
    assert pool.enable_true_multi_threading == (calls > 1)
    cpu = replica.replica_resources(WorkerAllocation(3, 2, False), downscale)
    assert (cpu["batch_size"], cpu["compute"].min_size, cpu["num_gpus"]) == (16, 3, None)
    assert (gpu["num_cpus"], cpu["num_cpus"]) == (0, 2)
