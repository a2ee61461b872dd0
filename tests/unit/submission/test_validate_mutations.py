"""A valid submission, mutated in one way at a time: each fault is found, with name and place."""

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.commands import Run

from carvana_ray.data import csv_reader
from carvana_ray.errors import InputError
from carvana_ray.submission.validate import validate, validate_file

PIXELS = 1280 * 1918
NAMES = [f"0cdf5b5d0ce{car}_{view:02d}.jpg" for car in range(2) for view in (1, 2, 16)]
A, B, C, D, E, F = NAMES
RUNS = ["5 3 20 4 30 1", "", "1 1918", f"{PIXELS} 1", f"1 {PIXELS}", "7 1 9 1"]
LINES = ["img,rle_mask", *map(",".join, zip(NAMES, RUNS, strict=True))]
GOOD = "".join(line + "\n" for line in LINES).encode()
STRANGER = "1cdf5b5d0ce0_01.jpg"

Where = tuple[str, str, int]  # fault, image, line


def swap(old: str, new: str | bytes) -> bytes:
    """Return the valid file with the only occurrence of `old` replaced."""
    assert GOOD.count(old.encode()) == 1, old
    return GOOD.replace(old.encode(), new if isinstance(new, bytes) else new.encode())


def runs_of_a(text: str | bytes) -> bytes:
    return swap("5 3 20 4 30 1", text)


def rows(*lines: str) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def faults_of(path: Path, data: bytes, listed: bool = True) -> list[Where]:
    path.write_bytes(data)
    _, found, counts = validate_file(str(path), NAMES if listed else None, lambda _: PIXELS)
    assert sum(counts.values()) == len(found)
    assert all(fault["detail"] for fault in found)
    return [(fault["fault"], fault["img"], fault["line"]) for fault in found]


HARMLESS = {
    "as it is": GOOD,
    "CR LF": GOOD.replace(b"\n", b"\r\n"),
    "no end of the last line": GOOD[:-1],
    "another order": rows(LINES[0], *LINES[:0:-1]),
    "quoted runs": runs_of_a('"5 3 20 4 30 1"'),
    "quoted header": swap("img,rle_mask", '"img","rle_mask"'),
    "runs that touch": runs_of_a("5 3 8 4"),
    "zeros before a number": runs_of_a("05 3"),
}


@pytest.mark.parametrize("data", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("listed", [True, False])
def test_files_that_kaggle_accepts_are_valid(tmp_path: Path, data: bytes, listed: bool) -> None:
    assert faults_of(tmp_path / "a.csv", data, listed) == []
    assert faults_of(tmp_path / "a.csv.gz", gzip.compress(data), listed) == []


FILES: dict[str, tuple[bytes, list[Where]]] = {
    "empty file": (
        b"",
        [("header", "", 1), ("empty", "", 0), *(("missing", name, 0) for name in NAMES)],
    ),
    "header alone": (
        rows(LINES[0]),
        [("empty", "", 0), *(("missing", name, 0) for name in NAMES)],
    ),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, [("encoding", "", 1)]),
    "header of other names": (swap("img,rle_mask", "image,rle_mask"), [("header", "", 1)]),
    "header with a space": (swap("img,rle_mask", "img, rle_mask"), [("header", "", 1)]),
    "header in capitals": (swap("img,rle_mask", "IMG,RLE_MASK"), [("header", "", 1)]),
    "header with a third column": (swap("rle_mask", "rle_mask,score"), [("header", "", 1)]),
    "header of one column": (swap("img,rle_mask", "img"), [("header", "", 1)]),
    "header with a quote left open": (
        swap("img,rle_mask", 'img,"rle_mask') + b'"\n',
        [("quotes", "", 1), ("header", "", 1), ("empty", "", 0)]
        + [("missing", name, 0) for name in NAMES],
    ),
    "no header": (rows(*LINES[1:]), [("header", "", 1), ("missing", A, 0)]),
    "header twice": (rows(LINES[0], *LINES), [("foreign", "img", 2)]),
    "blank first line": (rows("", *LINES), [("header", "", 1), ("foreign", "img", 2)]),
    "CR alone": (
        GOOD.replace(b"\n", b"\r"),
        [("line-ends", img, 1 + at) for at, img in enumerate(["", *NAMES])],
    ),
    "CR alone after one row": (swap("30 1\n", "30 1\r"), [("line-ends", A, 2)]),
    "CR within a row": (
        runs_of_a("5 3\r20 4"),
        [("line-ends", A, 2), ("columns", "20 4", 3)],
    ),
    "row of one column": (swap(f"{B},\n", f"{B}\n"), [("columns", B, 3)]),
    "row of three columns": (runs_of_a("5 3 20 4 30 1,0.9"), [("columns", A, 2)]),
    "semicolons": (
        GOOD.replace(b",", b";"),
        [("header", "", 1)]
        + [("columns", line.replace(",", ";"), 2 + at) for at, line in enumerate(LINES[1:])]
        + [("missing", name, 0) for name in NAMES],
    ),
    "blank line": (swap(f"{B},", f"\n{B},"), [("columns", "", 3)]),
    "row twice": (GOOD + rows(LINES[3]), [("doubled", C, 8)]),
    "row missing": (rows(*LINES[:3], *LINES[4:]), [("missing", C, 0)]),
    "cut after a row": (rows(*LINES[:5]), [("missing", E, 0), ("missing", F, 0)]),
    "foreign row": (GOOD + rows(f"{STRANGER},1 1"), [("foreign", STRANGER, 8)]),
    "name in capitals": (
        swap(A, A.upper()),
        [("foreign", A.upper(), 2), ("missing", A, 0)],
    ),
    "space before a name": (swap(A, f" {A}"), [("foreign", f" {A}", 2), ("missing", A, 0)]),
    "columns swapped": (
        swap(f"{F},7 1 9 1", f"7 1 9 1,{F}"),
        [("foreign", "7 1 9 1", 7), ("missing", F, 0)],
    ),
    "NUL in a name": (swap(A, f"\0{A}"), [("nul", f"\0{A}", 2), ("missing", A, 0)]),
    "NUL among runs": (runs_of_a("5 3\x0020 4"), [("nul", A, 2)]),
    "Latin-1 in a name": (
        swap(A, b"\xe9" + A.encode()),
        [("encoding", f"\udce9{A}", 2), ("missing", A, 0)],
    ),
    "Latin-1 among runs": (runs_of_a(b"5 3\xa020 4"), [("encoding", A, 2)]),
    "quote left open": (
        swap(LINES[3], f'{C},"1 1918'),
        [("quotes", C, 4)] + [("missing", name, 0) for name in (D, E, F)],
    ),
    "quotes around two rows": (
        swap(f"{LINES[3]}\n{LINES[4]}", f'{C},"1 1918\n{D},1 1"'),
        [("quotes", C, 4), ("missing", D, 0)],
    ),
    "quoted name with a line end": (
        swap(f"{A},", f'"{A}\n",'),
        [("quotes", f"{A}\n", 2), ("missing", A, 0)],
    ),
    "text after a quote": (runs_of_a('"5 3" 20 4'), [("quotes", A, 2)]),
    **{
        f"formula: {start!r}": (
            swap(A, f"{start}{A}"),
            [("name", f"{start}{A}", 2), ("missing", A, 0)],
        )
        for start in "=+-@\t"
    },
    "formula: quoted CR": (
        swap(A, f'"\r{A}"'),
        [("quotes", f"\r{A}", 2), ("missing", A, 0)],
    ),
}


@pytest.mark.parametrize(("data", "expected"), FILES.values(), ids=FILES)
def test_a_mutated_file_has_its_faults_and_no_others(
    tmp_path: Path, data: bytes, expected: list[Where]
) -> None:
    assert faults_of(tmp_path / "a.csv", data) == expected
    assert faults_of(tmp_path / "a.csv.gz", gzip.compress(data)) == expected


MASKS = {
    "odd-count": ["5", "5 3 20"],
    "out-of-range": [
        "0 3",
        "5 0",
        "5 3 0 1",
        f"{PIXELS + 1} 1",
        f"{PIXELS} 2",
        f"2 {PIXELS}",
        "5 3 99999999999999999999 1",
        "18446744073709551617 1",
    ],
    "overlap": ["5 3 7 1", "5 3 5 3", "5 9 6 1"],
    "disorder": ["20 4 5 3", "5 1 30 1 20 1"],
    "not-a-number": [
        "-5 3",
        "5 -3",
        "+5 3",
        "5.0 3",
        "5e0 3",
        "0x5 3",
        "1_0 3",
        "5;3",
        "5\t3",
        "nan",
        "None",
        "[5 3]",
        "\N{FULLWIDTH DIGIT FIVE} 3",
        "\N{ARABIC-INDIC DIGIT FIVE} 3",
        "\N{SUPERSCRIPT TWO} 3",
        "5\N{NO-BREAK SPACE}3",
        "\N{MINUS SIGN}5 3",
        '5 3"',
    ],
    "spaces": [" ", " 5 3", "5 3 ", "5  3", "5 3  20 4"],
}


@pytest.mark.parametrize(
    ("fault", "text"), [(fault, text) for fault, texts in MASKS.items() for text in texts]
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_mutated_mask_is_named(tmp_path: Path, fault: str, text: str, listed: bool) -> None:
    assert faults_of(tmp_path / "a.csv", runs_of_a(text), listed) == [(fault, A, 2)]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1.jpg", "@SUM(A1)", "\t.jpg"])
def test_a_formula_is_a_fault_even_if_it_is_on_the_list(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_bytes(rows("img,rle_mask", f"{name},1 1", "b=.jpg,1 1"))
    for listed in ([name, "b=.jpg"], None):
        _, found, _ = validate_file(str(tmp_path / "a.csv"), listed, lambda _: PIXELS)
        assert (found[0]["fault"], found[0]["img"]) == ("name", name)
        assert len(found) == (1 if listed else 2)


def damaged(packed: bytes, at: int) -> bytes:
    return packed[:at] + bytes([packed[at] ^ 0xFF]) + packed[at + 1 :]


PACKED = gzip.compress(GOOD, mtime=0)
NO_CSV = {
    "gzip cut short": ("a.csv.gz", PACKED[:-12]),
    "gzip without its sum": ("a.csv.gz", PACKED[:-8]),
    "gzip with another sum": ("a.csv.gz", damaged(PACKED, -8)),
    "gzip with another length": ("a.csv.gz", damaged(PACKED, -2)),
    "gzip with garbage behind": ("a.csv.gz", PACKED + b"garbage"),
    "gzip with a block that is none": ("a.csv.gz", damaged(PACKED, 10)),
    "gzip that is not packed": ("a.csv.gz", GOOD),
    "packed under a name that is not": ("a.csv", PACKED),
    "zlib": ("a.csv.gz", zlib.compress(GOOD)),
    "UTF-16": ("a.csv", GOOD.decode().encode("utf-16")),
    "UTF-16 without mark": ("a.csv", GOOD.decode().encode("utf-16-le")),
    "UTF-32": ("a.csv", GOOD.decode().encode("utf-32")),
    "zeros": ("a.csv", bytes(10_000)),
    "JPEG": ("a.csv", b"\xff\xd8\xff\xe0\0\x10JFIF\0" * 100),
}


@pytest.mark.parametrize(("name", "data"), NO_CSV.values(), ids=NO_CSV)
def test_data_that_are_not_csv_are_an_input_error(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(InputError, match=rf"{name}: not a CSV file: \w"):
        faults_of(tmp_path / name, data)


@pytest.mark.parametrize(("name", "data"), NO_CSV.values(), ids=NO_CSV)
def test_data_that_are_not_text_are_no_list_but_utf_16_is(
    tmp_path: Path, name: str, data: bytes, request: pytest.FixtureRequest
) -> None:
    (tmp_path / name).write_bytes(data)
    if "UTF" in request.node.name:
        assert csv_reader.read_names(str(tmp_path / name))
        return
    with pytest.raises(InputError, match=rf"{name}: line \d+: \w") as error:
        csv_reader.read_names(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lines of 1000 characters at most."""
    limit = csv.field_size_limit()
    monkeypatch.setattr(csv_reader, "LONGEST", 1000)
    yield
    csv.field_size_limit(limit)


@pytest.mark.usefixtures("short_lines")
def test_a_line_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    digits = 1000 - len(f"{A},\n")
    assert faults_of(tmp_path / "a.csv", runs_of_a("5" * digits)) == [("odd-count", A, 2)]
    with pytest.raises(InputError, match="line 2 has more than 1000 characters"):
        faults_of(tmp_path / "a.csv", runs_of_a("5" * (digits + 1)))
    with pytest.raises(InputError, match="line 1 has more than 1000 characters"):
        faults_of(tmp_path / "a.csv", b"0" * 1001)


@pytest.mark.usefixtures("short_lines")
def test_an_open_quote_does_not_swallow_the_whole_file(tmp_path: Path) -> None:
    names = [f"{car:012x}_01.jpg" for car in range(200)]
    data = rows("img,rle_mask", f'{names[0]},"1 1', *(f"{name},1 1" for name in names[1:]))
    (tmp_path / "a.csv").write_bytes(data)
    count, found, counts = validate_file(str(tmp_path / "a.csv"), names, lambda _: PIXELS)
    assert (found[0]["fault"], found[0]["img"], found[0]["line"]) == ("quotes", names[0], 2)
    assert set(counts) == {"quotes", "missing"}
    assert counts["missing"] <= -(-1000 // len(f"{names[0]},1 1\n"))
    assert count + counts["missing"] == 200


def accepted(data: bytes) -> bool:
    """Return whether the bytes are a valid submission, read by other means."""
    try:
        header, *found = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
        numbers = {name: [int(word) for word in text.split()] for name, text in found}
    except (ValueError, csv.Error):
        return False
    painted = {
        name: [(at, at + length) for at, length in zip(words[::2], words[1::2], strict=False)]
        for name, words in numbers.items()
    }
    return (
        header == ["img", "rle_mask"]
        and sorted(name for name, _ in found) == NAMES
        and all(len(words) % 2 == 0 for words in numbers.values())
        and all(1 <= at < end <= PIXELS + 1 for runs in painted.values() for at, end in runs)
        and all(
            before[1] <= after[0]
            for runs in painted.values()
            for before, after in itertools.pairwise(runs)
        )
    )


SCRAPS = st.one_of(
    st.binary(max_size=3),
    st.sampled_from(
        [b"", b" ", b",", b"\n", b"\r", b'"', b"0", b"1", b"9", b"-", b"\0", GOOD[-8:]]
    ),
)


@settings(deadline=None, max_examples=400)
@given(at=st.integers(0, len(GOOD)), cut=st.integers(0, 3), scrap=SCRAPS)
def test_any_mutation_without_faults_is_a_valid_submission(
    tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, scrap: bytes
) -> None:
    data = GOOD[:at] + scrap + GOOD[at + cut :]
    place = tmp_path_factory.getbasetemp() / "spoilt.csv"
    try:
        passed = not faults_of(place, data)
    except InputError:
        passed = False
    assert accepted(data) or not passed


@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, len(PACKED) - 1), flip=st.integers(1, 255), end=st.integers(0, 30))
def test_any_mutated_gzip_without_faults_holds_the_valid_file(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int, end: int
) -> None:
    data = PACKED[:at] + bytes([PACKED[at] ^ flip]) + PACKED[at + 1 : len(PACKED) - end]
    place = tmp_path_factory.getbasetemp() / "spoilt.csv.gz"
    try:
        found = faults_of(place, data)
    except InputError:
        return
    assert found == []
    assert gzip.decompress(data) == GOOD


def said(data: bytes, listed: bool) -> tuple | str:
    """Return the result of `validate` for some bytes, or its `InputError`."""
    try:
        return validate(io.BytesIO(data), NAMES if listed else None, lambda _: PIXELS)
    except InputError as error:
        return str(error)


BLOCKS = [1, 30, 64, 2**20]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("listed", [True, False])
def test_the_fast_path_finds_the_same_faults_as_csv(
    monkeypatch: pytest.MonkeyPatch, block: int, listed: bool
) -> None:
    """Plain lines are split and parsed many at a time, all others one by one by `csv`."""
    spoilt = [swap("5 3 20 4 30 1", text) for texts in MASKS.values() for text in texts]
    spoilt += [*HARMLESS.values(), *(data for data, _ in FILES.values())]
    spoilt += [swap(f"{B},", f"{name},") for name in ("Käfer.jpg", "a\u2028b\x85\x0c.jpg", "=1")]
    spoilt += [GOOD * 30, GOOD.replace(b",", b'","'), GOOD[:40] + bytes(range(256)) + GOOD[40:]]
    monkeypatch.setattr(csv_reader, "_BLOCK", block)
    found = [said(data, listed) for data in spoilt]
    monkeypatch.setattr(csv_reader, "_plain", lambda data: None)
    assert found == [said(data, listed) for data in spoilt]


@settings(deadline=None, max_examples=300)
@given(
    at=st.integers(0, 2 * len(GOOD)),
    cut=st.integers(0, 3),
    scrap=SCRAPS,
    block=st.sampled_from(BLOCKS),
    listed=st.booleans(),
)
def test_the_fast_path_finds_the_same_faults_for_any_mutation(
    at: int, cut: int, scrap: bytes, block: int, listed: bool
) -> None:
    twice = GOOD + GOOD.partition(b"\n")[2]
    data = twice[:at] + scrap + twice[at + cut :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "_BLOCK", block)
        found = said(data, listed)
        patch.setattr(csv_reader, "_plain", lambda data: None)
        assert found == said(data, listed)


def test_the_job_says_the_same(run_job: Run, tmp_path: Path) -> None:
    data, expected = FILES["quote left open"]
    (tmp_path / "sample_submission.csv").write_bytes(GOOD)
    (tmp_path / "bad.csv").write_bytes(data)
    done = run_job("check", tmp_path / "bad.csv", "--data", tmp_path)
    assert done.returncode == 1
    found = json.loads(done.stdout.splitlines()[-1])
    assert [(one["fault"], one["img"], one["line"]) for one in found["faults"]] == expected
    assert "quotes 1" in done.stderr


def test_the_job_reports_data_that_are_not_csv_in_one_line(run_job: Run, tmp_path: Path) -> None:
    name, data = NO_CSV["gzip with a block that is none"]
    (tmp_path / name).write_bytes(data)
    done = run_job("check", tmp_path / name)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{name}: not a CSV file" in done.stderr
