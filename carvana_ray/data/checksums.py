"""crc32.csv: known checksums of images and masks."""

import re

from carvana_ray import storage
from carvana_ray.data.csv_reader import iter_rows
from carvana_ray.data.layout import CHECKSUMS
from carvana_ray.errors import InputError

_CRC = re.compile("[0-9a-fA-F]{1,8}")


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
    checksums = {}
    for line, (name, crc) in iter_rows(uri, ("img", "crc32")):
        if not _CRC.fullmatch(crc):
            raise InputError(
                f"{uri}: line {line}: {crc[:60]!r} is not a CRC-32 of at most 8 hexadecimal digits"
            )
        checksums[name] = int(crc, 16)
    return checksums
