"""Encode images and masks as the files of the real data set."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_QUALITY = 55  # gives files of about 100 kB, like the real images


def encode_jpeg(image: NDArray[np.uint8], quality: int = JPEG_QUALITY) -> bytes:
    """Return the JPEG of an RGB image, uint8 [H, W, 3], with 4:2:0 chroma subsampling."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def encode_mask(mask: NDArray[np.bool_]) -> bytes:
    """Return the GIF of a mask, bool [H, W]: one frame, background black, foreground white."""
    image = Image.fromarray(mask.astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    file = io.BytesIO()
    image.save(file, "GIF", optimize=False)
    return file.getvalue()
