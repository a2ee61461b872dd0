"""Export a model as an ONNX file: trace, verify, write. Without Ray."""

import logging
import time
from typing import Any

import numpy as np

from carvana_ray import config, images, sample, storage
from carvana_ray.checkpoints.manifest import resolve_model
from carvana_ray.checkpoints.model import load_model
from carvana_ray.data.catalog import list_images
from carvana_ray.data.layout import VIEWS
from carvana_ray.errors import BadImageError, InputError
from carvana_ray.export import onnx, verify
from carvana_ray.runtime.wording import count_of

log = logging.getLogger(__name__)


def run(flags: config.ExportFlags) -> dict[str, Any]:
    """Write the file after its masks are compared with torch's; return the job's result.

    Raises:
        InputError: the model, an image or a package is missing or invalid.
        IncompleteError: the file's masks differ too much; nothing is written.
    """
    began = time.monotonic()
    out = storage.resolve(flags.out_uri)
    onnx.require_packages(*onnx.EXPORT_PACKAGES)
    network, manifest = load_model(resolve_model(flags.model))
    can_verify = onnx.is_installed(onnx.RUNTIME_PACKAGE)
    image_files = _images_to_verify(flags) if can_verify else []
    log.info("export: writing the network as ONNX, opset %d (half a minute)", onnx.OPSET)
    data = onnx.to_onnx(network, manifest, flags.input)
    result: dict[str, Any] = {"onnx": out, "input": flags.input, "bytes": len(data)}
    if can_verify:
        result |= verify.verify(data, network, manifest, image_files)
    else:
        log.warning(
            "export: NOT verified, because %s is not installed: %s",
            onnx.RUNTIME_PACKAGE,
            onnx.install_command(),
        )
        result |= {"images": 0, "pixels_differ": None, "dice": None}
    storage.write_atomic(out, data, replace=True)
    return result | {"seconds": round(time.monotonic() - began, 1)}


def _images_to_verify(flags: config.ExportFlags) -> list[bytes]:
    """Return the bytes of images evenly spread over --data; without --data, drawn images.

    Raises:
        InputError: the folder has no images, or a chosen image cannot be decoded.
    """
    if not flags.data:
        log.info("export: drawing %s to verify with", count_of(flags.limit, "images"))
        return _draw_images(flags.limit)
    folder, entries = list_images(flags.data)
    step = -(-len(entries) // flags.limit)  # rounded up
    return [_read_image(storage.join(folder, entry.name)) for entry in entries[::step]]


def _draw_images(count: int) -> list[bytes]:
    rng, drawn = np.random.default_rng(0), []
    for number in range(count):
        image, _ = sample.photograph(sample.draw_car(rng), 1 + 3 * number % VIEWS, rng)
        drawn.append(sample.encode_jpeg(image))
    return drawn


def _read_image(uri: str) -> bytes:
    data = storage.read(uri)
    try:
        images.load_rgb(data)
    except BadImageError as error:
        raise InputError(f"--data {uri}: {error}") from error
    return data
