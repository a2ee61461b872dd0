"""The second map of prediction: gray levels in, masks out, by the trained network on its device.

Prediction, evaluation and cut-outs use the same chain and differ in the last map:

    read_images -> MaskPredictor (or SoftMaskPredictor) -> write_shards, score, or write cut-outs
"""

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from carvana_ray import images
from carvana_ray.checkpoints.model import ModelManifest, ModelRef
from carvana_ray.data.quarantine import CORRECTED, OK, UNREACHABLE
from carvana_ray.errors import InputError, first_line
from carvana_ray.images.scale import ScaleCount
from carvana_ray.inference import nvjpeg
from carvana_ray.inference.nvjpeg import EncodedImages
from carvana_ray.inference.predictor import Predictor
from carvana_ray.runtime.resources import WorkerAllocation
from carvana_ray.runtime.torch_trace import Trace
from carvana_ray.stages.ingest.blocks import Columns, stack_or_object
from carvana_ray.stages.ingest.read_images import ReadOptions

Size = tuple[int, int]

# A shard of 256 is two calls on a GPU. Where the GPU decodes, it is one: nvJPEG is faster the more
# files it gets.
BATCH_ON_CPU, BATCH_ON_GPU, BATCH_DECODED = 16, 128, 256


class MaskPredictor:
    """A trained network on its device, for any number of threads.

    A Ray actor whose constructor raises is lost for good, and Ray Data waits half an hour for it.
    So if the model cannot be loaded, each block comes back as unreachable, with the reason.

    Args:
        model: which model; the folder may hold another one by the time the actor starts again.
        workers: give the device and the number of torch threads.
        profile: URI of the folder for a trace of some calls, or "".
    """

    def __init__(self, model: ModelRef, workers: WorkerAllocation, profile: str = "") -> None:
        torch.set_num_threads(workers.cpus)
        self._model = model
        self._trace = Trace(profile, f"predict-{os.getpid()}") if profile else None
        self._device = torch.device("cuda" if workers.use_gpu else "cpu")
        self._decode = nvjpeg.Decoder(self._device) if workers.decode_on_gpu else None
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        with contextlib.suppress(InputError, OSError):  # the first call tries again
            self._load()

    def _load(self) -> Predictor:
        """Return the network. Raises as `ModelRef.load`."""
        with self._lock:
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
            files = [file.getvalue()]
            where = self._downscale, self._device, self._decode
            predictor.run_bounds_mixed(EncodedImages(files, [*blank], [size], *where), [size])

    def __call__(self, batch: Columns) -> Columns:
        """Replace the images of a batch by the run bounds of their masks.

        Args:
            batch: columns of `read_images`.

        Returns:
            the columns without image, encoded and correction, with ``run_bounds``: bytes as
            `rle.text_from_bounds` takes them, empty for a bad image, those of the correction for a
            corrected one.
        """
        bounds = self._predict(batch, "run_bounds_mixed")
        statuses = batch["status"]  # after `_predict`, which changes them
        data = [b.tobytes() if s == OK else b"" for b, s in zip(bounds, statuses, strict=True)]
        corrections = batch.pop("correction", ())
        for row in np.flatnonzero(statuses == CORRECTED) if len(corrections) else ():
            data[row] = corrections[row]
        if self._trace:
            with self._lock:
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
        turns = batch["orientation"].tolist()
        results = predict(gray if encoded is None else encoded, sizes, turns)
        if encoded is not None and encoded.errors:
            batch["status"] = batch["status"].astype(object)
            for row, reason in encoded.errors.items():
                batch["status"][row] = reason
        return results


class SoftMaskPredictor(MaskPredictor):
    """A trained network whose result is the soft mask, before it is thresholded."""

    def __call__(self, batch: Columns) -> Columns:
        """Replace the images of a batch by ``soft_mask``, uint8 [h, w] each.

        That of a corrected image says nothing; its mask is in the column ``correction``.
        """
        soft_masks = self._predict(batch, "soft_masks_mixed")
        return {**batch, "soft_mask": stack_or_object(soft_masks)}


def read_options(
    folder: str,
    manifest: ModelManifest,
    size: Size | None,
    workers: WorkerAllocation,
    corrections: Mapping[str, str] = {},
) -> ReadOptions:
    """Return how to read a folder's images for a model.

    Args:
        folder: URI.
        manifest: of the model.
        size: the (H, W) that all images must have, or None.
        workers: say whether the GPU decodes.
        corrections: URI of the corrected mask by image name.
    """
    return ReadOptions(
        folder,
        manifest.downscale,
        size,
        trained_size=(manifest.height, manifest.width),
        keep_encoded=workers.decode_on_gpu,
        low_priority=workers.use_gpu,
        corrections=corrections,
    )


def log_scaled(manifest: ModelManifest, pixels: Iterable[int]) -> None:
    """Log how many images were scaled for the network, given the number of pixels of each."""
    scales = ScaleCount((manifest.height, manifest.width))
    for count in pixels:
        scales.add(count)
    scales.log()
