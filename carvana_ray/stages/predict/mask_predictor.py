"""The chain that prediction and evaluation share: names of pictures in, runs of their masks out."""

import functools
import io
import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import ray.data
import torch
from PIL import Image

from carvana_ray import images
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.data import quarantine
from carvana_ray.inference import nvjpeg as jpegs
from carvana_ray.inference.nvjpeg import EncodedImages
from carvana_ray.inference.predictor import Pictures, Predictor
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.runtime.torch_trace import Trace
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.stages.ingest.read_images import ReadOptions
from carvana_ray.stages.ray_metrics import WaitTimer
from carvana_ray.submission import plan

log = logging.getLogger(__name__)

Size = tuple[int, int]

# A shard of 256 is two calls on a GPU, of two batches of the network each; where the GPU decodes,
# one, since engines are the faster the more they get.
BATCH_ON_CPU, BATCH_ON_GPU, BATCH_DECODED = 16, 128, 256
# Of a block whose replica dies: one try takes ten seconds and more, and a block that is lost by bad
# luck is done in the second pass.
TASK_RETRIES = 2
# Of one replica. Each of `write.LOST_BLOCKS` pictures that kill takes 1 + TASK_RETRIES, 48 in
# all; the rest is for long runs on machines that come and go. With no replica left Ray Data waits
# for half an hour before it ends the run.
RESTARTS = 100
# One computes while another takes in or hands out a batch.
REPLICAS_A_GPU = 2
READERS = 2  # for each replica on a CPU
# Beside a GPU: a few more readers than cores, since between two blocks each of them waits for Ray.
CPUS_OF_A_READER = 0.8
READERS_OF_FILES = 6  # for each GPU that decodes: 0.3 ms of a core a picture, and 4,000 a second


class MaskPredictor:
    """A network on its device, as a Ray Data actor.

    Args:
        model: its folder.
        workers: says on which device.
        profile: folder for a trace of some of its calls, or "".
    """

    def __init__(self, model: str, workers: WorkerAllocation, profile: str = "") -> None:
        torch.set_num_threads(workers.cpus)
        network, manifest = checkpoint.load_model(model)
        self._waits = WaitTimer("predict")
        self._trace = Trace(profile, f"predict-{os.getpid()}") if profile else None
        device = torch.device("cuda" if workers.use_gpu else "cpu")
        self._predictor = Predictor(network, device, manifest.tta_flip)
        self._downscale, self._device = manifest.downscale, device
        self._decode = jpegs.make_decoder(device) if workers.decode_on_gpu else None
        if workers.use_gpu:
            self._warm_up(manifest.height, manifest.width)

    def _warm_up(self, height: int, width: int) -> None:
        """Load and compile what a GPU needs, while the first pictures are read."""
        size = (height, width)
        blank = np.zeros((1, *images.grid_size(*size, self._downscale)), np.uint8)
        self._predictor.run_bounds_mixed(blank, [size])
        if self._decode:
            with io.BytesIO() as file:
                Image.new("RGB", (width, height)).save(file, "JPEG")
                self._decode([file.getvalue()])

    def __call__(self, batch: Columns) -> Columns:
        """Replace the images by ``run_bounds``, bytes as `rle.text_from_bounds` takes them.

        They are empty for an image that could not be read.
        """
        found = self._asked(batch, self._predictor.run_bounds_mixed)
        good = batch["status"] == quarantine.OK
        ends = [one.tobytes() if ok else b"" for one, ok in zip(found, good, strict=True)]
        if self._trace:
            self._trace.step()
        return {**batch, "run_bounds": np.array(ends, dtype=object)}

    def _asked(self, batch: Columns, ask: Callable[[Pictures, list[Size]], list[Any]]) -> list[Any]:
        """Take the pictures out of a batch and return what the network says of them.

        Where a JPEG turns out to be bad when a GPU decodes it, its status is set.
        """
        sizes = list(zip(batch["height"].tolist(), batch["width"].tolist(), strict=True))
        with self._waits:
            try:
                if not self._decode:
                    return ask(batch.pop("image"), sizes)
                files, gray = batch.pop("encoded"), batch.pop("image")
                pictures = EncodedImages(
                    files, gray, sizes, self._downscale, self._device, self._decode
                )
                found = ask(pictures, sizes)
            except torch.AcceleratorError:  # after which CUDA does nothing more for this process
                log.exception("the GPU is at fault; Ray starts another process")
                os._exit(1)
        if pictures.errors:
            batch["status"] = batch["status"].astype(object)
            for place, reason in pictures.errors.items():
                batch["status"][place] = reason
        return found


class SoftMaskPredictor(MaskPredictor):
    """The same, but what comes out is the network's share of car, before it is a mask."""

    def __call__(self, batch: Columns) -> Columns:
        """Replace the images by ``soft_mask``, uint8 of the same shapes."""
        found = self._asked(batch, self._predictor.soft_masks_mixed)
        return {**batch, "soft_mask": dataset.stack_or_object(found)}


@functools.lru_cache(maxsize=1)
def _loaded(
    model: str, workers: WorkerAllocation, asked: Callable[[str, WorkerAllocation], MaskPredictor]
) -> MaskPredictor:
    return asked(model, workers)


def predict_one(
    name: str,
    options: ReadOptions,
    model: str,
    workers: WorkerAllocation,
    asked: type[MaskPredictor] = MaskPredictor,
) -> Columns:
    """Return what `masks_of` gives for one picture, made in the process that asks."""
    row = reading.block_row("", [name])
    batch = {key: [value] for key, value in row.items()}
    made = _loaded(model, workers, asked)  # type: ignore[arg-type]  # a class has a hash
    return made(reading.read_images(batch, options))


def beside(workers: WorkerAllocation) -> dict[str, Any]:
    """Return the resources of a map that runs beside the replicas.

    Replicas on CPUs take all of them where a machine has been lost, and a reader that asks for one
    would wait for ever: so there readers ask for none, and their number is bounded instead.
    """
    if workers.use_gpu:
        return {"num_cpus": CPUS_OF_A_READER}
    return {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(READERS * workers.count)}


def _batch_size(workers: WorkerAllocation, downscale: int) -> int:
    """Return the pictures of a call: of large ones no more than a shard has."""
    if workers.decode_on_gpu:
        return min(BATCH_DECODED, plan.max_shard_size(downscale))
    return min(BATCH_ON_GPU, plan.max_shard_size(downscale)) if workers.use_gpu else BATCH_ON_CPU


def _replicas(workers: WorkerAllocation) -> int:
    """Return how many of a network share a worker's device."""
    return REPLICAS_A_GPU if workers.use_gpu else 1


def read_options(
    folder: str, manifest: ModelManifest, size: tuple[int, int] | None, workers: WorkerAllocation
) -> ReadOptions:
    """Return how to read the images of a model.

    Args:
        folder: of the images.
        manifest: of the model; sizes and preprocessing come from there and nowhere else.
        size: (H, W) that all images must have, or None.
        workers: the replicas of the model, which may decode JPEGs themselves.
    """
    return ReadOptions(
        folder,
        manifest.downscale,
        size,
        placeholder_size=(manifest.height, manifest.width),
        keep_encoded=workers.decode_on_gpu,
    )


def predict_dataset(
    rows: list[dict[str, Any]],
    options: ReadOptions,
    model: str,
    workers: WorkerAllocation,
    lost: int = 0,
    profile: str = "",
    asked: type[MaskPredictor] = MaskPredictor,
) -> ray.data.Dataset:
    """Return the masks of pictures.

    Retries are bounded: a block that is lost again and again, since a picture in it kills every
    process, is an error, where Ray Data would try for ever.

    Args:
        rows: one a block, of `reading.pictures_row`.
        options: of `read_options`.
        model: its folder.
        workers: that hold the network.
        lost: blocks that may be lost all the same. Only for who looks what has come out: Ray Data
            goes on without them, and says no more than a line in its log.
        profile: see `Masks`.
        asked: `Masks`, or `Shares` for the network's share of car.

    Returns:
        columns file, row, rows, img, status, crc32, orientation, height, width, and run_bounds or
        soft_mask.
    """
    read = dataset.from_blocks(rows)
    read.context.max_errored_blocks = lost
    load = reading.read_images_low_priority if workers.use_gpu else reading.read_images
    resources = beside(workers)
    if workers.decode_on_gpu:  # more would but take time to start
        resources["compute"] = ray.data.TaskPoolStrategy(READERS_OF_FILES * workers.count)
    return read.map_batches(
        functools.partial(load, options=options),
        batch_size=None,
        max_retries=dataset.RETRIES,
        **resources,
    ).map_batches(
        asked,
        batch_size=_batch_size(workers, options.downscale),
        compute=ray.data.ActorPoolStrategy(size=workers.count * _replicas(workers)),
        num_gpus=1 / _replicas(workers) if workers.use_gpu else None,
        # Of none, Ray takes one for each replica on a GPU, and readers of a small machine wait.
        num_cpus=0 if workers.use_gpu else workers.cpus,
        max_restarts=RESTARTS,
        max_task_retries=TASK_RETRIES,
        fn_constructor_kwargs={"model": model, "workers": workers, "profile": profile},
    )
