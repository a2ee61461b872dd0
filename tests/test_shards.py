"""The plan of a prediction run: names and cuts follow from it; a shard is whole or refused."""

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray import shards, storage
from carvana_ray.shards import Part
from carvana_ray.storage import Entry

SETTINGS: dict[str, Any] = {"model": "abc", "downscale": 4, "threshold": 0.5, "nested": {"a": 1}}


def entries(count: int, version: str = "1") -> list[Entry]:
    return [Entry(f"{number:012x}_01.jpg", 100 + number, version) for number in range(count)]


def rows(pictures: int, **changes: list) -> pa.Table:
    columns: dict[str, Any] = {
        "img": [f"{number:012x}_01.jpg" for number in range(pictures)],
        "rle_mask": ["" if number % 2 else "1 2 9 3" for number in range(pictures)],
        "height": [1280] * pictures,
        "width": [1918] * pictures,
        "crc32": [4_000_000_000 + number for number in range(pictures)],
        "status": ["ok"] * pictures,
        "place": list(range(pictures)),
        "count": [pictures] * pictures,
    }
    return pa.table(columns | changes)


def test_a_run_id_is_a_short_name_of_its_settings() -> None:
    name = shards.run_id(SETTINGS)
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")
    assert shards.run_id(dict(SETTINGS)) == name


def test_a_run_id_does_not_depend_on_the_order_of_keys() -> None:
    backwards = dict(reversed(SETTINGS.items()))
    assert list(backwards) != list(SETTINGS)
    assert shards.run_id(backwards) == shards.run_id(SETTINGS)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "abd"},
        {"downscale": 8},
        {"downscale": "4"},
        {"threshold": 0.25},
        {"nested": {"a": 2}},
        {"more": None},
    ],
)
def test_a_run_id_changes_with_every_setting(change: dict[str, Any]) -> None:
    assert shards.run_id(SETTINGS | change) != shards.run_id(SETTINGS)


def test_a_run_id_changes_when_a_setting_goes() -> None:
    ids = {shards.run_id({k: v for k, v in SETTINGS.items() if k != gone}) for gone in SETTINGS}
    assert len(ids | {shards.run_id(SETTINGS)}) == len(SETTINGS) + 1


def test_a_run_id_changes_with_the_format_of_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shards.run_id(SETTINGS)
    monkeypatch.setattr(shards, "FORMAT", shards.FORMAT + 1)
    assert shards.run_id(SETTINGS) != before


@pytest.mark.parametrize(
    ("pictures", "asked", "size"),
    [
        (1, 0, 16),
        (1024, 0, 16),
        (1025, 0, 17),
        (6400, 0, 100),
        (16_384, 0, 256),
        (16_383, 0, 256),
        (16_320, 0, 255),
        (100_064, 0, 256),
        (100_064, 1000, 1000),
        (5, 1, 1),
    ],
)
def test_the_size_of_a_shard(pictures: int, asked: int, size: int) -> None:
    assert shards.shard_size(pictures, asked) == size


@pytest.mark.parametrize("number", [1, 2])
def test_a_part_goes_round_through_its_bytes(number: int) -> None:
    names = [
        "a_01.jpg",
        'comma, "quote".jpg',
        "\N{AUTOMOBILE}_02.jpg",
        "new\nline.jpg",
        "back\\slash.jpg",
    ]
    pictures = tuple(Entry(name, 3 << 40, "1700000000000000001") for name in sorted(names))
    part = Part(number, pictures, 2)
    assert Part.from_bytes(part.to_bytes()) == part
    assert json.loads(part.to_bytes())["format"] == shards.FORMAT


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 100, 255, 256, 257, 1000])
@pytest.mark.parametrize("asked", [0, 1, 2, 7, 16, 300])
def test_shards_partition_the_pictures_of_a_part_in_order(count: int, asked: int) -> None:
    part = shards.next_part([], entries(count), asked)
    assert part is not None
    cut = [part.shard(shard) for shard in range(part.shards)]
    assert list(itertools.chain(*cut)) == entries(count)
    lengths = sorted(map(len, cut))
    assert lengths[0] > 0
    assert lengths[-1] - lengths[0] <= 1
    assert lengths[-1] <= shards.shard_size(count, asked)
    assert len({part.shard_name(shard) for shard in range(part.shards)}) == part.shards


def test_the_test_set_of_kaggle_is_391_shards() -> None:
    part = shards.next_part([], entries(100_064))
    assert part is not None
    assert part.name == "plan-0001.json"
    assert part.shards == 391
    assert part.shard_name(0) == "shards/00000-of-00391.parquet"
    assert part.shard_name(390) == "shards/00390-of-00391.parquet"
    assert {len(part.shard(shard)) for shard in range(391)} == {255, 256}


def test_a_later_part_has_names_of_its_own() -> None:
    part = Part(2, tuple(entries(3)), 1)
    assert part.name == "plan-0002.json"
    assert part.shard_name(0) == "shards/0002-00000-of-00001.parquet"


def test_the_plan_does_not_depend_on_the_order_of_the_listing() -> None:
    assert shards.next_part([], entries(50)[::-1]) == shards.next_part([], entries(50))


def test_nothing_new_plans_nothing() -> None:
    first = shards.next_part([], entries(50))
    assert first is not None
    assert shards.next_part([first], entries(50)) is None
    assert shards.next_part([first], entries(20)) is None, "pictures that went are nothing new"
    assert shards.next_part([], []) is None


def test_the_next_part_has_new_and_changed_pictures_alone() -> None:
    first = shards.next_part([], entries(50))
    assert first is not None
    today = entries(52)
    today[7] = Entry(today[7].name, today[7].size, "2")
    today[9] = Entry(today[9].name, 1, today[9].version)
    second = shards.next_part([first], today)
    assert second is not None
    assert second.number == 2
    assert list(second.pictures) == [today[7], today[9], today[50], today[51]]
    assert shards.next_part([first, second], today) is None
    third = shards.next_part([first, second], [*today, Entry("z.jpg", 1, "1")])
    assert third is not None
    assert (third.number, third.pictures) == (3, (Entry("z.jpg", 1, "1"),))


def test_a_picture_that_changed_back_is_planned_already() -> None:
    first = Part(1, tuple(entries(3)), 1)
    second = Part(2, tuple(entries(3, "2")), 1)
    assert shards.next_part([first, second], entries(3)) is None


def test_the_parts_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    assert shards.read_parts(str(tmp_path / "missing")) == []
    parts = [Part(number, tuple(entries(number)), 1) for number in range(1, 13)]
    for part in reversed(parts):
        storage.publish(str(tmp_path / part.name), part.to_bytes())
    storage.publish(str(tmp_path / "_SUCCESS.json"), b"{}")
    storage.publish(str(tmp_path / "other.json"), b"{}")
    assert shards.read_parts(str(tmp_path)) == parts


def test_done_are_the_shards_that_are_there(tmp_path: Path) -> None:
    part = Part(2, tuple(entries(20)), 3)
    assert shards.done(str(tmp_path)) == set()
    for shard in (0, 2):
        storage.publish(str(tmp_path / part.shard_name(shard)), b"x")
    (tmp_path / "shards" / ".draft-x.parquet").touch()
    assert shards.done(str(tmp_path)) == {part.shard_name(0), part.shard_name(2)}


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_shard_goes_round_through_its_file(tmp_path: Path, count: int) -> None:
    uri = str(tmp_path / "shard.parquet")
    storage.publish(uri, shards.to_bytes(rows(count)))
    back = shards.read_shard(uri)
    assert back.schema.equals(shards.SCHEMA)
    assert back.to_pylist() == rows(count).select(shards.SCHEMA.names).to_pylist()


def test_a_shard_has_the_columns_of_the_schema_alone_in_their_order() -> None:
    table = rows(3).select(sorted(rows(3).column_names, reverse=True))
    buffer = pa.BufferReader(shards.to_bytes(table))
    assert pq.read_schema(buffer).names == shards.SCHEMA.names


def test_the_same_rows_are_the_same_bytes_however_they_lie_in_memory() -> None:
    whole = rows(40)
    pieces = pa.concat_tables([rows(40).slice(0, 7), rows(40).slice(7)])
    assert pieces["img"].num_chunks > 1
    assert shards.to_bytes(whole) == shards.to_bytes(rows(40))
    assert shards.to_bytes(pieces) == shards.to_bytes(whole)
    with_reversed_columns = whole.select(whole.column_names[::-1])
    assert shards.to_bytes(with_reversed_columns) == shards.to_bytes(whole)


def test_other_rows_are_other_bytes() -> None:
    assert shards.to_bytes(rows(2, rle_mask=["", "1 1"])) != shards.to_bytes(rows(2))


@pytest.mark.parametrize(
    ("place", "count"),
    [
        pytest.param([0, 1, 2], [4, 4, 4], id="the last one is missing"),
        pytest.param([1, 2, 3], [4, 4, 4], id="the first one is missing"),
        pytest.param([0, 2, 3], [4, 4, 4], id="one in the middle is missing"),
        pytest.param([0, 1, 1], [3, 3, 3], id="doubled"),
        pytest.param([0, 1, 1], [2, 2, 2], id="one too many"),
        pytest.param([0, 2, 1], [3, 3, 3], id="unordered"),
        pytest.param([2, 1, 0], [3, 3, 3], id="backwards"),
        pytest.param([1, 2, 3], [3, 3, 3], id="counted from 1"),
        pytest.param([0, 1, 2], [3, 3, 4], id="of two shards"),
        pytest.param([0, 1, None], [3, 3, 3], id="no place"),
    ],
)
def test_rows_that_are_not_the_whole_shard_in_order_are_refused(
    place: list[int], count: list[int]
) -> None:
    with pytest.raises(RuntimeError, match="not written"):
        shards.to_bytes(rows(3, place=place, count=count))


def test_no_rows_at_all_are_refused_like_any_other_wrong_block() -> None:
    with pytest.raises(RuntimeError, match="not written"):
        shards.to_bytes(rows(3).slice(0, 0))


@settings(deadline=None, max_examples=100)
@given(places=st.lists(st.integers(0, 3), min_size=1, max_size=5), count=st.integers(1, 5))
def test_only_the_places_in_order_and_whole_are_taken(places: list[int], count: int) -> None:
    table = rows(len(places), place=places, count=[count] * len(places))
    if places == list(range(count)):
        assert shards.to_bytes(table)
    else:
        with pytest.raises(RuntimeError):
            shards.to_bytes(table)
