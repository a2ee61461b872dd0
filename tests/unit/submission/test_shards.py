"""A shard matches its place in the plan, or is pending; no image is read."""

import io
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carvana_ray import storage
from carvana_ray.storage import FileInfo
from carvana_ray.submission import shards
from carvana_ray.submission.plan import PlanPart, digest
from carvana_ray.submission.shards import CorruptShardError, ShardTask

RUN = "0123456789abcdef"
KEY = "key of a shard"


def entries(count: int, version: str = "1") -> tuple[FileInfo, ...]:
    return tuple(
        FileInfo(f"{number:012x}_01.jpg", 100 + number, version) for number in range(count)
    )


def rows(images: int, **changes: list) -> pa.Table:
    columns: dict[str, Any] = {
        "img": [f"{number:012x}_01.jpg" for number in range(images)],
        "rle_mask": ["" if number % 2 else f"1 2 9 3 {20 + number} 1" for number in range(images)],
        "height": [1280] * images,
        "width": [1918] * images,
        "crc32": [4_000_000_000 + number for number in range(images)],
        "orientation": [1 + number % 8 for number in range(images)],
        "status": ["ok"] * images,
        "row": list(range(images)),
        "rows": [images] * images,
    }
    return pa.table(columns | changes)


def plain(table: pa.Table) -> list[dict[str, Any]]:
    return table.select(shards.SCHEMA.names).to_pylist()


class Folder:
    """A run's folder. There are no images anywhere."""

    def __init__(self, place: Path, run: str = RUN) -> None:
        self.path = place / run
        self.uri = str(self.path)

    def put(self, part: PlanPart, shard: int = 0, **changes: list) -> Path:
        """Write a shard as a run does, with some columns replaced."""
        own, name = part.shard(shard), part.shard_name(shard)
        table = rows(len(own), **({"img": [entry.name for entry in own]} | changes))
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(
            shards.serialize_shard(table, shards.shard_key(self.path.name, part, shard))
        )
        return file

    def pending(
        self,
        parts: list[PlanPart],
        today: list[FileInfo] | None = None,
        crcs: dict[str, int] | None = None,
    ) -> shards.PendingShards:
        every = [entry for part in parts for entry in part.images]
        return shards.pending(self.uri, parts, every if today is None else today, crcs or {})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def five(folder: Folder) -> tuple[Folder, PlanPart, Path]:
    """A shard of five images, one of them bad."""
    part = PlanPart(1, entries(5), 1)
    status = ["ok", "truncated: 3 bytes", "ok", "ok", "ok"]
    return folder, part, folder.put(part, status=status)


def test_existing_shards_are_listed_without_drafts(tmp_path: Path) -> None:
    part = PlanPart(2, entries(20), 3)
    assert shards.list_shards(str(tmp_path)) == set()
    for shard in (0, 2):
        storage.write_atomic(str(tmp_path / part.shard_name(shard)), b"x")
    (tmp_path / "shards" / ".draft-x.parquet").touch()
    assert shards.list_shards(str(tmp_path)) == {part.shard_name(0), part.shard_name(2)}


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_shard_survives_a_round_trip_through_its_file(folder: Folder, count: int) -> None:
    part = PlanPart(1, entries(count), 1)
    folder.put(part)
    back = shards.read_shard(folder.uri, part, 0)
    assert back.schema.equals(shards.SCHEMA, check_metadata=True)
    assert plain(back) == plain(rows(count))


def test_each_shard_of_each_part_survives_a_round_trip(folder: Folder) -> None:
    for part in (PlanPart(1, entries(10), 3), PlanPart(2, entries(7, "2"), 2)):
        for shard in range(part.shards):
            folder.put(part, shard)
        for shard in range(part.shards):
            names = shards.read_shard(folder.uri, part, shard)["img"].to_pylist()
            assert names == [entry.name for entry in part.shard(shard)]


def test_names_and_texts_of_any_alphabet_survive_a_round_trip(folder: Folder) -> None:
    names = ["Käfer, rot.jpg", '"quoted".jpg', "\N{AUTOMOBILE}_02.jpg", "車_01.jpg"]
    part = PlanPart(1, tuple(FileInfo(name, 1, "1") for name in sorted(names)), 1)
    status = ["ok", "not-an-image: \N{AUTOMOBILE}\n\0", "ok", "mode: Ä"]
    folder.put(part, status=status)
    back = shards.read_shard(folder.uri, part, 0)
    assert back["img"].to_pylist() == sorted(names)
    assert back["status"].to_pylist() == status


def test_a_shard_has_exactly_the_columns_of_the_schema_in_order() -> None:
    table = rows(3).select(sorted(rows(3).column_names, reverse=True))
    buffer = pa.BufferReader(shards.serialize_shard(table, KEY))
    assert pq.read_schema(buffer).names == shards.SCHEMA.names


def test_equal_rows_give_equal_bytes_for_any_memory_layout() -> None:
    whole = rows(40)
    pieces = pa.concat_tables([rows(40).slice(0, 7), rows(40).slice(7)])
    assert pieces["img"].num_chunks > 1
    bytes_of = shards.serialize_shard(whole, KEY)
    assert bytes_of == shards.serialize_shard(rows(40), KEY)
    assert bytes_of == shards.serialize_shard(pieces, KEY)
    assert bytes_of == shards.serialize_shard(whole.select(whole.column_names[::-1]), KEY)


def test_other_rows_or_another_key_give_other_bytes() -> None:
    one = shards.serialize_shard(rows(2), KEY)
    assert shards.serialize_shard(rows(2, rle_mask=["", "1 1"]), KEY) != one
    assert shards.serialize_shard(rows(2), KEY[::-1]) != one


@pytest.mark.parametrize(
    "texts", [["1 12 2", ""], ["", "1 12 2"], ["1 1", "2 2"], ["1 12", " 2"], [None, "1 12 2"]]
)
def test_the_hash_tells_where_a_text_ends(texts: list) -> None:
    def sha256(texts: list) -> bytes:
        data = shards.serialize_shard(rows(2, rle_mask=texts), KEY)
        return pq.read_schema(pa.BufferReader(data)).metadata[shards.DIGEST]

    assert sha256(texts) != sha256(["1 12 ", "2"])
    assert sha256(texts) == sha256(list(texts))


def test_a_key_depends_on_run_place_and_the_version_of_every_image() -> None:
    def key(run: str = RUN, number: int = 1, version: str = "1", count: int = 4) -> str:
        entries = tuple(FileInfo(f"{place}.jpg", 5, version) for place in range(count))
        return shards.shard_key(run, PlanPart(number, entries, 2), 0)

    others = [key("b" * 16), key(number=2), key(version="2"), key(count=6)]
    assert key() == key()
    assert len({key(), *others}) == 5
    part = PlanPart(1, tuple(FileInfo(f"{place}.jpg", 5, "1") for place in range(4)), 2)
    assert shards.shard_key(RUN, part, 0) != shards.shard_key(RUN, part, 1)


def test_a_new_plan_rejects_masks_of_older_image_versions(folder: Folder) -> None:
    old = PlanPart(1, (FileInfo("a.jpg", 1, "1"), FileInfo("b.jpg", 1, "1")), 1)
    folder.put(old)
    assert folder.pending([old]).tasks == []
    new = PlanPart(1, (FileInfo("a.jpg", 1, "2"), FileInfo("b.jpg", 1, "1")), 1)
    (task,) = folder.pending([new]).tasks
    assert task.replace


def test_a_shard_that_vanishes_is_pending(folder: Folder, monkeypatch: Any) -> None:
    part = PlanPart(1, (FileInfo("a.jpg", 1, "1"),), 1)
    monkeypatch.setattr(shards, "list_shards", lambda _: {part.shard_name(0)})
    assert len(folder.pending([part]).tasks) == 1


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
        pytest.param([0, 1, None], [3, 3, 3], id="no index"),
    ],
)
def test_rows_that_are_not_the_whole_shard_in_order_are_rejected(
    place: list[int], count: list[int]
) -> None:
    with pytest.raises(RuntimeError, match="not written"):
        shards.serialize_shard(rows(3, row=place, rows=count), KEY)


def test_an_empty_block_is_rejected() -> None:
    with pytest.raises(RuntimeError, match="not written"):
        shards.serialize_shard(rows(3).slice(0, 0), KEY)


@settings(deadline=None, max_examples=100)
@given(places=st.lists(st.integers(0, 3), min_size=1, max_size=5), count=st.integers(1, 5))
def test_only_complete_and_ordered_rows_are_accepted(places: list[int], count: int) -> None:
    table = rows(len(places), row=places, rows=[count] * len(places))
    if places == list(range(count)):
        assert shards.serialize_shard(table, KEY)
    else:
        with pytest.raises(RuntimeError):
            shards.serialize_shard(table, KEY)


def test_any_flipped_bit_is_detected_or_harmless(
    five: tuple[Folder, PlanPart, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harmless: statistics that no reader of whole shards uses.

    The test flips one random bit of each byte. A run over all bits takes a minute and passes, too.
    """
    folder, part, file = five
    data, good = file.read_bytes(), shards.read_shard(folder.uri, part, 0)
    chance, found = random.Random(0), 0
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "read", lambda _, flipped=flipped: bytes(flipped))
            try:
                assert shards.read_shard(folder.uri, part, 0).equals(good)
            except CorruptShardError:
                found += 1
    assert found > len(data) / 2


def test_any_other_mutation_is_detected_or_harmless(
    five: tuple[Folder, PlanPart, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, part, file = five
    data, good = file.read_bytes(), shards.read_shard(folder.uri, part, 0)
    chance, found = random.Random(0), 0
    for _ in range(500):
        spoilt = bytearray(data)
        start, length = chance.randrange(len(data)), chance.randrange(1, 200)
        spoilt[start : start + length] = chance.choice(
            [b"", bytes(len(data[start : start + length])), chance.randbytes(length)]
        )
        with monkeypatch.context() as patch:
            patch.setattr(storage, "read", lambda _, spoilt=spoilt: bytes(spoilt))
            try:
                assert shards.read_shard(folder.uri, part, 0).equals(good)
            except CorruptShardError:
                found += 1
    assert found > 400


def test_a_truncated_shard_is_detected(
    five: tuple[Folder, PlanPart, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, part, file = five
    data = file.read_bytes()
    for length in range(len(data)):
        monkeypatch.setattr(storage, "read", lambda _, length=length: data[:length])
        with pytest.raises(CorruptShardError):
            shards.read_shard(folder.uri, part, 0)


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1", b"PAR1PAR1", b"\0" * 5000, b"img,rle_mask\n", random.Random(0).randbytes(5000)],
    ids=["empty", "half a frame", "a frame", "zeros", "a CSV", "noise"],
)
def test_a_file_that_is_not_a_shard_is_reported_in_one_line(folder: Folder, data: bytes) -> None:
    part = PlanPart(1, entries(5), 1)
    folder.put(part).write_bytes(data)
    with pytest.raises(CorruptShardError, match=part.shard_name(0)) as caught:
        shards.read_shard(folder.uri, part, 0)
    assert "\n" not in str(caught.value)


def test_a_shard_under_the_name_of_another_is_damaged(folder: Folder) -> None:
    """Also if both have the same images: the second part has changed versions."""
    first, second = PlanPart(1, entries(8), 2), PlanPart(2, entries(8, "2"), 2)
    files = [folder.put(part, shard) for part in (first, second) for shard in (0, 1)]
    data = [file.read_bytes() for file in files]
    for place, file in enumerate(files):
        for other in range(len(files)):
            file.write_bytes(data[other])
            if other == place:
                shards.read_shard(folder.uri, (first, second)[place // 2], place % 2)
            else:
                with pytest.raises(CorruptShardError, match="SHA-256"):
                    shards.read_shard(folder.uri, (first, second)[place // 2], place % 2)
        file.write_bytes(data[place])


def test_a_shard_of_another_run_is_damaged(tmp_path: Path) -> None:
    part = PlanPart(1, entries(5), 1)
    there, here = Folder(tmp_path, "a" * 16), Folder(tmp_path, "b" * 16)
    data = there.put(part).read_bytes()
    here.put(part).write_bytes(data)
    with pytest.raises(CorruptShardError, match="SHA-256"):
        shards.read_shard(here.uri, part, 0)
    assert shards.read_shard(there.uri, part, 0).num_rows == 5


def test_rows_of_other_images_than_planned_are_damage_even_with_the_right_key(
    folder: Folder,
) -> None:
    part = PlanPart(1, entries(2), 1)
    folder.put(part, img=[entry.name for entry in part.images[::-1]])
    with pytest.raises(CorruptShardError, match="not those of the plan"):
        shards.read_shard(folder.uri, part, 0)


def test_a_run_folder_may_be_moved(five: tuple[Folder, PlanPart, Path], tmp_path: Path) -> None:
    folder, part, _ = five
    (tmp_path / "elsewhere").mkdir()
    folder.path.rename(tmp_path / "elsewhere" / RUN)
    assert shards.read_shard(str(tmp_path / "elsewhere" / RUN), part, 0).num_rows == 5


@pytest.mark.parametrize(
    "images",
    [entries(4), entries(6), entries(6)[1:], (*entries(4), FileInfo("z.jpg", 1, "1"))],
    ids=["one less", "one more", "others", "the last is another"],
)
def test_a_shard_of_other_images_than_planned_is_damaged(
    five: tuple[Folder, PlanPart, Path], images: tuple[FileInfo, ...]
) -> None:
    folder, _, _ = five
    with pytest.raises(CorruptShardError, match="SHA-256"):
        shards.read_shard(folder.uri, PlanPart(1, images, 1), 0)


@pytest.mark.parametrize("kind", ["no hash", "hash of other rows", "a column less", "a null"])
def test_a_valid_parquet_file_that_is_not_a_shard_is_damaged(folder: Folder, kind: str) -> None:
    part = PlanPart(1, entries(2), 1)
    table = rows(2).select(shards.SCHEMA.names).cast(shards.SCHEMA)
    sha256 = digest([RUN, part.shard_name(0), table.to_pydict()])
    if kind == "hash of other rows":
        table = rows(2, crc32=[1, 2]).select(shards.SCHEMA.names).cast(shards.SCHEMA)
    elif kind == "a column less":
        table = table.drop_columns(["orientation"])
    elif kind == "a null":
        table = rows(2, rle_mask=["", None]).select(shards.SCHEMA.names).cast(shards.SCHEMA)
    marks = {} if kind == "no hash" else {shards.DIGEST: sha256}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(marks), buffer)
    folder.put(part).write_bytes(buffer.getvalue())
    with pytest.raises(CorruptShardError, match=part.shard_name(0)):
        shards.read_shard(folder.uri, part, 0)


def test_all_shards_of_a_new_run_are_pending(folder: Folder) -> None:
    parts = [PlanPart(1, entries(10), 3), PlanPart(2, entries(7, "2"), 2)]
    pending = folder.pending(parts)
    assert pending.tasks == [
        ShardTask(part, shard) for part in parts for shard in range(part.shards)
    ]
    assert (pending.needed, pending.bad, pending.damaged) == (5, 0, [])


def test_a_task_has_the_name_and_the_images_of_its_shard() -> None:
    part = PlanPart(2, entries(10), 3)
    assert ShardTask(part, 1).name == part.shard_name(1)
    assert ShardTask(part, 1).entries == entries(10)[3:6]


def test_nothing_is_pending_without_a_plan(folder: Folder) -> None:
    assert folder.pending([], list(entries(3))) == shards.PendingShards([], 0, 0, [])


def test_valid_shards_are_not_pending(folder: Folder) -> None:
    """There are no images: finding pending shards must not need them."""
    part = PlanPart(1, entries(10), 3)
    for shard in range(3):
        pending = folder.pending([part])
        assert pending.tasks == [ShardTask(part, one) for one in range(shard, 3)]
        assert (pending.needed, pending.damaged) == (3, [])
        folder.put(part, shard)
    assert folder.pending([part]) == shards.PendingShards([], 3, 0, [])


def test_pending_reads_shards_and_nothing_else(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = PlanPart(1, entries(10), 3)
    for shard in range(3):
        folder.put(part, shard)
    asked, real = [], storage.read

    def read(uri: str) -> bytes:
        asked.append(uri)
        return real(uri)

    monkeypatch.setattr(storage, "read", read)
    assert not folder.pending([part]).tasks
    assert sorted(asked) == [f"{folder.uri}/{part.shard_name(shard)}" for shard in range(3)]


@pytest.mark.parametrize("spoil", ["cut", "empty", "noise", "of another"])
def test_a_damaged_shard_is_pending_with_replace_and_named(folder: Folder, spoil: str) -> None:
    part = PlanPart(1, entries(12), 4)
    files = [folder.put(part, shard) for shard in range(3)]
    data = files[1].read_bytes()
    wrong = {
        "cut": data[:-1],
        "empty": b"",
        "noise": b"?" * 999,
        "of another": files[0].read_bytes(),
    }
    files[1].write_bytes(wrong[spoil])
    pending = folder.pending([part])
    assert pending.tasks == [ShardTask(part, 1, replace=True), ShardTask(part, 3, replace=False)]
    assert pending.needed == 4
    assert len(pending.damaged) == 1
    assert part.shard_name(1) in pending.damaged[0]
    folder.put(part, 1)
    folder.put(part, 3)
    assert folder.pending([part]) == shards.PendingShards([], 4, 0, [])


def test_shards_without_images_of_the_catalog_are_not_needed(folder: Folder) -> None:
    part = PlanPart(1, entries(12), 4)
    folder.put(part, 0).write_bytes(b"damaged, but not needed")
    pending = folder.pending([part], list(entries(12)[3:7]))
    assert pending.tasks == [ShardTask(part, 1), ShardTask(part, 2)]
    assert (pending.needed, pending.damaged) == (2, [])
    assert folder.pending([part], []) == shards.PendingShards([], 0, 0, [])


def test_the_shard_with_the_new_version_of_a_changed_image_is_needed(folder: Folder) -> None:
    first, second = (
        PlanPart(1, entries(4), 4),
        PlanPart(2, (FileInfo(entries(4)[2].name, 1, "2"),), 1),
    )
    today = [*entries(4)[:2], entries(4)[3], second.images[0]]
    assert folder.pending([first, second], today).tasks == [
        ShardTask(first, 0),
        ShardTask(first, 1),
        ShardTask(first, 3),
        ShardTask(second, 0),
    ]


def test_bad_images_of_the_catalog_in_valid_shards_are_counted(folder: Folder) -> None:
    part = PlanPart(1, entries(9), 3)
    bad = "not-an-image: no image"
    folder.put(part, 0, status=["ok", bad, "corrected"])
    folder.put(part, 1, status=[bad, bad, "ok"])
    folder.put(part, 2, status=[bad, bad, bad]).write_bytes(b"damaged")
    pending = folder.pending([part])
    assert (pending.bad, pending.tasks) == (3, [ShardTask(part, 2, replace=True)])
    pending = folder.pending([part], [*entries(9)[:1], *entries(9)[4:6]])
    assert (pending.bad, pending.tasks) == (1, [])


def test_a_bad_image_is_not_read_again(folder: Folder) -> None:
    part = PlanPart(1, entries(5), 1)
    for word in ("not-an-image", "truncated", "wrong-size", "too-large", "mode"):
        folder.put(part, status=["ok", "ok", f"{word}: so", "ok", "ok"])
        assert folder.pending([part]) == shards.PendingShards([], 1, 1, [])


def test_shards_with_images_that_crashed_become_pending_if_these_no_longer_do(
    folder: Folder,
) -> None:
    part = PlanPart(1, entries(12), 4)
    crash, bad = "crash: it kills", "truncated: so"
    folder.put(part, 0, status=["ok", crash, bad])
    folder.put(part, 1, status=["ok", bad, "ok"])
    folder.put(part, 2, status=[crash, crash, "ok"])
    folder.put(part, 3, status=["ok", crash, "ok"])
    pending = folder.pending([part], [*entries(12)[:8], *entries(12)[9:10]])
    assert (pending.tasks, pending.bad, pending.images) == ([], 5, 0)
    suspects = [shard.crashed for shard in pending.crashed]
    assert suspects == [(entries(12)[1],), entries(12)[6:8]], "the last is not in the catalog"
    assert pending.retry([entries(12)[1], *entries(12)[6:8]]).tasks == [], "all still do"
    retried = pending.retry([entries(12)[6]])
    assert retried.tasks == [ShardTask(part, 0, replace=True), ShardTask(part, 2, replace=True)]
    assert (retried.bad, retried.images, retried.crashing) == (1, 5, [entries(12)[6]])


def test_a_shard_is_pending_if_a_missing_image_exists_again(folder: Folder) -> None:
    part = PlanPart(1, entries(3), 1)
    folder.put(part, status=["ok", "missing: the file was there", "ok"])
    pending = folder.pending([part])
    assert pending.tasks == [ShardTask(part, 0, replace=True)]
    assert pending.damaged == [f"{part.images[1].name} was missing and exists again"]
    assert pending.bad == 0


def test_an_image_that_is_still_missing_changes_nothing(folder: Folder) -> None:
    part = PlanPart(1, entries(3), 1)
    folder.put(part, status=["ok", "missing: the file was there", "ok"])
    assert folder.pending([part], [part.images[0], part.images[2]]) == shards.PendingShards(
        [], 1, 0, []
    )


def test_a_shard_with_a_wrong_crc_is_pending(folder: Folder) -> None:
    part = PlanPart(1, entries(6), 2)
    for shard in range(2):
        folder.put(part, shard, crc32=[7, 8, 4_294_967_295])
    names = [entry.name for entry in part.images]
    right = dict(zip(names, [7, 8, 4_294_967_295] * 2, strict=True))
    assert folder.pending([part], crcs=right) == shards.PendingShards([], 2, 0, [])
    assert folder.pending([part], crcs={names[1]: 8, "stranger.jpg": 1}).tasks == []
    pending = folder.pending([part], crcs=right | {names[5]: 9})
    assert pending.tasks == [ShardTask(part, 1, replace=True)]
    assert len(pending.damaged) == 1
    assert names[5] in pending.damaged[0]


def test_the_crc_of_a_changed_image_does_not_apply_to_its_old_version(folder: Folder) -> None:
    """Otherwise each changed image would cause its whole old shard to be written again."""
    first = PlanPart(1, entries(3), 1)
    second = PlanPart(2, (FileInfo(first.images[0].name, 1, "2"),), 1)
    folder.put(first, crc32=[1, 2, 3])
    folder.put(second, crc32=[9])
    today = [*first.images[1:], *second.images]
    crcs = {first.images[0].name: 9}
    assert folder.pending([first, second], today, crcs) == shards.PendingShards([], 2, 0, [])


def test_a_bad_image_with_a_wrong_crc_is_not_read_forever(folder: Folder) -> None:
    part = PlanPart(1, entries(2), 1)
    folder.put(part, status=["checksum: another", "truncated: so"], crc32=[7, 7])
    crcs = {part.images[0].name: 8}
    assert folder.pending([part], crcs=crcs) == shards.PendingShards([], 1, 2, [])


def test_a_bad_image_that_changed_under_the_same_version_is_read_again(folder: Folder) -> None:
    part = PlanPart(1, entries(2), 1)
    folder.put(part, status=["ok", "truncated: so"], crc32=[7, 7])
    assert folder.pending([part], crcs={part.images[1].name: 7}).tasks == []
    assert len(folder.pending([part], crcs={part.images[1].name: 8}).tasks) == 1


def test_an_image_that_was_never_read_has_no_crc_to_compare(folder: Folder) -> None:
    part = PlanPart(1, entries(1), 1)
    folder.put(part, status=["crash: it kills"], crc32=[0])
    assert folder.pending([part], crcs={part.images[0].name: 8}).tasks == []


@pytest.mark.parametrize("crcs", [{}, {entries(1)[0].name: 7}], ids=["no list", "a right one"])
def test_an_image_rejected_by_a_wrong_crc_list_is_read_again_without_it(
    folder: Folder, crcs: dict[str, int]
) -> None:
    part = PlanPart(1, entries(1), 1)
    folder.put(part, status=["checksum: another"], crc32=[7])
    pending = folder.pending([part], crcs=crcs)
    assert pending.tasks == [ShardTask(part, 0, replace=True)]
    assert part.images[0].name in pending.damaged[0]


def test_pending_matches_a_naive_computation_after_any_history(tmp_path: Path) -> None:
    """Shards are valid, missing or truncated at random; the catalog has images at random."""
    chance = random.Random(0)
    for turn in range(30):
        folder = Folder(tmp_path, f"{turn:016x}")
        parts = [PlanPart(1, entries(20), 5), PlanPart(2, entries(9, "2"), 3)]
        today = [one for part in parts for one in part.images if chance.random() < 0.3]
        tasks, needed, bad = [], 0, 0
        for part in parts:
            for shard in range(part.shards):
                own, fate = part.shard(shard), chance.choice(["there", "cut", "missing"])
                status = [chance.choice(["ok", "ok", "mode: odd"]) for _ in own]
                if fate != "missing":
                    file = folder.put(part, shard, status=status)
                    file.write_bytes(file.read_bytes()[: None if fate == "there" else 99])
                if any(entry in today for entry in own):
                    needed += 1
                    if fate == "there":
                        facts = zip(own, status, strict=True)
                        bad += sum(entry in today and how != "ok" for entry, how in facts)
                    else:
                        tasks.append(ShardTask(part, shard, replace=fate == "cut"))
        pending = folder.pending(parts, today)
        assert (pending.tasks, pending.needed, pending.bad) == (tasks, needed, bad)
        assert len(pending.damaged) == sum(task.replace for task in tasks)
