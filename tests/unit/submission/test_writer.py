"""The submission: rows in the requested order, one per image."""

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

from carvana_ray import storage
from carvana_ray.data import csv_reader
from carvana_ray.storage import FileInfo
from carvana_ray.submission import plan, shards, writer
from carvana_ray.submission.plan import PlanPart
from carvana_ray.submission.validate import validate_file

NAMES = [f"0cdf5b5d0ce{car}_{view:02d}.jpg" for car in range(2) for view in (1, 2)]
A, B, C, D = NAMES
GOOD = f"img,rle_mask\n{A},1 3 9 2\n{B},\n{C},12 1\n{D},1 12\n"


def written(rows: list[tuple[str, str]], order: list[str], compress: bool = False) -> bytes:
    file = io.BytesIO()
    assert writer.write_submission(file, rows, order, compress) == len(order)
    assert not file.closed
    return file.getvalue()


ROWS = [(A, "1 3 9 2"), (B, ""), (C, "12 1"), (D, "1 12")]


def test_sorted_rows_are_written_in_their_order() -> None:
    assert written(ROWS, NAMES).decode() == GOOD


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES))[::5])
def test_rows_are_written_in_the_requested_order(order: tuple[str, ...]) -> None:
    lines = written(ROWS, list(order)).decode().splitlines()
    assert lines == ["img,rle_mask", *(f"{name},{dict(ROWS)[name]}" for name in order)]


def test_rows_may_come_from_a_generator() -> None:
    file = io.BytesIO()
    assert writer.write_submission(file, (row for row in ROWS), [D, A, C, B], False) == 4
    assert file.getvalue().decode().splitlines()[1] == f"{D},1 12"


@pytest.mark.parametrize(
    "rows", [ROWS[:3], [*ROWS, ROWS[0]], [ROWS[0], *ROWS[2:], ROWS[1]], [(D + "x", ""), *ROWS[1:]]]
)
def test_rows_that_do_not_match_the_order_are_an_error(rows: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match=r"zip|expected"):
        writer.write_submission(io.BytesIO(), rows, NAMES[::-1], False)


def test_rows_are_reordered_in_the_given_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    file = io.BytesIO()
    assert writer.write_submission(file, ROWS, NAMES[::-1], False, spool_folder=str(tmp_path)) == 4
    assert (
        file.getvalue()
        == "".join(["img,rle_mask\n", *(f"{name},{runs}\n" for name, runs in ROWS[::-1])]).encode()
    )
    with pytest.raises(FileNotFoundError):
        writer.write_submission(io.BytesIO(), ROWS, NAMES[::-1], False)
    assert written(ROWS, NAMES).decode() == GOOD, "sorted rows need no temporary file"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_a_compressed_file_has_reproducible_bytes(order: list[str]) -> None:
    packed = written(ROWS, order, compress=True)
    with tempfile.NamedTemporaryFile() as file:  # has a name, which gzip would write down
        writer.write_submission(file, ROWS, order, True)
        file.seek(0)
        assert file.read() == packed
    assert gzip.decompress(packed) == written(ROWS, order)
    assert packed[3] == 0, "neither a name nor a comment in the header"
    assert packed[4:8] == bytes(4), "no time in the header"


def test_names_with_commas_quotes_and_other_letters_survive_a_round_trip(tmp_path: Path) -> None:
    names = sorted(
        ["a, b.jpg", 'the "best".jpg', "\N{AUTOMOBILE}.jpg", "back\\slash.jpg", "it's.jpg"]
    )
    for order in (names, names[::-1]):
        place = tmp_path / "a.csv"
        place.write_bytes(written([(name, "1 1") for name in names], order))
        assert csv_reader.read_names(str(place)) == order
        assert validate_file(str(place), names, lambda _: 12) == (5, [], {})
        with place.open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file))[1:] == [[name, "1 1"] for name in order]


def test_lines_equal_those_of_the_csv_module() -> None:
    odd = ["", "a", "a,b", 'a"b', "a\nb", "a\rb", "a b", "a;b", " a", "\N{AUTOMOBILE}", "\0", "'"]
    rows = [(f"{name}{text}", text) for name in odd for text in odd]
    rows.sort()
    lines = written(rows, [name for name, _ in rows])
    by_csv = io.StringIO(newline="")
    csv.writer(by_csv, lineterminator="\n").writerows([("img", "rle_mask"), *rows])
    assert lines == by_csv.getvalue().encode()


def test_a_written_file_is_valid(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(written(ROWS, NAMES[::-1], compress=True))
    assert validate_file(str(tmp_path / "a.csv.gz"), NAMES, lambda _: 12) == (4, [], {})
    assert csv_reader.read_names(str(tmp_path / "a.csv.gz")) == NAMES[::-1]


def merged(parts: list[PlanPart], today: list[FileInfo]) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (image, version of its row) for all rows, and the shards that were read."""
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

    rows = list(writer.iter_rows(parts, read, set(today)))
    in_turn = asked.copy()
    with writer.prefetch_shards(parts, read, set(today)) as ahead:
        assert list(writer.iter_rows(parts, ahead, set(today))) == rows
    assert sorted(asked) == sorted(in_turn * 2), "prefetching reads the same shards, once each"
    return [(row["img"], row["rle_mask"]) for row in rows], in_turn


def entry(name: str, version: str = "1") -> FileInfo:
    return FileInfo(name, 10, version)


def test_the_rows_of_one_part_are_in_order() -> None:
    today = [entry(f"{number:02d}") for number in range(10)]
    part = PlanPart(1, tuple(today), 3)
    rows, asked = merged([part], today)
    assert rows == [(f"{number:02d}", "1") for number in range(10)]
    assert asked == [part.shard_name(shard) for shard in range(3)], "each shard is read once"


def test_parts_are_merged_by_name_with_the_newest_version_of_a_changed_image() -> None:
    first = PlanPart(1, tuple(entry(name) for name in "bdfh"), 2)
    second = PlanPart(2, (entry("a"), entry("d", "2"), entry("g")), 2)
    third = PlanPart(3, (entry("d", "3"), entry("i")), 1)
    today = [*(entry(name) for name in "abfghi"), entry("d", "3")]
    rows, _ = merged([first, second, third], today)
    assert rows == [("a", "1"), ("b", "1"), ("d", "3"), *((name, "1") for name in "fghi")]


def test_removed_images_have_no_row() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcd"), 2)
    assert merged([part], [entry("b"), entry("c")])[0] == [("b", "1"), ("c", "1")]


def test_a_shard_without_images_of_the_catalog_is_not_read() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcd"), 2)
    rows, asked = merged([part], [entry("c"), entry("d")])
    assert rows == [("c", "1"), ("d", "1")]
    assert asked == [part.shard_name(1)]


def test_an_image_that_changed_back_has_the_row_of_its_version() -> None:
    first, second = PlanPart(1, (entry("a"), entry("b")), 1), PlanPart(2, (entry("a", "2"),), 1)
    assert merged([first, second], [entry("a"), entry("b")])[0] == [("a", "1"), ("b", "1")]


def test_a_shard_of_another_length_than_planned_is_an_error() -> None:
    part = PlanPart(1, (entry("a"), entry("b")), 1)
    short = shards.SCHEMA.empty_table()
    with pytest.raises(ValueError, match="zip"):
        list(writer.iter_rows([part], lambda *_: short, {entry("a")}))


def test_a_shards_table_is_freed_before_its_rows_are_used() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcd"), 2)
    tables: list[weakref.ref] = []

    def read(part: PlanPart, shard: int) -> pa.Table:
        assert all(table() is None for table in tables)
        own = [entry.name for entry in part.shard(shard)]
        table = pa.table({"img": own, "rle_mask": own})
        tables.append(weakref.ref(table))
        return table

    for row in writer.iter_rows([part], read, set(part.images)):
        assert row["img"] == row["rle_mask"]
        assert all(table() is None for table in tables)
    assert len(tables) == 2


def test_a_plan_grown_over_days_merges_to_the_current_catalog() -> None:
    """Ten days of images that are added, changed and removed; the plan is made by `plan_new`."""
    parts: list[PlanPart] = []
    catalog: dict[str, FileInfo] = {}
    for day in range(10):
        for number in range(30):
            name = f"{number:02d}.jpg"
            if (number * 7 + day * 3) % 5 == 0:
                catalog[name] = entry(name, str(day))
            elif (number + day) % 11 == 0:
                catalog.pop(name, None)
        if part := plan.plan_new(parts, list(catalog.values()), requested=4):
            parts.append(part)
    assert len(parts) > 5
    rows, asked = merged(parts, list(catalog.values()))
    assert rows == [(name, one.version) for name, one in sorted(catalog.items())]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("seed", range(50))
def test_shards_are_prefetched_in_the_order_of_use(seed: int) -> None:
    """Parts with interleaved or separate names; never more than a few shards are ahead."""
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

    with writer.prefetch_shards(parts, read, set(today)) as ahead:

        def follow(part: PlanPart, shard: int) -> pa.Table:
            taken.append((part.number, shard))
            assert len(begun) - len(taken) <= storage.READ_AHEAD
            return ahead(part, shard)

        rows = [row["img"] for row in writer.iter_rows(parts, follow, set(today))]
    assert rows == sorted(one.name for one in today)
    assert sorted(begun) == sorted(taken)
    assert len(set(taken)) == len(taken)


def test_an_error_of_a_prefetched_shard_is_raised_when_it_is_used() -> None:
    part = PlanPart(1, tuple(entry(name) for name in "abcdef"), 6)

    def read(part: PlanPart, shard: int) -> pa.Table:
        if shard == 2:
            raise shards.CorruptShardError("the third")
        return pa.table({"img": [one.name for one in part.shard(shard)]})

    with writer.prefetch_shards([part], read, set(part.images)) as ahead:
        rows = writer.iter_rows([part], ahead, set(part.images))
        assert [next(rows)["img"], next(rows)["img"]] == ["a", "b"]
        with pytest.raises(shards.CorruptShardError, match="the third"):
            next(rows)
