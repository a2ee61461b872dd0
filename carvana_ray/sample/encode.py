"""Pictures and masks to the bytes that the real data set would hold. Knows no car."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 55  # gives about the real pictures' 100 kB


def encode_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return uint8 [H, W, 3] RGB as JPEG, its colour at half the size (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
    return file.getvalue()


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return bool [H, W] as GIF of one frame: 0 is black, 1 is white."""
    picture = Image.fromarray(mask.astype(np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    picture.save(file, "GIF", optimize=False)
    return file.getvalue()
