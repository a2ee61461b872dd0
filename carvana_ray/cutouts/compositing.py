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
from PIL import ExifTags, Image, ImageColor, ImageOps

from carvana_ray import images
from carvana_ray.errors import InputError
from carvana_ray.images import validate as formats

TRANSPARENT = "transparent"
VERSION = 1  # of the pixels that come out of here for the same picture, mask and style
OPAQUE_FROM = 250  # of 255: colours of such pixels are the car's alone
SPREAD = 2  # blocks of the network's grid to each side; an edge's alpha rises over about one
# Of 7 real cut-outs of 1918 x 1280, one core: level 1 takes 56 ms and 597 kB, 3 65 ms and 574 kB, 6
# (Pillow's own) 117 ms and 523 kB, 9 439 ms and 517 kB (2026-11-22).
PNG_LEVEL = 1
# The same ones: method 0 takes 101 ms and 236 kB, 2 215 ms and 94 kB, 4 (Pillow's own) 342 ms and
# 91 kB; without loss 287 ms and 319 kB. Alpha is kept without loss in all of them.
WEBP = {"quality": 90, "method": 2, "alpha_quality": 100}

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class CutoutStyle:
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


def parse_color(text: str) -> RGB | None:
    """Return what a colour's name, ``#rgb`` or ``#rrggbb`` stands for; None if it is none."""
    try:
        found = ImageColor.getrgb(text)
    except ValueError:
        return None
    return found[:3] if len(found) == 3 else None


def soft_alpha(share: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return alpha of soft edges, by the network's share of car: uint8 [height, width].

    The share is stretched to twice its contrast about a half: ``2 share - 127.5``. As it is, an
    edge is two blocks wide, and where a network is in doubt about the ground that shines through; a
    share below a quarter is none. A half exactly is rounded down, so that 128 and more is exactly
    where `images.enlarge` has car.

    Args:
        share: uint8 [h, w].
        height, width: H, W of the picture.

    Raises:
        ValueError: [h, w] is no whole fraction of [H, W].
    """
    doubled = 2 * images.upsample(share, height, width) - 128  # exact in float32
    return np.ceil(doubled).clip(0, 255).astype(np.uint8)


def hard_alpha(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return alpha of a mask: uint8 [H, W], 255 for car, else 0."""
    return mask.view(np.uint8) * np.uint8(255)


def decontaminate_edges(picture: Image.Image, alpha: NDArray[np.uint8], block: int) -> Image.Image:
    """Return a picture whose colours at soft edges are more the car's and less the background's.

    A pixel of an edge shows some background, which would be a pale line on another one. Its colour
    C becomes ``alpha C + (1 - alpha) M``, M the mean of the pixels about it that are wholly car; it
    stays where there are none. M is smooth, and taken on the network's grid: 16 times less work.

    Args:
        picture: RGB, [H, W].
        alpha: uint8 [H, W].
        block: side of a block of the grid, in pixels.
    """
    height, width = alpha.shape
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    if not len(edge):
        return picture
    means = _means(picture, alpha >= OPAQUE_FROM, block)
    found = _sampled(means, (edge // width + 0.5) / block, (edge % width + 0.5) / block)
    known = found[:, 3] >= 0.5
    edge, mean = edge[known], found[known, :3] / found[known, 3:]
    pixels = np.array(picture).reshape(-1, 3)
    share = alpha.reshape(-1)[edge, None] / np.float32(255)
    pixels[edge] = np.rint(share * pixels[edge] + (1 - share) * mean)
    return Image.fromarray(pixels.reshape(height, width, 3))


def _means(picture: Image.Image, sure: NDArray[np.bool_], block: int) -> NDArray[np.float32]:
    """Return red, green, blue and 1 about each block [h, w, 4]; zeros without a block's worth."""
    weighted = picture.copy()
    weighted.putalpha(Image.fromarray(hard_alpha(sure)))
    small = np.asarray(weighted.convert("RGBa").reduce(block), dtype=np.float32) / np.float32(255)
    sums = _box_sums(_box_sums(small, SPREAD, 0), SPREAD, 1)
    weight = sums[..., 3:]
    means = np.where(weight >= 1, sums / np.maximum(weight, 1), 0)
    means[..., :3] *= 255
    return means


def _sampled(
    values: NDArray[np.float32], y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return values [h, w, c] at points [n], bilinear: [n, c]; a block's centre is at its half."""
    h, w, _ = values.shape
    y, x = np.clip(y - 0.5, 0, h - 1), np.clip(x - 0.5, 0, w - 1)
    top, left = y.astype(np.intp), x.astype(np.intp)
    down, right = np.minimum(top + 1, h - 1), np.minimum(left + 1, w - 1)
    below, beside = ((one % 1).astype(np.float32)[:, None] for one in (y, x))
    upper = values[top, left] * (1 - beside) + values[top, right] * beside
    lower = values[down, left] * (1 - beside) + values[down, right] * beside
    return upper * (1 - below) + lower * below


def _box_sums(values: NDArray[np.float32], radius: int, axis: int) -> NDArray[np.float32]:
    """Return the sums of ``2 radius + 1`` neighbours along an axis, of those that there are."""
    margin = [(0, 0)] * values.ndim
    margin[axis] = (radius, radius)
    padded = np.pad(values, margin)
    result = np.zeros_like(values)
    for start in range(2 * radius + 1):
        result += padded.take(range(start, start + values.shape[axis]), axis)
    return result


def composite(
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
        ground = fit_background(background, picture.size)
    else:
        ground = Image.new("RGB", picture.size, background)
    return Image.composite(picture, ground, Image.fromarray(alpha))


@functools.lru_cache(maxsize=2)
def fit_background(data: bytes, size: tuple[int, int]) -> Image.Image:
    """Return a background picture that fills (width, height): scaled to cover it, its middle.

    Raises:
        BadPicture: it is none.
    """
    return ImageOps.fit(images.load_rgb(data), size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, style: CutoutStyle, data: bytes) -> bytes:
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
    source = formats.open_image(data)
    profile = source.info.get("icc_profile")
    if profile and source.mode in ("RGB", "P") and image.mode in ("RGB", "RGBA"):
        options = options | {"icc_profile": profile}
    buffer = io.BytesIO()
    image.save(buffer, style.format, **options)
    return buffer.getvalue()


def render(
    data: bytes, style: CutoutStyle, share: NDArray[np.uint8] | None, mask: NDArray[np.bool_] | None
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
    height, width = formats.image_size(data)
    if share is None:
        assert mask is not None
        alpha = hard_alpha(mask)
    elif style.soft:
        alpha = soft_alpha(share, height, width)
    else:
        alpha = hard_alpha(images.enlarge(share, height, width))
    if style.mask_only:
        return encode(Image.fromarray(alpha).convert("L" if style.soft else "1"), style, data)
    picture = images.load_rgb(data)
    if style.soft and share is not None:
        picture = decontaminate_edges(
            picture, alpha, images.infer_downscale(height, width, *share.shape)
        )
    return encode(composite(picture, alpha, style.background), style, data)


def parse_background(text: str, read: Any) -> RGB | bytes | None:
    """Return what ``--background`` asks for, see `Style`.

    Args:
        text: ``transparent``, a colour, or a picture's URI.
        read: from URI to bytes; raises `InputError`.

    Raises:
        InputError: it is none of the three.
    """
    if text == TRANSPARENT:
        return None
    if found := parse_color(text):
        return found
    try:
        data = read(text)
        images.load_rgb(data)
    except ValueError as error:  # InputError and BadPicture
        raise InputError(
            f"--background {text}: neither transparent, nor a colour (white, #f0f0f0), nor a "
            f"picture: {error}"
        ) from error
    return data
