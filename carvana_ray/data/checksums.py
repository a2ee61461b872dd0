"""crc32.csv: known checksums of images and masks."""

import csv
import io

from carvana_ray import storage
from carvana_ray.data.layout import CHECKSUMS
from carvana_ray.errors import InputError


def load_checksums(data: str) -> dict[str, int]:
    """Return the CRC-32 of each file name in ``DATA/crc32.csv``, or {} if there is no such file.

    Zip archives hold the CRC-32 of their files (``unzip -v``).

    Raises:
        InputError: the file is not a table of checksums.
        StorageUnavailableError: whether there is such a file is unknown.
    """
    uri = storage.join(data, CHECKSUMS)
    if not storage.exists(uri):
        return {}
    text = storage.read(uri)
    try:
        rows = csv.reader(io.StringIO(text.decode()))
        if next(rows, None) != ["img", "crc32"]:
            raise ValueError("the first line must be img,crc32")
        checksums = {name: int(crc, 16) for name, crc in rows}
        if not all(0 <= crc < 2**32 for crc in checksums.values()):
            raise ValueError("a CRC-32 must have at most 8 hexadecimal digits")
        return checksums
    except (ValueError, csv.Error) as error:
        raise InputError(f"{uri}: {error}") from error
