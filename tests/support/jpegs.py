"""JPEG files of soft blobs, and a decoder that stands in for nvJPEG."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from carvana_ray.inference.mask_kernels import block_means


def jpeg(seed: int, height: int = 61, width: int = 90, **save_options: object) -> bytes:
    """Return an image of soft blobs, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    with io.BytesIO() as file:
        image.save(file, "JPEG", **{"quality": 92, **save_options})  # type: ignore[arg-type]
        return file.getvalue()


def decode_with_pillow(
    files: Sequence[bytes], size: tuple[int, int], downscale: int
) -> torch.Tensor:
    """Decode JPEGs of one size in full and take block means, as `nvjpeg.Decoder` does."""
    try:
        arrays = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    except OSError as error:
        raise RuntimeError("Failed to decode batch") from error
    if any(array.shape[:2] != size for array in arrays):
        raise RuntimeError("an image differs in size from its header")
    return block_means(torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2), downscale)
