"""Validation of a submission: every fault with its name, its image and its line."""

import gzip
import io
import json
from pathlib import Path

import pytest
from support.commands import Run

from carvana_ray.data import csv_reader
from carvana_ray.errors import InputError
from carvana_ray.submission.validate import SubmissionFault, validate, validate_file

NAMES = [f"0cdf5b5d0ce{car}_{view:02d}.jpg" for car in range(2) for view in (1, 2)]
A, B, C, D = NAMES
GOOD = f"img,rle_mask\n{A},1 3 9 2\n{B},\n{C},12 1\n{D},1 12\n"


def check(text: str, expected: list[str] | None = NAMES) -> tuple[int, list[SubmissionFault], dict]:
    rows, found, counts = validate(io.BytesIO(text.encode()), expected, lambda _: 12)
    return rows, found, dict(counts)


def test_a_valid_file_has_no_fault() -> None:
    assert check(GOOD) == (4, [], {})
    assert check(GOOD, None) == (4, [], {})


def test_windows_line_ends_and_quotes_are_valid() -> None:
    assert check(GOOD.replace("\n", "\r\n")) == (4, [], {})
    assert check(GOOD.replace("1 3 9 2", '"1 3 9 2"')) == (4, [], {})


def test_any_order_of_rows_is_valid() -> None:
    lines = GOOD.splitlines()
    assert check("\n".join([lines[0], *reversed(lines[1:])])) == (4, [], {})


def without(line: int) -> str:
    lines = GOOD.splitlines(keepends=True)
    return "".join(lines[:line] + lines[line + 1 :])


@pytest.mark.parametrize(
    ("text", "fault", "img", "line"),
    [
        (GOOD.replace("img,rle_mask", "img,rle"), "header", "", 1),
        (GOOD.replace("img,rle_mask", "img;rle_mask"), "header", "", 1),
        (GOOD.replace("img,rle_mask", "rle_mask,img"), "header", "", 1),
        ("\ufeff" + GOOD, "encoding", "", 1),
        (GOOD.replace("1 3 9 2", "1 3 9 2,more"), "columns", A, 2),
        (without(3), "missing", C, 0),
        (GOOD + f"{A},\n", "doubled", A, 6),
        (GOOD + "1cdf5b5d0ce0_01.jpg,1 1\n", "foreign", "1cdf5b5d0ce0_01.jpg", 6),
        (GOOD.replace("1 3 9 2", "1 3 9"), "odd-count", A, 2),
        (GOOD.replace("1 3 9 2", "9 2 1 3"), "disorder", A, 2),
        (GOOD.replace("1 3 9 2", "1 3 3 2"), "overlap", A, 2),
        (GOOD.replace(",12 1", ",12 2"), "out-of-range", C, 4),
        (GOOD.replace(",12 1", ",0 1"), "out-of-range", C, 4),
        (GOOD.replace(",12 1", ",13 1"), "out-of-range", C, 4),
        (GOOD.replace(",12 1", ",12.0 1"), "not-a-number", C, 4),
        (GOOD.replace(f"{D},1 12", f"{D},nan"), "not-a-number", D, 5),
    ],
)
def test_each_fault_has_a_name_an_image_and_a_line(
    text: str, fault: str, img: str, line: int
) -> None:
    _, found, counts = check(text)
    same = [one for one in found if one.fault == fault]
    assert [(one.img, one.line) for one in same] == [(img, line)]
    assert same[0].detail
    assert counts == {fault: 1}


@pytest.mark.parametrize(
    "name", ["0cdf5b5d0ce1_17.jpg", "0cdf5b5d0ce1_01.png", "car_01.jpg", "0CDF5B5D0CE1_01.jpg", ""]
)
def test_names_must_have_kaggles_form_without_a_list(name: str) -> None:
    _, found, counts = check(f"{GOOD}{name},1 1\n", None)
    assert [(one.fault, one.img, one.line) for one in found] == [("name", name, 6)]
    assert counts == {"name": 1}


def test_a_doubled_image_is_found_without_a_list() -> None:
    _, found, _ = check(f"{GOOD}{C},1 1\n", None)
    assert [(one.fault, one.img, one.line) for one in found] == [("doubled", C, 6)]


def test_a_bad_name_does_not_hide_bad_runs() -> None:
    assert check("img,rle_mask\ncar.jpg,5\n", None)[2] == {"name": 1, "odd-count": 1}


def test_any_name_is_valid_if_it_is_on_the_list() -> None:
    assert check("img,rle_mask\ncar.jpg,5 1\n", ["car.jpg"]) == (1, [], {})


def test_each_image_has_its_own_size() -> None:
    text = "img,rle_mask\nlarge.jpg,20 1\nsmall.jpg,20 1\n"
    _, found, _ = validate(
        io.BytesIO(text.encode()),
        ["large.jpg", "small.jpg"],
        {"large.jpg": 20, "small.jpg": 19}.__getitem__,
    )
    assert [(one.fault, one.img) for one in found] == [("out-of-range", "small.jpg")]


def test_an_empty_file_has_no_header_and_no_images() -> None:
    rows, _, counts = check("")
    assert (rows, counts) == (0, {"header": 1, "empty": 1, "missing": 4})
    assert check("", None)[2] == {"header": 1, "empty": 1}
    assert check("img,rle_mask\n", None)[2] == {"empty": 1}


def test_an_empty_line_is_a_row_without_columns() -> None:
    _, found, counts = check(GOOD + "\n")
    assert counts == {"columns": 1}
    assert found[0].line == 6


def test_a_hundred_faults_of_one_name_are_listed_and_all_are_counted() -> None:
    names = [f"{car:012x}_01.jpg" for car in range(150)]
    text = "img,rle_mask\n" + "".join(f"{name},5\n" for name in names) + "x,y,z\n"
    rows, found, counts = check(text, names)
    assert rows == 151
    assert counts == {"odd-count": 150, "columns": 1}
    assert len([one for one in found if one.fault == "odd-count"]) == 100
    assert len([one for one in found if one.fault == "columns"]) == 1


def test_a_mask_longer_than_csvs_default_limit_is_read() -> None:
    runs = " ".join(f"{2 * at + 1} 1" for at in range(40_000))
    assert len(runs) > 131_072
    data = f"img,rle_mask\na.jpg,{runs}\n".encode()
    found = validate(io.BytesIO(data), ["a.jpg"], lambda _: 80_000)
    assert found[:2] == (1, [])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_compressed_and_plain_files_are_validated(tmp_path: Path, suffix: str) -> None:
    text = GOOD.replace("1 3 9 2", "1 3 9")
    data = text.encode()
    place = tmp_path / f"submission{suffix}"
    place.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    rows, found, counts = validate_file(str(place), NAMES, lambda _: 12)
    assert (rows, counts) == (4, {"odd-count": 1})
    assert [(one["fault"], one["img"], one["line"]) for one in found] == [("odd-count", A, 2)]


def packed_and_cut(data: bytes) -> bytes:
    return gzip.compress(data * 1000)[:-20]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"\xff\xd8\xff\xe0" * 100),
        ("a.csv.gz", GOOD.encode()),
        ("b.csv.gz", packed_and_cut(GOOD.encode())),
    ],
    ids=["a JPEG", "not packed", "cut short"],
)
def test_a_file_that_is_not_a_csv_is_an_input_error(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        validate_file(str(tmp_path / name), NAMES, lambda _: 12)
    with pytest.raises(InputError, match=name):
        csv_reader.read_names(str(tmp_path / name))


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.csv"):
        validate_file(str(tmp_path / "missing.csv"), None, lambda _: 12)
    with pytest.raises(InputError, match=r"missing\.csv"):
        csv_reader.read_names(str(tmp_path / "missing.csv"))


@pytest.mark.parametrize("which", ["submission", "list"])
def test_the_job_reports_a_file_that_cannot_be_opened_in_one_line(
    run_job: Run, tmp_path: Path, which: str
) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "loop.csv").symlink_to("loop.csv")  # unlike a mode, it stops the superuser too
    given = ["good.csv", "--data", "loop.csv"] if which == "list" else ["loop.csv"]
    done = run_job("check", *(tmp_path / one if one.endswith(".csv") else one for one in given))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "loop.csv: Too many levels of symbolic links" in done.stderr


STEERING = "\x1b]0;title\x07\x9b2J\x1b[31m.jpg"  # a terminal's title, an empty screen, red


def test_the_job_prints_no_control_codes(run_job: Run, tmp_path: Path) -> None:
    place = tmp_path / "a.csv"
    place.write_text(f"{GOOD}{STEERING},1 1\n{A},\x1b[2J\n", encoding="utf-8")
    done = run_job("check", place)
    assert done.returncode == 1
    assert f"name: line 6, {STEERING!r}: not a name" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["faults"][0]["img"] == STEERING
    assert not set(done.stderr + done.stdout) & set("\x1b\x07\x9b")


def test_faults_of_a_list_are_reported_without_control_codes(run_job: Run, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    listed = tmp_path / "list.csv"
    listed.write_text(f"img,rle_mask\n{STEERING},\n{STEERING},\n", encoding="utf-8")
    done = run_job("check", tmp_path / "good.csv", "--data", listed)
    assert done.returncode == 2
    assert f"more than once, the first is {repr(STEERING)[1:-1]}" in done.stderr
    assert not set(done.stderr) & set("\x1b\x07\x9b")
