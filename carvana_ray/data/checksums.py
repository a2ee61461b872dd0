"""crc32.csv: checksums of the images, where they are known."""

import csv
import io

from carvana_ray import storage
from carvana_ray.data import layout as carvana
from carvana_ray.errors import FileMissingError, InputError


def load_checksums(data: str) -> dict[str, int]:
    """Return what ``DATA/crc32.csv`` says: from file name to CRC-32; empty where there is none.

    A decoder is no checksum: of one-bit flips in a JPEG it shows most as a wrong picture, without
    an error. Whoever has the zip archives of the pictures has their CRC-32 (``unzip -v``).

    Raises:
        InputError: it is no such file.
    """
    uri = storage.join(data, carvana.CHECKSUMS)
    try:
        text = storage.read(uri)
    except FileMissingError:
        return {}
    try:
        rows = csv.reader(io.StringIO(text.decode()))
        if next(rows, None) != ["img", "crc32"]:
            raise ValueError("its first line must be img,crc32")
        found = {name: int(crc, 16) for name, crc in rows}
        if not all(0 <= crc < 2**32 for crc in found.values()):
            raise ValueError("a CRC-32 has 8 hexadecimal digits at most")
        return found
    except (ValueError, csv.Error) as error:
        raise InputError(f"{uri}: {error}") from error
