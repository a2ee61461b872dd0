"""Masks in the format of COCO, which annotation tools read: https://cocodataset.org/#format-data.

A mask is one annotation of the category ``car``, as run lengths that are not compressed. COCO
counts along columns, unlike Kaggle.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carvana_ray import rle

CAR = 1  # id of the category
Entry = tuple[dict[str, Any], dict[str, Any] | None]  # an image and its annotation


def entry(number: int, name: str, mask: NDArray[np.bool_]) -> Entry:
    """Return an image and its annotation; an empty mask has none.

    Args:
        number: id of the image and of its annotation, 1 or more.
        name: file name of the image.
        mask: bool [H, W].
    """
    height, width = mask.shape
    image = {"id": number, "file_name": name, "height": height, "width": width}
    if not mask.any():
        return image, None
    annotation = {
        "id": number,
        "image_id": number,
        "category_id": CAR,
        "iscrowd": 1,  # says that the segmentation is run lengths, not polygons
        "area": int(np.count_nonzero(mask)),
        "bbox": _bounding_box(mask),
        "segmentation": {"size": [height, width], "counts": count_runs(mask)},
    }
    return image, annotation


def count_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of background and mask in turn, along columns, from the top left.

    The first length is that of background, which may be 0; all lengths add up to H * W.
    """
    starts, ends = rle.mask_to_runs(mask.T)
    bounds = np.zeros(2 * len(starts) + 1, dtype=np.int64)
    bounds[1::2], bounds[2::2] = starts, ends
    counts = np.diff(bounds).tolist()
    rest = mask.size - int(bounds[-1])
    return [*counts, rest] if rest else counts


def _bounding_box(mask: NDArray[np.bool_]) -> list[int]:
    """Return x, y, width and height of the smallest box around a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def to_json(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the parts of a file of COCO, in order of the entries.

    Annotations are not held: those of 10,000 images would take 0.4 GB.
    """
    images = []
    yield b'{"annotations": ['
    comma = ""
    for image, annotation in entries:
        images.append(image)
        if annotation:
            yield f"{comma}\n{json.dumps(annotation)}".encode()
            comma = ","
    lines = ",\n".join(map(json.dumps, images))
    categories = json.dumps([{"id": CAR, "name": "car"}])
    yield f'\n],\n"images": [\n{lines}\n],\n"categories": {categories}}}\n'.encode()
