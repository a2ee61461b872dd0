"""The trained network as a Ray Data actor, and the resources of the maps around it.

Prediction, evaluation and cut-outs use the same chain and differ in the last map:

    read_images -> MaskPredictor (or SoftMaskPredictor) -> write_shards, score, or write cut-outs
"""

import contextlib
import functools
import io
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray.data
import torch
from PIL import Image

from carvana_ray import images
from carvana_ray.checkpoints.model import ModelManifest, ModelRef
from carvana_ray.data.quarantine import OK, UNREACHABLE
from carvana_ray.errors import InputError, first_line
from carvana_ray.inference import nvjpeg
from carvana_ray.inference.nvjpeg import EncodedImages
from carvana_ray.inference.predictor import Predictor
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.runtime.torch_trace import Trace
from carvana_ray.stages.ingest.blocks import RETRIES, Columns, stack_or_object
from carvana_ray.stages.ingest.read_images import (
    MAX_ENCODED_BYTES,
    ReadOptions,
    block_row,
    read_images,
)
from carvana_ray.stages.ray_metrics import WaitTimer
from carvana_ray.storage import FileInfo
from carvana_ray.submission.plan import max_shard_size

log = logging.getLogger(__name__)

Size = tuple[int, int]

# A shard of 256 is two calls on a GPU. Where the GPU decodes, it is one: nvJPEG is faster the more
# files it gets.
BATCH_ON_CPU, BATCH_ON_GPU, BATCH_DECODED = 16, 128, 256
# Retries of a block whose replica died. A retry takes ten seconds or more, and a block that is
# lost by chance is repeated in the next pass of `run_with_isolation`.
TASK_RETRIES = 2
# Restarts of one replica. Each of `LOST_BLOCKS` crashing images takes 1 + TASK_RETRIES, 48 in all;
# the rest is for machines that come and go. If no replica is left, Ray Data waits half an hour
# before it ends the run.
RESTARTS = 100
REPLICAS_A_GPU = 2  # one computes while the other takes in or hands out a batch
READERS = 2  # for each replica on CPUs
CPUS_OF_A_READER = 0.8  # next to a GPU: each reader waits for Ray between two blocks
READERS_OF_FILES = 6  # for each GPU that decodes: 0.3 ms of a core an image, 4,000 images/s


class MaskPredictor:
    """A trained network on its device, as a Ray Data actor.

    An actor whose constructor raises is lost for good, and Ray Data waits half an hour for it. So
    if the model cannot be loaded, each block comes back as unreachable, with the reason.

    Args:
        model: which model; the folder may hold another one by the time the actor starts again.
        workers: give the device and the number of torch threads.
        profile: URI of the folder for a trace of some calls, or "".
    """

    def __init__(self, model: ModelRef, workers: WorkerAllocation, profile: str = "") -> None:
        torch.set_num_threads(workers.cpus)
        self._model = model
        self._waits = WaitTimer("predict")
        self._trace = Trace(profile, f"predict-{os.getpid()}") if profile else None
        self._device = torch.device("cuda" if workers.use_gpu else "cpu")
        self._decode = nvjpeg.make_decoder(self._device) if workers.decode_on_gpu else None
        self._predictor: Predictor | None = None
        with contextlib.suppress(InputError, OSError):  # the first call tries again
            self._load()

    def _load(self) -> Predictor:
        """Return the network. Raises as `ModelRef.load`."""
        if self._predictor is None:
            network, manifest = self._model.load()
            self._downscale = manifest.downscale
            predictor = Predictor(network, self._device, manifest.tta_flip)
            if self._device.type == "cuda":
                self._warm_up(predictor, (manifest.height, manifest.width))
            self._predictor = predictor
        return self._predictor

    def _warm_up(self, predictor: Predictor, size: Size) -> None:
        """Load and compile GPU code while the first images are being read."""
        height, width = size
        blank = np.zeros((1, *images.grid_size(*size, self._downscale)), np.uint8)
        predictor.run_bounds_mixed(blank, [size])
        if self._decode:
            file = io.BytesIO()
            Image.new("RGB", (width, height)).save(file, "JPEG")
            self._decode([file.getvalue()])

    def __call__(self, batch: Columns) -> Columns:
        """Replace the images of a batch by the run bounds of their masks.

        Args:
            batch: columns of `read_images`.

        Returns:
            the columns without image and encoded, with ``run_bounds``: bytes as
            `rle.text_from_bounds` takes them, empty for a bad image.
        """
        bounds = self._predict(batch, "run_bounds_mixed")
        statuses = batch["status"]  # after `_predict`, which changes them
        data = [b.tobytes() if s == OK else b"" for b, s in zip(bounds, statuses, strict=True)]
        if self._trace:
            self._trace.step()
        return {**batch, "run_bounds": np.array(data, dtype=object)}

    def _predict(self, batch: Columns, method: str) -> list[Any]:
        """Remove the images from a batch; return the result of a method of `Predictor` for each.

        A JPEG that proves bad when it is decoded here gets its status here.
        """
        sizes = list(zip(batch["height"].tolist(), batch["width"].tolist(), strict=True))
        gray, files = batch.pop("image"), batch.pop("encoded", None)
        try:
            predict = getattr(self._load(), method)
        except (InputError, OSError) as error:
            batch["status"] = np.full(len(sizes), f"{UNREACHABLE}: {first_line(error)}")
            return [np.zeros((1, 1), np.uint8)] * len(sizes)
        encoded = None
        if self._decode:
            encoded = EncodedImages(files, gray, sizes, self._downscale, self._device, self._decode)
        with self._waits:
            try:
                results = predict(gray if encoded is None else encoded, sizes)
            except torch.AcceleratorError:  # CUDA no longer works in this process
                log.exception("GPU fault; Ray starts another process")
                os._exit(1)
        if encoded is not None and encoded.errors:
            batch["status"] = batch["status"].astype(object)
            for row, reason in encoded.errors.items():
                batch["status"][row] = reason
        return results


class SoftMaskPredictor(MaskPredictor):
    """A trained network whose result is the soft mask, before it is thresholded."""

    def __call__(self, batch: Columns) -> Columns:
        """Replace the images of a batch by ``soft_mask``, uint8 [h, w] each."""
        soft_masks = self._predict(batch, "soft_masks_mixed")
        return {**batch, "soft_mask": stack_or_object(soft_masks)}


def read_options(
    folder: str, manifest: ModelManifest, size: Size | None, workers: WorkerAllocation
) -> ReadOptions:
    """Return how to read a folder's images for a model.

    `size` is the (H, W) that all images must have, or None. All else comes from the model.
    """
    return ReadOptions(
        folder,
        manifest.downscale,
        size,
        placeholder_size=(manifest.height, manifest.width),
        keep_encoded=workers.decode_on_gpu,
        low_priority=workers.use_gpu,
    )


def cpu_map_resources(workers: WorkerAllocation) -> dict[str, Any]:
    """Return the resources of a map that runs on CPUs next to the replicas.

    After a machine is lost, replicas on CPUs may take all the CPUs that are left, and a task that
    needs one would wait forever. So tasks next to them request no CPU, and their number is bounded
    instead.
    """
    if workers.use_gpu:
        return {"num_cpus": CPUS_OF_A_READER}
    return {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(READERS * workers.count)}


def reader_resources(workers: WorkerAllocation, images: Sequence[FileInfo]) -> dict[str, Any]:
    """Return the arguments of `map_batches` for `read_images`, which reads these images.

    Retries are bounded: with Ray Data's default, a block with a crashing image is tried forever.
    """
    resources = cpu_map_resources(workers)
    decoded_here = sum(image.size > MAX_ENCODED_BYTES for image in images)
    # More readers than those of files would only take time to start.
    if workers.decode_on_gpu and 2 * decoded_here <= len(images):
        resources["compute"] = ray.data.TaskPoolStrategy(READERS_OF_FILES * workers.count)
    return {"batch_size": None, "max_retries": RETRIES, **resources}


def replica_resources(workers: WorkerAllocation, downscale: int) -> dict[str, Any]:
    """Return the arguments of `map_batches` for `MaskPredictor`, for a model of this downscale."""
    batch_size, replicas = BATCH_ON_CPU, 1
    if workers.use_gpu:
        most = BATCH_DECODED if workers.decode_on_gpu else BATCH_ON_GPU
        batch_size, replicas = min(most, max_shard_size(downscale)), REPLICAS_A_GPU
    return {
        "batch_size": batch_size,
        "compute": ray.data.ActorPoolStrategy(size=workers.count * replicas),
        "num_gpus": 1 / replicas if workers.use_gpu else None,
        # Without 0, Ray reserves a CPU for each replica on a GPU: none would be left for readers.
        "num_cpus": 0 if workers.use_gpu else workers.cpus,
        "max_restarts": RESTARTS,
        "max_task_retries": TASK_RETRIES,
    }


@functools.lru_cache(maxsize=1)
def _loaded(
    kind: Callable[[ModelRef, WorkerAllocation], MaskPredictor],
    model: ModelRef,
    workers: WorkerAllocation,
) -> MaskPredictor:
    return kind(model, workers)


def predict_one(
    image: FileInfo,
    options: ReadOptions,
    model: ModelRef,
    workers: WorkerAllocation,
    kind: type[MaskPredictor] = MaskPredictor,
) -> Columns:
    """Read one image and predict its mask in the calling process, which keeps the model."""
    batch = {key: [value] for key, value in block_row("", [image]).items()}
    predictor = _loaded(kind, model, workers)  # type: ignore[arg-type]  # mypy: a class has a hash
    return predictor(read_images(batch, options))
