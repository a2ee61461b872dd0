"""Numbers to digits and back: against Python's own `str` and `int`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray import rle as digits

EDGES = sorted({max(0, 10**power + step) for power in range(8) for step in (-1, 0, 1)})


def text_of(numbers: list[int]) -> str:
    words = digits._format_digits(np.array(numbers, dtype=np.int64))
    return words.tobytes().translate(None, b"\0").decode()


def numbers_in(words: list[str]) -> list[int]:
    octets = np.frombuffer((" " * digits._PADDING + " ".join(words)).encode(), dtype=np.uint8)
    widths = np.array([len(word) for word in words], dtype=np.int64)
    ends = digits._PADDING + np.cumsum(widths + 1) - 1
    return digits._parse_digits(octets, ends, widths).tolist()


def test_every_number_of_four_digits_and_some_of_all_others_are_what_str_says() -> None:
    some = np.random.default_rng(0).integers(0, digits._FORMAT_LIMIT, 100_000).tolist()
    numbers = [*range(20_001), *(one for one in EDGES if one < digits._FORMAT_LIMIT), *some]
    assert text_of(numbers) == "".join(f"{number} " for number in numbers)


def test_every_number_of_four_digits_and_some_of_all_others_are_what_int_says() -> None:
    some = np.random.default_rng(0).integers(0, 10**digits._MAX_DIGITS, 100_000).tolist()
    numbers = [*range(20_001), *(one for one in EDGES if one < 10**digits._MAX_DIGITS), *some]
    assert numbers_in([str(number) for number in numbers]) == numbers


@pytest.mark.parametrize("width", range(1, digits._MAX_DIGITS + 1))
def test_zeros_in_front_change_nothing(width: int) -> None:
    assert numbers_in(["7" * 8, f"{5:0{width}d}", "9" * 8]) == [77_777_777, 5, 99_999_999]


def test_no_numbers_are_no_text() -> None:
    assert text_of([]) == ""


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, digits._FORMAT_LIMIT - 1), min_size=1, max_size=20))
def test_what_is_written_is_read_back(numbers: list[int]) -> None:
    assert numbers_in(text_of(numbers).split()) == numbers
