"""The submission: rows in the order asked for, each picture once, as the list has them."""

import csv
import gzip
import io
import itertools
import random
import tempfile
import weakref
from pathlib import Path

import pyarrow as pa
import pytest

from carvana_ray.data import csv_reader
from carvana_ray.storage import FileInfo
from carvana_ray.submission import plan, shards
from carvana_ray.submission import validate as faults
from carvana_ray.submission import writer as submission
from carvana_ray.submission.plan import PlanPart

NAMES = [f"0cdf5b5d0ce{car}_{view:02d}.jpg" for car in range(2) for view in (1, 2)]
A, B, C, D = NAMES
GOOD = f"img,rle_mask\n{A},1 3 9 2\n{B},\n{C},12 1\n{D},1 12\n"


def written(rows: list[tuple[str, str]], order: list[str], compress: bool = False) -> bytes:
    file = io.BytesIO()
    assert submission.write_submission(file, rows, order, compress) == len(order)
    assert not file.closed
    return file.getvalue()


ROWS = [(A, "1 3 9 2"), (B, ""), (C, "12 1"), (D, "1 12")]


def test_sorted_rows_are_written_as_they_come() -> None:
    assert written(ROWS, NAMES).decode() == GOOD


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES))[::5])
def test_rows_are_written_in_the_order_asked_for(order: tuple[str, ...]) -> None:
    lines = written(ROWS, list(order)).decode().splitlines()
    assert lines == ["img,rle_mask", *(f"{name},{dict(ROWS)[name]}" for name in order)]


def test_rows_may_come_from_a_generator() -> None:
    file = io.BytesIO()
    assert submission.write_submission(file, (row for row in ROWS), [D, A, C, B], False) == 4
    assert file.getvalue().decode().splitlines()[1] == f"{D},1 12"


@pytest.mark.parametrize(
    "rows", [ROWS[:3], [*ROWS, ROWS[0]], [ROWS[0], *ROWS[2:], ROWS[1]], [(D + "x", ""), *ROWS[1:]]]
)
def test_rows_that_are_not_those_of_another_order_are_an_error(rows: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"zip|expected"):
        submission.write_submission(io.BytesIO(), rows, NAMES[::-1], False)


def test_rows_wait_for_their_order_in_the_folder_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    file = io.BytesIO()
    assert (
        submission.write_submission(file, ROWS, NAMES[::-1], False, spool_folder=str(tmp_path)) == 4
    )
    assert (
        file.getvalue()
        == "".join(["img,rle_mask\n", *(f"{name},{runs}\n" for name, runs in ROWS[::-1])]).encode()
    )
    with pytest.raises(FileNotFoundError):
        submission.write_submission(io.BytesIO(), ROWS, NAMES[::-1], False)
    assert written(ROWS, NAMES).decode() == GOOD, "in order of name nothing waits"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_a_packed_file_is_the_same_bytes_every_time(order: list[str]) -> None:
    packed = written(ROWS, order, compress=True)
    with tempfile.NamedTemporaryFile() as file:  # has a name, which gzip would write down
        submission.write_submission(file, ROWS, order, True)
        file.seek(0)
        assert file.read() == packed
    assert gzip.decompress(packed) == written(ROWS, order)
    assert packed[3] == 0, "neither a name nor a comment in the header"
    assert packed[4:8] == bytes(4), "no time in the header"


def test_names_with_commas_quotes_and_other_letters_survive(tmp_path: Path) -> None:
    names = sorted(
        ["a, b.jpg", 'the "best".jpg', "\N{AUTOMOBILE}.jpg", "back\\slash.jpg", "it's.jpg"]
    )
    for order in (names, names[::-1]):
        place = tmp_path / "a.csv"
        place.write_bytes(written([(name, "1 1") for name in names], order))
        assert csv_reader.read_names(str(place)) == order
        assert faults.validate_file(str(place), names, lambda _: 12) == (5, [], {})
        with place.open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file))[1:] == [[name, "1 1"] for name in order]


def test_lines_are_those_of_csv_whatever_they_hold() -> None:
    odd = ["", "a", "a,b", 'a"b', "a\nb", "a\rb", "a b", "a;b", " a", "\N{AUTOMOBILE}", "\0", "'"]
    rows = [(f"{name}{text}", text) for name in odd for text in odd]
    rows.sort()
    lines = written(rows, [name for name, _ in rows])
    by_csv = io.StringIO(newline="")
    csv.writer(by_csv, lineterminator="\n").writerows([("img", "rle_mask"), *rows])
    assert lines == by_csv.getvalue().encode()


def test_what_is_written_checks_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(written(ROWS, NAMES[::-1], compress=True))
    assert faults.validate_file(str(tmp_path / "a.csv.gz"), NAMES, lambda _: 12) == (4, [], {})
    assert csv_reader.read_names(str(tmp_path / "a.csv.gz")) == NAMES[::-1]


def merged(parts: list[PlanPart], today: list[FileInfo]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (picture, the version that the row was made of) and the shards that were read."""
    tables, asked = {}, []
    for part in parts:
        for shard in range(part.shards):
            own = part.shard(shard)
            tables[part.shard_name(shard)] = pa.table(
                {
                    "img": [entry.name for entry in own],
                    "rle_mask": [entry.version for entry in own],
                }
            )

    def read(part: PlanPart, shard: int) -> pa.Table:
        asked.append(part.shard_name(shard))
        return tables[part.shard_name(shard)]

    rows = list(submission.iter_rows(parts, read, set(today)))
    in_turn = asked.copy()
    with submission.prefetch_shards(parts, read, set(today)) as ahead:
        assert list(submission.iter_rows(parts, ahead, set(today))) == rows
    assert sorted(asked) == sorted(in_turn * 2), "ahead, the same shards are read, once each"
    return [(row["img"], row["rle_mask"]) for row in rows], in_turn


def entry(name: str, version: str = "1") -> FileInfo:
    return FileInfo(name, 10, version)


def test_one_part_is_its_rows_in_order() -> None:
    today = [entry(f"{number:02d}") for number in range(10)]
    part = PlanPart(1, tuple(today), 3)
    rows, asked = merged([part], today)
    assert rows == [(f"{number:02d}", "1") for number in range(10)]
    assert asked == [part.shard_name(shard) for shard in range(3)], "each shard is read once"


def test_parts_are_merged_by_name_and_of_a_changed_picture_the_newest_counts() -> None:
    first = PlanPart(1, tuple(entry(name) for name in "bdfh"), 2)
    second = PlanPart(2, (entry("a"), entry("d", "2"), entry("g")), 2)
    third = PlanPart(3, (entry("d", "3"), entry("i")), 1)
    today = [*(entry(name) for name in "abfghi"), entry("d", "3")]
    rows, _ = merged([first, second, third], today)
    assert rows == [("a", "1"), ("b", "1"), ("d", "3"), *((name, "1") for name in "fghi")]


def test_pictures_that_are_gone_have_no_row() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcd"), 2)
    assert merged([part], [entry("b"), entry("c")])[0] == [("b", "1"), ("c", "1")]


def test_a_shard_without_any_picture_of_today_is_not_read() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcd"), 2)
    rows, asked = merged([part], [entry("c"), entry("d")])
    assert rows == [("c", "1"), ("d", "1")]
    assert asked == [part.shard_name(1)]


def test_a_picture_that_changed_back_has_the_row_of_its_version() -> None:
    first, second = PlanPart(1, (entry("a"), entry("b")), 1), PlanPart(2, (entry("a", "2"),), 1)
    assert merged([first, second], [entry("a"), entry("b")])[0] == [("a", "1"), ("b", "1")]


def test_a_shard_that_is_not_as_long_as_planned_is_an_error() -> None:
    part = PlanPart(1, (entry("a"), entry("b")), 1)
    short = shards.SCHEMA.empty_table()
    with pytest.raises(ValueError, match="zip"):
        list(submission.iter_rows([part], lambda *_: short, {entry("a")}))


def test_of_a_shard_the_table_is_let_go_before_its_rows_are_used() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcd"), 2)
    tables: list[weakref.ref] = []

    def read(part: PlanPart, shard: int) -> pa.Table:
        assert all(table() is None for table in tables)
        own = [entry.name for entry in part.shard(shard)]
        table = pa.table({"img": own, "rle_mask": own})
        tables.append(weakref.ref(table))
        return table

    for row in submission.iter_rows([part], read, set(part.images)):
        assert row["img"] == row["rle_mask"]
        assert all(table() is None for table in tables)
    assert len(tables) == 2


def test_plans_made_over_time_merge_to_the_catalogue_of_today() -> None:
    """Ten days of pictures that come, change and go; the plan is that of `next_part`."""
    parts: list[PlanPart] = []
    catalogue: dict[str, FileInfo] = {}
    for day in range(10):
        for number in range(30):
            name = f"{number:02d}.jpg"
            if (number * 7 + day * 3) % 5 == 0:
                catalogue[name] = entry(name, str(day))
            elif (number + day) % 11 == 0:
                catalogue.pop(name, None)
        if part := plan.plan_new(parts, list(catalogue.values()), requested=4):
            parts.append(part)
    assert len(parts) > 5
    rows, asked = merged(parts, list(catalogue.values()))
    assert rows == [(name, one.version) for name, one in sorted(catalogue.items())]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("seed", range(50))
def test_shards_are_read_ahead_in_the_order_in_which_they_are_asked_for(seed: int) -> None:
    """Of parts whose names take turns, or are of one piece; never more than a few ahead."""
    chance = random.Random(seed)
    names = [f"{number:02d}" for number in range(60)]
    parts, today = [], []
    for number in range(1, chance.randint(2, 12)):
        start, step = chance.randrange(50), chance.choice([1, 1, 2, 7])
        own = tuple(entry(name, str(number)) for name in names[start::step])
        parts.append(PlanPart(number, own, chance.randint(1, len(own))))
    for name in names:
        if versions := [one for part in parts for one in part.images if one.name == name]:
            today += chance.choices(versions, k=chance.randrange(2))
    begun: list[tuple[int, int]] = []
    taken: list[tuple[int, int]] = []

    def read(part: PlanPart, shard: int) -> pa.Table:
        begun.append((part.number, shard))
        return pa.table({"img": [one.name for one in part.shard(shard)]})

    with submission.prefetch_shards(parts, read, set(today)) as ahead:

        def follow(part: PlanPart, shard: int) -> pa.Table:
            taken.append((part.number, shard))
            assert len(begun) - len(taken) <= submission._SHARDS_AHEAD
            return ahead(part, shard)

        rows = [row["img"] for row in submission.iter_rows(parts, follow, set(today))]
    assert rows == sorted(one.name for one in today)
    assert sorted(begun) == sorted(taken)
    assert len(set(taken)) == len(taken)


def test_what_a_shard_raises_that_is_read_ahead_comes_when_it_is_asked_for() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcdef"), 6)

    def read(part: PlanPart, shard: int) -> pa.Table:
        if shard == 2:
            raise shards.CorruptShardError("the third")
        return pa.table({"img": [one.name for one in part.shard(shard)]})

    with submission.prefetch_shards([part], read, set(part.images)) as ahead:
        rows = submission.iter_rows([part], ahead, set(part.images))
        assert [next(rows)["img"], next(rows)["img"]] == ["a", "b"]
        with pytest.raises(shards.CorruptShardError, match="the third"):
            next(rows)
