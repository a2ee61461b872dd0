"""Pixels and a share of car in, the bytes of a cut-out out. Knows no files, no torch.

Alpha is 255 for car and 0 for none. A hard alpha is the mask itself; a soft one follows the
network's share of car, and is 128 or more exactly where the mask is.
"""

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, ImageFilter, ImageOps

from carvana_ray import formats, images
from carvana_ray.errors import InputError

TRANSPARENT = "transparent"
VERSION = 1  # of the pixels that come out of here for the same picture, mask and style
OPAQUE_FROM = 250  # of 255: colours of such pixels are the car's alone
SPREAD = 2  # blocks of the network's grid to each side; an edge's alpha rises over about two
# Of 7 real cut-outs of 1918 x 1280, one core: level 1 takes 56 ms and 597 kB, 3 65 ms and 574 kB, 6
# (Pillow's own) 117 ms and 523 kB, 9 439 ms and 517 kB (2026-11-22).
PNG_LEVEL = 1
# The same ones: method 0 takes 101 ms and 236 kB, 2 215 ms and 94 kB, 4 (Pillow's own) 342 ms and
# 91 kB; without loss 287 ms and 319 kB. Alpha is kept without loss in all of them.
WEBP = {"quality": 90, "method": 2, "alpha_quality": 100}

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """How cut-outs are to look.

    Attributes:
        soft: edges.
        background: None for transparent, a colour, or a picture file's bytes.
        format: ``png`` or ``webp``.
        mask_only: alpha alone: 1 bit a pixel, 8 bits where edges are soft.
    """

    soft: bool
    background: RGB | bytes | None
    format: str
    mask_only: bool

    @property
    def suffix(self) -> str:
        """Of the files."""
        return f".{self.format}"


def colour(text: str) -> RGB | None:
    """Return what a colour's name, ``#rgb`` or ``#rrggbb`` stands for; None if it is none."""
    try:
        found = ImageColor.getrgb(text)
    except ValueError:
        return None
    return found[:3] if len(found) == 3 else None


def soft_alpha(share: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return alpha of an edge as soft as the network's share of car: uint8 [height, width].

    A half (127.5) is rounded down, so that 128 and more is exactly where `images.enlarge` has car.

    Args:
        share: uint8 [h, w].
        height, width: H, W of the picture.

    Raises:
        ValueError: [h, w] is no whole fraction of [H, W].
    """
    return np.ceil(images.smooth(share, height, width) - np.float32(0.5)).astype(np.uint8)


def hard_alpha(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return alpha of a mask: uint8 [H, W], 255 for car, else 0."""
    return mask.view(np.uint8) * np.uint8(255)


def spread(picture: Image.Image, alpha: NDArray[np.uint8], block: int) -> Image.Image:
    """Return a picture whose colours at soft edges are more the car's and less the background's.

    A pixel of an edge shows some background, which would be a pale line on another one. Its colour
    C becomes ``alpha C + (1 - alpha) M``, M the mean of the pixels about it that are wholly car; it
    stays where there are none. M is smooth, and taken on the network's grid: 16 times less work.

    Args:
        picture: RGB, [H, W].
        alpha: uint8 [H, W].
        block: side of a block of the grid, in pixels.
    """
    edge = (alpha > 0) & (alpha < 255)
    rows, columns = np.flatnonzero(edge.any(1)), np.flatnonzero(edge.any(0))
    if not len(rows):
        return picture
    margin = (SPREAD + 1) * block
    top, bottom = max(int(rows[0]) - margin, 0), int(rows[-1]) + 1 + margin
    left, right = max(int(columns[0]) - margin, 0), int(columns[-1]) + 1 + margin
    box = left, top, min(right, picture.width), min(bottom, picture.height)
    part = np.s_[top:bottom, left:right]
    mean, known = _mean_of(picture.crop(box), alpha[part] >= OPAQUE_FROM, block)
    mixed = Image.composite(picture.crop(box), mean, Image.fromarray(alpha[part]))
    result = picture.copy()
    result.paste(mixed, box, Image.fromarray(hard_alpha(edge[part] & known)))
    return result


def _mean_of(
    picture: Image.Image, sure: NDArray[np.bool_], block: int
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Return the mean colour of sure pixels about each pixel, RGB, and where there are any."""
    weighted = picture.copy()
    weighted.putalpha(Image.fromarray(hard_alpha(sure)))
    small = weighted.convert("RGBa").reduce(block).filter(ImageFilter.BoxBlur(SPREAD))
    full = small.resize((small.width * block, small.height * block), Image.Resampling.BILINEAR)
    mean = full.crop((0, 0, *picture.size)).convert("RGBA")
    return mean.convert("RGB"), np.asarray(mean.getchannel("A")) > 0


def compose(
    picture: Image.Image, alpha: NDArray[np.uint8], background: RGB | bytes | None
) -> Image.Image:
    """Return a picture cut out, RGBA, or laid on a background, RGB.

    Args:
        picture: RGB, [H, W].
        alpha: uint8 [H, W].
        background: see `Style`.

    Raises:
        BadPicture: the background is none.
    """
    if background is None:
        result = picture.copy()
        result.putalpha(Image.fromarray(alpha))
        pixels = np.asarray(result).view(np.uint32)[..., 0]
        # What nobody sees is black: it packs best, and nothing of the background leaves the studio.
        return Image.fromarray(
            np.where(alpha > 0, pixels, np.uint32(0)).view(np.uint8).reshape(*alpha.shape, 4),
            "RGBA",
        )
    if isinstance(background, bytes):
        ground = backdrop(background, picture.size)
    else:
        ground = Image.new("RGB", picture.size, background)
    return Image.composite(picture, ground, Image.fromarray(alpha))


@functools.lru_cache(maxsize=2)
def backdrop(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Return a background picture that fills (width, height): scaled to cover it, its middle.

    Raises:
        BadPicture: it is none.
    """
    return ImageOps.fit(images.load_colour(data), size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, style: Style, data: bytes) -> bytes:
    """Return the bytes of a file.

    Args:
        image: of `compose`, or a mask.
        style: its format.
        data: the picture that it was made of: its orientation (EXIF) and its colour profile are
            kept; nothing else of its EXIF block is, where a small picture of all may be, or a
            place.
    """
    options: dict[str, Any] = WEBP if style.format == "webp" else {"compress_level": PNG_LEVEL}
    if (turn := formats.orientation_of(data)) != 1:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = turn
        options = options | {"exif": exif.tobytes()}
    source = formats.open_picture(data)
    profile = source.info.get("icc_profile")
    if profile and source.mode in ("RGB", "P") and image.mode in ("RGB", "RGBA"):
        options = options | {"icc_profile": profile}
    buffer = io.BytesIO()
    image.save(buffer, style.format, **options)
    return buffer.getvalue()


def cut_out(
    data: bytes, style: Style, share: NDArray[np.uint8] | None, mask: NDArray[np.bool_] | None
) -> bytes:
    """Return a picture's cut-out.

    Args:
        data: the picture, of any size [H, W].
        style: how it is to look.
        share: the network's share of car, uint8 [h, w].
        mask: bool [H, W] where there is no share; its edges are hard.

    Raises:
        BadPicture: see `images.load_colour`.
    """
    height, width = formats.size_of(data)
    if share is None:
        assert mask is not None
        alpha = hard_alpha(mask)
    elif style.soft:
        alpha = soft_alpha(share, height, width)
    else:
        alpha = hard_alpha(images.enlarge(share, height, width))
    if style.mask_only:
        return encode(Image.fromarray(alpha).convert("L" if style.soft else "1"), style, data)
    picture = images.load_colour(data)
    if style.soft and share is not None:
        picture = spread(picture, alpha, images.factor(height, width, *share.shape))
    return encode(compose(picture, alpha, style.background), style, data)


def background_of(text: str, read: Any) -> RGB | bytes | None:
    """Return what ``--background`` asks for, see `Style`.

    Args:
        text: ``transparent``, a colour, or a picture's URI.
        read: from URI to bytes; raises `InputError`.

    Raises:
        InputError: it is none of the three.
    """
    if text == TRANSPARENT:
        return None
    if found := colour(text):
        return found
    try:
        data = read(text)
        images.load_colour(data)
    except ValueError as error:  # InputError and BadPicture
        raise InputError(
            f"--background {text}: neither transparent, nor a colour (white, #f0f0f0), nor a "
            f"picture: {error}"
        ) from error
    return data
