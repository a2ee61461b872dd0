"""The checkpoints of a training worker, written in the background.

Ray Train's own checkpoints are not used, see "Checkpoints are ours" in docs/architecture.md.
"""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ray.train
import torch

from carvana_ray.checkpoints import train_state
from carvana_ray.runtime.background import run_in_background
from carvana_ray.stages.ray_metrics import set_wait
from carvana_ray.stages.train.plan import TrainJob
from carvana_ray.training import tensorboard
from carvana_ray.training.run import best_epoch
from carvana_ray.training.state import Row, TrainState


class CheckpointWriter:
    """Writes the checkpoint of an epoch while the next epoch is trained.

    The worker of rank 0 writes; all workers report. An epoch is reported to Ray Train only when
    its checkpoint is on disk, so that training can resume from every reported epoch.
    """

    def __init__(self, job: TrainJob, rank: int) -> None:
        self._job, self._rank = job, rank
        if job.flags.tensorboard:
            tensorboard.require_writer()  # the package may be missing on this node
        self._writing: Future[None] | None = None
        self._row: Row = {}

    def on_epoch_end(self, state: TrainState) -> None:
        """Start writing the state after an epoch."""
        self.finish()
        self._row = dict(state.history[-1])
        if self._rank == 0:
            set_wait("train", self._row["data_wait_fraction"])
            snapshot, stream = _snapshot(state)
            self._writing = run_in_background(lambda: self._write(_fetch(snapshot, stream)))

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and report its epoch.

        An error of the write is raised here.
        """
        if self._writing:
            self._writing.result()
            self._writing = None
        if self._row:
            ray.train.report(self._row)
            self._row = {}

    def _write(self, state: dict[str, Any]) -> None:
        folder = self._job.checkpoint_dir
        train_state.save(folder, state, self._job.network)
        train_state.prune(folder, best=int(best_epoch(state["history"])["epoch"]))
        if self._job.flags.tensorboard:
            tensorboard.write_missing(self._job.tensorboard_dir, state["history"], fresh=True)


def _snapshot(state: TrainState) -> tuple[dict[str, Any], torch.cuda.Stream | None]:
    """Return a copy of a state on its device, and a stream that follows it; None on a CPU."""
    copied = _map_tensors(lambda value: value.detach().clone(), state.state_dict())
    if not torch.cuda.is_initialized():
        return copied, None
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    return copied, stream


def _fetch(snapshot: dict[str, Any], stream: torch.cuda.Stream | None) -> dict[str, Any]:
    """Return a snapshot in the memory of the CPU; the GPU trains meanwhile."""
    with torch.cuda.stream(stream):
        return _map_tensors(torch.Tensor.cpu, snapshot)


def _map_tensors(function: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Return nested dictionaries and lists with a function applied to each tensor."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return type(value)((key, _map_tensors(function, item)) for key, item in value.items())
    if isinstance(value, list):
        return [_map_tensors(function, item) for item in value]
    return value
