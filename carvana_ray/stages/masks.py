"""The chain that prediction and evaluation share: names of pictures in, run-length text out."""

import functools
from typing import Any

import numpy as np
import ray.data
import torch

from carvana_ray import checkpoint, shards
from carvana_ray.checkpoint import Manifest
from carvana_ray.predictor import Predictor
from carvana_ray.stages import dataset
from carvana_ray.stages.dataset import Columns
from carvana_ray.stages.session import Workers

BATCH_ON_CPU, BATCH_ON_GPU = 16, 64


class Masks:
    """A network on its device, as a Ray Data actor."""

    def __init__(self, model: str, workers: Workers) -> None:
        torch.set_num_threads(workers.cpus)
        network, _ = checkpoint.read_model(model)
        self._predictor = Predictor(network, torch.device("cuda" if workers.use_gpu else "cpu"))

    def __call__(self, batch: Columns) -> Columns:
        """Replace ``gray`` by ``rle_mask``; a picture that could not be read has an empty one."""
        grays = list(batch.pop("gray"))
        sizes = list(zip(batch["height"].tolist(), batch["width"].tolist(), strict=True))
        texts = self._predictor.texts_of_any(grays, sizes)
        good = batch["status"] == shards.OK
        masks = [text if ok else "" for text, ok in zip(texts, good, strict=True)]
        return {**batch, "rle_mask": np.array(masks, dtype=object)}


def masks_of(
    blocks: list[dict[str, Any]],
    folder: str,
    model: str,
    manifest: Manifest,
    workers: Workers,
    size: tuple[int, int] | None,
) -> ray.data.Dataset:
    """Return the masks of pictures.

    Args:
        blocks: a row each, as `dataset.load_pictures` takes them.
        folder: of the pictures.
        model: its folder.
        manifest: of the model; sizes and preprocessing come from there and nowhere else.
        workers: that hold the network.
        size: (H, W) that all pictures must have, or None.

    Returns:
        columns file, place, count, img, status, crc32, height, width, rle_mask.
    """
    how: dict[str, Any] = {
        "folder": folder,
        "downscale": manifest.downscale,
        "size": size,
        "blank": (manifest.height, manifest.width),
    }
    read = dataset.from_blocks(blocks)
    return read.map_batches(
        functools.partial(dataset.load_pictures, **how), batch_size=None, num_cpus=1
    ).map_batches(
        Masks,
        batch_size=BATCH_ON_GPU if workers.use_gpu else BATCH_ON_CPU,
        compute=ray.data.ActorPoolStrategy(size=workers.count),
        num_gpus=1 if workers.use_gpu else None,
        num_cpus=None if workers.use_gpu else workers.cpus,
        fn_constructor_kwargs={"model": model, "workers": workers},
    )
