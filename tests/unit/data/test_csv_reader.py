"""CSV files of any origin: names, rows and digests, in bounded memory."""

import csv
import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from carvana_ray.data import csv_reader
from carvana_ray.data.csv_reader import BoundedLines, iter_record_blocks
from carvana_ray.errors import InputError

NAMES = [f"0cdf5b5d0ce{car}_{view:02d}.jpg" for car in range(2) for view in (1, 2)]
A, B, C, D = NAMES
GOOD = f"img,rle_mask\n{A},1 3 9 2\n{B},\n{C},12 1\n{D},1 12\n"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_names_of_a_list_come_in_its_order(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    file = tmp_path / ("a.csv" if pack is bytes else "a.csv.gz")
    file.write_bytes(pack(f'img,rle_mask\r\n{D},1 1\r\n{A},1 1\r\n"x, ""y"".jpg",1 1\r\n'.encode()))
    assert csv_reader.read_names(str(file)) == [D, A, 'x, "y".jpg']


@pytest.mark.parametrize("text", ["", "img\n", "a.jpg,1 1\n", "rle_mask,img\n"])
def test_a_list_without_the_header_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match="first line"):
        csv_reader.read_names(str(tmp_path / "a.csv"))


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    rows = list(csv_reader.read_rows(str(tmp_path / "a.csv")))
    assert rows == [(A, "1 3 9 2"), (B, ""), (C, "12 1"), (D, "1 12")]
    digests = csv_reader.digests(str(tmp_path / "a.csv"), [A, B, C])
    assert set(digests) == {A, B, C}
    assert len(set(digests.values())) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("img", "image"), "first line"),
        (GOOD + "e_01.jpg\n", "line 6: 1 column, expected 2"),
        (GOOD + f"{A},1 1\n", f"{A} has more than one row"),
        (GOOD.replace(f"{C},12 1\n", ""), f"no row for 1 of 4 images, the first is {C}"),
    ],
)
def test_a_submission_without_a_mask_for_each_image_is_an_input_error(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        csv_reader.digests(str(tmp_path / "a.csv"), NAMES)


def test_a_name_that_is_listed_twice_is_an_input_error_of_one_printable_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text("img,rle_mask\n" + "\x1b[2J.jpg,1 1\n" * 2 + f"{A},1 1\n")
    with pytest.raises(InputError, match="lists 1 image more than once") as error:
        csv_reader.read_names(str(tmp_path / "a.csv"))
    assert str(error.value).isprintable()


def test_lines_are_counted_and_the_start_of_a_record_is_kept() -> None:
    lines = BoundedLines(io.StringIO("a,1\r\nb\n", newline=""), number=5)
    assert next(lines) == "a,1\r\n"
    assert (lines.number, lines.tail, lines.head) == (6, "\r\n", "a,1\r\n")
    assert list(lines) == ["b\n"]
    assert (lines.number, lines.head) == (7, "a,1\r\n")


def records(data: bytes) -> list[csv_reader.Record]:
    return [record for block in iter_record_blocks(io.BytesIO(data)) for record in block]


def test_plain_lines_and_the_records_behind_them_are_numbered_as_lines_of_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(csv_reader, "_BLOCK", 8)
    assert records(b'a,1\nb,2\n\n"c",3\nd,4\n') == [
        (1, ["a", "1"], ""),
        (2, ["b", "2"], ""),
        (3, [], ""),
        (4, ["c", "3"], ""),
        (5, ["d", "4"], ""),
    ]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'a,"1\n2"\n', "quotes"),
        (b'a,"1"2\n', "quotes"),
        (b"a,1\0\n", "nul"),
        (b"a\xff,1\n", "encoding"),
        (b"a,1\r", "line-ends"),
        (b"a,1\r\n", ""),
        (b"a,1", ""),
    ],
)
def test_the_form_of_a_record_is_a_fault_or_nothing(data: bytes, fault: str) -> None:
    ((line, _, form),) = records(data)
    assert (line, form.partition(":")[0]) == (1, fault)


def test_an_endless_line_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "LONGEST", 10)
    limit = csv.field_size_limit()
    try:
        with pytest.raises(InputError, match="line 1 has more than 10 characters"):
            records(b"x" * 100)
    finally:
        csv.field_size_limit(limit)
