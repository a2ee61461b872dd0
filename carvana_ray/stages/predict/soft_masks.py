"""Soft masks of a few images, predicted in this process: for the cut-outs that the report shows."""

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carvana_ray.checkpoints.model import ModelManifest, ModelRef
from carvana_ray.data.quarantine import OK
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.stages.ingest.read_images import block_row, read_images
from carvana_ray.stages.predict.mask_predictor import SoftMaskPredictor, read_options
from carvana_ray.storage import FileInfo

# Of one image at a time. More would mostly wait for each other, in loops that use their cores.
MAX_THREADS = 4


def predict_soft_masks(
    folder: str, entries: Sequence[FileInfo], model: ModelRef, manifest: ModelManifest
) -> dict[str, NDArray[np.uint8]]:
    """Return the soft mask, uint8 [h, w], of each image, by name, computed on CPUs.

    An image that cannot be read any more is left out, and all are if the model cannot be loaded.

    Args:
        folder: folder of the images.
        entries: the images, as listed.
        model, manifest: the model.
    """
    workers = WorkerAllocation(1, min(len(os.sched_getaffinity(0)), MAX_THREADS), use_gpu=False)
    options = read_options(folder, manifest, None, workers)
    predict, soft_masks = SoftMaskPredictor(model, workers), {}
    for image in entries:  # one by one, for the memory of a small driver
        rows = {key: [value] for key, value in block_row("", [image]).items()}
        found = predict(read_images(rows, options))
        if found["status"][0] == OK:
            soft_masks[image.name] = found["soft_mask"][0]
    return soft_masks
