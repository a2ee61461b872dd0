"""Turn an image and its mask into the bytes of a cut-out. Knows no storage and no torch.

Alpha is 255 for the car and 0 for the background. Hard alpha is the mask itself; soft alpha follows
the network's soft mask at the mask's edge and is 128 or more exactly where the mask is true.
"""

import contextlib
import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from carvana_ray import images
from carvana_ray.cutouts.alpha import (
    hard_alpha,
    limit_alpha,
    limit_to_band,
    smooth_alpha,
    soft_alpha,
)
from carvana_ray.cutouts.edge_colors import decontaminate_edges
from carvana_ray.cutouts.framing import Frame, frame_car
from carvana_ray.cutouts.shadow import cast_shadow
from carvana_ray.errors import InputError
from carvana_ray.images import turns, validate
from carvana_ray.images.decode import load_colors

TRANSPARENT = "transparent"
# 7 real cut-outs of 1918 x 1280, one core: level 1 takes 56 ms and 597 kB, 3 65 ms and 574 kB, 6
# (Pillow's default) 117 ms and 523 kB, 9 439 ms and 517 kB (2026-11-22).
PNG = {"compress_level": 1}
# The same cut-outs: method 0 takes 101 ms and 236 kB, 2 215 ms and 94 kB, 4 (Pillow's default)
# 342 ms and 91 kB; lossless 287 ms and 319 kB. Alpha is lossless in all of them.
WEBP = {"quality": 90, "method": 2, "alpha_quality": 100}
# 8 real cut-outs of 1600 x 1200 on white: 9 ms and 151 kB, without optimize 5 ms and 171 kB,
# progressive 22 ms and 144 kB; PNG 42 ms and 558 kB, WebP 36 ms and 75 kB. Halved colors (4:2:0)
# save a sixth and stain four times as many white pixels around a red car (2026-11-28).
JPEG = {"quality": 92, "subsampling": 0, "optimize": True}
OPTIONS: dict[str, dict[str, Any]] = {"png": PNG, "webp": WEBP, "jpeg": JPEG}

RGB = tuple[int, int, int]
Background = RGB | bytes | None


@dataclass(frozen=True)
class CutoutStyle:
    """How a cut-out looks.

    Attributes:
        soft: anti-aliased alpha; False: binary alpha.
        background: None for transparent, an RGB color, or the bytes of an image file.
        format: ``png``, ``webp`` or ``jpeg``, which needs a background.
        mask_only: write alpha alone, without colors: 1 bit a pixel, 8 bits if `soft`.
        frame: where the car stands; None: as photographed.
        shadow: ``none``, ``contact`` or ``soft``.
    """

    soft: bool
    background: Background
    format: str
    mask_only: bool
    frame: Frame | None = None
    shadow: str = "none"

    @property
    def suffix(self) -> str:
        return ".jpg" if self.format == "jpeg" else f".{self.format}"


def version(style: CutoutStyle) -> int:
    """Return the version of the pixels that an image, a mask and a style give.

    Cut-outs of several versions are never mixed. Raise it where pixels change, and only there.
    """
    return 5 if style.soft else 3


def render(
    data: bytes,
    style: CutoutStyle,
    soft_mask: NDArray[np.uint8] | None = None,
    mask: NDArray[np.bool_] | None = None,
    extent: tuple[int, int] | None = None,
) -> bytes:
    """Cut the car out of one image file and return the bytes of the cut-out's file.

    Give either `soft_mask` or `mask`. With ``style.soft`` edges are those of `soft_alpha` within
    the band of `limit_to_band`, or those of `smooth_alpha` if `mask` is given, and their colors
    those of `decontaminate_edges`. Otherwise alpha is 255 in the mask (that of `images.enlarge` if
    `soft_mask` is given), else 0. An alpha of the image itself limits that of the cut-out.

    The cut-out is upright: it is turned by the image's EXIF orientation. With ``style.frame`` the
    car alone is shown, cropped and scaled by `frame_car`. The shadow of `cast_shadow` lies on the
    background. The color profile is copied, and all other metadata is dropped. Before another
    background colors are sRGB.

    Args:
        data: bytes of an image file of any size [H, W], see `images.load_gray`.
        style: edges, background and file format.
        soft_mask: uint8 [h, w] of the stored pixels, 255 is car, as `Predictor.soft_masks` returns
            it for `images.load_gray`.
        mask: bool [H, W] of the stored pixels, for example a decoded row of a submission, or one
            that a person has corrected.
        extent: (width, height) in pixels of the largest box over all views of the car, upright, as
            `car_box` returns it. It gives a ``catalogue`` frame one scale. None: this image's own.

    Returns:
        Bytes of a PNG, WebP or JPEG file: RGBA with a transparent background, RGB on any other
        background, and a gray image of alpha with ``style.mask_only``.

    Raises:
        BadImageError: `data` is damaged, too large or of another format.
        ValueError: both masks or neither are given, or the grid does not fit the image.
    """
    if (soft_mask is None) == (mask is None):
        raise ValueError("render needs either a soft mask or a mask")
    header = validate.open_image(data)
    turn = validate.exif_orientation(header)
    if soft_mask is None:
        assert mask is not None
        alpha = smooth_alpha(mask) if style.soft else hard_alpha(mask)
    else:
        alpha = _alpha_of(soft_mask, header.height, header.width, style.soft)
    if not style.mask_only or header.has_transparency_data:
        decoded = load_colors(data, srgb=style.background is not None)
        alpha = limit_alpha(alpha, decoded.alpha, style.soft)
    if style.mask_only:
        upright = Image.fromarray(turns.to_upright(alpha, turn))
        return encode(upright.convert("L" if style.soft else "1"), style)
    image = decoded.rgb
    if style.soft:
        image = decontaminate_edges(image, alpha)
    if turn != 1:
        image = Image.fromarray(turns.to_upright(np.asarray(image), turn))
        alpha = turns.to_upright(alpha, turn)
    if style.frame:
        image, alpha = frame_car(image, alpha, style.frame, extent)
    shadow = cast_shadow(alpha, style.shadow) if style.shadow != "none" else None
    return encode(composite(image, alpha, style.background, shadow), style, decoded.profile)


def _alpha_of(
    soft_mask: NDArray[np.uint8], height: int, width: int, soft: bool
) -> NDArray[np.uint8]:
    """Return the alpha of a soft mask, uint8 [height, width]."""
    if soft:
        return limit_to_band(soft_alpha(soft_mask, height, width))
    return hard_alpha(images.enlarge(soft_mask, height, width))


def composite(
    image: Image.Image,
    alpha: NDArray[np.uint8],
    background: Background,
    shadow: NDArray[np.uint8] | None = None,
) -> Image.Image:
    """Lay an RGB image over a background by its alpha, uint8 [H, W].

    Args:
        image: RGB, [H, W].
        alpha: of the image, uint8 [H, W].
        background: see `CutoutStyle`.
        shadow: opacity of black on the background, below the image, uint8 [H, W]; None: no shadow.

    Returns:
        RGBA if the background is None (transparent), else RGB.

    Raises:
        BadImageError: the background is not a usable image.
    """
    black = Image.new("RGB", image.size)
    if background is None:
        # Invisible pixels become black: that compresses best, and the file hides no background.
        result = Image.composite(image, black, Image.fromarray(alpha > 0))
        result.putalpha(Image.fromarray(alpha))
        if shadow is None:
            return result
        black.putalpha(Image.fromarray(shadow))
        return Image.alpha_composite(black, result)
    if isinstance(background, bytes):
        below = fit_background(background, image.size)
    else:
        below = Image.new("RGB", image.size, background)
    if shadow is not None:
        below = Image.composite(black, below, Image.fromarray(shadow))
    return Image.composite(image, below, Image.fromarray(alpha))


@functools.lru_cache(maxsize=2)
def fit_background(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Return a background image scaled to cover (width, height) and cropped around its center."""
    decoded = load_colors(data, srgb=True)
    pixels = turns.to_upright(np.asarray(decoded.rgb), decoded.orientation)
    return ImageOps.fit(Image.fromarray(pixels), size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, style: CutoutStyle, profile: bytes | None = None) -> bytes:
    """Return the bytes of a cut-out's file.

    Nothing of the source image's metadata is copied but the color profile: its EXIF block may hold
    a thumbnail of the whole image, or a location.

    Args:
        image: a result of `composite`, or alpha alone.
        style: its `format` is used.
        profile: color profile of the image.
    """
    options: dict[str, Any] = dict(OPTIONS[style.format])
    if profile:
        options["icc_profile"] = profile
    buffer = io.BytesIO()
    image.save(buffer, style.format, **options)
    return buffer.getvalue()


def parse_background(text: str, read: Callable[[str], bytes]) -> Background:
    """Return the background that ``--background`` names.

    Args:
        text: ``transparent``, a color, or the URI of an image.
        read: returns the bytes of a URI; raises `InputError`.

    Raises:
        InputError: `text` is none of the three.
    """
    if text == TRANSPARENT:
        return None
    with contextlib.suppress(ValueError):
        color = ImageColor.getrgb(text)
        if len(color) == 3:  # without alpha
            return color
    try:
        data = read(text)
        images.load_rgb(data)
    except ValueError as error:  # InputError and BadImageError
        raise InputError(
            f"--background {text}: neither transparent, nor a color (white, #f0f0f0), nor an "
            f"image: {error}"
        ) from error
    return data
