"""Image files as bytes: opened and checked by their headers, before anything is decoded."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image, ImageFile

from carvana_ray.errors import BadImageError, plural
from carvana_ray.images.formats import IMAGE_FORMATS, Jpeg, format_of, reader
from carvana_ray.images.turns import turned_size

MAX_PIXELS = 2**26  # larger images are refused: 67 megapixels take 201 MB in RGB
MAX_BYTES = 8 * MAX_PIXELS  # of a file; more than so many pixels take in any of the formats
MASK_FORMATS = ("GIF", "PNG", "TIFF", "BMP", "JPEG", "WEBP")
IMAGE_MODES = ("RGB", "L", "P", "CMYK", "1", "RGBA", "LA", "PA", "I;16", "I;16B")
MASK_MODES = (*IMAGE_MODES, "I", "F", "I;16L", "I;16N")

# What Pillow raises for damaged bytes. 300,000 damaged files raised OSError, SyntaxError,
# ValueError, IndexError and struct.error; Pillow treats the others as damage when it opens a file,
# but not when it decodes. Decoders of AVIF and HEIC raise RuntimeError. MemoryError is not
# included: it says nothing about the file.
_DAMAGE: tuple[type[Exception], ...] = OSError, SyntaxError, ValueError, LookupError, struct.error
_DAMAGE += EOFError, TypeError, RuntimeError
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


def _silence_pillow() -> None:
    """Keep Pillow's warnings off standard error, since a bad image raises an error anyway.

    The filter stays: `warnings.catch_warnings` would restore the filters of another thread.
    """
    if warnings.filters[:1] != [_PILLOW_FILTER]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def decode_errors_as(word: str) -> Iterator[None]:
    """Raise `BadImageError` for errors that Pillow raises in the with-block for damaged bytes.

    Its first word is `word`, unless ``too-large`` or ``truncated`` fits better.
    """
    try:
        yield
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"too-large: {error}") from error
    except OSError as error:  # the bytes end early, or the decoder gave up
        raise BadImageError(f"truncated: {error}") from error
    except _DAMAGE as error:
        raise BadImageError(f"{word}: {error}") from error


def open_image(
    data: bytes, formats: tuple[str, ...] = IMAGE_FORMATS, modes: tuple[str, ...] = IMAGE_MODES
) -> Image.Image:
    """Open an image and check format, size, frames and channels, without decoding pixels.

    The first bytes decide the format, not the file name. Bytes after the end of the image are
    ignored. HEIC and TIFF images come upright, whatever the orientation in the file; of a HEIC file
    with several images the primary one is taken.

    Args:
        data: the file's bytes.
        formats: accepted formats, of `formats.IMAGE_FORMATS` and GIF.
        modes: accepted modes of Pillow.

    Raises:
        BadImageError: ``not-an-image``, ``truncated`` (within the header), ``too-large``,
            ``animated`` or ``mode``.
        RuntimeError: Pillow is set to accept truncated files.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "a library has set PIL.ImageFile.LOAD_TRUNCATED_IMAGES, so the missing part of a "
            "truncated file would silently become gray; set it to False"
        )
    _silence_pillow()
    kind = format_of(data)
    if kind not in formats:
        found = f", but {kind}" if kind else ""
        raise BadImageError(
            f"not-an-image: {plural(len(data), 'byte')}, not {', '.join(formats)}{found}"
        )
    read = reader(kind)
    with decode_errors_as("not-an-image"):
        image = read(io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"too-large: {image.width} x {image.height} pixels, the limit is {MAX_PIXELS} in total"
        )
    with decode_errors_as("truncated"):
        frames = getattr(image, "n_frames", 1)
    if frames != 1 and kind != "HEIC":
        raise BadImageError(f"animated: {frames} frames, expected 1")
    if image.mode not in modes:
        raise BadImageError(f"mode: {image.mode} pixels, expected {' or '.join(modes)}")
    return image


def nvjpeg_can_decode(image: Image.Image) -> bool:
    """Return whether an image from `open_image` is a JPEG that nvJPEG decodes as libjpeg does.

    That holds for the usual JPEG: 8 bits, YCbCr, baseline. Progressive ones take several passes.

    Raises:
        BadImageError: ``truncated``, the end of the file is missing.
    """
    if not isinstance(image, Jpeg):
        return False
    usual = image.mode == "RGB" and image.bits == 8 and "progressive" not in image.info
    ids = [component[0] for component in image.layer]
    if not usual or ids != [1, 2, 3] or image.info.get("adobe_transform", 1) != 1:
        return False
    with decode_errors_as("truncated"):
        image.require_end()
    return True


def image_size(data: bytes) -> tuple[int, int]:
    """Return an image's (H, W) from its header. Errors are those of `open_image`."""
    image = open_image(data)
    return image.height, image.width


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the (H, W) as viewers show it of an image from `open_image`."""
    return turned_size(image.height, image.width, exif_orientation(image))


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image from `open_image`: 1 (upright) to 8.

    It is 1 if the EXIF block is missing, damaged or has another value, and for formats that come
    upright (`open_image`). `turns.to_upright` turns pixels by it.
    """
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def require_crc(data: bytes, expected: int | None) -> None:
    """Raise `BadImageError` if a file does not have the expected CRC-32; None accepts any.

    Nothing else detects a flipped bit or zeros in the middle of a JPEG: they decode without an
    error to an image that is wrong from there on.
    """
    if expected is not None:
        compare_crc(zlib.crc32(data), expected)


def compare_crc(crc: int, expected: int | None) -> None:
    """Do the same as `require_crc` for a CRC-32 that is already computed."""
    if expected not in (None, crc):
        raise BadImageError(f"checksum: CRC-32 is {crc:08x}, crc32.csv says {expected:08x}")
