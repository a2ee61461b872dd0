"""Run-length text of masks, as Kaggle wants it, and back.

``start length start length ...``: starts count from 1 along rows, left to right and then down; runs
ascend and touch neither each other nor anything outside; a run may go on from the end of a row to
the start of the next. An empty mask is the empty text.
"""

import numpy as np
from numpy.typing import NDArray

_DIGITS_AND_SPACE = b"0123456789 "


def runs(mask: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (starts, ends) of the runs of a mask [H, W]: 0-based, ends exclusive, int64 each."""
    flat = np.zeros(mask.size + 2, dtype=bool)  # a border of background: no run is cut by an edge
    flat[1:-1] = mask.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return edges[0::2], edges[1::2]


def to_text(starts: NDArray, ends: NDArray) -> str:
    """Return the text of runs given as 0-based starts and exclusive ends, integers [n] each."""
    pairs = np.empty(2 * len(starts), dtype=np.int64)
    pairs[0::2] = starts
    pairs[0::2] += 1
    pairs[1::2] = ends
    pairs[1::2] -= starts
    return " ".join(map(str, pairs.tolist()))


def text_of(ends: bytes) -> str:
    """Return the text of runs as they travel: int32, start and exclusive end of each in turn."""
    numbers = np.frombuffer(ends, dtype=np.int32)
    return to_text(numbers[0::2], numbers[1::2])


def encode(mask: NDArray) -> str:
    """Return the text of a mask: bool or uint8 [H, W], true (not zero) where the car is."""
    return to_text(*runs(np.asarray(mask) != 0))


def parse(text: str, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (starts, ends) of a text: 0-based, ends exclusive, int64 [n] each.

    Args:
        text: as `encode` writes it.
        pixels: H * W of the picture.

    Raises:
        ValueError: its message starts with the fault's name: ``not-a-number`` (a sign, a point, a
            tab and a digit of another script are none of a number), ``spaces``, ``odd-count``,
            ``out-of-range``, ``disorder`` or ``overlap``. Runs that touch and zeros before a number
            are no fault: Kaggle takes them.
    """
    octets = text.encode(errors="backslashreplace")
    if foreign := octets.translate(None, _DIGITS_AND_SPACE):
        raise ValueError(f"not-a-number: {foreign[:12]!r} among the runs")
    if text.startswith(" ") or text.endswith(" ") or "  " in text:
        raise ValueError("spaces: one between two numbers, none before the first or after the last")
    # Only now is this parser safe: it stops, silently, at what is no number. One beyond int64 comes
    # out as the largest of int64; cut to what no picture has, so that sums do not overflow.
    numbers = np.fromstring(text, dtype=np.int64, sep=" ")
    if len(numbers) % 2:
        raise ValueError(f"odd-count: {len(numbers)} numbers, the last start has no length")
    numbers = np.minimum(numbers, pixels + 1)
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    ends = starts + lengths
    outside = (starts < 0) | (lengths < 1) | (ends > pixels)
    if outside.any():
        at = int(outside.argmax())
        start, length = (word[:24] for word in text.split(" ", 2 * at + 2)[2 * at : 2 * at + 2])
        raise ValueError(
            f"out-of-range: run {at + 1} ({start} {length}) is not within pixels 1 to {pixels}"
        )
    if (wrong := starts[1:] < starts[:-1]).any():
        at = int(wrong.argmax()) + 1
        raise ValueError(f"disorder: run {at + 1} starts at {starts[at] + 1}, before run {at}")
    if (wrong := starts[1:] < ends[:-1]).any():
        at = int(wrong.argmax()) + 1
        raise ValueError(f"overlap: run {at + 1} starts at {starts[at] + 1}, within run {at}")
    return starts, ends


def decode(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of a text: bool [height, width]. The inverse of `encode`.

    Raises:
        ValueError: see `parse`.
    """
    starts, ends = parse(text, height * width)
    # +1 at each start and -1 after each end; runs that touch add up to 0 there, so add, not assign.
    steps = np.zeros(height * width + 1, dtype=np.int8)
    steps[starts] = 1
    np.subtract.at(steps, ends, 1)
    return np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(height, width)
