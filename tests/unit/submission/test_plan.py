"""The plan of a prediction run: it determines all names and cuts, and no part ever changes."""

import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.s3_servers import Server

from carvana_ray import storage
from carvana_ray.errors import InputError, StorageUnavailableError
from carvana_ray.storage import FileInfo, s3_client
from carvana_ray.submission import plan
from carvana_ray.submission.plan import PlanPart

SETTINGS: dict[str, Any] = {"model": "abc", "downscale": 4, "threshold": 0.5, "nested": {"a": 1}}


def entries(count: int, version: str = "1") -> list[FileInfo]:
    return [FileInfo(f"{number:012x}_01.jpg", 100 + number, version) for number in range(count)]


def signed(**changes: Any) -> bytes:
    """Return a plan's file with changed contents and a matching SHA-256."""
    body = json.loads(PlanPart(1, tuple(entries(3)), 1).to_bytes()) | changes
    del body["sha256"]
    return json.dumps({"sha256": plan.digest(body), **body}).encode()


def test_a_run_id_is_a_short_hash_of_the_settings() -> None:
    name = plan.run_id(SETTINGS)
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")
    assert plan.run_id(dict(SETTINGS)) == name


def test_a_run_id_does_not_depend_on_the_order_of_keys() -> None:
    backwards = dict(reversed(SETTINGS.items()))
    assert list(backwards) != list(SETTINGS)
    assert plan.run_id(backwards) == plan.run_id(SETTINGS)


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
    assert plan.run_id(SETTINGS | change) != plan.run_id(SETTINGS)


def test_a_run_id_changes_when_a_setting_is_removed() -> None:
    ids = {plan.run_id({k: v for k, v in SETTINGS.items() if k != gone}) for gone in SETTINGS}
    assert len(ids | {plan.run_id(SETTINGS)}) == len(SETTINGS) + 1


def test_a_run_id_changes_with_the_format_of_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan.run_id(SETTINGS)
    monkeypatch.setattr(plan, "FORMAT", plan.FORMAT + 1)
    assert plan.run_id(SETTINGS) != before


@pytest.mark.parametrize(
    ("images", "asked", "size"),
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
def test_the_size_of_a_shard(images: int, asked: int, size: int) -> None:
    assert plan.shard_size(images, asked) == size


@pytest.mark.parametrize("number", [1, 2])
def test_a_part_survives_a_round_trip_through_its_bytes(number: int) -> None:
    names = ["a_01.jpg", 'comma, "quote".jpg', "\N{AUTOMOBILE}_02.jpg", "Käfer rot.jpg", "b.c.jpg"]
    images = tuple(FileInfo(name, 3 << 40, "1700000000000000001") for name in sorted(names))
    part = PlanPart(number, images, 2)
    assert PlanPart.from_bytes(part.to_bytes()) == part
    assert json.loads(part.to_bytes())["format"] == plan.FORMAT


def test_a_part_has_the_same_bytes_every_time() -> None:
    assert (
        PlanPart(1, tuple(entries(3)), 1).to_bytes() == PlanPart(1, tuple(entries(3)), 1).to_bytes()
    )


@pytest.mark.parametrize(
    "change",
    [
        {"format": plan.FORMAT + 1},
        {"part": 2},
        {"shards": 2},
        {"pictures": []},
        {"pictures": [[one.name, one.size, "2"] for one in entries(3)]},
        {"pictures": [[one.name, one.size, one.version] for one in entries(3)[::-1]]},
        {"more": 1},
    ],
)
def test_an_edited_part_is_rejected(change: dict[str, Any]) -> None:
    body = json.loads(PlanPart(1, tuple(entries(3)), 1).to_bytes())
    assert body | change != body
    with pytest.raises(ValueError, match="SHA-256"):
        PlanPart.from_bytes(json.dumps(body | change).encode())


def test_any_flipped_bit_of_a_part_is_detected_or_harmless(tmp_path: Path) -> None:
    """Harmless: an escape in capital letters, or another white space."""
    part = PlanPart(1, (FileInfo("Käfer_01.jpg", 1, "17"), FileInfo("b_01.jpg", 2, "18")), 2)
    data, place = part.to_bytes(), tmp_path / part.name
    messages = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        place.write_bytes(flipped)
        try:
            assert plan.load_plan(str(tmp_path)) == [part]
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 7.5 * len(data)
    assert all(message.startswith(f"{place}: damaged (") for message in messages)
    assert not any("\n" in message for message in messages)


def test_a_truncated_part_is_detected(tmp_path: Path) -> None:
    data = PlanPart(1, tuple(entries(3)), 1).to_bytes()
    for length in range(len(data)):
        (tmp_path / "plan-0001.json").write_bytes(data[:length])
        with pytest.raises(InputError, match=r"plan-0001\.json: damaged"):
            plan.load_plan(str(tmp_path))


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 200,
        b"\xff\xfe{}",
        b"{}",
        b"[]",
        b'["sha256"]',
        b"null",
        b"1",
        b'"sha256"',
        signed(pictures=[["a.jpg", 1]]),
        signed(pictures=[["a.jpg", 1, "1", "more"]]),
        signed(pictures=[5]),
        signed(pictures=None),
        signed(pictures=[[5, 1, "1"]]),
    ],
)
def test_a_file_that_is_not_a_part_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    good = PlanPart(1, tuple(entries(3)), 1)
    (tmp_path / good.name).write_bytes(good.to_bytes())
    (tmp_path / "plan-0002.json").write_bytes(data)
    with pytest.raises(
        InputError, match=r"plan-0002\.json: damaged .*\. Remove the file"
    ) as caught:
        plan.load_plan(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        "a/../b.jpg",
        "..\\b.jpg",
        "=cmd()",
        "@sum.jpg",
        "-rf",
        ".hidden.jpg",
        "new\nline.jpg",
        "bell\a.jpg",
        "zero\0.jpg",
        "\udcff.jpg",
        "",
        "a" * 256,
    ],
)
def test_a_part_with_an_unsafe_file_name_is_rejected(tmp_path: Path, name: str) -> None:
    images = (*entries(2), FileInfo(name, 1, "1"))
    data = PlanPart(1, images, 1).to_bytes()
    with pytest.raises(InputError, match="1 unsafe file name"):
        PlanPart.from_bytes(data)
    (tmp_path / "plan-0001.json").write_bytes(data)
    with pytest.raises(InputError, match=r"plan-0001\.json") as caught:
        plan.load_plan(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_part_under_the_name_of_another_is_rejected(tmp_path: Path) -> None:
    """A copy would plan its images a second time."""
    part = PlanPart(1, tuple(entries(3)), 1)
    for name in (part.name, "plan-0002.json"):
        (tmp_path / name).write_bytes(part.to_bytes())
    with pytest.raises(InputError, match=r"plan-0002\.json: damaged \(it is plan-0001\.json\)"):
        plan.load_plan(str(tmp_path))


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 100, 255, 256, 257, 1000])
@pytest.mark.parametrize("asked", [0, 1, 2, 7, 16, 300])
def test_shards_partition_the_images_of_a_part_in_order(count: int, asked: int) -> None:
    part = plan.plan_new([], entries(count), asked)
    assert part is not None
    cut = [part.shard(shard) for shard in range(part.shards)]
    assert list(itertools.chain(*cut)) == entries(count)
    lengths = sorted(map(len, cut))
    assert lengths[0] > 0
    assert lengths[-1] - lengths[0] <= 1
    assert lengths[-1] <= plan.shard_size(count, asked)
    assert len({part.shard_name(shard) for shard in range(part.shards)}) == part.shards


def test_kaggles_test_set_has_391_shards() -> None:
    part = plan.plan_new([], entries(100_064))
    assert part is not None
    assert part.name == "plan-0001.json"
    assert part.shards == 391
    assert part.shard_name(0) == "shards/00000-of-00391.parquet"
    assert part.shard_name(390) == "shards/00390-of-00391.parquet"
    assert {len(part.shard(shard)) for shard in range(391)} == {255, 256}


def test_a_later_part_has_its_own_names() -> None:
    part = PlanPart(2, tuple(entries(3)), 1)
    assert part.name == "plan-0002.json"
    assert part.shard_name(0) == "shards/0002-00000-of-00001.parquet"


def test_the_plan_does_not_depend_on_the_order_of_the_catalog() -> None:
    assert plan.plan_new([], entries(50)[::-1]) == plan.plan_new([], entries(50))


def test_nothing_new_plans_nothing() -> None:
    first = plan.plan_new([], entries(50))
    assert first is not None
    assert plan.plan_new([first], entries(50)) is None
    assert plan.plan_new([first], entries(20)) is None, "removed images are not new"
    assert plan.plan_new([], []) is None


def test_the_next_part_has_only_new_and_changed_images() -> None:
    first = plan.plan_new([], entries(50))
    assert first is not None
    today = entries(52)
    today[7] = FileInfo(today[7].name, today[7].size, "2")
    today[9] = FileInfo(today[9].name, 1, today[9].version)
    second = plan.plan_new([first], today)
    assert second is not None
    assert second.number == 2
    assert list(second.images) == [today[7], today[9], today[50], today[51]]
    assert plan.plan_new([first, second], today) is None
    third = plan.plan_new([first, second], [*today, FileInfo("z.jpg", 1, "1")])
    assert third is not None
    assert (third.number, third.images) == (3, (FileInfo("z.jpg", 1, "1"),))


def test_an_image_that_changed_back_is_already_planned() -> None:
    first = PlanPart(1, tuple(entries(3)), 1)
    second = PlanPart(2, tuple(entries(3, "2")), 1)
    assert plan.plan_new([first, second], entries(3)) is None


@pytest.mark.parametrize(
    ("numbers", "following"), [([1, 2, 3], 4), ([1, 3], 4), ([2], 3), ([7, 2], 8), ([], 1)]
)
def test_the_next_part_has_the_number_after_the_largest(numbers: list[int], following: int) -> None:
    """The count would give two parts of one number after a part was removed."""
    parts = [PlanPart(number, (FileInfo(f"{number}.jpg", 1, "1"),), 1) for number in numbers]
    part = plan.plan_new(parts, [FileInfo("z.jpg", 1, "1")])
    assert part is not None
    assert part.number == following
    assert part.shard_name(0) not in {one.shard_name(0) for one in parts}


def test_the_parts_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    assert plan.load_plan(str(tmp_path / "missing")) == []
    parts = [PlanPart(number, tuple(entries(number)), 1) for number in range(1, 13)]
    for part in reversed(parts):
        storage.write_atomic(str(tmp_path / part.name), part.to_bytes())
    for name in ("_SUCCESS.json", "other.json", ".plan-0001.json", "plan-0001.json.bak"):
        storage.write_atomic(str(tmp_path / name), b"{}")
    assert plan.load_plan(str(tmp_path)) == parts


def test_the_parts_are_read_from_s3_at_the_same_time(
    s3: Server, bucket: Callable[[Server], str]
) -> None:
    """A year of daily additions is 365 files; one after the other they took half a minute."""
    home = bucket(s3)
    parts = [PlanPart(number, tuple(entries(number)), 1) for number in range(1, 5)]
    for part in parts:
        storage.write_atomic(storage.join(home, part.name), part.to_bytes())
    everyone = threading.Barrier(len(parts), timeout=20)

    def wait_for_the_others(**about: Any) -> None:
        everyone.wait()

    events, event = s3_client.client().meta.events, "before-send.s3.GetObject"
    events.register(event, wait_for_the_others)
    try:
        assert plan.load_plan(home) == parts
    finally:
        events.unregister(event, wait_for_the_others)


def test_a_part_that_cannot_be_read_ends_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its part an image would be planned, and predicted, a second time."""
    for number in (1, 2):
        part = PlanPart(number, tuple(entries(3)), 1)
        (tmp_path / part.name).write_bytes(part.to_bytes())
    read = storage.read

    def fail(uri: str, *more: Any) -> bytes:
        if uri.endswith("2.json"):
            raise StorageUnavailableError(5, "Input/output error", uri)
        return read(uri, *more)

    monkeypatch.setattr("carvana_ray.storage.router.read", fail)
    with pytest.raises(StorageUnavailableError, match=r"plan-0002\.json"):
        plan.load_plan(str(tmp_path))


def grow(chance: random.Random, catalog: dict[str, FileInfo], version: str) -> None:
    """Add, change and remove some images."""
    for name in chance.sample(sorted(catalog), min(len(catalog), chance.randrange(6))):
        if chance.random() < 0.4:
            del catalog[name]
        else:
            size = catalog[name].size + chance.randrange(2)
            catalog[name] = FileInfo(name, size, chance.choice([version, "0"]))
    for _ in range(chance.randrange(8)):
        name = f"{chance.randrange(60):02d}.jpg"
        catalog.setdefault(name, FileInfo(name, chance.randrange(3), version))


@pytest.mark.parametrize("seed", range(60))
def test_each_image_of_a_growing_catalog_is_planned_once_in_its_current_version(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    catalog: dict[str, FileInfo] = {}
    before: dict[str, bytes] = {}
    folder = str(tmp_path)
    for day in range(12):
        grow(chance, catalog, str(day))
        if before and chance.random() < 0.1:  # as the message about a damaged one says
            gone = chance.choice(sorted(before)[:-1] or sorted(before))
            (tmp_path / gone).unlink()
            del before[gone]
        listing = list(catalog.values())
        chance.shuffle(listing)
        part = plan.plan_new(plan.load_plan(folder), listing, chance.choice([0, 1, 3]))
        if part is not None:
            assert set(part.images) <= set(listing)
            assert not (tmp_path / part.name).exists()
            (tmp_path / part.name).write_bytes(part.to_bytes())
        parts = plan.load_plan(folder)
        assert plan.plan_new(parts, listing) is None
        cut = [(part, shard) for part in parts for shard in range(part.shards)]
        places = Counter(entry for part, shard in cut for entry in part.shard(shard))
        assert [places[entry] for entry in listing] == [1] * len(listing)
        assert len({part.shard_name(shard) for part, shard in cut}) == len(cut)
        bytes_now = {part.name: (tmp_path / part.name).read_bytes() for part in parts}
        assert before.items() <= bytes_now.items(), "a part has changed"
        before = bytes_now
