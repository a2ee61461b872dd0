"""Run-length text: known answers, a brute-force encoder, round trips, every fault, digits."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carvana_ray import rle

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def row(text: str) -> np.ndarray:
    return np.array([[letter == "1" for letter in text]])


def brute(mask: np.ndarray) -> str:
    """Encode pixel by pixel, as Kaggle's page describes the format."""
    words, length = [], 0
    pixels = [bool(pixel) for line in mask.tolist() for pixel in line] + [False]
    for index, pixel in enumerate(pixels, start=1):
        if pixel:
            length += 1
        elif length:
            words += [str(index - length), str(length)]
            length = 0
    return " ".join(words)


def paint(runs: list[tuple[int, int]], pixels: int) -> list[bool]:
    """Return the pixels of runs given as 0-based starts and lengths."""
    return [any(start <= at < start + length for start, length in runs) for at in range(pixels)]


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        ("0011100", "3 3"),
        ("1110000", "1 3"),
        ("0000111", "5 3"),
        ("1100011", "1 2 6 2"),
        ("1111111", "1 7"),
        ("0000000", ""),
        ("1000000", "1 1"),
        ("0000001", "7 1"),
        ("1010101", "1 1 3 1 5 1 7 1"),
    ],
)
def test_known_rows_have_their_known_texts(pixels: str, text: str) -> None:
    assert rle.encode(row(pixels)) == text
    assert np.array_equal(rle.decode(text, 1, 7), row(pixels))


def test_a_column_has_one_run_a_pixel_unless_it_is_one_pixel_wide() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[:, 2] = True
    assert rle.encode(mask) == "3 1 8 1 13 1 18 1"
    assert rle.encode(mask[:, 2:3]) == "1 4"


def test_a_run_that_crosses_the_end_of_a_row_is_one_run() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[0, 2:] = mask[1, :] = mask[2, 0] = True
    assert rle.encode(mask) == "3 7"
    assert np.array_equal(rle.decode("3 7", 3, 4), mask)


def test_a_mask_that_touches_both_corners_keeps_its_runs() -> None:
    mask = np.zeros((1280, 1918), dtype=bool)
    mask[0, 0] = mask[-1, -1] = True
    assert rle.encode(mask) == f"1 1 {1280 * 1918} 1"
    assert np.array_equal(rle.decode(rle.encode(mask), 1280, 1918), mask)


@pytest.mark.parametrize("value", [False, True])
def test_full_and_empty_masks_of_full_size_round_trip(value: bool) -> None:
    mask = np.full((1280, 1918), value)
    assert rle.encode(mask) == (f"1 {1280 * 1918}" if value else "")
    assert np.array_equal(rle.decode(rle.encode(mask), 1280, 1918), mask)


def test_noise_of_full_size_round_trips() -> None:
    mask = np.random.default_rng(0).random((1280, 1918)) < 0.5
    assert np.array_equal(rle.decode(rle.encode(mask), 1280, 1918), mask)


@settings(deadline=None, max_examples=200)
@given(mask=MASKS)
def test_encode_agrees_with_a_walk_over_the_pixels(mask: np.ndarray) -> None:
    assert rle.encode(mask) == brute(mask)


@settings(deadline=None, max_examples=200)
@given(mask=MASKS)
def test_decode_undoes_encode(mask: np.ndarray) -> None:
    back = rle.decode(rle.encode(mask), *mask.shape)
    assert back.dtype == np.bool_
    assert np.array_equal(back, mask)


@settings(deadline=None, max_examples=50)
@given(mask=MASKS, value=st.sampled_from([1, 2, 128, 255]))
def test_any_value_but_zero_is_foreground(mask: np.ndarray, value: int) -> None:
    assert rle.encode(mask.astype(np.uint8) * np.uint8(value)) == brute(mask)


@settings(deadline=None, max_examples=50)
@given(mask=MASKS)
def test_the_layout_in_memory_does_not_matter(mask: np.ndarray) -> None:
    assert rle.encode(np.asfortranarray(mask)) == brute(mask)
    assert rle.encode(mask[:, ::-1]) == brute(mask[:, ::-1].copy())


@settings(deadline=None, max_examples=50)
@given(mask=MASKS)
def test_parse_runs_undoes_format_runs(mask: np.ndarray) -> None:
    starts, ends = rle.mask_to_runs(mask)
    text = rle.format_runs(starts, ends)
    again = rle.parse_runs(text, mask.size)
    assert text == rle.encode(mask)
    assert (again[0].tolist(), again[1].tolist()) == (starts.tolist(), ends.tolist())
    assert {again[0].dtype, again[1].dtype} == {np.dtype(np.int64)}


def test_format_runs_does_not_overflow_int32() -> None:
    starts, ends = np.array([2**31 - 1], dtype=np.int32), np.array([2**31 + 9], dtype=np.int64)
    assert rle.format_runs(starts, ends) == f"{2**31} 10"


@settings(deadline=None, max_examples=200)
@given(
    steps=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=12),
    spare=st.integers(0, 6),
    width=st.integers(1, 12),
)
def test_decode_agrees_with_painting_the_runs(
    steps: list[tuple[int, int]], spare: int, width: int
) -> None:
    runs, at = [], 0
    for gap, length in steps:  # a gap of 0: runs that touch, which Kaggle takes
        runs.append((at + gap, length))
        at += gap + length
    height = max(1, -(-(at + spare) // width))
    text = " ".join(f"{start + 1} {length}" for start, length in runs)
    mask = rle.decode(text, height, width)
    assert mask.shape == (height, width)
    assert mask.reshape(-1).tolist() == paint(runs, height * width)
    assert rle.encode(mask) == brute(mask)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("3", "odd-count"),
        ("1 2 5", "odd-count"),
        ("1 3 3 2", "overlap"),
        ("1 3 1 3", "overlap"),
        ("2 5 3 1 9 1", "overlap"),
        ("5 2 1 2", "disorder"),
        ("1 1 9 1 5 1", "disorder"),
        ("0 1", "out-of-range"),
        ("1 0", "out-of-range"),
        ("3 1 7 0", "out-of-range"),
        ("0 0", "out-of-range"),
        ("12 2", "out-of-range"),
        ("13 1", "out-of-range"),
        ("1 13", "out-of-range"),
        ("1 " + "9" * 18, "out-of-range"),
        ("9" * 18 + " " + "9" * 18, "out-of-range"),
        ("1 " + "9" * 19, "out-of-range"),
        ("9223372036854775807 1", "out-of-range"),
        ("18446744073709551617 1", "out-of-range"),
        ("1 " + "9" * 30, "out-of-range"),
        ("9" * 30 + " 1", "out-of-range"),
        ("a b", "not-a-number"),
        ("1 x", "not-a-number"),
        ("-1 2", "not-a-number"),
        ("1 -2", "not-a-number"),
        ("+1 2", "not-a-number"),
        ("1.0 2", "not-a-number"),
        ("1e2 2", "not-a-number"),
        ("1,2", "not-a-number"),
        ("1_1 2", "not-a-number"),
        ("nan 1", "not-a-number"),
        ("0x1 1", "not-a-number"),
        ("\N{ARABIC-INDIC DIGIT ONE} \N{ARABIC-INDIC DIGIT TWO}", "not-a-number"),
        ("\N{SUPERSCRIPT TWO} 1", "not-a-number"),
        ("1\N{NO-BREAK SPACE}2", "not-a-number"),
        ("1\x002", "not-a-number"),
        ("1\udcff2 1", "not-a-number"),
        ("1\t2", "not-a-number"),
        ("1 2\n", "not-a-number"),
        ("1 2\r", "not-a-number"),
        (" ", "spaces"),
        (" 1 2", "spaces"),
        ("1 2 ", "spaces"),
        ("1  2", "spaces"),
        ("1 2  5 1", "spaces"),
    ],
)
def test_an_invalid_text_names_its_fault(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=rf"^{fault}: "):
        rle.decode(text, 3, 4)


@pytest.mark.parametrize("text", ["12 1", "1 12", "1 1 12 1", "1 6 7 6"])
def test_a_run_may_reach_the_last_pixel(text: str) -> None:
    assert rle.decode(text, 3, 4)[-1, -1]


def test_a_fault_names_its_run() -> None:
    with pytest.raises(ValueError, match=r"run 2 \(5 99999999999999999999\) .* pixels 1 to 12$"):
        rle.parse_runs("1 2 5 99999999999999999999 8 1", 12)
    with pytest.raises(ValueError, match=r"run 2 \(5 99\)"):
        rle.parse_runs("1 2 5 99", 12)
    with pytest.raises(ValueError, match="run 3 starts at 4"):
        rle.parse_runs("1 1 9 1 4 1", 12)
    with pytest.raises(ValueError, match="run 2 starts at 3"):
        rle.parse_runs("1 3 3 2", 12)


@settings(deadline=None, max_examples=200)
@given(text=st.text(alphabet="0123456789 -.x", max_size=12))
def test_any_text_decodes_to_its_runs_or_is_a_value_error(text: str) -> None:
    try:
        mask = rle.decode(text, 3, 4)
    except ValueError as error:
        named = ("not-a-number", "spaces", "odd-count", "out-of-range", "disorder", "overlap")
        assert str(error).startswith(named)  # noqa: PT017
        return
    numbers = [int(word) for word in text.split()]
    runs = [(s - 1, n) for s, n in zip(numbers[0::2], numbers[1::2], strict=True)]
    assert mask.reshape(-1).tolist() == paint(runs, 12)
    assert mask.sum() == sum(length for _, length in runs)


def parse_plainly(text: str, pixels: int) -> list[tuple[int, int]] | str:
    """Return (start, end) of the runs, or the fault, by Python's own integers."""
    if set(text) - set("0123456789 "):
        return "not-a-number"
    words = text.split(" ") if text else []
    if "" in words:
        return "spaces"
    if len(words) % 2:
        return "odd-count"
    pairs = [(int(s), int(n)) for s, n in zip(words[0::2], words[1::2], strict=True)]
    if any(start < 1 or length < 1 or start + length - 1 > pixels for start, length in pairs):
        return "out-of-range"
    if any(after[0] < before[0] for before, after in itertools.pairwise(pairs)):
        return "disorder"
    if any(after[0] < sum(before) for before, after in itertools.pairwise(pairs)):
        return "overlap"
    return [(start - 1, start - 1 + length) for start, length in pairs]


LARGE = [2**31, 2**32 + 1, 2**63 - 1, 2**63, 2**64 + 1, 10**30]
NUMBER = st.one_of(
    st.integers(0, 30).map(str),
    st.integers(0, 30).map(str),
    st.integers(0, 9).map(lambda number: f"{number:025d}"),
    st.sampled_from(LARGE).map(str),
)
GAP = st.sampled_from([" "] * 60 + ["  ", "\t", " +", " -", ".", "e", ""])


@settings(deadline=None, max_examples=500)
@given(
    words=st.lists(st.tuples(NUMBER, GAP), max_size=8),
    tail=st.booleans(),
    ascending=st.booleans(),
    pixels=st.sampled_from([1, 12, 60, 1280 * 1918, 2**40]),
)
@example(words=[("1", " "), (str(2**63 - 1), "")], tail=False, ascending=False, pixels=12)
@example(words=[(str(2**63), " "), (str(2**63), "")], tail=False, ascending=False, pixels=12)
def test_parse_runs_agrees_with_plain_python(
    words: list[tuple[str, str]], tail: bool, ascending: bool, pixels: int
) -> None:
    if ascending:  # else runs in order are rare
        ends = itertools.accumulate(int(word) % 7 for word, _ in words)
        words = [
            (str(end) if at % 2 == 0 else word, gap)
            for at, (end, (word, gap)) in enumerate(zip(ends, words, strict=True))
        ]
    text = "".join(word + gap for word, gap in words)
    text = text if tail else text.rstrip(" ")
    expected = parse_plainly(text, pixels)
    try:
        starts, ends_ = rle.parse_runs(text, pixels)
    except ValueError as error:
        assert str(error).partition(": ")[0] == expected  # noqa: PT017
    else:
        assert list(zip(starts.tolist(), ends_.tolist(), strict=True)) == expected


def test_leading_zeros_are_valid() -> None:
    assert np.array_equal(
        rle.decode("01 002 0000000000000000000000009 1", 3, 4), rle.decode("1 2 9 1", 3, 4)
    )


@given(mask=MASKS)
def test_the_text_of_run_bounds_is_the_text_of_the_mask(mask: np.ndarray) -> None:
    assert rle.text_from_bounds(rle.bounds_from_mask(mask)) == rle.encode(mask)
    bounds = np.frombuffer(rle.bounds_from_mask(mask), np.int32)
    assert np.array_equal(bounds[0::2], rle.mask_to_runs(mask)[0])


@settings(deadline=None, max_examples=300)
@given(
    width=st.sampled_from([1, 7, 8, 9, 16, 63, 64, 65, 128, 200]),
    unit=st.text(alphabet="01", min_size=1, max_size=20),
    height=st.integers(1, 9),
    flips=st.lists(st.integers(0, 1799), max_size=4),
)
@example(width=64, unit="01", height=2, flips=[])
@example(width=64, unit="00001111", height=3, flips=[])
@example(width=128, unit="0", height=2, flips=[255])
def test_encode_agrees_with_a_walk_over_stripes_of_any_period(
    width: int, unit: str, height: int, flips: list[int]
) -> None:
    """A word of eight pixels that repeats the one before has boundaries, too."""
    pixels = width * height
    flat = row((unit * pixels)[:pixels])[0]
    for flip in flips:
        flat[flip % pixels] ^= True
    mask = flat.reshape(height, width)
    assert rle.encode(mask) == brute(mask)
    assert np.array_equal(rle.decode(rle.encode(mask), height, width), mask)


def test_numbers_beyond_the_digit_tables_are_formatted() -> None:
    starts, ends = np.array([9_999_998, 9_999_999]), np.array([9_999_999, 10_000_001])
    assert rle.format_runs(starts[:1], ends[:1]) == "9999999 1"
    assert rle.format_runs(starts, ends) == "9999999 1 10000000 2"


def parses(text: str, pixels: int) -> bool:
    try:
        rle.parse_runs(text, pixels)
    except ValueError:
        return False
    return True


VALID = st.lists(st.integers(1, 9), max_size=12).map(
    lambda gaps: " ".join(
        f"{sum(gaps[: at + 1])} {gaps[at + 1]}" for at in range(0, len(gaps) - 1, 2)
    )
)
ARBITRARY = st.text(alphabet="0123456789 -,\n\t\u0665", max_size=12)


@settings(deadline=None, max_examples=500)
@given(
    texts=st.lists(st.tuples(st.one_of(VALID, VALID, ARBITRARY), st.sampled_from([30, 90, 2**40])))
)
@example(texts=[("1 2", 90), ("1 2", 90)])  # runs of different images do not overlap
@example(texts=[("1", 90), ("2", 90)])  # an even number of numbers, of two odd ones
@example(texts=[("", 90), ("", 90)])
@example(texts=[("1 2 ", 90), ("5 1", 90)])
@example(texts=[("123456789 1", 2**40)])
def test_texts_are_all_valid_if_each_parses(texts: list[tuple[str, int]]) -> None:
    valid = rle.all_valid([text for text, _ in texts], [pixels for _, pixels in texts])
    each = all(parses(text, pixels) for text, pixels in texts)
    long = any(len(word) > 8 for text, _ in texts for word in text.split())
    assert valid == each or (long and not valid)


@pytest.mark.parametrize("at", [0, 31, 32, 99])
@pytest.mark.parametrize("text", ["5", "5 3 7 1", "20 1 5 1", "12 2", "0 1", "5 0", " 5 1", "5,1"])
def test_one_invalid_text_among_many_is_found(at: int, text: str) -> None:
    texts = ["1 2 5 1"] * 100
    assert rle.all_valid(texts, [12] * 100)
    texts[at] = text
    assert not rle.all_valid(texts, [12] * 100)
    assert not rle.all_valid(["1 12"] * 100, [12] * at + [11] + [12] * (99 - at))


NUMBERS_AT_LIMITS = sorted({max(0, 10**power + step) for power in range(8) for step in (-1, 0, 1)})


def format_digits(numbers: list[int]) -> str:
    words = rle._format_digits(np.array(numbers, dtype=np.int64))
    return words.tobytes().translate(None, b"\0").decode()


def parse_digits(words: list[str]) -> list[int]:
    octets = np.frombuffer((" " * rle._PADDING + " ".join(words)).encode(), dtype=np.uint8)
    widths = np.array([len(word) for word in words], dtype=np.int64)
    ends = rle._PADDING + np.cumsum(widths + 1) - 1
    return rle._parse_digits(octets, ends, widths).tolist()


def numbers_below(limit: int) -> list[int]:
    """Return all numbers of four digits, those at each power of ten, and random ones."""
    random = np.random.default_rng(0).integers(0, limit, 100_000).tolist()
    return [*range(20_001), *(number for number in NUMBERS_AT_LIMITS if number < limit), *random]


def test_format_digits_agrees_with_str() -> None:
    numbers = numbers_below(rle._FORMAT_LIMIT)
    assert format_digits(numbers) == "".join(f"{number} " for number in numbers)
    assert format_digits([]) == ""


def test_parse_digits_agrees_with_int() -> None:
    numbers = numbers_below(10**rle._MAX_DIGITS)
    assert parse_digits([str(number) for number in numbers]) == numbers


@pytest.mark.parametrize("width", range(1, rle._MAX_DIGITS + 1))
def test_parse_digits_reads_leading_zeros(width: int) -> None:
    assert parse_digits(["7" * 8, f"{5:0{width}d}", "9" * 8]) == [77_777_777, 5, 99_999_999]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, rle._FORMAT_LIMIT - 1), min_size=1, max_size=20))
def test_parse_digits_undoes_format_digits(numbers: list[int]) -> None:
    assert parse_digits(format_digits(numbers).split()) == numbers
