"""Whole numbers as ASCII digits and back, many at a time, eight bytes to a number.

To digits by a table of the four last and one of the three first; back by joining neighbouring
digits of all numbers in lanes of 16 and then 32 bits (D. Lemire, "SWAR explained: parsing eight
digits", 2022). The machine must be little-endian, as all are that Ray runs on.
"""

import numpy as np
from numpy.typing import NDArray

BELOW = 10**7  # numbers that `to_words` takes: seven digits and a space are eight bytes
WIDEST = 8  # digits of a number that `to_numbers` takes
SPACE = 8  # bytes of any kind that must lie before the first number, for `to_numbers`


def _words(texts: list[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(text.replace(b"_", b"\0") for text in texts), dtype=np.uint64)


_HIGH = _words([b"_" * 8, *(f"{number:_>3d}_____".encode() for number in range(1, 1000))])
_LOW = _words(  # first as a whole number, then as the end of a larger one
    [f"___{number:_>4d} ".encode() for number in range(10_000)]
    + [f"___{number:04d} ".encode() for number in range(10_000)]
)
# By the number of digits k: the last k bytes of a word, less what makes ASCII of a digit.
_LAST = np.array([0x0F0F0F0F0F0F0F0F << 8 * (8 - k) & (2**64 - 1) for k in range(9)], np.uint64)


def to_words(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return numbers as text, eight bytes each: NUL in front, digits, a space.

    Args:
        numbers: [n], 0 <= each < `BELOW`.
    """
    high = numbers // 10_000
    words = _LOW.take(numbers - (np.maximum(high, 1) - 1) * 10_000)
    words |= _HIGH.take(high)
    return words


def to_numbers(
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
