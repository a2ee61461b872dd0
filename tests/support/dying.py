"""Maps that kill their process. A child imports this module, so it imports little."""

import os
import signal

from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.read_images import ReadOptions, read_images


def read_and_die(batch: Columns, options: ReadOptions) -> Columns:
    """Map as `read_images`; the image c.jpg kills its process unless it must not be read."""
    for name, status in zip(batch["names"][0], batch["preset_status"][0], strict=True):
        if name == "c.jpg" and not status:
            os.kill(os.getpid(), signal.SIGSEGV)
    return read_images(batch, options)


def names_and_statuses(batch: Columns) -> Columns:
    """Keep three columns of a batch."""
    return {name: batch[name] for name in ("file", "img", "status")}


def die_of_memory(_: object) -> None:
    """Die as a process that the kernel ends when the machine is short of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
