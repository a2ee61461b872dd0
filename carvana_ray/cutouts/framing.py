"""Where the car stands in a finished picture: crop, scale, margin and floor line."""

from dataclasses import dataclass
from typing import Literal

CATALOGUE_SIZE = 1600, 1200  # width, height of --frame catalogue without --size


@dataclass(frozen=True)
class Frame:
    """The frame of a cut-out.

    Attributes:
        kind: ``car``: each image is cropped to its car. ``catalogue``: the car stands on a floor
            line, and all views of a car have one scale.
        size: width and height in pixels; None for ``car``: the car with its margin, unscaled.
        margin: free part of the frame's width on each side of the car, 0 to 0.4.
    """

    kind: Literal["car", "catalogue"]
    size: tuple[int, int] | None
    margin: float
