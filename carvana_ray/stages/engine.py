"""Where the maps of a job run: an engine calls them on Ray, or in this process and its children.

The maps are the same functions for both engines, and so are their results.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.crash_isolation import StartTrial
from carvana_ray.storage import FileInfo

if TYPE_CHECKING:  # torch takes seconds to import, and an engine starts before it
    from carvana_ray.checkpoints.model import ModelRef
    from carvana_ray.runtime.resources import WorkerAllocation
    from carvana_ray.stages.predict.mask_predictor import MaskPredictor

Map = Callable[[Columns], Columns]
Rows = Sequence[dict[str, Any]]  # each becomes one block


@dataclass(frozen=True)
class MaskMaps:
    """The first two maps of a chain: one reads listed images, the other predicts their masks.

    Attributes:
        read: maps a row of `block_row` to images.
        kind, model, workers, profile: the predictor and its arguments.
        downscale: of the model.
        images: all images of the job.
    """

    read: Map
    kind: "type[MaskPredictor]"
    model: "ModelRef"
    workers: "WorkerAllocation"
    downscale: int
    images: Sequence[FileInfo]
    profile: str = ""


@dataclass(frozen=True)
class LastMap:
    """The last map of a chain, which writes.

    Attributes:
        work: the map.
        at_once: the number of its calls at a time, or None for one per CPU.
        tables: whether it takes and returns Arrow tables. Such a map decodes no images.
        trial: the same for one image, without writing; None if it decodes no images.
    """

    work: Callable[[Any], Any]
    at_once: int | None
    tables: bool = False
    trial: Map | None = None


class Engine(Protocol):
    """Calls maps on blocks.

    Attributes:
        held: blocks that are lost with the machine of one worker.
        errors: what a map raises besides its own errors.
    """

    held: int
    errors: tuple[type[Exception], ...]

    def chain(self, rows: Rows, masks: MaskMaps, last: LastMap, max_lost: int) -> Iterator[Columns]:
        """Yield the results of a chain of three maps, block by block in any order.

        Args:
            rows: of `block_row`.
            masks, last: the maps.
            max_lost: number of blocks that may be lost with their processes. They have no result.
        """

    def map_images(
        self, rows: Rows, work: Map, at_once: int, max_lost: int = 0
    ) -> Iterator[Columns]:
        """Yield the results of one map that decodes images. Arguments as of `chain`."""

    def map_files(self, rows: Rows, work: Map, light: bool = False) -> Iterator[Columns]:
        """Yield the results of one map that decodes no images.

        Args:
            rows: the rows.
            work: the map.
            light: whether the map needs little of a CPU and no CPU of its own.
        """

    def try_chain(self, masks: MaskMaps, last: LastMap | None = None) -> StartTrial:
        """Return what starts a chain on one image in a process of its own."""

    def try_map(
        self, work: Callable[[Any], object], input_of: Callable[[FileInfo], object]
    ) -> StartTrial:
        """Return what starts a function on one image in a process of its own.

        Args:
            work: called with the input of one image. All processes get it with all that it refers
                to.
            input_of: returns the input of one image. Only this image's process gets it.
        """


def ray_engine() -> Engine:
    """Return the engine that runs on the open Ray session."""
    from carvana_ray.stages.ray_engine import RayEngine

    return RayEngine()
