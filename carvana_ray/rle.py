"""Run-length text of masks in Kaggle's format, and back.

The format is ``start length start length ...``. Starts count from 1 along rows, left to right and
then down. Runs ascend, do not overlap and stay within the image; a run may continue from the end of
a row to the start of the next one. An empty mask is the empty text.

Inside the program a run is (start, end): 0-based, the end exclusive.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ALLOWED = b"0123456789 "
_TEXTS_PER_BLOCK = 32  # texts that `all_valid` checks together: they fit into a core's cache


def encode(mask: NDArray) -> str:
    """Return the run-length text of a mask: bool or uint8 [H, W], foreground is True or not 0."""
    return format_runs(*mask_to_runs(mask))


def decode(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of a run-length text: bool [height, width]. The inverse of `encode`.

    Raises:
        ValueError: the text is invalid, see `parse_runs`.
    """
    starts, ends = parse_runs(text, height * width)
    # The mask is the running sum of +1 at each start and -1 after each end, which add up to 0 where
    # runs touch.
    steps = np.zeros(height * width + 1, dtype=np.int8)
    steps[starts] = 1
    np.subtract.at(steps, ends, 1)
    return np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(height, width)


def mask_to_runs(mask: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (starts, ends) of the runs of a mask [H, W]: 0-based, ends exclusive, int64 [n]."""
    flat = np.ascontiguousarray(mask, dtype=np.bool_).reshape(-1)
    if padding := -flat.size % 64:
        flat = np.pad(flat, (0, padding))
    boundaries = _run_boundaries(flat)
    return boundaries[0::2], boundaries[1::2]


def _run_boundaries(flat: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the indices of the pixels [64 n] that differ from the one before, an even number.

    Outside the image is background. Words of eight pixels are compared with the word before; few
    differ, and only these are searched for boundaries. A word with boundaries that repeats the one
    before, such as ``00001111``, would be missed; then all pixels are compared one by one.
    """
    words = flat.view(np.uint64)
    differs = np.empty(len(words), dtype=np.bool_)
    differs[:1] = True
    np.not_equal(words[1:], words[:-1], out=differs[1:])
    groups = differs.view(np.uint64)  # eight words each; most groups have no difference
    some = np.flatnonzero(groups != 0)
    changed = _set_bytes(groups.take(some), some)
    current, previous = words.take(changed), words.take(changed - 1)
    previous[:1] = 0
    # Each pixel XOR its left neighbor: a byte of 1 is a boundary.
    steps = current ^ (current << np.uint64(8) | previous >> np.uint64(56))
    inside = np.flatnonzero(steps > np.uint64(1))  # a boundary that a repetition would have, too
    if differs[np.minimum(changed[inside] + 1, len(words) - 1)].all():
        boundaries = _set_bytes(steps, changed)
    else:
        boundaries = np.flatnonzero(np.diff(flat, prepend=False))
    return np.append(boundaries, flat.size) if len(boundaries) % 2 else boundaries


def _set_bytes(words: NDArray[np.uint64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the byte positions of the ones, in words of bytes 0 or 1 at the given indices."""
    ones = np.flatnonzero(words.view(np.bool_))
    return (indices.take(ones >> 3) << 3) + (ones & 7)


def format_runs(starts: NDArray, ends: NDArray) -> str:
    """Return the text of runs given as 0-based starts and exclusive ends, integers [n] each."""
    numbers = np.empty(2 * len(starts), dtype=np.int64)
    numbers[0::2] = starts
    numbers[0::2] += 1
    numbers[1::2] = ends
    numbers[1::2] -= starts
    if numbers.max(initial=0) >= _FORMAT_LIMIT:
        return " ".join(map(str, numbers.tolist()))
    return _format_digits(numbers).tobytes().translate(None, b"\0")[:-1].decode()


def bounds_from_mask(mask: NDArray) -> bytes:
    """Return the run bounds of a mask [H, W]: the bytes of int32 start, end, start, end, ..."""
    return np.column_stack(mask_to_runs(mask)).astype(np.int32).tobytes()


def text_from_bounds(ends: bytes) -> str:
    """Return the text of run bounds: the bytes of int32 start, end, start, end, ..."""
    numbers = np.frombuffer(ends, dtype=np.int32)
    return format_runs(numbers[0::2], numbers[1::2])


def parse_runs(text: str, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (starts, ends) of a text: 0-based, ends exclusive, int64 [n] each.

    Runs that touch and leading zeros are valid: Kaggle accepts them. `pixels` is H * W.

    Raises:
        ValueError: the text is invalid. The message starts with the name of the fault:
            ``not-a-number`` (also signs, points, tabs and digits of other scripts), ``spaces``,
            ``odd-count``, ``out-of-range``, ``disorder`` or ``overlap``.
    """
    numbers = np.minimum(_parse_numbers(text), pixels + 1)  # so that sums do not overflow
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    ends = starts + lengths
    outside = (starts < 0) | (lengths < 1) | (ends > pixels)
    if outside.any():
        run = int(outside.argmax())
        start, length = (word[:24] for word in text.split(" ", 2 * run + 2)[2 * run : 2 * run + 2])
        raise ValueError(
            f"out-of-range: run {run + 1} ({start} {length}) is not within pixels 1 to {pixels}"
        )
    if (wrong := starts[1:] < starts[:-1]).any():
        run = int(wrong.argmax()) + 1
        raise ValueError(f"disorder: run {run + 1} starts at {starts[run] + 1}, before run {run}")
    if (wrong := starts[1:] < ends[:-1]).any():
        run = int(wrong.argmax()) + 1
        raise ValueError(f"overlap: run {run + 1} starts at {starts[run] + 1}, within run {run}")
    return starts, ends


def _parse_numbers(text: str) -> NDArray[np.int64]:
    """Return the numbers of a text; one too large for int64 becomes the largest int64."""
    octets = text.encode(errors="backslashreplace")
    if foreign := octets.translate(None, _ALLOWED):
        raise ValueError(f"not-a-number: the text contains {foreign[:12]!r}")
    if text.startswith(" ") or text.endswith(" ") or "  " in text:
        raise ValueError(
            "spaces: separate numbers by one space, with none at the start or at the end"
        )
    # Safe only after these checks: np.fromstring stops silently at anything but a number.
    numbers = np.fromstring(text, dtype=np.int64, sep=" ")
    if len(numbers) % 2:
        raise ValueError("odd-count: an odd count of numbers; the last start has no length")
    return numbers


def all_valid(texts: Sequence[str], pixels: Sequence[int]) -> bool:
    """Return whether `parse_runs` accepts all texts, in half the time that it takes.

    A text with a number of more than eight digits, leading zeros included, counts as invalid.
    `pixels` are H * W of each text's image.
    """
    blocks = (slice(at, at + _TEXTS_PER_BLOCK) for at in range(0, len(texts), _TEXTS_PER_BLOCK))
    return all(_block_valid(texts[block], pixels[block]) for block in blocks)


def _block_valid(texts: Sequence[str], pixels: Sequence[int]) -> bool:
    """Return `all_valid` of a few texts, which are joined into one."""
    limits = np.array([size for size, text in zip(pixels, texts, strict=True) if text])
    texts = [text for text in texts if text]
    if not texts:
        return True
    joined = " ".join([" " * (_PADDING - 1), *texts, ""]).encode(errors="backslashreplace")
    if joined.translate(None, _ALLOWED):
        return False
    octets = np.frombuffer(joined, dtype=np.uint8)
    spaces = np.flatnonzero(octets == ord(" "))[_PADDING - 1 :]
    widths = np.diff(spaces) - 1
    if widths.min() < 1 or widths.max() > _MAX_DIGITS:
        return False
    text_ends = _PADDING + np.cumsum([len(text) + 1 for text in texts]) - 1
    counts = np.searchsorted(spaces[1:], text_ends, side="right")  # of numbers up to each end
    if (counts % 2).any():
        return False
    numbers = _parse_digits(octets, spaces[1:], widths).astype(np.int64)
    starts, lengths = numbers[0::2], numbers[1::2]
    ends = starts + lengths  # 1-based and exclusive
    last_runs = counts // 2 - 1  # index of the last run of each text
    ascends = starts[1:] >= ends[:-1]
    ascends[last_runs[:-1]] = True  # the next run belongs to another image
    inside = ends[last_runs] <= limits + 1
    return all(checks.all() for checks in (lengths > 0, starts > 0, ascends, inside))


# Digits of many numbers at once, each number in one 64-bit word. A real mask has 1,533 numbers on
# average; their text takes 25 us this way and 146 us by `str` (benchmarks/rle.py).

_FORMAT_LIMIT = 10**7  # exclusive limit of `_format_digits`: seven digits and a space
_MAX_DIGITS = 8  # of a number for `_parse_digits`
_PADDING = 8  # bytes in front of the first number, which `_parse_digits` reads and discards

# A number is 10,000 * high + low. `_HIGH` holds the digits of the high part, in bytes 0 to 2.
# `_LOW` holds those of the low part and the space, in bytes 3 to 7: first without leading zeros,
# for numbers below 10,000, then with them. Words of both parts are joined by OR.
_HIGH = np.array(["", *(f"{high:\0>3}" for high in range(1, 1000))], "S8").view(np.uint64)
_LOW_TEXTS = [f"\0\0\0{low:{fill}>4} " for fill in ("\0", "0") for low in range(10_000)]
_LOW = np.array(_LOW_TEXTS, "S8").view(np.uint64)
# By number of digits k: keeps the low four bits, the value of a digit, of the last k bytes.
_DIGIT_MASKS = np.array(
    [0x0F0F0F0F0F0F0F0F << 8 * (8 - k) & (2**64 - 1) for k in range(9)], np.uint64
)


def _format_digits(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return numbers, 0 to `_FORMAT_LIMIT` - 1, as eight bytes each: NULs, digits, a space."""
    high = numbers // 10_000
    words = _LOW.take(numbers - (np.maximum(high, 1) - 1) * 10_000)
    words |= _HIGH.take(high)
    return words


def _parse_digits(
    octets: NDArray[np.uint8], ends: NDArray[np.int64], widths: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """Return the numbers of a text whose bytes are checked already: uint32 [n].

    Args:
        octets: an ASCII text, with at least `_PADDING` bytes before the first number.
        ends: index after the last digit of each number [n].
        widths: number of digits of each number, 1 to `_MAX_DIGITS` [n].
    """
    windows = np.ndarray((len(octets) - 7,), np.uint64, octets, 0, (1,))  # overlapping, at any byte
    words = windows.take(ends - 8)
    words &= _DIGIT_MASKS.take(widths)
    # Neighbors are joined: digits to numbers of two digits, these to four, these to eight.
    digits = words.view(np.uint16)
    pairs = ((digits & np.uint16(0xFF)) * np.uint16(10) + (digits >> np.uint16(8))).view(np.uint32)
    quads = (pairs & np.uint32(0xFFFF)) * np.uint32(100) + (pairs >> np.uint32(16))
    return quads[0::2] * np.uint32(10_000) + quads[1::2]
