"""Image files as bytes: opened and checked by their headers, before anything is decoded."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from carvana_ray.errors import BadImageError, plural

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
MASK_FORMATS = ("GIF", "PNG", "TIFF", "BMP", "JPEG", "WEBP")
IMAGE_MODES = ("RGB", "L", "P", "CMYK", "1")
MASK_MODES = (*IMAGE_MODES, "RGBA", "LA", "PA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MAX_PIXELS = 16 * 1918 * 1280  # larger images are refused: 39 megapixels take 157 MB in RGB
MAX_BYTES = 8 * MAX_PIXELS  # of a file; more than so many pixels take in any of the formats

# What Pillow raises for damaged bytes. 300,000 damaged files raised OSError, SyntaxError,
# ValueError, IndexError and struct.error; Pillow treats the others as damage when it opens a file,
# but not when it decodes. MemoryError is not included: it says nothing about the file.
_DAMAGE = (OSError, SyntaxError, ValueError, LookupError, struct.error, EOFError, TypeError)
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG that ignores everything but the pixels, and requires all of them.

    `Image.open` also reads the resolution from the EXIF block, and refuses some good images with a
    damaged EXIF block. Of a file that holds two JPEGs (MPO, written by phones) this class reads the
    first.
    """

    def _read_dpi_from_exif(self) -> None:
        pass

    def load_prepare(self) -> None:
        self.require_end()
        super().load_prepare()

    def require_end(self) -> None:
        """Raise OSError if the end-of-image marker is missing.

        The decoder would take zeros for the missing pixels. The marker cannot occur in packed
        pixels, where 0 or a restart marker follows each byte of 255.
        """
        assert isinstance(self.fp, io.BytesIO)  # its getvalue() makes no copy
        # From the end, where the marker nearly always is, back to the start of the pixels.
        if self.fp.getvalue().rfind(b"\xff\xd9", self.fp.tell()) < 0:
            raise OSError("the end of the image is missing")


# first bytes of a file, reader
_READERS: dict[str, tuple[bytes | tuple[bytes, ...], type[ImageFile.ImageFile]]] = {
    "JPEG": (b"\xff\xd8\xff", _Jpeg),
    "PNG": (b"\x89PNG", PngImagePlugin.PngImageFile),
    "WEBP": (b"RIFF", WebPImagePlugin.WebPImageFile),
    "GIF": (b"GIF8", GifImagePlugin.GifImageFile),
    "TIFF": ((b"II*\0", b"MM\0*"), TiffImagePlugin.TiffImageFile),
    "BMP": (b"BM", BmpImagePlugin.BmpImageFile),
}


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
    ignored.

    Args:
        data: the file's bytes.
        formats: accepted formats: JPEG, PNG, WEBP, GIF, TIFF, BMP.
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
    readers = [_READERS[name][1] for name in formats if data.startswith(_READERS[name][0])]
    if not readers:
        raise BadImageError(f"not-an-image: {plural(len(data), 'byte')}, not {', '.join(formats)}")
    with decode_errors_as("not-an-image"):
        image = readers[0](io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"too-large: {image.width} x {image.height} pixels, the limit is {MAX_PIXELS} in total"
        )
    with decode_errors_as("truncated"):
        frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise BadImageError(f"animated: {frames} frames, expected 1")
    if image.mode not in modes:
        raise BadImageError(f"mode: {image.mode} pixels, expected 8 bits a channel and no alpha")
    return image


def nvjpeg_can_decode(image: Image.Image) -> bool:
    """Return whether an image from `open_image` is a JPEG that nvJPEG decodes as libjpeg does.

    That holds for the usual JPEG: 8 bits, YCbCr, baseline. Progressive ones take several passes.

    Raises:
        BadImageError: ``truncated``, the end of the file is missing.
    """
    if not isinstance(image, _Jpeg):
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


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image from `open_image`: 1 (upright) to 8.

    It is 1 if the EXIF block is missing, damaged or has another value. The program only counts
    orientations: it never rotates images, since masks belong to the pixels as they are stored.
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
