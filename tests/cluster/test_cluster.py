"""The program on a real cluster of several nodes (`cluster.py`), which share nothing but S3: what a
user does from a shell outside, what machines that go away cost, and what an autoscaler brings."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support import cluster, s3_servers
from support.cluster import Cluster, Done, Node
from support.commands import Run, result_of
from support.pairs import draw_pair
from support.watched import SIZE, make_model

from carvana_ray.report import figures as sheets
from carvana_ray.stages.predict import review_masks as review

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc"),
]

SECRET = "CANARYwJalrXUtnFEMIK7MDENG"  # of the store; it must never be written anywhere
SMALL = ("--downscale", 8, "--base", 4, "--batch-size", 8, "--holdout-cars", 2, "--val-cars", 1)
# A worker has one CPU here and there: with more threads, sums of floats round otherwise.
PIPELINE = (*SMALL, "--epochs", 4, "--shard-size", 4, "--workers", 2)
ONE_CPU_EACH = ("--num-cpus", 3)  # for two workers of a local run
PICTURES, SHARD_SIZE = 1200, 20
DISTINCT = 100
NO_TOKEN = ("export RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")

# A bug in a task that runs on another machine.
FAULTY = """
import sys
import ray
from carvana_ray import config
from carvana_ray.config import cli
from carvana_ray.stages.guard import run_guarded
from carvana_ray.stages.runner import run_in_session

def task():
    return {}["no such key"]

class Stage:
    def check(self, flags):
        pass
    def run(self, flags, cluster, checked):
        return ray.get(ray.remote(max_retries=0)(task).remote())

flags = cli.parse(config.PredictFlags, "predict", None)
sys.exit(run_guarded("predict", flags, lambda: run_in_session(flags, Stage)))
"""


@dataclass(frozen=True)
class Store:
    """The bucket that all share, seen without the program's own code."""

    server: s3_servers.Server
    log: Path
    bucket: str = "catalogue"

    @property
    def uri(self) -> str:
        """That of the bucket."""
        return f"s3://{self.bucket}"

    def put(self, files: dict[str, bytes]) -> None:
        """Write files by key."""
        client = self.server.client()
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(
                lambda one: client.put_object(Bucket=self.bucket, Key=one[0], Body=one[1]),
                files.items(),
            ):
                pass

    def put_folder(self, folder: Path, key: str) -> None:
        """Write all files of a folder."""
        found = [path for path in folder.rglob("*") if path.is_file()]
        self.put({f"{key}/{path.relative_to(folder)}": path.read_bytes() for path in found})

    def there(self, key: str) -> dict[str, tuple[str, Any]]:
        """Return ETag and time of the last change of all files whose key begins so."""
        pages = self.server.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.bucket, Prefix=key)
        return {
            one["Key"]: (one["ETag"], one["LastModified"])
            for page in found
            for one in page.get("Contents", [])
        }

    def shards(self, out: str) -> dict[str, tuple[str, Any]]:
        """Return the shards of a prediction that are there."""
        return {
            key: mark for key, mark in self.there(f"{out}/predict/").items() if "/shards/" in key
        }

    def read(self, key: str) -> bytes:
        """Return the contents of a file."""
        return self.server.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def fetched(self, since: int = 0) -> list[str]:
        """Return the keys of all files that were read, in order, but for the first ones."""
        text = self.log.read_text(errors="replace")
        return re.findall(rf'"GET /{self.bucket}/([^? ]+) HTTP[^"]*" 200', text)[since:]


@pytest.fixture(scope="module")
def store(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the tiny data set, a model, and pictures enough to be interrupted in."""
    folder = tmp_path_factory.mktemp("moto")
    with s3_servers.moto(folder) as server:
        made = Store(replace(server, secret_key=SECRET), folder / "moto.out")
        made.server.client().create_bucket(Bucket=made.bucket)
        made.put_folder(data, "carvana")
        drawn = [draw_pair(seed, SIZE)[0] for seed in range(DISTINCT)]
        make_model(folder / "model", drawn[:40])
        made.put_folder(folder / "model", "model")
        names = [f"photos/p{number:05d}.jpg" for number in range(PICTURES)]
        made.put({name: drawn[at % DISTINCT] for at, name in enumerate(names)})
        yield made


@pytest.fixture(scope="module")
def there(store: Store) -> Iterator[Cluster]:
    """A cluster of two nodes for all tests; who removes one adds one."""
    with cluster.cluster(store.server.environment()) as made:
        (made.upload / "faulty.py").write_text(FAULTY)
        yield made


@pytest.fixture
def whole(there: Cluster) -> Cluster:
    """The same, with as many nodes as in the beginning."""
    while len(there.nodes) < 2:
        there.add_node()
    there.wait_for_nodes(2)
    return there


def log_of(there: Cluster, job: str = "") -> list[str]:
    """Return the lines that a job has printed itself (the last one that was submitted)."""
    lines = there.logs(job or f"job-{there.made}").splitlines()
    # Of Ray's: by the client that asks, and by the job's supervisor before the job.
    ours = [line for line in lines if not re.search(r"(cli|sdk|job_manager)\.py:\d+ -- ", line)]
    return [line for line in ours if line and not line.startswith("Running entrypoint for job")]


def ended_well(there: Cluster, done: Done) -> dict[str, Any]:
    """Return the result of a job, which is the last line of its log."""
    assert done.returncode == 0, done.stdout
    return json.loads(log_of(there)[-1])


def told(what: str, **seconds: float) -> None:
    """Print how long things took (`pytest -s`)."""
    print(f"\n{what}: " + ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))


def predict_flags(store: Store, out: str, workers: int = 2) -> tuple[object, ...]:
    places = ("--data", f"{store.uri}/photos", "--model", f"{store.uri}/model")
    sizes = ("--shard-size", SHARD_SIZE, "--workers", workers)
    return ("jobs/predict.py", *places, *sizes, "--out", f"{store.uri}/{out}")


@pytest.fixture(scope="module")
def expected(store: Store, there: Cluster, run_job: Run, tmp_path_factory: Any) -> bytes:
    """The submission of a prediction to which nothing happened, made without the cluster."""
    out = tmp_path_factory.mktemp("expected")
    flags = predict_flags(store, "")[1:-2]
    done = run_job("predict", *flags, *ONE_CPU_EACH, "--out", out, **store.server.environment())
    assert result_of(done)["images"] == PICTURES
    text = (out / "submission.csv").read_bytes()
    assert len(set(text.split(b"\n"))) > DISTINCT
    return text


def titles(node: Node) -> list[str]:
    """Return the titles of a node's processes."""
    found = []
    for number in node.processes():
        try:
            title = Path(f"/proc/{number}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended since
        found.append(title.replace(b"\0", b" ").decode(errors="replace").strip())
    return found


def works(node: Node, title: str) -> bool:
    """Return whether a process with such a title runs on a node."""
    return any(title in one for one in titles(node))


def test_what_was_uploaded_runs_on_all_nodes(whole: Cluster) -> None:
    found = ended_well(whole, whole.submit("where.py"))
    homes = [node.folder for node in (whole.head, *whole.nodes)]
    assert len(found["tasks"]) == 2
    for place in (found["driver"], *found["tasks"].values()):
        assert Path(place).is_relative_to(whole.root)
    used = {
        home for home in homes for place in found["tasks"].values() if home in Path(place).parents
    }
    assert used == set(homes[1:]), "each node has a copy of its own"


def test_a_job_from_a_shell_outside_leaves_its_results_in_the_bucket(
    whole: Cluster, store: Store
) -> None:
    began = time.monotonic()
    job = predict_flags(store, "runs/short")
    result = ended_well(whole, whole.submit(*job, "--limit", 2 * SHARD_SIZE))
    told("a short prediction", all=time.monotonic() - began)
    assert (result["job"], result["images"], result["shards"]) == ("predict", 2 * SHARD_SIZE, 2)
    assert len(store.shards("runs/short")) == 2
    header, *rows = store.read("runs/short/submission.csv").decode().splitlines()
    assert header == "img,rle_mask"
    names = [f"p{number:05d}.jpg" for number in range(2 * SHARD_SIZE)]
    assert [row.split(",")[0] for row in rows] == names
    assert len({row.split(",")[1] for row in rows} - {""}) == len(names), "all masks differ"


@pytest.fixture(scope="module")
def piped(store: Store, there: Cluster) -> tuple[Done, list[str]]:
    """A whole pipeline on the cluster: what was printed, and the job's log."""
    began = time.monotonic()
    places = ("--data", f"{store.uri}/carvana", "--out", f"{store.uri}/runs/first")
    done = there.submit("jobs/pipeline.py", *places, *PIPELINE)
    told("pipeline on the cluster", all=time.monotonic() - began)
    ended_well(there, done)
    return done, log_of(there)


@pytest.mark.slow
def test_a_pipeline_on_a_cluster_gives_what_it_gives_on_one_machine(
    piped: tuple[Done, list[str]], store: Store, data: Path, run_job: Run, tmp_path: Path
) -> None:
    result = json.loads(piped[1][-1])
    assert result["job"] == "pipeline"
    assert result["submission"] == f"{store.uri}/runs/first/submission.csv"
    here = run_job("pipeline", "--data", data, "--out", tmp_path, *PIPELINE, *ONE_CPU_EACH)
    assert result_of(here)["dice"] == result["dice"]
    text = store.read("runs/first/submission.csv")
    assert text == (tmp_path / "submission.csv").read_bytes()
    rows = text.decode().splitlines()
    assert len(rows) == 17
    assert all(len(row.split(",")[1]) > 100 for row in rows[1:]), "no mask is empty"
    known = json.loads(store.read("runs/first/model/manifest.json"))
    assert known["sha256"] == json.loads((tmp_path / "model/manifest.json").read_text())["sha256"]


@pytest.mark.slow
def test_the_log_of_a_job_can_be_read(piped: tuple[Done, list[str]]) -> None:
    done, lines = piped
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", "\n".join(lines)), "control codes"
    for what in ("decode", "train", "evaluate", "predict"):
        rate = rf"{what}: (\d+) of \1, \d+\.\d images/s"
        assert [line for line in lines if re.fullmatch(rate, line)], what
    noise = [line for line in lines if re.search(r"raylet|core_worker|gcs_|\.py:\d+", line)]
    assert [line for line in noise if "issues/53727" not in line] == []
    assert all(len(line) < 300 for line in lines if line not in noise)
    tail = done.stdout.split(lines[-1])[1]
    assert "succeeded" in tail
    assert re.sub(r".*(cli|sdk)\.py:\d+ -- .*", "", tail).strip() == ""


@pytest.mark.slow
def test_no_secret_is_in_any_log_or_result(
    piped: tuple[Done, list[str]], store: Store, there: Cluster
) -> None:
    done, lines = piped
    assert SECRET not in done.stdout + "\n".join(lines)
    files = there.files()
    assert len(files) > 50
    for secret in (SECRET, there.token):
        found = [path for path in files if secret.encode() in path.read_bytes()]
        assert [path for path in found if path.name != "auth_token"] == []
    results = list(store.there("runs/first/"))
    assert len(results) > 20
    assert [key for key in results if SECRET.encode() in store.read(key)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "cause"),
    [
        (
            ("jobs/pipeline.py", "--data", "s3://nowhere-4711/carvana", "--out", "OUT"),
            2,
            "pipeline: error: s3://nowhere-4711/carvana.*: NoSuchBucket: there is no such bucket",
        ),
        (
            ("jobs/pipeline.py", "--data", "BUCKET/unmasked", "--out", "OUT"),
            2,
            "pipeline: error: --data: no mask .* 1 of 64 .* 000000000003_05.jpg .*",
        ),
        (
            ("faulty.py", "--data", "BUCKET/photos", "--out", "OUT"),
            1,
            "predict: error: KeyError: .*",
        ),
        (
            ("jobs/pipeline.py", "--data", "BUCKET/carvana", "--out", "/results"),
            2,
            "pipeline: error: --out /results: .*--shared-filesystem.*",
        ),
        (
            ("jobs/predict.py", "--data", "/pictures", "--model", "BUCKET/model", "--out", "OUT"),
            2,
            "predict: error: --data /pictures: .*--shared-filesystem.*",
        ),
        (("jobs/predict.py", "--worker", "2"), 2, "predict: error: .*--worker.*"),
    ],
    ids=["no-bucket", "no-mask", "unforeseen", "local-out", "local-data", "usage"],
)
def test_a_job_that_fails_says_why_in_its_last_line(
    whole: Cluster,
    store: Store,
    data: Path,
    command: tuple[str, ...],
    code: int,
    cause: str,
) -> None:
    if not store.there("unmasked/"):
        store.put_folder(data, "unmasked")
        gone = "unmasked/train_masks/000000000003_05_mask.gif"
        store.server.client().delete_object(Bucket=store.bucket, Key=gone)
    words = [word.replace("BUCKET", store.uri) for word in command]
    began = time.monotonic()
    done = whole.submit(*[word.replace("OUT", f"{store.uri}/runs/failing") for word in words])
    told(" ".join(words), all=time.monotonic() - began)
    assert done.returncode == 1, "of `ray job submit`"
    known = whole.job(f"job-{whole.made}")
    assert (known["status"], known["driver_exit_code"]) == ("FAILED", code)
    lines = log_of(whole)
    assert re.fullmatch(cause, lines[-1]), lines
    if code == 2:
        assert not any("Traceback" in line for line in lines)


@pytest.mark.slow
def test_a_job_that_is_stopped_goes_on_where_it_was(
    whole: Cluster, store: Store, expected: bytes
) -> None:
    command = predict_flags(store, "runs/stopped")
    began = time.monotonic()
    job = whole.start(*command)
    to_shards = whole.wait("shards", lambda: len(store.shards("runs/stopped")) >= 6, job)
    asked = time.monotonic()
    stopped = whole.stop(job.id)
    to_stop = time.monotonic() - asked
    assert stopped.returncode == 0, stopped.stderr
    job.done()
    assert whole.job(job.id)["status"] == "STOPPED"
    assert log_of(whole, job.id)[-1].startswith("predict: stopped; finished shards are kept")
    quiet = whole.wait("end of all", lambda: not any(works(n, "ray::Map") for n in whole.nodes))
    kept, read = store.shards("runs/stopped"), len(store.fetched())
    total = PICTURES // SHARD_SIZE
    assert 6 <= len(kept) < total
    again = time.monotonic()
    result = ended_well(whole, whole.submit(*command))
    assert (result["resumed_shards"], result["shards"]) == (len(kept), total)
    now = store.shards("runs/stopped")
    assert {key: now[key] for key in kept} == kept, "none was written again"
    pictures = [key for key in store.fetched(read) if key.startswith("photos/")]
    shown = 6 + 16 + review.MAX_FIGURES + sheets.EXAMPLE_FIGURES  # on contact sheets, in the report
    assert len(set(pictures)) <= PICTURES - SHARD_SIZE * len(kept) + shown
    assert store.read("runs/stopped/submission.csv") == expected
    told(
        f"stopped with {len(kept)} of {total} shards",
        to_shards=to_shards,
        stop=to_stop,
        quiet=quiet,
        first=again - began,
        again=time.monotonic() - again,
    )


@pytest.mark.slow
def test_a_machine_that_goes_away_while_it_predicts_costs_nothing(
    whole: Cluster, store: Store, expected: bytes
) -> None:
    began = time.monotonic()
    job = whole.start(*predict_flags(store, "runs/removed"))

    def at_work() -> bool:
        return len(store.shards("runs/removed")) >= 6 and works(whole.nodes[-1], "ray::MapWorker")

    whole.wait("shards", at_work, job)
    struck = time.monotonic()
    kept = store.shards("runs/removed")
    assert len(kept) < PICTURES // SHARD_SIZE
    whole.remove_node()
    result = ended_well(whole, job.done())
    assert (result["images"], result["bad"]) == (PICTURES, 0)
    now = store.shards("runs/removed")
    assert {key: now[key] for key in kept} == kept
    assert store.read("runs/removed/submission.csv") == expected
    told(
        f"a node removed with {len(kept)} shards",
        before=struck - began,
        after=time.monotonic() - struck,
    )


@pytest.mark.slow
def test_training_goes_on_with_the_machines_that_are_left(whole: Cluster, store: Store) -> None:
    out, epochs, workers = "runs/elastic", 8, 3  # on both nodes, of two CPUs each
    places = ("--data", f"{store.uri}/carvana", "--out", f"{store.uri}/{out}")
    began = time.monotonic()
    job = whole.start(
        *("jobs/train.py", *places, *SMALL, "--epochs", epochs),
        *("--workers", workers, "--min-workers", 1),
    )

    def victims() -> list[Node]:
        return [node for node in whole.nodes if works(node, "RayTrainWorker")]

    def epochs_there() -> set[str]:
        return set(re.findall(r"epoch-(\d+)/manifest", " ".join(store.there(f"{out}/"))))

    whole.wait("epochs", lambda: "0002" in epochs_there() and victims(), job, 240)
    struck = time.monotonic()
    before = max(epochs_there())
    whole.remove_node(victims()[-1])
    went_on = whole.wait("another epoch", lambda: max(epochs_there()) > before, job, 240)
    result = ended_well(whole, job.done())
    assert result["epochs"] == epochs
    history = json.loads(store.read(f"{out}/model/history.json"))
    assert [row["epoch"] for row in history] == list(range(1, epochs + 1))
    told(
        f"training with {workers} workers, a node removed after epoch {before}",
        before=struck - began,
        next_epoch=went_on,
        after=time.monotonic() - struck,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ({"RAY_AUTH_MODE": "", "RAY_AUTH_TOKEN_PATH": ""}, NO_TOKEN),
        ({"RAY_AUTH_TOKEN_PATH": ""}, NO_TOKEN),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, NO_TOKEN),
        ({"RAY_ADDRESS": ""}, ("http://", "ray job submit", "unset")),
        ({"RAY_ADDRESS": f"127.0.0.1:{cluster.free_port()}"}, ("no Ray cluster answers",)),
    ],
    ids=["nothing", "no-file", "wrong-file", "http", "no-cluster"],
)
def test_a_job_that_cannot_join_says_what_to_export(
    whole: Cluster, shell: dict[str, str], words: tuple[str, ...]
) -> None:
    """Started by hand, not submitted; what `ray job submit` says itself is Ray's."""
    address = shell.get("RAY_ADDRESS", whole.gcs) or whole.address
    began = time.monotonic()
    done = whole.shell("python", "jobs/sample.py", **{**shell, "RAY_ADDRESS": address})
    told(f"{shell}", all=time.monotonic() - began)
    assert done.returncode == 2, done.stderr
    *before, last = done.stderr.splitlines()
    assert last.startswith(f"sample: error: RAY_ADDRESS {address}: ")
    assert all(word in last for word in words)
    assert len(before) <= 3, "what Ray itself tells of each try"
    if "RAY_AUTH_MODE" in shell:
        submitted = whole.submit("where.py", **shell)
        assert submitted.returncode == 1
        assert "RAY_AUTH_MODE" in submitted.stdout


@pytest.mark.slow
def test_machines_come_when_there_is_work_and_go_when_there_is_none(
    store: Store, data: Path, run_job: Run, tmp_path: Path
) -> None:
    with cluster.autoscaling(store.server.environment()) as made:
        began = time.monotonic()
        places = ("--data", f"{store.uri}/carvana", "--out", f"{store.uri}/runs/scaled")
        job = made.start("jobs/pipeline.py", *places, *PIPELINE)
        up = made.wait("a node", lambda: len(made.alive()) > 1, job)
        done = job.done()
        end = time.monotonic() - began
        used = len(made.alive()) - 1
        made.wait("end of the nodes", lambda: len(made.alive()) == 1)
        gone = time.monotonic() - began - end
        result = ended_well(made, done)
    told(f"autoscaling, {used} nodes at the end", up=up, end=end, gone_after_the_end=gone)
    here = run_job("pipeline", "--data", data, "--out", tmp_path, *PIPELINE, *ONE_CPU_EACH)
    assert result_of(here)["dice"] == result["dice"]
    text = store.read("runs/scaled/submission.csv")
    assert text == (tmp_path / "submission.csv").read_bytes()
