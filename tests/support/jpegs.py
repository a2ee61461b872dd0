"""JPEG files of soft blobs, and a decoder that stands in for nvJPEG."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image


def jpeg(seed: int, height: int = 61, width: int = 90, **save_options: object) -> bytes:
    """Return an image of soft blobs, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    with io.BytesIO() as file:
        image.save(file, "JPEG", **{"quality": 92, **save_options})  # type: ignore[arg-type]
        return file.getvalue()


def decode_with_pillow(files: Sequence[bytes]) -> list[torch.Tensor]:
    """Decode JPEGs to uint8 [3, H, W] in full, as nvJPEG does."""
    try:
        arrays = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    except OSError as error:
        raise RuntimeError("Failed to decode batch") from error
    return [torch.tensor(array).permute(2, 0, 1) for array in arrays]
