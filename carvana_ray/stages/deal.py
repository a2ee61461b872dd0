"""Who gets which batches: the stream is made when Ray Train has started the workers."""

from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray
from ray.train import DataConfig

from carvana_ray import config, learner, states
from carvana_ray import course as courses
from carvana_ray.batches import BatchPlan
from carvana_ray.recipes import RECIPES
from carvana_ray.stages import feed, take


class Deal(DataConfig):
    """Makes the stream of batches when Ray has started the workers, and deals it out to them.

    Only then it is known how many there are (`--min-workers`), and, after a failure, with which
    epoch they go on.
    """

    def __init__(
        self,
        flags: config.Train,
        plan: BatchPlan,
        board: Any,
        kept: NDArray[np.int64],
        folder: str,
        grid: tuple[int, int],
        room: int,
        on_gpu: bool,
    ) -> None:
        options = ray.data.ExecutionOptions()
        options.preserve_order = True
        options.resource_limits = ray.data.ExecutionResources.for_limits(object_store_memory=room)
        super().__init__(enable_shard_locality=False, execution_options=options)
        self._flags, self._plan, self._folder = flags, plan, folder
        self._board, self._kept, self._on_gpu = board, kept, on_gpu
        self._grid = grid

    def __deepcopy__(self, _memo: Any) -> "Deal":
        """Return itself: Ray Train copies it, and references to objects must not be."""
        return self

    def configure(
        self,
        datasets: dict[str, ray.data.Dataset],
        world_size: int,
        worker_handles: Any,
        worker_node_ids: Any,
        **others: Any,
    ) -> list[dict[str, ray.data.DataIterator]]:
        """Return the iterators of each worker; what stands in for the data set is not read."""
        recipe = RECIPES[self._flags.recipe]
        saved, _ = states.newest(self._folder, learner.design(self._flags.base, recipe))
        plan = courses.shared(self._plan, world_size)
        stream = feed.stream(
            plan,
            self._board,
            self._kept,
            recipe.flip,
            recipe.jitter,
            first_epoch=saved["epoch"] if saved else 0,
            steps=take.steps_of(plan.share, self._grid),
            elastic=bool(self._flags.min_workers),
            on_gpu=self._on_gpu,
        )
        streams = dict.fromkeys(datasets, stream)
        return super().configure(streams, world_size, worker_handles, worker_node_ids, **others)
