"""Input that is not there, found before torch and Ray are imported, which takes seconds.

`precheck` looks at single files, and lists a folder to its end for cut-outs only. The `check` of a
stage looks at everything, with the same functions. Files in S3 are left to it: they need boto3 and
a network.
"""

import os
from collections.abc import Callable
from typing import Any

from carvana_ray import config, storage
from carvana_ray.checkpoints.manifest import cutout_model, read_model_manifest, resolve_model
from carvana_ray.data.catalog import (
    image_and_mask_dirs,
    image_dir,
    list_folder,
    list_masks,
)
from carvana_ray.data.corrections import require_masks
from carvana_ray.stages.cutout.sources import image_uris, list_sources


def precheck(name: str, flags: config.LogFlags) -> None:
    """Raise `InputError` if a command names a model, a folder or an image that does not exist.

    Not for a job that joins a cluster: its local paths may be an error of their own there.
    """
    if not os.environ.get("RAY_ADDRESS") and name in _CHECKS:
        _CHECKS[name](flags)


def _train(flags: config.TrainFlags) -> None:
    if flags.init_from:
        _require_model(flags.init_from, "--init-from")
    _require_pairs(flags.data)
    _require_corrections(flags.corrections)


def _evaluate(flags: config.EvaluateFlags) -> None:
    _require_model(flags.model_uri)
    _require_pairs(flags.data)


def _predict(flags: config.PredictFlags) -> None:
    _require_model(flags.model_uri)
    _require_images(flags.data)
    _require_corrections(flags.corrections)


def _cutout(flags: config.CutoutFlags) -> None:
    if flags.background != "transparent" and not storage.is_remote(flags.background):
        # Here, because numpy and Pillow take as long to import as all else of this module.
        from carvana_ray.cutouts.compositing import parse_background
        from carvana_ray.images.validate import MAX_BYTES

        parse_background(
            flags.background, lambda uri: storage.read(storage.resolve(uri), MAX_BYTES)
        )
    if not any(map(storage.is_remote, image_uris(flags))):
        list_sources(flags)
    if not flags.submission:
        _require_model(cutout_model(flags.model, flags.out))
    elif not storage.is_remote(flags.submission):
        storage.open_read(storage.resolve(flags.submission)).close()
    _require_corrections(flags.corrections)


def _export(flags: config.ExportFlags) -> None:
    _require_model(flags.model)
    if flags.data:
        _require_images(flags.data)


def _pipeline(flags: config.PipelineFlags) -> None:
    if flags.data:
        _train(flags)
        _require_images(flags.data)
        return
    if flags.init_from:
        _require_model(flags.init_from, "--init-from")
    _require_corrections(flags.corrections)


_CHECKS: dict[str, Callable[[Any], None]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "cutout": _cutout,
    "export": _export,
    "pipeline": _pipeline,
}


def _require_model(folder: str, flag: str = "--model") -> None:
    if not storage.is_remote(folder):
        read_model_manifest(resolve_model(folder), flag)


def _require_pairs(data: str) -> None:
    images, masks = image_and_mask_dirs(data)
    if not storage.is_remote(data):
        list_folder(images, limit=1)
        list_masks(masks, limit=1)


def _require_corrections(folder: str) -> None:
    if folder and not storage.is_remote(folder):
        require_masks(folder)


def _require_images(uri: str) -> None:
    """Check a folder of images."""
    if not storage.is_remote(uri):
        list_folder(image_dir(uri), limit=1)
