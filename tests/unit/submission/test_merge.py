"""Shards become one submission: all rows or none, and never a file of another run."""

import csv
import errno
import gzip
import hashlib
import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from carvana_ray import config, storage
from carvana_ray.data import quarantine
from carvana_ray.data.catalog import Catalog
from carvana_ray.errors import BadImagesError, IncompleteError
from carvana_ray.storage import FileInfo
from carvana_ray.storage.base import TEMP_PREFIX
from carvana_ray.submission import merge, shards
from carvana_ray.submission.merge import OvertakenError
from carvana_ray.submission.plan import PlanPart
from carvana_ray.submission.validate import validate_file

SHEET_CARS = 4
RUN = "0123456789abcdef"
SIZE = (4, 5)
BAD = "truncated: 3 bytes"
OLD = b"img,rle_mask\nof an earlier run,1 1\n"


def entry(name: str, version: str = "1") -> FileInfo:
    return FileInfo(f"{name}.jpg", 10, version)


class Job:
    """A prediction with its shards: the folders, the plan and the current catalog."""

    def __init__(self, out: Path, *parts: list[FileInfo], shards_each: int = 2) -> None:
        self.out, self.folder = out, str(out / "predict" / RUN)
        self.parts = [
            PlanPart(number, tuple(sorted(images)), min(shards_each, len(images)))
            for number, images in enumerate(parts, 1)
        ]
        newest = {one.name: one for part in self.parts for one in part.images}
        entries = sorted(newest.values())
        self.catalog = self.of(entries, [one.name for one in entries])

    def of(self, entries: list[FileInfo], order: list[str]) -> Catalog:
        return Catalog("/there/are/no/pictures", entries, order, None, {})

    def file(self, part: PlanPart, shard: int) -> Path:
        return Path(self.folder, part.shard_name(shard))

    def make(self, changes: dict[FileInfo, dict[str, Any]] | None = None) -> "Job":
        """Write all shards; each mask encodes the name and version of its image."""
        for part in self.parts:
            for shard in range(part.shards):
                own = part.shard(shard)
                rows = [
                    {
                        "img": one.name,
                        "rle_mask": mask_of(one),
                        "height": SIZE[0],
                        "width": SIZE[1],
                        "crc32": 4_000_000_000 + place,
                        "orientation": 1,
                        "status": "ok",
                        "row": place,
                        "rows": len(own),
                        **(changes or {}).get(one, {}),
                    }
                    for place, one in enumerate(own)
                ]
                self.file(part, shard).parent.mkdir(parents=True, exist_ok=True)
                data = shards.serialize_shard(
                    pa.Table.from_pylist(rows), shards.shard_key(RUN, part, shard)
                )
                self.file(part, shard).write_bytes(data)
        return self

    def flags(self, **changes: Any) -> config.PredictFlags:
        return config.PredictFlags(data="/there", out=str(self.out), **changes)

    def merged(self, published: str | None = None, **changes: Any) -> merge.MergeSummary:
        """Merge as a run that listed its images when the submission had the given state."""
        flags = self.flags(**changes)
        if published is None:
            published = storage.state(flags.submission_uri)
        return merge.merge_shards(
            flags, self.parts, self.folder, self.catalog, published, SHEET_CARS
        )

    def finish(self, merged: merge.MergeSummary, **changes: Any) -> None:
        merge.finish_run(
            self.flags(**changes), merged, self.folder, {"images": 3, "submission": "s"}
        )

    def state(self) -> str:
        return storage.state(str(self.submission))

    def marker(self) -> dict[str, Any]:
        return json.loads(self.marker_file.read_bytes())

    @property
    def marker_file(self) -> Path:
        return self.out / "submission.json"

    @property
    def submission(self) -> Path:
        return self.out / "submission.csv"

    @property
    def success(self) -> Path:
        return Path(self.folder, merge.SUCCESS)

    def quarantine(self) -> list[list[str]]:
        with open(Path(self.folder, quarantine.FILE), newline="") as file:
            return list(csv.reader(file))

    def drafts(self) -> list[Path]:
        return list(self.out.rglob(f"{TEMP_PREFIX}*"))


def mask_of(one: FileInfo) -> str:
    """Return runs that differ for all images of these tests."""
    return f"{1 + int(one.version)} {1 + ord(one.name[0]) % 7}"


def rows_in(data: bytes) -> list[list[str]]:
    assert b"\r" not in data
    header, *rows = csv.reader(data.decode().splitlines())
    assert header == ["img", "rle_mask"]
    return rows


def sha256_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


BAD_B = {entry("b"): {"status": BAD, "rle_mask": "", "crc32": 255}}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Five images in two shards that are not written yet."""
    return Job(tmp_path, [entry(name) for name in "abcde"])


def test_all_rows_are_in_order_of_name_and_valid(job: Job) -> None:
    merged = job.make().merged()
    assert rows_in(job.submission.read_bytes()) == [
        [one.name, mask_of(one)] for one in job.catalog.entries
    ]
    assert (merged.bad, merged.rotated) == ([], 0)
    assert merged.pixel_counts == dict.fromkeys(job.catalog.order, 20)
    rows, found, _ = validate_file(
        str(job.submission), job.catalog.order, merged.pixel_counts.__getitem__
    )
    assert (rows, found) == (5, [])
    assert not job.drafts()


def test_rows_of_several_parts_are_merged_in_order_with_the_newest_version(tmp_path: Path) -> None:
    job = Job(
        tmp_path,
        [entry(name) for name in "bdfh"],
        [entry("a"), entry("d", "2"), entry("g")],
        [entry("d", "3"), entry("i")],
    )
    job.make().merged()
    versions = {"a": "1", "b": "1", "d": "3", "f": "1", "g": "1", "h": "1", "i": "1"}
    assert rows_in(job.submission.read_bytes()) == [
        [f"{name}.jpg", mask_of(entry(name, version))] for name, version in versions.items()
    ]


def test_removed_images_have_no_row_and_their_shard_may_be_damaged(job: Job) -> None:
    job.make()
    job.file(job.parts[0], 1).write_bytes(b"damaged")
    job.catalog = job.of([entry("a")], ["a.jpg"])
    job.merged()
    assert rows_in(job.submission.read_bytes()) == [["a.jpg", mask_of(entry("a"))]]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_sample_submission_is_kept(job: Job, seed: int) -> None:
    order = list(job.catalog.order)
    random.Random(seed).shuffle(order)
    job.catalog = job.of(job.catalog.entries, order)
    job.make().merged()
    rows = rows_in(job.submission.read_bytes())
    assert [name for name, _ in rows] == order
    assert dict(rows) == {one.name: mask_of(one) for one in job.catalog.entries}


def test_a_compressed_submission_has_the_same_rows_and_reproducible_bytes(job: Job) -> None:
    job.make().merged()
    packed = job.out / "s.csv.gz"
    job.merged(submission="s.csv.gz")
    once = packed.read_bytes()
    assert gzip.decompress(once) == job.submission.read_bytes()
    packed.unlink()
    job.merged(submission="s.csv.gz")
    assert packed.read_bytes() == once


def test_a_merge_replaces_the_submission_of_an_earlier_run(job: Job) -> None:
    job.submission.write_bytes(OLD)
    job.make().merged()
    assert len(rows_in(job.submission.read_bytes())) == 5


def test_the_success_file_holds_the_result(job: Job) -> None:
    merged = job.make().merged()
    assert not job.success.exists()
    job.finish(merged)
    assert json.loads(job.success.read_bytes()) == {
        "images": 3,
        "submission": "s",
        "exif_rotated": 0,
        "sha256": sha256_of(job.submission),
    }
    assert job.quarantine() == [["img", "reason", "crc32"]]


@pytest.mark.parametrize("name", ["submission.csv", "submission.csv.gz"])
def test_the_marker_names_the_file_its_hash_and_its_run(job: Job, name: str) -> None:
    job.make().merged(submission=name)
    assert job.marker() == {
        "name": name,
        "sha256": sha256_of(job.out / name),
        "rows": 5,
        "bad": 0,
        "run": RUN,
    }


def test_the_marker_is_the_same_for_the_same_submission(job: Job) -> None:
    job.make().merged()
    before = job.marker_file.read_bytes()
    job.merged()
    assert job.marker_file.read_bytes() == before


def test_a_bad_image_leaves_an_earlier_submission_and_its_marker(job: Job) -> None:
    job.make().merged()
    before = job.submission.read_bytes(), job.marker_file.read_bytes()
    merged = job.make(BAD_B).merged()
    assert (job.submission.read_bytes(), job.marker_file.read_bytes()) == before
    assert not job.drafts()
    with pytest.raises(BadImagesError, match=r"No submission was written\. s is of an earlier run"):
        job.finish(merged)


def test_a_bad_image_is_named_in_the_error_and_in_the_list(job: Job) -> None:
    merged = job.make(BAD_B).merged()
    assert [row["img"] for row in merged.bad] == ["b.jpg"]
    with pytest.raises(BadImagesError) as caught:
        job.finish(merged)
    assert "earlier run" not in str(caught.value)
    assert f"b.jpg ({BAD})" in str(caught.value)
    assert "--max-bad 1" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.result == {"images": 3, "submission": None}
    assert job.quarantine() == [["img", "reason", "crc32"], ["b.jpg", BAD, "000000ff"]]
    assert not job.success.exists()


def test_a_bad_image_prevents_the_submission_if_there_was_none(job: Job) -> None:
    job.make(BAD_B).merged()
    assert list(job.out.iterdir()) == [job.out / "predict"]


def test_three_of_many_bad_images_are_named_and_all_are_listed(job: Job) -> None:
    job.make({one: {"status": f"mode: {one.name}", "rle_mask": ""} for one in job.catalog.entries})
    with pytest.raises(BadImagesError) as caught:
        job.finish(job.merged())
    message = str(caught.value)
    assert message.startswith("5 images cannot be used: a.jpg (mode: a.jpg), b.jpg ")
    assert "c.jpg" in message
    assert "d.jpg" not in message
    assert quarantine.FILE in message
    assert [row[:2] for row in job.quarantine()[1:]] == [
        [one.name, f"mode: {one.name}"] for one in job.catalog.entries
    ]


def test_a_quarantine_of_an_earlier_run_is_replaced(job: Job) -> None:
    with pytest.raises(BadImagesError):
        job.finish(job.make(BAD_B).merged())
    job.finish(job.make().merged())
    assert job.quarantine() == [["img", "reason", "crc32"]]


@pytest.mark.parametrize("max_bad", [1, 2, 10])
def test_up_to_max_bad_images_become_empty_rows_with_the_flag(job: Job, max_bad: int) -> None:
    flags = {"on_bad_picture": "empty", "max_bad": max_bad}
    merged = job.make(BAD_B).merged(**flags)
    assert job.marker()["bad"] == 1
    rows = dict(rows_in(job.submission.read_bytes()))
    assert rows.pop("b.jpg") == ""
    assert rows == {f"{name}.jpg": mask_of(entry(name)) for name in "acde"}
    job.finish(merged, **flags)
    assert job.success.exists()
    assert job.quarantine()[1:] == [["b.jpg", BAD, "000000ff"]]


@pytest.mark.parametrize("max_bad", [0, 1])
def test_more_bad_images_than_max_bad_prevent_the_submission(job: Job, max_bad: int) -> None:
    job.submission.write_bytes(OLD)
    bad = {entry(name): {"status": BAD, "rle_mask": ""} for name in "ae"}
    flags = {"on_bad_picture": "empty", "max_bad": max_bad}
    merged = job.make(bad).merged(**flags)
    assert job.submission.read_bytes() == OLD
    with pytest.raises(BadImagesError, match="2 images cannot be used"):
        job.finish(merged, **flags)
    assert not job.success.exists()
    assert [row[0] for row in job.quarantine()[1:]] == ["a.jpg", "e.jpg"]


def test_max_bad_alone_allows_nothing(job: Job) -> None:
    assert job.make(BAD_B).merged(max_bad=10).bad
    assert not job.submission.exists()


def test_bad_images_outside_the_catalog_prevent_nothing(job: Job) -> None:
    job.make(BAD_B)
    kept = [one for one in job.catalog.entries if one != entry("b")]
    job.catalog = job.of(kept, [one.name for one in kept])
    assert job.merged().bad == []
    assert len(rows_in(job.submission.read_bytes())) == 4


@pytest.mark.parametrize("submission", ["there", "not there"])
@pytest.mark.parametrize("changes", [{}, BAD_B], ids=["good", "bad image"])
def test_a_run_whose_list_is_older_than_the_submission_does_not_replace_it(
    job: Job, submission: str, changes: dict[FileInfo, dict[str, Any]]
) -> None:
    if submission == "there":
        job.submission.write_bytes(OLD)
    listed = job.state()
    newer = Job(job.out, [entry(name) for name in "abcdef"]).make()
    newer.merged()
    before = job.submission.read_bytes(), job.marker_file.read_bytes()
    with pytest.raises(OvertakenError, match=r"has published .*/submission\.csv since") as caught:
        job.make(changes).merged(listed)
    assert "\n" not in str(caught.value)
    assert (job.submission.read_bytes(), job.marker_file.read_bytes()) == before
    assert not job.drafts()


def test_an_older_run_leaves_no_marker_beside_a_newer_submission(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has published, and stops before it writes its marker; another run does both."""
    newer = Job(job.out, [entry(name) for name in "abcdef"])
    write, pauses = storage.write_atomic, iter([True])

    def write_later(uri: str, data: bytes, **options: Any) -> bool:
        if next(pauses, False):
            newer.make().merged()
        return write(uri, data, **options)

    job.make()
    monkeypatch.setattr(storage, "write_atomic", write_later)
    with pytest.raises(OvertakenError):
        job.merged()
    assert len(rows_in(job.submission.read_bytes())) == job.marker()["rows"] == 6
    assert job.marker()["sha256"] == sha256_of(job.submission)


def test_a_run_knows_whether_its_submission_is_the_current_one(job: Job) -> None:
    merged = job.make().merged()
    assert merge.is_current(job.flags(), merged)
    again = job.merged()
    assert merge.is_current(job.flags(), again)
    assert not merge.is_current(job.flags(), merged)
    held = job.make(BAD_B).merged()
    assert merge.is_current(job.flags(), held)


def test_a_listed_image_that_another_run_left_out_is_not_a_bad_one(job: Job) -> None:
    job.submission.write_bytes(OLD)
    left_out = {"status": quarantine.NOT_LISTED, "rle_mask": ""}
    job.make({entry("c"): left_out})
    with pytest.raises(OvertakenError, match=r"c\.jpg"):
        job.merged(on_bad_picture="empty")
    assert job.submission.read_bytes() == OLD
    others = [one for one in job.catalog.entries if one != entry("c")]
    job.catalog = job.of(others, [one.name for one in others])
    assert job.merged().bad == []
    assert len(rows_in(job.submission.read_bytes())) == 4


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("data", [b"", b"PAR1" * 99, None], ids=["empty", "noise", "another's"])
def test_a_shard_damaged_in_the_meantime_is_named_and_the_older_submission_stays(
    job: Job, shard: int, data: bytes | None
) -> None:
    job.submission.write_bytes(OLD)
    job.make()
    file, other = job.file(job.parts[0], shard), job.file(job.parts[0], 1 - shard)
    file.write_bytes(other.read_bytes() if data is None else data)
    with pytest.raises(IncompleteError, match=file.name) as caught:
        job.merged()
    assert "\n" not in str(caught.value)
    assert job.submission.read_bytes() == OLD
    assert not job.drafts()
    assert not job.success.exists()


def test_a_full_disk_is_reported_and_the_older_submission_stays(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.submission.write_bytes(OLD)
    job.make()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IncompleteError, match=r"submission\.csv: cannot be written: No space left"):
        job.merged()
    assert job.submission.read_bytes() == OLD
    assert not job.drafts()


@pytest.mark.parametrize("runs", ["20 2", "1 1 1 1", "5", "x 1", "0 1"])
def test_a_submission_with_a_fault_is_never_published(job: Job, runs: str) -> None:
    job.submission.write_bytes(OLD)
    job.make({entry("c"): {"rle_mask": runs}})
    with pytest.raises(RuntimeError, match=r"c\.jpg"):
        job.merged()
    assert job.submission.read_bytes() == OLD
    assert not job.drafts()


def test_an_image_missing_from_all_shards_is_an_error(job: Job) -> None:
    job.make()
    more = [*job.catalog.entries, entry("z")]
    job.catalog = job.of(more, [one.name for one in more])
    with pytest.raises(RuntimeError, match=r"missing.*z\.jpg"):
        job.merged()
    assert not job.submission.exists()


def test_each_mask_is_validated_against_the_size_of_its_own_image(job: Job) -> None:
    large = {"height": 100, "width": 100, "rle_mask": "10000 1"}
    merged = job.make({entry("c"): large}).merged()
    assert merged.pixel_counts["c.jpg"] == 10_000
    assert dict(rows_in(job.submission.read_bytes()))["c.jpg"] == "10000 1"


def test_images_with_an_orientation_are_counted_and_logged(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    merged = job.make({entry("a"): {"orientation": 6}, entry("d"): {"orientation": 3}}).merged()
    assert merged.rotated == 2
    with caplog.at_level(logging.INFO):
        job.finish(merged)
    assert "2 images with an EXIF orientation: " in caplog.text
    assert json.loads(job.success.read_bytes())["exif_rotated"] == 2


def test_nothing_is_logged_without_an_orientation(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        job.finish(job.make().merged())
    assert "orientation" not in caplog.text


def test_all_views_of_the_first_cars_are_kept_for_the_sheets_and_no_others(tmp_path: Path) -> None:
    cars = [f"{car:012x}" for car in range(SHEET_CARS + 2)]
    names = [f"{car}_{view:02d}" for car in cars for view in (1, 2)]
    merged = Job(tmp_path, [entry(name) for name in names], shards_each=3).make().merged()
    assert {car: [row["img"] for row in rows] for car, rows in merged.sheet_rows.items()} == {
        car: [f"{car}_01.jpg", f"{car}_02.jpg"] for car in cars[:SHEET_CARS]
    }
    assert len(merged.pixel_counts) == len(names)


@pytest.mark.parametrize(
    ("bad", "on_bad_picture", "max_bad", "allowed"),
    [
        (0, "fail", 0, True),
        (1, "fail", 10, False),
        (0, "empty", 0, True),
        (1, "empty", 0, False),
        (10, "empty", 10, True),
        (11, "empty", 10, False),
    ],
)
def test_when_a_submission_may_be_published(
    job: Job, bad: int, on_bad_picture: str, max_bad: int, allowed: bool
) -> None:
    flags = job.flags(on_bad_picture=on_bad_picture, max_bad=max_bad)
    assert merge.may_publish(flags, merge.MergeSummary(SHEET_CARS, bad=[{}] * bad)) is allowed


def test_a_comma_or_a_quote_in_a_name_or_a_reason_stays_in_its_cell(tmp_path: Path) -> None:
    odd = entry('red, "new" Käfer')
    job = Job(tmp_path, [odd, entry("a")])
    job.make({odd: {"status": 'mode: "CMYK", odd', "rle_mask": "", "crc32": 0}})
    flags = {"on_bad_picture": "empty"}
    job.finish(job.merged(**flags), **flags)
    assert rows_in(job.submission.read_bytes()) == [["a.jpg", mask_of(entry("a"))], [odd.name, ""]]
    assert job.quarantine()[1:] == [[odd.name, 'mode: "CMYK", odd', "00000000"]]
