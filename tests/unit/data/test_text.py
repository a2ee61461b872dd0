"""Lists as editors and spreadsheets write them: the same in every form, or one line says why."""

import codecs
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carvana_ray.data import text
from carvana_ray.data.checksums import load_checksums
from carvana_ray.data.csv_reader import digests, iter_table, read_names, read_rows
from carvana_ray.errors import FileTooLargeError, InputError

ENCODINGS = {
    "UTF-8": "utf-8",
    "UTF-8 with mark": "utf-8-sig",
    "UTF-16": "utf-16",
    "UTF-32": "utf-32",
    "UTF-16 without mark": "utf-16-le",
    "UTF-16 big, without mark": "utf-16-be",
}
CHANGES: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "CR LF": lambda table: table.replace("\n", "\r\n"),
    "CR": lambda table: table.replace("\n", "\r"),
    "blank last lines": lambda table: table + "\n  \n\n",
    "no last line end": lambda table: table.rstrip("\n"),
    "semicolons": lambda table: table.replace(",", ";"),
    "tabs": lambda table: table.replace(",", "\t"),
    "spaces": lambda table: table.replace(",", " , ").replace("\n", " \n"),
}


@pytest.fixture(params=ENCODINGS.values(), ids=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_list_reads_the_same_in_every_form(
    tmp_path: Path, change: Callable[[str], str], encoding: str
) -> None:
    def write(name: str, table: str) -> str:
        (tmp_path / name).write_bytes(change(table).encode(encoding))
        return str(tmp_path / name)

    rows = "img,rle_mask\na b.jpg,1 1\nK\u00e4fer.jpg,\n"
    assert read_names(write("list.csv", rows)) == ["a b.jpg", "K\u00e4fer.jpg"]
    submission = write("submission.csv", rows)
    assert list(read_rows(submission)) == [("a b.jpg", "1 1"), ("K\u00e4fer.jpg", "")]
    assert set(digests(submission, ["a b.jpg"])) == {"a b.jpg"}
    write("crc32.csv", "img,crc32\na b.jpg,0000000A\nK\u00e4fer.jpg,ff\n")
    assert load_checksums(str(tmp_path)) == {"a b.jpg": 10, "K\u00e4fer.jpg": 255}
    cars = write("cars.txt", "a b\nK\u00e4fer\n")
    assert text.read_lines(cars, "--holdout-cars") == ["a b", "K\u00e4fer"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a\nK\u00e4fer\n".encode("latin-1"), r"line 2: bytes that are not UTF-8"),
        (b"a\n\0\0\0\n", r"line 2: bytes that are not UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\0\n\0\0\xd8\0", r"not UTF-8|save the file as UTF-8"),
    ],
)
def test_lines_that_cannot_be_read_are_one_line_with_flag_file_and_number(
    tmp_path: Path, data: bytes, said: str
) -> None:
    (tmp_path / "cars.txt").write_bytes(data)
    with pytest.raises(InputError, match=rf"^--holdout-cars .*cars\.txt: .*{said}") as error:
        text.read_lines(str(tmp_path / "cars.txt"), "--holdout-cars")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"img,rle_mask\na.jpg,1 1\nK\xe4fer.jpg,1 1\n", "line 3: bytes that are not UTF-8"),
        (b"img,rle_mask\na.jpg,1 1\n\nb.jpg\n", "line 4: 1 column, expected 2"),
        (b'img,rle_mask\na.jpg,1 1\n"b.jpg,1 1\n', "line 3: "),
        (b"name,mask\na.jpg,1 1\n", "line 1: the first line must be img,rle_mask, not"),
        (b"", "line 1: the first line must be img,rle_mask"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line_with_file_and_number(
    tmp_path: Path, data: bytes, said: str
) -> None:
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(InputError, match=rf"^{tmp_path}/list\.csv: {said}"):
        read_names(str(tmp_path / "list.csv"))
    with pytest.raises(InputError, match=rf"^--submission {tmp_path}/list\.csv: {said}") as error:
        digests(str(tmp_path / "list.csv"), ["a.jpg"])
    assert str(error.value).isprintable()


def test_a_checksum_that_a_spreadsheet_has_changed_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "crc32.csv").write_text("img,crc32\na.jpg,ff\nb.jpg,1.23E+07\n")
    with pytest.raises(InputError, match=r"crc32\.csv: line 3: '1\.23E\+07' is not a CRC-32"):
        load_checksums(str(tmp_path))


def test_a_file_that_is_no_list_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "MAX_BYTES", 10)
    (tmp_path / "image.jpg").write_bytes(bytes(11))
    with pytest.raises(FileTooLargeError):
        text.read_lines(str(tmp_path / "image.jpg"), "--holdout-cars")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=2))
def test_text_comes_back_as_it_was(content: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert text.open_text(io.BytesIO(content.encode(encoding))).read() == content


def test_a_quoted_field_may_hold_the_separator(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('img;crc32\n"a;b,c.jpg";7\n')
    assert [row for _, row in iter_table(str(tmp_path / "a.csv"))][1] == ["a;b,c.jpg", "7"]
