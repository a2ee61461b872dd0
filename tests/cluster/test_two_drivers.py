"""Two predictions at once in one --out, while images come and go: the newest listing wins.

The seeds draw when each of the two goes on, call by call, and how the images change in between. The
network is left out; all else is the real thing.
"""

import contextlib
import csv
import hashlib
import json
import os
import random
import signal
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import s3_servers, watched
from support.models import manifest_of
from support.s3_buckets import put
from support.turns import Turns

from carvana_ray import config, storage
from carvana_ray.data.quarantine import OK
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages.predict import publish
from carvana_ray.stages.predict import stage as predict
from carvana_ray.stages.predict.plan_run import PredictRun
from carvana_ray.stages.predict.write_shards import write_shards
from carvana_ray.storage import FileInfo
from carvana_ray.storage.base import TEMP_PREFIX, FolderContent
from carvana_ray.submission import plan, shards

SIZE = (10, 10)
AT_FIRST, AT_LEAST = 10, 4  # images
HERE = ClusterResources(cpus=2, gpus=0, nodes=1)


def start_of(image: FileInfo) -> int:
    """Return where the only run of an image's mask starts; it depends on name and version."""
    return zlib.crc32(f"{image.name} {image.version}".encode()) % (SIZE[0] * SIZE[1])


def write_pending(run: PredictRun) -> float:
    """Write the pending shards as `predict.predict_pending` does, without reading images."""
    tasks = run.pending.tasks
    for task, row in zip(tasks, predict.block_rows(run.catalog, tasks, {}), strict=True):
        count = len(task.entries)
        starts = [start_of(image) for image in task.entries]
        rows = {
            "file": [task.name] * count,
            "row": list(range(count)),
            "rows": [count] * count,
            "img": row["names"],
            "run_bounds": [np.array([start, start + 1], np.int32).tobytes() for start in starts],
            "height": [SIZE[0]] * count,
            "width": [SIZE[1]] * count,
            "crc32": [1] * count,
            "orientation": [1] * count,
            "status": [preset or OK for preset in row["preset_status"]],
        }
        key = shards.shard_key(storage.name(run.folder), task.part, task.shard)
        replace = {task.name} if task.replace else set()
        (written,) = write_shards(
            pa.table(rows), folder=run.folder, keys={task.name: key}, replace=replace
        ).to_pylist()
        assert (written["bad"], written["problem"]) == (0, "")
    return 1.0


class Photos:
    """A folder of files that are added, replaced, taken away and put back."""

    def __init__(self, folder: str, rng: random.Random) -> None:
        self.folder, self._rng = folder, rng
        self._count = 0
        self.there: dict[str, bytes] = {}
        self._away: dict[str, Any] = {}
        for _ in range(AT_FIRST):
            self._add()

    def change(self) -> None:
        """Sometimes change one or a few files."""
        if self._rng.random() < 0.4:
            return
        for _ in range(self._rng.choice((1, 1, 4))):
            self._rng.choice((self._add, self._replace, self._remove, self._put_back))()

    def _add(self) -> None:
        self._count += 1
        self._write(f"{self._rng.choice('abc')}{self._count:03d}.jpg")

    def _replace(self) -> None:
        self._count += 1
        self._write(self._rng.choice(sorted(self.there)))

    def _write(self, name: str) -> None:
        self.there[name] = f"{name} {self._count}".encode()
        self._put(name, self.there[name])

    def _remove(self) -> None:
        if len(self.there) > AT_LEAST:
            name = self._rng.choice(sorted(self.there))
            self._away[name] = self.there.pop(name), self._take(name)

    def _put_back(self) -> None:
        if self._away:
            name = self._rng.choice(sorted(self._away))
            self.there[name], times = self._away.pop(name)
            self._put(name, self.there[name], times)

    def _take(self, name: str) -> Any:
        times = os.stat(path := Path(self.folder, name)).st_mtime_ns
        path.unlink()
        return times

    def _put(self, name: str, data: bytes, times: Any = None) -> None:
        path = Path(self.folder, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        if times:
            os.utime(path, ns=(times, times))


class Objects(Photos):
    """The same in S3."""

    def __init__(self, server: s3_servers.Server, folder: str, rng: random.Random) -> None:
        self._server = server
        super().__init__(folder, rng)

    def _put(self, name: str, data: bytes, times: Any = None) -> None:
        put(self._server, f"{self.folder}/{name}", data)

    def _take(self, name: str) -> None:
        storage.remove(f"{self.folder}/{name}")


class Observed:
    """Two drivers on one folder, and what they listed and published."""

    def __init__(
        self, seed: int, photos: Photos, out: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = random.Random(seed)
        self.photos, self.out = photos, out
        self.flags = config.PredictFlags(
            data=photos.folder, out=out, model="/no/model", shard_size=4, device="cpu"
        )
        self.listings: list[list[FileInfo]] = []
        self.newest = [0, 0]  # listing of each driver
        self.published: list[int] = []  # listing of each publication
        self._watch(monkeypatch)
        self.turns = Turns(rng, monkeypatch)

    def _watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        manifest = manifest_of()
        monkeypatch.setattr(predict, "load_model", lambda uri: (None, manifest))
        monkeypatch.setattr(predict, "predict_pending", write_pending)
        monkeypatch.setattr(publish, "review_masks", lambda *_: ({"listed": 0}, {}))
        monkeypatch.setattr(publish, "write_report", lambda *_: None)
        listing, writer = storage.list_all, storage.atomic_writer

        def list_all(uri: str) -> FolderContent:
            found = listing(uri)
            if uri == self.photos.folder:
                self.newest[self.turns.running] = len(self.listings)
                self.listings.append(found.files)
            return found

        @contextlib.contextmanager
        def atomic_writer(uri: str, **options: Any) -> Iterator[Any]:
            with writer(uri, **options) as file:
                yield file
                before = storage_state(uri)
            if uri == self.flags.submission_uri and storage_state(uri) != before:
                self.published.append(self.newest[self.turns.running])

        storage_state = storage.state
        monkeypatch.setattr(storage, "list_all", list_all)
        monkeypatch.setattr(storage, "atomic_writer", atomic_writer)

    def run(self) -> list[Any]:
        job = lambda: predict.run(self.flags, HERE)  # noqa: E731
        return self.turns.run([job, job], self.photos.change)


def check_law(seen: Observed, results: list[Any]) -> None:
    """Check that nothing is lost or doubled and that the newest of all listings has won."""
    for result in results:
        assert isinstance(result, dict), result
    assert seen.published == sorted(set(seen.published)), "an older listing has replaced a newer"
    listed = seen.listings[seen.published[-1]]
    data = storage.read(seen.flags.submission_uri)
    rows = list(csv.reader(data.decode().splitlines()))[1:]
    assert rows == [[image.name, f"{start_of(image) + 1} 1"] for image in listed]
    marker = json.loads(storage.read(seen.flags.marker_uri))
    (run,) = storage.list_dirs(storage.join(seen.out, "predict"))
    expected = {"name": "submission.csv", "rows": len(rows), "bad": 0, "run": run}
    assert marker == {**expected, "sha256": hashlib.sha256(data).hexdigest()}
    planned = [
        image
        for part in plan.load_plan(storage.join(seen.out, "predict", run))
        for image in part.images
    ]
    assert len(planned) == len(set(planned)), "planned twice"
    assert set(planned) >= {image for entries in seen.listings for image in entries}


@pytest.mark.parametrize("seed", range(30))
def test_the_newest_listing_wins_on_disk(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = Photos(str(tmp_path / "photos"), random.Random(seed))
    seen = Observed(seed, photos, str(tmp_path / "out"), monkeypatch)
    check_law(seen, seen.run())
    assert not list(tmp_path.rglob(f"{TEMP_PREFIX}*"))


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 12))]
)
def test_the_newest_listing_wins_in_s3(
    seed: int,
    s3: s3_servers.Server,
    bucket: Callable[[s3_servers.Server], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = bucket(s3)
    photos = Objects(s3, f"{home}/photos", random.Random(seed))
    seen = Observed(seed, photos, f"{home}/out", monkeypatch)
    check_law(seen, seen.run())


@pytest.fixture
def jobs() -> Iterator[list[watched.Job]]:
    """Two jobs with 60 images and one --out that have not started."""
    with tempfile.TemporaryDirectory(prefix="two-") as root:  # short: Ray makes sockets below it
        setting = watched.draw(Path(root), 60, 4)
        jobs = [watched.Job(setting, name) for name in "ab"]
        jobs[1].out = jobs[0].out
        try:
            yield jobs
        finally:
            for job in jobs:
                job.kill_all()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_commands_that_are_stopped_and_go_on_keep_the_newest_listing(
    jobs: list[watched.Job], seed: int
) -> None:
    """The first stops after some shards; the second is stopped, too, and images are added."""
    rng, (first, second) = random.Random(seed), jobs
    folder = first.setting.root / "pictures"
    names = list(first.setting.names)

    def add(count: int) -> None:
        for _ in range(count):
            os.link(folder / rng.choice(first.setting.names), folder / f"q{len(names):05d}.jpg")
            names.append(f"q{len(names):05d}.jpg")

    first.start()
    shards = rng.randint(0, 12)
    first.wait(lambda: len(first.committed()) >= shards, watched.JOB_S, f"{shards} shards")
    first.process.send_signal(signal.SIGSTOP)
    add(20)
    second.start()
    for _ in range(rng.randint(1, 3)):
        time.sleep(rng.uniform(0, 10))
        second.process.send_signal(signal.SIGSTOP)
        add(rng.randint(0, 2))
        time.sleep(rng.uniform(0, 2))
        second.process.send_signal(signal.SIGCONT)
    if rng.random() < 0.5:
        second.wait(lambda: second.process.poll() is not None, watched.JOB_S, "the job to end")
    first.process.send_signal(signal.SIGCONT)
    listed = max(job.result()["images"] for job in jobs)  # images are only added
    assert listed >= 80
    data = (first.out / "submission.csv").read_bytes()
    assert [line.split(",")[0] for line in data.decode().splitlines()[1:]] == names[:listed]
    marker = json.loads((first.out / "submission.json").read_text())
    assert (marker["rows"], marker["sha256"]) == (listed, hashlib.sha256(data).hexdigest())
