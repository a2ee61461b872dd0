"""The checkpoints of a training worker, written in the background.

Ray Train's own checkpoints are not used, see "Checkpoints are ours" in docs/architecture.md.
"""

import copy
from concurrent.futures import Future
from typing import Any

import ray.train
import torch

from carvana_ray.checkpoints import train_state
from carvana_ray.runtime.background import run_in_background
from carvana_ray.stages.ray_metrics import set_wait
from carvana_ray.training import tensorboard
from carvana_ray.training.run import best_epoch
from carvana_ray.training.state import Row, TrainState
from carvana_ray.unet.network import UNetConfig


class CheckpointWriter:
    """Writes the checkpoint of an epoch while the next epoch is trained.

    An epoch is reported to Ray Train only when its checkpoint is on disk, so that training can
    resume from every reported epoch.

    Args:
        folder: folder of the run's checkpoints.
        network: configuration of the network.
        rank: rank of this worker; rank 0 writes, all ranks report.
        tensorboard_dir: folder of the event files; empty for none.
    """

    def __init__(
        self, folder: str, network: UNetConfig, rank: int, tensorboard_dir: str = ""
    ) -> None:
        self._folder, self._network, self._rank = folder, network, rank
        self._tensorboard_dir = tensorboard_dir
        if tensorboard_dir:
            tensorboard.require_writer()  # the package may be missing on this node
        self._writing: Future[None] | None = None
        self._row: Row = {}

    def on_epoch_end(self, state: TrainState) -> None:
        """Start writing the state after an epoch."""
        self.finish()
        self._row = dict(state.history[-1])
        if self._rank == 0:
            set_wait("train", self._row["data_wait_fraction"])
            snapshot = _copy_to_cpu(state.state_dict())
            self._writing = run_in_background(lambda: self._write(snapshot))

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and report its epoch.

        Raises:
            Exception: the error of the write.
        """
        if self._writing:
            self._writing.result()
            self._writing = None
        if self._row:
            ray.train.report(self._row)
            self._row = {}

    def _write(self, state: dict[str, Any]) -> None:
        train_state.save(self._folder, state, self._network)
        train_state.prune(self._folder, best=int(best_epoch(state["history"])["epoch"]))
        if self._tensorboard_dir:
            tensorboard.write_missing(self._tensorboard_dir, state["history"], fresh=True)


def _copy_to_cpu(value: Any) -> Any:
    """Return a copy of a state, on the CPU, that further training does not change."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((key, _copy_to_cpu(item)) for key, item in value.items())
    if isinstance(value, list):
        return [_copy_to_cpu(item) for item in value]
    return copy.copy(value)
