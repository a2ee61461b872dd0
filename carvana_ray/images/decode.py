"""Bytes of an image file to gray levels or colors. Masks are in `masks`."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from carvana_ray.images.resize import DOWNSCALES, grid_size
from carvana_ray.images.turns import swaps_axes, to_upright
from carvana_ray.images.validate import decode_errors_as, exif_orientation, open_image

_MEAN_OF_RGB = (1 / 3, 1 / 3, 1 / 3, 0)


def load_gray(data: bytes, downscale: int = 4) -> NDArray[np.uint8]:
    """Decode an image to gray levels on the network's grid.

    A gray level is the mean of red, green and blue over a block of downscale x downscale pixels. A
    JPEG is decoded directly at the small size, without the high frequencies of each 8 x 8 block: a
    quarter of the work, and within a gray level of the block mean on average. Other formats are
    decoded in full. At the border only pixels inside the image (JPEG: and the encoder's padding)
    count.

    Args:
        data: a file of any of `formats.IMAGE_FORMATS` and any size [H, W]. EXIF orientation is
            ignored: the pixels stay as they are stored. Transparent pixels show white.
        downscale: 1, 2, 4 or 8.

    Returns:
        uint8 [h, w], 0 (black) to 255 (white), with ``h = ceil(H / downscale)`` and
        ``w = ceil(W / downscale)``: 1280 x 1918 becomes 320 x 480 at 4 and 160 x 240 at 8.

    Raises:
        BadImageError: ``truncated``, or see `validate.open_image`.
        ValueError: another downscale.
    """
    return to_gray(open_image(data), downscale)


def to_gray(image: Image.Image, downscale: int = 4) -> NDArray[np.uint8]:
    """Return `load_gray` of an image that `validate.open_image` opened and nothing decoded yet."""
    if downscale not in DOWNSCALES:
        raise ValueError(f"downscale {downscale}: must be one of {DOWNSCALES}")
    height, width = grid_size(image.height, image.width, downscale)
    # Rounded down, unlike the grid: the decoder takes the smallest scale that is at least as large
    # as requested, and for (480, 320) of 1918 x 1280 it would silently take half the size.
    gray = decode_gray(image, (image.width // downscale, image.height // downscale))
    return np.asarray(gray if gray.size == (width, height) else gray.reduce(downscale))


def decode_gray(image: Image.Image, at_least: tuple[int, int]) -> Image.Image:
    """Return the gray levels of an image from `validate.open_image`, mode L.

    Args:
        image: nothing decoded it yet.
        at_least: (width, height) to which a decoder may shrink the image, by 2, 4 or 8.
    """
    if min(at_least) > 0:
        image.draft(None, at_least)
    with decode_errors_as("truncated"):
        image.load()
        if image.mode != "L" or image.has_transparency_data:
            image = _on_white(image).convert("L", _MEAN_OF_RGB)
    return image


def load_upright(data: bytes, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image as viewers show it: upright, mode RGB, transparent parts before white.

    Args:
        data: see `load_gray`.
        at_least: (width, height) of the upright image to which a JPEG may be shrunk, by 2, 4 or 8.

    Raises:
        BadImageError: ``truncated``, or see `validate.open_image`.
    """
    image = open_image(data)
    turn = exif_orientation(image)
    if at_least:
        width, height = at_least[::-1] if swaps_axes(turn) else at_least
        image.draft(None, (max(width, 1), max(height, 1)))
    with decode_errors_as("truncated"):
        image.load()
        rgb = _on_white(image)
    return rgb if turn == 1 else Image.fromarray(to_upright(np.asarray(rgb), turn))


def load_upright_gray(image: Image.Image, downscale: int, orientation: int) -> NDArray[np.uint8]:
    """Return the gray levels of an upright image, in blocks that start at its upright corner.

    Args:
        image: from `validate.open_image`; nothing decoded it yet.
        downscale: see `load_gray`.
        orientation: of the image's EXIF block.
    """
    if orientation == 1:
        return to_gray(image, downscale)
    upright = Image.fromarray(to_upright(to_gray(image, 1), orientation))
    return np.asarray(upright.reduce(downscale))


@dataclass(frozen=True)
class Decoded:
    """A decoded image, its pixels [H, W] as they are stored.

    Attributes:
        rgb: its colors, mode RGB, without alpha.
        alpha: its own alpha, mode L; None if all of it is opaque.
        profile: the color profile of `rgb`, if it has one.
        orientation: of EXIF, 1 to 8, see `turns`.
    """

    rgb: Image.Image
    alpha: Image.Image | None
    profile: bytes | None
    orientation: int


def load_rgb(data: bytes) -> Image.Image:
    """Decode an image in full size and color, mode RGB. EXIF orientation and alpha are ignored.

    Raises:
        BadImageError: ``truncated``, or see `validate.open_image`.
    """
    return load_colors(data).rgb


def load_colors(data: bytes, srgb: bool = False) -> Decoded:
    """Decode an image in full size and color.

    Args:
        data: see `load_gray`.
        srgb: whether to convert colors of another profile to sRGB, as a mixture of two images
            needs it. CMYK is converted by its profile in any case.

    Raises:
        BadImageError: ``truncated``, or see `validate.open_image`.
    """
    image = open_image(data)
    orientation, profile = exif_orientation(image), image.info.get("icc_profile")
    with decode_errors_as("truncated"):
        image.load()
        image, alpha = _split_alpha(image)
        if profile and (srgb or image.mode == "CMYK"):
            image = _to_srgb(image, profile)
        rgb = image if image.mode == "RGB" else image.convert("RGB")
    fits = image.mode in ("RGB", "P")  # a profile of gray levels does not fit colors
    return Decoded(rgb, alpha, image.info.get("icc_profile") if fits else None, orientation)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return a decoded image without alpha, and its alpha, mode L; None if all of it is opaque.

    16 bits become the upper 8. Colors keep their mode if the image has no alpha.
    """
    if image.mode.startswith("I;16"):  # `convert` would cut at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)), None
    if not image.has_transparency_data:
        return image, None
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    return rgba.convert("RGB"), alpha if alpha.getextrema() != (255, 255) else None


def _on_white(image: Image.Image) -> Image.Image:
    """Return a decoded image in mode RGB, its transparent parts before white."""
    image, alpha = _split_alpha(image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return an image in sRGB, mode RGB; unchanged if its profile does not fit or is damaged."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
            return image  # most are; the conversion would take time and move some levels by one
        target = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, target, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
