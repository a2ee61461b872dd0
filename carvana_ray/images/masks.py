"""Bytes of a mask file to a mask, from Kaggle's files and from those of other tools.

A mask has two values, and the brighter one is car. It may have soft edges between black and white,
which are cut at 128. A file that can be understood in two ways is refused.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from carvana_ray.errors import BadImageError
from carvana_ray.images.validate import MASK_FORMATS, MASK_MODES, decode_errors_as, open_image

Mask = NDArray[np.bool_]

CUT = 128  # gray level from which a pixel is car, between black and white
NOISE = 32  # gray levels by which JPEG may miss black and white
DARK, BRIGHT = NOISE, 256 - NOISE  # levels below and from here on are clearly ground and car
MAX_SOFT = 0.2  # of the pixels that may be neither dark nor bright; a photograph has more
MAX_TONES = 0.05  # the same of the opaque pixels of a file with transparency
MAX_FLAT = 1 / 2000  # of the pixels that may lie in an even area of a level between, not at an edge
MIN_CONTRAST = 32  # gray levels between the two colors of a mask with soft edges
_LOSSY, _LOSSY_IN_TIFF = ("JPEG", "WEBP"), ("jpeg", "webp")


def load_mask(data: bytes) -> Mask:
    """Decode a mask. What a viewer shows decides, so a palette and transparency are applied.

    Args:
        data: a GIF, PNG, TIFF, BMP, JPEG or WebP file of any size [H, W]. It has two colors or gray
            levels of any depth, or black and white with soft edges. JPEG and WebP must be black and
            white, since they change pixels. Of a shape on transparent ground the shape is car.

    Returns:
        bool [H, W]: True where the pixel is car.

    Raises:
        BadImageError: ``truncated``; ``mask-values`` (which pixels are car is not clear); or see
            `validate.open_image`.
    """
    image = open_image(data, MASK_FORMATS, MASK_MODES)
    lossy = image.format in _LOSSY or image.info.get("compression") in _LOSSY_IN_TIFF
    with decode_errors_as("truncated"):
        image.load()
        if "transparency" in image.info or image.mode in ("LA", "PA"):
            image = image.convert("RGBA")
    if image.mode == "RGBA":
        return _cut_transparent(image, lossy)
    if image.mode in ("L", "P"):
        known = _black_and_white(image)
        if known is not None:
            return known
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _cut_deep(np.asarray(image))
    return _cut_opaque(image, lossy)


def _black_and_white(image: Image.Image) -> Mask | None:
    """Return the mask of an image of mode L or P without other colors; None if it has others."""
    pixels = np.asarray(image)
    levels = _levels(image)[: int(pixels.max()) + 1]
    gray = (levels > 0) & (levels < 255)
    # A palette may hold colors that no pixel has; counting takes 10 times as long.
    if gray.any() and np.array(image.histogram())[: len(levels)][gray].any():
        return None
    white = np.flatnonzero(levels == 255)
    if len(white) == 1:  # as in all files of Kaggle, and three times as fast as a lookup
        return pixels == np.uint8(white[0])
    return (levels == 255)[pixels]


def _levels(image: Image.Image) -> NDArray[np.uint8]:
    """Return the gray level of each pixel value 0..255 of an image of mode L or P.

    Looking up 256 palette colors instead of all pixels saves 5 of 13 ms for a GIF of 1280 x 1918.
    """
    values = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if image.mode == "P":
        values = values.copy()
        values.putpalette(image.getpalette("RGB") or [], "RGB")
        values = values.convert("L")
    return np.asarray(values)[0]


def _cut_opaque(image: Image.Image, lossy: bool) -> Mask:
    """Return the mask of an image without transparency."""
    gray = np.asarray(image.convert("L"))
    low, high = int(gray.min()), int(gray.max())
    if lossy:
        if _is_colored(image, NOISE):
            raise BadImageError("mask-values: colors in a JPEG or WebP; use black and white")
        return gray >= CUT if high < DARK or low >= BRIGHT else _cut(gray)
    if low == high and image.convert("RGB").getcolors(1) is None:
        raise BadImageError("mask-values: its colors are equally bright; use black and white")
    mask = _cut_two_values(gray)
    if mask is not None:
        return mask
    if high - low >= MIN_CONTRAST and _is_colored(image):  # such as red on black
        gray = np.rint((gray.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)
    return _cut(gray)


def _is_colored(image: Image.Image, tolerance: int = 0) -> bool:
    """Return whether a pixel's channels differ by more than a number of levels."""
    red, green, blue = image.convert("RGB").split()
    differences = (np.asarray(ImageChops.difference(red, other)) for other in (green, blue))
    return any(difference.max() > tolerance for difference in differences)


def _cut_deep(values: NDArray[Any]) -> Mask:
    """Return the mask of an image of 16 or 32 bits a pixel, integers or floats."""
    if not np.isfinite(values).all():
        raise BadImageError("mask-values: some pixels are not finite; use black and white")
    mask = _cut_two_values(values)
    if mask is not None:
        return mask
    high = float(values.max())
    white = next((top for top in _WHITES[values.dtype.kind] if high <= top), high)
    if values.min() < 0:
        raise BadImageError("mask-values: some pixels are negative; use black and white")
    return _cut(np.rint(values * (255 / white)).astype(np.uint8))


_WHITES = {"f": (1, 255, 65535), "i": (255, 65535), "u": (255, 65535)}  # by kind of number


def _cut_transparent(image: Image.Image, lossy: bool) -> Mask:
    """Return the mask of an image of mode RGBA."""
    alpha, gray = np.asarray(image.getchannel("A")), np.asarray(image.convert("RGB").convert("L"))
    if not (alpha < 255).any():
        return _cut_opaque(image.convert("RGB"), lossy)
    if not alpha.any():  # a viewer shows no shape
        return np.zeros(alpha.shape, bool)
    shown = gray[alpha == alpha.max()]
    if int(shown.max()) - int(shown.min()) < NOISE:
        if shown.max() < DARK and not _is_colored(image):
            raise BadImageError(
                "mask-values: black on transparent ground, so either may be the car; save it as "
                "black and white without transparency"
            )
        mask = _cut_two_values(alpha)
        return _cut(alpha) if mask is None else mask
    tones = np.count_nonzero((shown >= DARK) & (shown < BRIGHT)) / shown.size
    if tones > MAX_TONES or shown.min() >= DARK or shown.max() < BRIGHT:
        raise BadImageError(
            f"mask-values: a picture with transparency ({len(np.unique(shown))} gray levels), not "
            "a mask; save it as black and white without transparency"
        )
    return (alpha >= CUT) & (gray >= CUT)


def _cut_two_values(values: NDArray[Any]) -> Mask | None:
    """Return the pixels of the higher value, if there are two; None if there are more.

    Raises:
        BadImageError: there is one value, and it is neither black nor white.
    """
    low, high = values.min(), values.max()
    if low == high and low != 0:
        whites = (1,) if values.dtype.kind == "f" else (255, 65535)
        if high not in whites:
            raise BadImageError(
                f"mask-values: all pixels have the value {high}, which may be car or ground; use "
                "0 or 255"
            )
        return np.ones(values.shape, bool)
    mask = values == high
    if low == high:
        return ~mask
    return mask if (mask | (values == low)).all() else None


def _cut(gray: NDArray[np.uint8]) -> Mask:
    """Return the mask of gray levels that are black and white except at soft edges.

    Raises:
        BadImageError: there is no black or no white, or too much between them.
    """
    used = f"{np.count_nonzero(np.bincount(gray.ravel(), minlength=256))} gray levels"
    advice = "a mask has two values, or black and white with soft edges"
    if gray.min() >= DARK or gray.max() < BRIGHT:
        levels = f"{used} from {gray.min()} to {gray.max()}"
        raise BadImageError(f"mask-values: {levels}; {advice}")
    between = (gray >= DARK) & (gray < BRIGHT)
    soft = np.count_nonzero(between) / gray.size
    if soft > MAX_SOFT:
        raise BadImageError(
            f"mask-values: {used}, {soft:.0%} of the pixels between dark and bright; {advice}"
        )
    flat = _count_flat(gray, between)
    if flat > max(8, gray.size * MAX_FLAT):
        raise BadImageError(
            f"mask-values: {used}, an even area of {flat} pixels between dark and bright, such as "
            f"a third label; {advice}"
        )
    return gray >= CUT


def _count_flat(gray: NDArray[np.uint8], where: Mask) -> int:
    """Return the number of pixels in `where` that equal their eight neighbors."""
    in_row = (gray[:, 1:-1] == gray[:, :-2]) & (gray[:, 1:-1] == gray[:, 2:])
    center = gray[1:-1, 1:-1]
    flat = in_row[1:-1] & in_row[:-2] & in_row[2:] & where[1:-1, 1:-1]
    flat &= (center == gray[:-2, 1:-1]) & (center == gray[2:, 1:-1])
    return int(np.count_nonzero(flat))
