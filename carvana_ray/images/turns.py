"""EXIF orientation: between pixels as they are stored and the image as viewers show it.

The network, cut-outs and training masks are upright. Masks of submissions are those of the stored
pixels. Formats that Pillow turns itself have orientation 1 here, see `validate.open_image`.
"""

from typing import Any

from numpy.typing import NDArray

_MIRRORED_ROWS = {3, 4, 7, 8}  # the first axis of the upright image runs backwards
_MIRRORED_COLUMNS = {2, 3, 6, 7}
_INVERSE = {6: 8, 8: 6}  # all others undo themselves


def swaps_axes(orientation: int) -> bool:
    """Return whether an orientation, 1 to 8, makes a portrait of a landscape."""
    return orientation >= 5


def turned_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return the (H, W) of an image as viewers show it."""
    return (width, height) if swaps_axes(orientation) else (height, width)


def to_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return stored pixels [h, w, ...] as viewers show them, a view of the same memory."""
    turned = pixels.swapaxes(0, 1) if swaps_axes(orientation) else pixels
    rows = -1 if orientation in _MIRRORED_ROWS else 1
    columns = -1 if orientation in _MIRRORED_COLUMNS else 1
    return turned[::rows, ::columns]


def to_stored(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return upright pixels [h, w, ...] as the file stores them: the inverse of `to_upright`."""
    return to_upright(pixels, _INVERSE.get(orientation, orientation))
