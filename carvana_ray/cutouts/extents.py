"""The size of each car of a folder of cut-outs, which gives all views of a car one scale.

    cutouts/_cars.json     {"format": 1, "cars": {"FOLDER/CAR": [width, height]}}

The extent of a car is the size of the largest box over its views, upright, in pixels of the image.
It is decided once, when all views that the command knows are measured. Views that come later keep
it, so that finished cut-outs stay as they are.
"""

import json
from collections.abc import Iterable, Mapping

from carvana_ray import storage
from carvana_ray.cutouts.framing import Box, Frame, Size
from carvana_ray.errors import InputError

FORMAT = 1
FILE = "_cars.json"


def extent_of(sizes: Iterable[Size | None]) -> Size | None:
    """Return the extent of a car by the sizes of its boxes; None if no view shows a car."""
    found = [size for size in sizes if size]
    if not found:
        return None
    return max(width for width, _ in found), max(height for _, height in found)


def scale_of(frame: Frame, extent: Size) -> float:
    """Return the scale that a car of this extent has in a frame for catalogues."""
    return frame.place(Box(0, 0, *extent)).scale


def load(folder: str) -> dict[str, Size]:
    """Return the extents by car; none if the folder of cut-outs has no list.

    Raises:
        InputError: the list is damaged.
    """
    return _load(storage.join(folder, FILE))[1]


def add(folder: str, new: Mapping[str, Size]) -> dict[str, Size]:
    """Add cars to the list of a folder of cut-outs; return the extents of all its cars.

    A car that the list already has keeps its extent: another command has measured it.

    Raises:
        InputError: the list is damaged.
    """
    uri = storage.join(folder, FILE)
    while True:
        state, known = _load(uri)
        merged = {**new, **known}
        if merged == known or storage.write_atomic(uri, _to_bytes(merged), expected=state):
            return merged


def _to_bytes(cars: Mapping[str, Size]) -> bytes:
    return json.dumps({"format": FORMAT, "cars": dict(sorted(cars.items()))}).encode()


def _load(uri: str) -> tuple[str, dict[str, Size]]:
    """Return the state of the list and the extents by car."""
    state = storage.state(uri)
    if not state:
        return state, {}
    data = storage.read(uri)
    try:
        body = json.loads(data)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']}, this version writes format {FORMAT}")
        return state, {car: _size(*pair) for car, pair in body["cars"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{uri}: damaged ({error}); use another --out, or remove that folder"
        ) from error


def _size(width: int, height: int) -> Size:
    if min(width, height) < 1:
        raise ValueError(f"a size of {width} x {height}")
    return width, height
