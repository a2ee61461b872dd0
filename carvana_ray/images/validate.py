"""Files of pictures: opened, checked and judged by their headers, before anything is decoded.

A file that cannot be used is a `BadPicture` with a reason. Knows no file system: bytes come in.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import (
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from carvana_ray.errors import BadImageError

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
MASK_FORMATS = ("GIF", "PNG")
MAX_PIXELS = 16 * 1918 * 1280  # more is refused before it is decoded: 39 Mpx in RGB are 157 MB

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
        """Refuse a file without its end."""
        self.require_end()
        super().load_prepare()

    def require_end(self) -> None:
        """Refuse a file without the mark that ends a JPEG: the decoder takes zeros for pixels.

        Within packed pixels a byte of 255 is always followed by 0 or a restart mark.
        """
        assert isinstance(self.fp, io.BytesIO)  # of which getvalue is no copy
        # Back from the end, where the mark nearly always is, to the start of the pixels.
        if self.fp.getvalue().rfind(b"\xff\xd9", self.fp.tell()) < 0:
            raise OSError("the end of the picture is missing")


_READERS: dict[str, tuple[bytes, type[ImageFile.ImageFile]]] = {  # by the first bytes of a file
    "JPEG": (b"\xff\xd8\xff", _Jpeg),
    "PNG": (b"\x89PNG", PngImagePlugin.PngImageFile),
    "WEBP": (b"RIFF", WebPImagePlugin.WebPImageFile),
    "GIF": (b"GIF8", GifImagePlugin.GifImageFile),
}


def _silence_pillow() -> None:
    """Keep Pillow's warnings off standard error: a bad picture gets a reason of its own.

    The filter is put in front again wherever others were set before it, and never taken away:
    `warnings.catch_warnings` would restore the filters of another thread.
    """
    if warnings.filters[:1] != [_NO_REMARKS]:
        warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def decode_errors_as(word: str) -> Iterator[None]:
    """Turn what Pillow raises at damaged bytes into BadPicture, `word` unless a better one fits."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"too-large: {error}") from error
    except OSError as error:  # the bytes end early, or a decoder gave up on them
        raise BadImageError(f"truncated: {error}") from error
    except _DAMAGE as error:
        raise BadImageError(f"{word}: {error}") from error


def open_image(data: bytes, formats: tuple[str, ...] = IMAGE_FORMATS) -> Image.Image:
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
        raise BadImageError(f"not-an-image: {len(data)} bytes that are not {', '.join(formats)}")
    with decode_errors_as("not-an-image"):
        image = readers[0](io.BytesIO(data))
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError(
            f"too-large: {image.width} x {image.height} pixels, at most {MAX_PIXELS} in all"
        )
    with decode_errors_as("truncated"):
        frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise BadImageError(f"animated: {frames} frames, expected one")
    if image.mode not in ("RGB", "L", "P", "CMYK", "1"):
        raise BadImageError(f"mode: {image.mode} pixels, expected 8 bits a channel and no alpha")
    return image


def nvjpeg_can_decode(image: Image.Image) -> bool:
    """Return whether a picture is a JPEG that the engines of a GPU decode as libjpeg does.

    These are the usual ones: 8 bits of brightness and two colours, and not progressive, which takes
    several passes. All others are decoded by whoever has read them.

    Args:
        image: that `open_picture` has opened, and nobody has decoded yet.

    Raises:
        BadPicture: ``truncated``, its end is missing.
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
    """Return a picture's (H, W) from its header.

    Raises:
        BadPicture: see `open_picture`.
    """
    image = open_image(data)
    return image.height, image.width


def orientation_of(data: bytes) -> int:
    """Return how a picture's EXIF block says that it is to be turned: 1 (not at all) to 8.

    Read from the header, to be counted: nothing here turns pictures, since masks are drawn on the
    pixels as they are stored. A block that is missing, damaged or says something else gives 1.

    Raises:
        BadPicture: see `open_picture`.
    """
    return exif_orientation(open_image(data))


def exif_orientation(image: Image.Image) -> int:
    """Return `orientation_of` of a picture that is open."""
    block, exif = image.info.get("exif", b""), Image.Exif()
    if not block:
        return 1
    try:
        exif.load(block)
        turn = exif.get(ExifTags.Base.Orientation)
    except _DAMAGE:  # the block is not what it says
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def require_crc(data: bytes, expected: int | None) -> None:
    """Check a file's bytes against a checksum that was taken when they were known to be good.

    Nothing else finds a flipped bit or zeros in the middle of a JPEG: they decode, without a word,
    to a picture that is wrong from there on.

    Args:
        data: the file's bytes.
        expected: its CRC-32, or None where none is known.

    Raises:
        BadPicture: ``checksum``.
    """
    if expected is not None:
        compare_crc(zlib.crc32(data), expected)


def compare_crc(found: int, expected: int | None) -> None:
    """Do what `check_crc` does where a file's CRC-32 is known already."""
    if expected not in (None, found):
        raise BadImageError(f"checksum: CRC-32 is {found:08x}, crc32.csv says {expected:08x}")
