"""Where the car stands in a finished picture: crop, scale, margin and floor line.

The box of a car is that of its mask (alpha of 128 or more) without stray pieces. All lengths are in
pixels, x points right and y down; positions are edges between pixels, so a box is half open.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carvana_ray import rle
from carvana_ray.cutouts.alpha import clear_around
from carvana_ray.cutouts.resample import Placement, Size, move
from carvana_ray.errors import BadImageError, InputError
from carvana_ray.images.pieces import Ints, RowRuns, piece_sizes, split_at_rows
from carvana_ray.images.validate import MAX_PIXELS

CATALOGUE_SIZE = 1600, 1200  # width, height of --frame catalogue without --size
FLOOR = 0.75  # fraction of a catalogue picture's height at which the car stands
STRAY = 0.01  # fraction of a mask's pixels: a smaller piece of it is not the car


class Box(NamedTuple):
    """The smallest rectangle around a car."""

    left: int
    top: int
    right: int  # exclusive
    bottom: int  # exclusive

    @property
    def size(self) -> Size:
        return self.right - self.left, self.bottom - self.top


@dataclass(frozen=True)
class Frame:
    """The frame of a cut-out.

    Attributes:
        kind: ``car``: each image is cropped to its car. ``catalogue``: the car stands on a floor
            line, and all views of a car have one scale.
        size: width and height in pixels; None for ``car``: the car with its margin, unscaled.
        margin: free part of the frame's width on each side of the car, 0 to 0.4.

    Raises:
        InputError: the margin leaves no room for the car.
    """

    kind: Literal["car", "catalogue"]
    size: Size | None
    margin: float

    def __post_init__(self) -> None:
        if self.size and min(_room(self, self.size)) < 1:
            width, height = self.size
            raise InputError(
                f"--size {width}x{height}, --margin {self.margin}: leave no room for the car; use "
                "a smaller margin, or another size"
            )

    def place(self, box: Box, extent: Size | None = None) -> Placement:
        """Return where an image with this box of its car belongs.

        Args:
            box: of the car.
            extent: size of the largest box over all views of the car, which gives ``catalogue`` its
                scale; None: that of `box`.

        Raises:
            BadImageError: the picture of a car with its margin would be too large.
        """
        width, height = box.size
        if not self.size:
            # The margin is a fraction of the width that it is itself a part of.
            edge = round(self.margin * width / (1 - 2 * self.margin))
            full = width + 2 * edge, height + 2 * edge
            if full[0] * full[1] > MAX_PIXELS:
                raise BadImageError(
                    f"too-large: {full[0]} x {full[1]} pixels with its margin, the limit is "
                    f"{MAX_PIXELS} in total; use --size, or a smaller --margin"
                )
            return Placement(1, edge - box.left, edge - box.top, full)
        widest, highest = (extent or box.size) if self.kind == "catalogue" else box.size
        room = _room(self, self.size)
        scale = min(room[0] / widest, room[1] / highest)
        if self.kind == "catalogue":
            bottom: float = _floor(self.size)
        else:
            bottom = (self.size[1] + scale * height) / 2
        center = (box.left + box.right) / 2
        return Placement(
            scale, self.size[0] / 2 - scale * center, bottom - scale * box.bottom, self.size
        )


def _room(frame: Frame, size: Size) -> Size:
    """Return the size of the part of a picture that the car may fill."""
    width, height = size
    edge = round(frame.margin * width)
    lowest = _floor(size) if frame.kind == "catalogue" else height - edge
    return width - 2 * edge, lowest - edge


def _floor(size: Size) -> int:
    return round(FLOOR * size[1])


def car_box(starts: Ints, ends: Ints, width: int) -> Box | None:
    """Return the box of the car in a mask; None if there is no car.

    Args:
        starts, ends: runs of the mask, int64 [n], as `rle.mask_to_runs` returns them.
        width: of the image.
    """
    runs = split_at_rows(starts, ends, width)
    return _box(runs, ~_stray_runs(runs, width))


def _stray_runs(runs: RowRuns, width: int) -> NDArray[np.bool_]:
    """Return which runs belong to stray pieces, bool [n]."""
    return piece_sizes(runs, width) < STRAY * runs.length.sum()


def _box(runs: RowRuns, chosen: NDArray[np.bool_]) -> Box | None:
    row, left, right = runs.row[chosen], runs.left[chosen], runs.right[chosen]
    if not len(row):
        return None
    return Box(int(left.min()), int(row[0]), int(right.max()), int(row[-1]) + 1)


def drop_strays(alpha: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Box | None]:
    """Return alpha, uint8 [H, W], without stray pieces and their soft edges; and the car's box.

    The box is None if there is no car.
    """
    width = alpha.shape[1]
    runs = split_at_rows(*rle.mask_to_runs(alpha >= 128), width)
    stray = _stray_runs(runs, width)
    if stray.any():
        pieces = np.zeros(alpha.shape, dtype=np.bool_)
        for row, left, right in zip(
            runs.row[stray], runs.left[stray], runs.right[stray], strict=True
        ):
            pieces[row, left:right] = True
        alpha = clear_around(alpha, pieces)
    return alpha, _box(runs, ~stray)


def frame_car(
    image: Image.Image, alpha: NDArray[np.uint8], frame: Frame, extent: Size | None = None
) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Return an image and its alpha as the frame shows them.

    Args:
        image: upright, RGB, [H, W].
        alpha: uint8 [H, W].
        frame: size, margin and floor line.
        extent: see `Frame.place`.

    Returns:
        RGB and uint8, both of the frame's size. Without a car alpha is 0; without a size, too, they
        have the size of the image.

    Raises:
        BadImageError: see `Frame.place`.
    """
    alpha, box = drop_strays(alpha)
    if box is None:
        width, height = frame.size or image.size
        return Image.new("RGB", (width, height)), np.zeros((height, width), np.uint8)
    return move(image, alpha, frame.place(box, extent))
