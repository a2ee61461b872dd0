"""Image formats: which one a file has, by its first bytes, and the reader of each.

The readers are those of Pillow, called by name: `Image.open` would try all formats that any library
has registered. HEIC photographs need the optional package pillow-heif.
"""

import importlib
import importlib.util
import io

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from carvana_ray.errors import BadImageError

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "HEIC")
HEIC_PACKAGE, HEIC_REMEDY = "pillow_heif", "pip install 'carvana-ray[heic]'"

_FIRST_BYTES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"}  # of the box "ftyp"; a generic one says neither
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"), "HEIC")
# The rest of libtiff is for fax, maps and film, and has had most of its faults.
_TIFF_COMPRESSIONS = {"raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg"}


class Jpeg(JpegImagePlugin.JpegImageFile):
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


class Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF of one page. Pillow turns it upright when it decodes it, and counts no orientation."""

    def _open(self) -> None:
        super()._open()
        compression = self.info.get("compression")
        if compression not in _TIFF_COMPRESSIONS:
            raise BadImageError(f"mode: a TIFF with compression {compression}; save it as PNG")

    @property
    def n_frames(self) -> int:
        """1 or 2: further pages are not looked for; a damaged file may have thousands."""
        return 2 if self.is_animated else 1


_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": Jpeg,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": Tiff,
    "BMP": BmpImagePlugin.BmpImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}


def format_of(data: bytes) -> str | None:
    """Return the format of a file, one of `IMAGE_FORMATS` or GIF; None if it is another one."""
    if data[4:8] == b"ftyp":
        brands = [data[at : at + 4] for at in (8, *range(16, min(len(data), 64), 4))]
        return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)
    return next((kind for first, kind in _FIRST_BYTES.items() if data.startswith(first)), None)


def reader(kind: str) -> type[ImageFile.ImageFile]:
    """Return the reader of a format.

    Raises:
        BadImageError: ``not-an-image``, HEIC without the package that reads it.
    """
    if kind != "HEIC":
        return _READERS[kind]
    if not importlib.util.find_spec(HEIC_PACKAGE):
        raise BadImageError(f"not-an-image: HEIC needs another package: {HEIC_REMEDY}")
    return importlib.import_module(HEIC_PACKAGE).HeifImageFile
