"""Run-length text of masks, as Kaggle wants it, and back.

``start length start length ...``: starts count from 1 along rows, left to right and then down; runs
ascend and touch neither each other nor anything outside; a run may go on from the end of a row to
the start of the next. An empty mask is the empty text.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FORMAT_LIMIT = 10**7  # numbers that `to_words` takes: seven digits and a space are eight bytes
_MAX_DIGITS = 8  # digits of a number that `to_numbers` takes
_PADDING = 8  # bytes of any kind that must lie before the first number, for `to_numbers`


def _words(texts: list[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(text.replace(b"_", b"\0") for text in texts), dtype=np.uint64)


_HIGH = _words([b"_" * 8, *(f"{number:_>3d}_____".encode() for number in range(1, 1000))])
_LOW = _words(  # first as a whole number, then as the end of a larger one
    [f"___{number:_>4d} ".encode() for number in range(10_000)]
    + [f"___{number:04d} ".encode() for number in range(10_000)]
)
# By the number of digits k: the last k bytes of a word, less what makes ASCII of a digit.
_LAST = np.array([0x0F0F0F0F0F0F0F0F << 8 * (8 - k) & (2**64 - 1) for k in range(9)], np.uint64)


def _format_digits(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return numbers as text, eight bytes each: NUL in front, digits, a space.

    Args:
        numbers: [n], 0 <= each < `BELOW`.
    """
    high = numbers // 10_000
    words = _LOW.take(numbers - (np.maximum(high, 1) - 1) * 10_000)
    words |= _HIGH.take(high)
    return words


def _parse_digits(
    octets: NDArray[np.uint8], ends: NDArray[np.int64], widths: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """Return the numbers whose digits lie in a text: uint32 [n]. The caller sees to their form.

    Args:
        octets: the text, ASCII; `SPACE` bytes at least lie before the first number.
        ends: where each number ends, exclusive [n].
        widths: how many digits each has, 1 to `WIDEST` [n].
    """
    eights = np.ndarray((len(octets) - 7,), np.uint64, octets, 0, (1,))  # from each byte on
    words = eights.take(ends - 8)
    words &= _LAST.take(widths)
    ones = words.view(np.uint16)
    twos = ((ones & np.uint16(0xFF)) * np.uint16(10) + (ones >> np.uint16(8))).view(np.uint32)
    fours = (twos & np.uint32(0xFFFF)) * np.uint32(100) + (twos >> np.uint32(16))
    return fours[0::2] * np.uint32(10_000) + fours[1::2]


_DIGITS_AND_SPACE = b"0123456789 "
_TOGETHER = 32  # texts that `are_sound` looks at in one go: they stay in a core's cache


def mask_to_runs(mask: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (starts, ends) of the runs of a mask [H, W]: 0-based, ends exclusive, int64 each."""
    flat = np.ascontiguousarray(mask, dtype=np.bool_).reshape(-1)
    if flat.size % 64:
        flat = np.concatenate([flat, np.zeros(-flat.size % 64, dtype=np.bool_)])
    edges = _edges(flat)
    return edges[0::2], edges[1::2]


def _edges(flat: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where pixels [64 n] differ from the one before; outside there is background.

    Eight pixels at a time are compared with the eight before. Few are not the same, and edges are
    looked for within those alone; the same eight twice in a row would hide edges in the second.
    """
    words = flat.view(np.uint64)
    differ = np.empty(len(words), dtype=np.bool_)
    differ[:1] = True
    np.not_equal(words[1:], words[:-1], out=differ[1:])
    eights = differ.view(np.uint64)  # of which few are not zero either
    some = np.flatnonzero(eights != 0)
    found = _bytes_within(eights.take(some), some)
    own, before = words.take(found), words.take(found - 1)
    before[:1] = 0
    steps = own ^ (own << np.uint64(8) | before >> np.uint64(56))  # a byte of 1 for each edge
    hiding = np.flatnonzero(steps > np.uint64(1))
    if not differ[np.minimum(found[hiding] + 1, len(words) - 1)].all():
        edges = np.flatnonzero(np.diff(flat, prepend=False))
    else:
        edges = _bytes_within(steps, found)
    return np.append(edges, flat.size) if len(edges) % 2 else edges


def _bytes_within(words: NDArray[np.uint64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the bytes of 1 lie of words of 0 and 1, given the place of each word."""
    found = np.flatnonzero(words.view(np.bool_))
    return (places.take(found >> 3) << 3) + (found & 7)


def _pairs(starts: NDArray, ends: NDArray) -> NDArray[np.int64]:
    """Return start (from 1) and length of runs in turn: int64 [2 n]."""
    pairs = np.empty(2 * len(starts), dtype=np.int64)
    pairs[0::2] = starts
    pairs[0::2] += 1
    pairs[1::2] = ends
    pairs[1::2] -= starts
    return pairs


def format_runs(starts: NDArray, ends: NDArray) -> str:
    """Return the text of runs given as 0-based starts and exclusive ends, integers [n] each."""
    pairs = _pairs(starts, ends)
    if pairs.max(initial=0) >= _FORMAT_LIMIT:
        return " ".join(map(str, pairs.tolist()))
    return _format_digits(pairs).tobytes().translate(None, b"\0")[:-1].decode()


def text_from_bounds(ends: bytes) -> str:
    """Return the text of runs as they travel: int32, start and exclusive end of each in turn."""
    numbers = np.frombuffer(ends, dtype=np.int32)
    return format_runs(numbers[0::2], numbers[1::2])


def encode(mask: NDArray) -> str:
    """Return the text of a mask: bool or uint8 [H, W], true (not zero) where the car is."""
    return format_runs(*mask_to_runs(mask))


def parse_runs(text: str, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def all_valid(texts: Sequence[str], pixels: Sequence[int]) -> bool:
    """Return whether all texts are sound: whether `parse` would take each of them.

    It takes half the time of `parse`. Of some texts that are sound it says False: those with a
    number of more than eight digits, zeros in front counted.

    Args:
        texts: any.
        pixels: H * W of the picture of each.
    """
    return all(
        _are_sound(texts[at : at + _TOGETHER], pixels[at : at + _TOGETHER])
        for at in range(0, len(texts), _TOGETHER)
    )


def _are_sound(texts: Sequence[str], pixels: Sequence[int]) -> bool:
    """Return `are_sound` of texts that together fit a core's cache."""
    limits = np.array([size for size, text in zip(pixels, texts, strict=True) if text])
    texts = [text for text in texts if text]
    if not texts:
        return True
    spaced = " ".join([" " * (_PADDING - 1), *texts, ""])
    joined = spaced.encode(errors="backslashreplace")
    if joined.translate(None, _DIGITS_AND_SPACE):
        return False
    octets = np.frombuffer(joined, dtype=np.uint8)
    spaces = np.flatnonzero(octets == ord(" "))[_PADDING - 1 :]
    widths = np.diff(spaces) - 1
    if widths.min() < 1 or widths.max() > _MAX_DIGITS:
        return False
    behind = _PADDING + np.cumsum([len(text) + 1 for text in texts]) - 1  # each text's end
    counts = np.searchsorted(spaces[1:], behind, side="right")  # numbers up to there
    if (counts % 2).any():
        return False
    numbers = _parse_digits(octets, spaces[1:], widths).astype(np.int64)
    starts, lengths = numbers[0::2], numbers[1::2]
    ends = starts + lengths  # exclusive
    lasts = counts // 2 - 1  # run of each text
    follows = starts[1:] >= ends[:-1]
    follows[lasts[:-1]] = True  # what follows there is the first run of another picture
    return bool(
        (lengths > 0).all()
        and (starts > 0).all()
        and follows.all()
        and (ends[lasts] <= limits + 1).all()
    )


def decode(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask of a text: bool [height, width]. The inverse of `encode`.

    Raises:
        ValueError: see `parse`.
    """
    starts, ends = parse_runs(text, height * width)
    # +1 at each start and -1 after each end; runs that touch add up to 0 there, so add, not assign.
    steps = np.zeros(height * width + 1, dtype=np.int8)
    steps[starts] = 1
    np.subtract.at(steps, ends, 1)
    return np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(height, width)
