"""A job of few images on one machine runs in this process and a few children, without Ray.

Ray takes about ten seconds to start and to stop. For few images the work takes less.
"""

import contextlib
import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from carvana_ray import config
from carvana_ray.config.predict_flags import FEW_IMAGES
from carvana_ray.data.catalog import image_dir, list_folder
from carvana_ray.errors import InputError
from carvana_ray.runtime.children import Children
from carvana_ray.runtime.machine import default_cpus, local_resources
from carvana_ray.runtime.resources import allocate_workers
from carvana_ray.stages.cutout.sources import image_uris, list_sources
from carvana_ray.stages.local_engine import LocalEngine

if TYPE_CHECKING:
    from carvana_ray.stages.guard import Result

log = logging.getLogger(__name__)

MAX_CHILDREN = 16
# What a child needs. It imports this while this process imports torch.
MODULES = {
    "predict": ["carvana_ray.stages.ingest.read_images"],
    "cutout": ["carvana_ray.stages.cutout.write_cutouts"],
}


def count_here(job: str, flags: Any) -> int:
    """Return the number of images of a job that runs without Ray; 0 for a job that needs Ray.

    Raises:
        InputError: a folder cannot be listed, or has no images.
    """
    if job not in MODULES or flags.ray == "always" or flags.profile or (flags.workers or 1) > 1:
        return 0
    ray = sys.modules.get("ray")
    if os.environ.get("RAY_ADDRESS") or (ray and ray.is_initialized()):
        return 0
    count = flags.limit if 0 < flags.limit <= FEW_IMAGES else _count(flags)
    return count if count <= FEW_IMAGES else 0


def run_here(job: str, flags: Any, load: Callable[[], Any], images: int) -> "Result":
    """Run a job without Ray; return its result.

    Args:
        job: name of the job.
        flags: of the job.
        load: imports the stage, and torch.
        images: their number.
    """
    count = min(default_cpus() - 1, MAX_CHILDREN, images)
    with Children(count, MODULES[job], flags.verbose) as children:
        stage = load()
        machine = local_resources(flags.num_cpus)
        machine = dataclasses.replace(machine, gpus=min(machine.gpus, 1))
        allocate_workers(flags, machine)  # before the check, which takes longer
        checked = stage.check(flags)
        log.info("%d images or fewer: runs without Ray; --ray always uses it", FEW_IMAGES)
        return stage.run(flags, machine, checked, LocalEngine(children))


def _count(flags: config.PredictFlags | config.CutoutFlags) -> int:
    """Return the number of images of a job, or any number above `FEW_IMAGES`."""
    if isinstance(flags, config.PredictFlags):
        return len(list_folder(image_dir(flags.data), limit=FEW_IMAGES + 1))
    for uri in image_uris(flags):  # a quick look at large folders
        with contextlib.suppress(InputError):  # a file, or a folder without images of its own
            if len(list_folder(image_dir(uri), limit=FEW_IMAGES + 1)) > FEW_IMAGES:
                return FEW_IMAGES + 1
    return len(list_sources(flags).entries)
