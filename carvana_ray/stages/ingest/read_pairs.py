"""Names of pictures and masks in, both on the network's grid out: what training and scores read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from carvana_ray import images, storage
from carvana_ray.data import quarantine
from carvana_ray.errors import BadImageError
from carvana_ray.images import validate as formats
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest import read_images as reading
from carvana_ray.stages.ingest.blocks import Columns


def read_pairs(
    batch: Columns, *, pictures: str, masks: str, downscale: int, size: tuple[int, int]
) -> Columns:
    """Map a row of names to its pictures and masks on the network's grid.

    Args:
        batch: one row of `pairs_row`.
        pictures, masks: their folders.
        downscale: see `images.load_gray`.
        size: (H, W) that all must have.

    Returns:
        ``gray`` uint8 [n, h, w], ``share`` uint8 [n, h, w], and ``error`` str [n], empty where all
        is well: a wrong file is named once all have been read, so that one run finds them all. A
        file that is `quarantine.UNREACHABLE` is no wrong one.
    """
    row = dataset.single_row(batch)
    names = [pair.split("/") for pair in row["pairs"]]
    h, w = images.grid_size(*size, downscale)
    gray = np.zeros((len(names), h, w), dtype=np.uint8)
    share = np.zeros_like(gray)
    error = [""] * len(names)
    uris = [
        storage.join(folder, name)
        for pair in names
        for folder, name in zip((pictures, masks), pair, strict=True)
    ]
    files = storage.read_many(uris, reading.MAX_BYTES)
    for place, (picture, mask) in enumerate(names):
        name = picture
        answers = next(files), next(files)
        try:
            data = reading.require_readable(answers[0])
            formats.require_crc(data, reading.crc_or_none(row["picture_crcs"][place]))
            image = formats.open_image(data)
            reading.require_size((image.height, image.width), size)
            gray[place] = images.to_gray(image, downscale)
            name = mask
            data = reading.require_readable(answers[1])
            formats.require_crc(data, reading.crc_or_none(row["mask_crcs"][place]))
            truth = images.load_mask(data)
            reading.require_size(truth.shape, size)
            share[place] = images.shrink_mask(truth, downscale)
        except BadImageError as bad:
            error[place] = f"{name}: {bad}"
        except OSError as gone:
            error[place] = f"{name}: {quarantine.UNREACHABLE}: {gone.strerror or gone}"
            break  # the block is of no use without it; each of the others might take as long
    return {"gray": gray, "share": share, "error": np.array(error)}


def read_pairs_low_priority(batch: Columns, **how: Any) -> Columns:
    """Map a row as `load_pairs` does, letting other processes of Ray have the cores first."""
    reading.lower_priority()
    return read_pairs(batch, **how)


def pairs_row(pairs: Sequence[tuple[str, str]], crcs: Mapping[str, int]) -> dict[str, Any]:
    """Return the row that `load_pairs` takes for some (picture, mask) file names."""
    return {
        "pairs": ["/".join(pair) for pair in pairs],
        "picture_crcs": [crcs.get(picture, reading.UNKNOWN) for picture, _ in pairs],
        "mask_crcs": [crcs.get(mask, reading.UNKNOWN) for _, mask in pairs],
    }
