"""Bytes to gray levels and masks, and between full size and the network's grid.

One shrink and its inverse, one standardization, for training and prediction alike. H, W is a
picture's full size, h, w the network's grid: ``h = ceil(H / downscale)``. Knows no files, no torch.
"""

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from carvana_ray.errors import BadPicture

DOWNSCALES = (1, 2, 4, 8)  # what a JPEG decoder can leave out of its 8 x 8 cosine blocks
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP")
MASK_FORMATS = ("GIF", "PNG")
MAX_PIXELS = 16 * 1918 * 1280  # more is refused before it is decoded: 39 Mpx in RGB are 157 MB

_MEAN_OF_RGB = (1 / 3, 1 / 3, 1 / 3, 0)
_ORIENTATION, _SHORT = 0x0112, 3  # EXIF's tag, and its type of two bytes

# What Pillow's readers raise at damaged bytes. OSError, SyntaxError, ValueError, IndexError and
# struct.error are what 300,000 damaged files brought up; the others are what Pillow itself takes
# for damage while it opens a file, but lets through while it decodes. MemoryError is not among
# them: it says nothing about the file.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,
    struct.error,
    EOFError,
    KeyError,
    TypeError,
)
_NO_REMARKS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG of which only the pixels count.

    `Image.open` also reads the resolution from the EXIF block, and refuses some sound pictures
    whose EXIF block is damaged. Opened as this class, a file of two JPEGs (MPO, as phones write it)
    is its first picture.
    """

    def _read_dpi_from_exif(self) -> None:
        pass

    def load_prepare(self) -> None:
        """Refuse a file without the mark that ends a JPEG: the decoder takes zeros for pixels.

        Within packed pixels a byte of 255 is always followed by 0 or a restart mark.
        """
        assert self.fp is not None
        if b"\xff\xd9" not in self.fp.read():  # from the start of the pixels, where opening ended
            raise OSError("the end of the picture is missing")
        super().load_prepare()


_READERS: dict[str, tuple[bytes, type[ImageFile.ImageFile]]] = {  # by the first bytes of a file
    "JPEG": (b"\xff\xd8\xff", _Jpeg),
    "PNG": (b"\x89PNG", PngImagePlugin.PngImageFile),
    "WEBP": (b"RIFF", WebPImagePlugin.WebPImageFile),
    "GIF": (b"GIF8", GifImagePlugin.GifImageFile),
}


def grid(height: int, width: int, downscale: int) -> tuple[int, int]:
    """Return the network's (h, w) of a picture of (H, W): whole blocks, the last ones padded."""
    return math.ceil(height / downscale), math.ceil(width / downscale)


def _silence_pillow() -> None:
    """Keep Pillow's warnings off standard error: a bad picture gets a reason of its own.

    The filter is put in front again wherever others were set before it, and never taken away:
    `warnings.catch_warnings` would restore the filters of another thread.
    """
    if warnings.filters[:1] != [_NO_REMARKS]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def _damage_is(word: str) -> Iterator[None]:
    """Turn what Pillow raises at damaged bytes into BadPicture, `word` unless a better one fits."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPicture(f"too-large: {error}") from error
    except OSError as error:  # the bytes end early, or a decoder gave up on them
        raise BadPicture(f"truncated: {error}") from error
    except _DAMAGE as error:
        raise BadPicture(f"{word}: {error}") from error


def open_picture(data: bytes, formats: tuple[str, ...] = PICTURE_FORMATS) -> Image.Image:
    """Open a picture and check format, size, frames and channels, without decoding it.

    The content decides, not a name. Of a JPEG file of two pictures (MPO) this is the first.

    Args:
        data: the file's bytes; what follows the end of the picture does not matter.
        formats: those to accept, of JPEG, PNG, WEBP and GIF.

    Raises:
        BadPicture: ``not-an-image``, ``truncated`` (within the header), ``too-large``, ``animated``
            or ``mode``.
        RuntimeError: Pillow is set to fill up what is missing of a file.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "some library has set PIL.ImageFile.LOAD_TRUNCATED_IMAGES: files that are cut short"
            " would be read as gray bands without a word; set it to False"
        )
    _silence_pillow()
    readers = [_READERS[name][1] for name in formats if data.startswith(_READERS[name][0])]
    if not readers:
        raise BadPicture(f"not-an-image: {len(data)} bytes that are not {', '.join(formats)}")
    with _damage_is("not-an-image"):
        image = readers[0](io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise BadPicture(
            f"too-large: {image.width} x {image.height} pixels, at most {MAX_PIXELS} in all"
        )
    with _damage_is("truncated"):
        frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise BadPicture(f"animated: {frames} frames, expected one")
    if image.mode not in ("RGB", "L", "P", "CMYK", "1"):
        raise BadPicture(f"mode: {image.mode} pixels, expected 8 bits a channel and no alpha")
    return image


def size_of(data: bytes) -> tuple[int, int]:
    """Return a picture's (H, W) from its header.

    Raises:
        BadPicture: see `open_picture`.
    """
    image = open_picture(data)
    return image.height, image.width


def orientation_of(data: bytes) -> int:
    """Return how a picture's EXIF block says that it is to be turned: 1 (not at all) to 8.

    Read from the header, to be counted: nothing here turns pictures, since masks are drawn on the
    pixels as they are stored. A block that is missing, damaged or says something else gives 1.

    Raises:
        BadPicture: see `open_picture`.
    """
    exif = open_picture(data).info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, place)
            if (tag, kind, count) == (_ORIENTATION, _SHORT, 1) and 1 <= value <= 8:
                return int(value)
    except struct.error:  # the block is shorter than it says
        pass
    return 1


def check_crc(data: bytes, expected: int | None) -> None:
    """Check a file's bytes against a checksum that was taken when they were known to be good.

    Nothing else finds a flipped bit or zeros in the middle of a JPEG: they decode, without a word,
    to a picture that is wrong from there on.

    Args:
        data: the file's bytes.
        expected: its CRC-32, or None where none is known.

    Raises:
        BadPicture: ``checksum``.
    """
    if expected is None:
        return
    found = zlib.crc32(data)
    if found != expected:
        raise BadPicture(f"checksum: CRC-32 is {found:08x}, crc32.csv says {expected:08x}")


def load_gray(data: bytes, downscale: int = 4) -> NDArray[np.uint8]:
    """Return the mean of red, green and blue over blocks of downscale x downscale pixels.

    JPEG is decoded straight to the small size: the decoder leaves out the high frequencies of each
    8 x 8 block, which is the block mean to within a gray level on average, and four times less work
    than decoding everything. Other formats are decoded in full and averaged.

    Args:
        data: a JPEG (or PNG, WebP) of any size [H, W].
        downscale: 1, 2, 4 or 8.

    Returns:
        uint8 [h, w], ``h = ceil(H / downscale)``: 1280 x 1918 becomes 320 x 480 at 4, 160 x 240 at
        8.

    Raises:
        BadPicture: ``truncated``, and see `open_picture`.
        ValueError: another downscale.
    """
    if downscale not in DOWNSCALES:
        raise ValueError(f"downscale {downscale}: must be one of {DOWNSCALES}")
    image = open_picture(data)
    height, width = grid(image.height, image.width, downscale)
    # Floor, not ceiling: the decoder takes the smallest scale that is no smaller than asked, and
    # asking for (480, 320) of 1918 x 1280 gives half scale in silence.
    if min(image.size) >= downscale:
        image.draft(None, (image.width // downscale, image.height // downscale))
    with _damage_is("truncated"):
        image.load()
        if image.mode != "L":
            rgb = image if image.mode == "RGB" else image.convert("RGB")
            image = rgb.convert("L", _MEAN_OF_RGB)
    if image.size != (width, height):
        image = image.reduce(downscale)
    return np.asarray(image)


def load_mask(data: bytes) -> NDArray[np.bool_]:
    """Return the mask of a GIF or PNG of two values, black and white: bool [H, W].

    Raises:
        BadPicture: ``truncated``, ``mask-values`` (a gray level between black and white, which no
            threshold can guess), and see `open_picture`.
    """
    image = open_picture(data, MASK_FORMATS)
    with _damage_is("truncated"):
        gray = image.convert("L")  # through the palette: index 1 may well be black
    between = sum(gray.histogram()[1:255])
    if between:
        raise BadPicture(
            f"mask-values: {between} pixels are neither 0 nor 255, a mask has two values"
        )
    return np.asarray(gray) > 127


def shrink_mask(mask: NDArray, downscale: int = 4) -> NDArray[np.uint8]:
    """Return the share of car in each block of downscale x downscale pixels, times 255.

    Args:
        mask: bool [H, W]. The right and bottom are padded to whole blocks by repeating the last
            column and row.
        downscale: 1 or more.

    Returns:
        uint8 [h, w], rounded to the nearest.
    """
    height, width = mask.shape
    h, w = grid(height, width, downscale)
    padding = ((0, h * downscale - height), (0, w * downscale - width))
    levels = np.pad(np.asarray(mask, dtype=np.uint8) * np.uint8(255), padding, mode="edge")
    return np.asarray(Image.fromarray(levels).reduce(downscale))


def factor(height: int, width: int, h: int, w: int) -> int:
    """Return the downscale that makes a grid of (h, w) of a picture of (H, W), `DOWNSCALES` first.

    Raises:
        ValueError: none does.
    """
    for downscale in (*DOWNSCALES, -(-height // h)):
        if grid(height, width, downscale) == (h, w):
            return downscale
    raise ValueError(f"a grid of {h} x {w} is no whole fraction of {height} x {width}")


def enlarge(share: NDArray, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask whose blocks hold `share` of car: the inverse of `shrink_mask`.

    Bilinear by the whole factor (sample points at block centres), cut to height x width, and true
    above a half. Weights are odd sixteenths and the like, so float32 adds up a uint8 share exactly
    and every implementation of this arithmetic gives the same mask.

    Args:
        share: uint8 (0..255) or float (0..1), [h, w] or [B, h, w].
        height, width: H, W of the picture.

    Returns:
        bool [H, W] or [B, H, W].

    Raises:
        ValueError: [h, w] is no whole fraction of [H, W].
    """
    share = np.asarray(share)
    if share.ndim == 3:
        masks = np.empty((len(share), height, width), dtype=np.bool_)
        for mask, one in zip(masks, share, strict=True):
            mask[:] = enlarge(one, height, width)
        return masks
    h, w = share.shape
    times = factor(height, width, h, w)
    half = 127.5 if share.dtype == np.uint8 else 0.5
    smooth = Image.fromarray(share.astype(np.float32)).resize(
        (w * times, h * times), Image.Resampling.BILINEAR
    )
    return np.asarray(smooth)[:height, :width] > half


def standardize(gray: Any) -> Any:
    """Return each picture at zero mean and unit variance, by its own mean and standard deviation.

    A picture's mask must not depend on its neighbours in the batch, so nothing is shared. One level
    squared is added to the variance: a blank picture becomes zeros.

    Args:
        gray: numpy array or torch tensor [..., h, w], gray levels 0..255. Only what the two have in
            common is used, so that training and prediction share this very function.

    Returns:
        The same kind [..., h, w], float32 for uint8 and float32 input.
    """
    levels = gray * np.float32(1)
    levels = levels - levels.mean(axis=(-2, -1), keepdims=True)
    variance = (levels * levels).mean(axis=(-2, -1), keepdims=True)
    return levels / (variance + np.float32(1)) ** 0.5
