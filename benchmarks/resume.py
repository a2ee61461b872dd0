"""Compare the program with Ray Data's checkpoints: kill the driver of one prediction many times.

    python benchmarks/resume.py [--images 600] [--kills 20] [--ways program names] [--seed 0]

The ways read the same drawn images, run the same network on a CPU, and write the same submission:

    program   jobs/predict.py
    names     Ray Data with `CheckpointConfig`, from a Parquet file of names; a map reads the images
    files     the same from `ray.data.read_binary_files`, as Ray's documentation has it

The process that a user starts is killed (SIGKILL) up to a second after a random fraction of the
rows that were left is finished, and the same command is repeated at once, until it ends by itself.
Moments on the clock would mostly miss the work on a machine whose load varies. Needs Linux. The
last line is one JSON object.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch

from carvana_ray import images, rle
from carvana_ray.checkpoints.model import load_model
from carvana_ray.data.layout import CSV_HEADER
from carvana_ray.inference.predictor import Predictor
from carvana_ray.report.figures import SHEET_CARS

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from support.watched import Job, JobFailedError, Opened, Setting, draw  # noqa: E402

WAYS = ("program", "names", "files")
LIMIT_S = 240  # of one attempt: a job that hangs is killed and counted
BATCH = 16
START_S = 10  # to kill within it where no row is to be finished first
FIGURES = ("kills", "hung", "lost", "doubled", "read_again", "identical")


# The chain with Ray's checkpoint.


def read_named(batch: dict, folder: Path, downscale: int) -> dict:
    """Add ``image``, uint8 [n, h, w], to a batch of names."""
    files = [(folder / name).read_bytes() for name in batch["img"]]
    return {**batch, "image": [images.load_gray(data, downscale) for data in files]}


def decode_files(batch: dict, downscale: int) -> dict:
    """Replace ``bytes`` by ``image``, uint8 [n, h, w]."""
    gray = [images.load_gray(data, downscale) for data in batch["bytes"]]
    return {"path": batch["path"], "image": gray}


class Masks:
    """The network, one per actor."""

    def __init__(self, model: Path) -> None:
        torch.set_num_threads(1)
        network, self.manifest = load_model(str(model))
        self.predictor = Predictor(network, torch.device("cpu"))

    def __call__(self, batch: dict) -> dict:
        """Replace ``image`` by the run-length text of its mask."""
        sizes = [(self.manifest.height, self.manifest.width)] * len(batch["image"])
        bounds = self.predictor.run_bounds_mixed(batch.pop("image"), sizes)
        return {**batch, "rle_mask": [rle.text_from_bounds(one.tobytes()) for one in bounds]}


def run_chain(way: str, root: Path, out: Path, block: int) -> None:
    """Predict with Ray's checkpoint and write the submission."""
    pictures, model = root / "pictures", root / "model"
    # With 2 a resumed run hangs: the filter of finished rows is one more actor that takes a CPU.
    ray.init(num_cpus=3, include_dashboard=False)
    key = "img" if way == "names" else "path"
    ray.data.DataContext.get_current().checkpoint_config = ray.data.checkpoint.CheckpointConfig(
        id_column=key, checkpoint_path=str(out / "checkpoint"), delete_checkpoint_on_success=False
    )
    downscale = load_model(str(model))[1].downscale
    if way == "names":
        read = {"folder": pictures, "downscale": downscale}
        rows = ray.data.read_parquet(str(root / "names.parquet"))
        gray = rows.repartition(target_num_rows_per_block=block)
        gray = gray.map_batches(read_named, fn_kwargs=read, batch_size=BATCH)
    else:
        count = len(list(pictures.iterdir()))
        files = ray.data.read_binary_files(
            str(pictures), include_paths=True, override_num_blocks=-(-count // block)
        )
        gray = files.map_batches(decode_files, fn_kwargs={"downscale": downscale}, batch_size=BATCH)
    gray.map_batches(
        Masks,
        fn_constructor_args=(model,),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(size=1),
    ).write_parquet(str(out / "rows"))
    merge_rows(key, out)


def merge_rows(key: str, out: Path) -> None:
    """Write the rows of all Parquet files into the submission."""
    rows = pq.read_table(out / "rows", columns=[key, "rle_mask"]).to_pylist()
    lines = sorted(f"{Path(row[key]).name},{row['rle_mask']}\n" for row in rows)
    (out / "submission.csv").write_text(",".join(CSV_HEADER) + "\n" + "".join(lines))


# The killing.


@dataclass
class Outcome:
    """One run: the command, repeated until it ended by itself."""

    way: str
    kills: int = 0
    hung: int = 0  # attempts that did not end
    seconds: float = 0  # of all attempts
    reads: int = 0  # images opened, once per attempt
    read_again: int = 0  # of these, images whose rows were finished before the attempt
    lost: int = 0
    doubled: int = 0
    identical: bool = False
    files: int = 0


def start(job: Job, way: str) -> None:
    """Start or repeat the command."""
    if way == "program":
        job.start()
    else:
        block = str(job.setting.shard_size)
        command = [__file__, "--chain", way, str(job.setting.root), str(job.out), block]
        job.process = job.spawn("job", command)


def finished(job: Job, way: str) -> set[str]:
    """Return the names of the images whose rows are finished."""
    if way == "program":
        files, key = list(job.out.glob("predict/*/shards/*.parquet")), "img"
    else:
        files, key = list(job.out.glob("checkpoint/*.parquet")), "img" if way == "names" else "path"
        files = [file for file in files if not file.name.endswith(".pending.parquet")]
    tables = [pq.read_table(file, columns=[key], partitioning=None) for file in files]
    return {Path(name).name for table in tables for name in table[key].to_pylist()}


def attempt(job: Job, outcome: Outcome, rng: random.Random | None) -> bool:
    """Run the command once, killed at a moment that `rng` draws; return whether it ended."""
    done, opened = finished(job, outcome.way), Opened(job.setting.root / "pictures")
    began = time.monotonic()
    start(job, outcome.way)
    try:
        code = job.process.wait(wait_for_rows(job, outcome.way, len(done), rng) if rng else LIMIT_S)
    except subprocess.TimeoutExpired:
        job.process.kill()
        code = job.process.wait()
        outcome.kills += rng is not None
        outcome.hung += rng is None
    outcome.seconds += time.monotonic() - began
    if code not in (0, -9):
        raise JobFailedError(f"exit code {code}{job.seen()}")
    names = opened.names() & set(job.setting.names)
    outcome.reads += len(names)
    shown = shown_images(job) if outcome.way == "program" else set()
    outcome.read_again += len((names & done) - shown)
    return code == 0


def wait_for_rows(job: Job, way: str, done: int, rng: random.Random) -> float:
    """Wait until a random fraction of the rows left is finished; return the seconds to the kill."""
    rows = int(rng.random() * (len(job.setting.names) - done))
    if rows < job.setting.shard_size:
        return rng.uniform(0, START_S)
    limit = time.monotonic() + LIMIT_S
    while len(finished(job, way)) < done + rows and time.monotonic() < limit:
        if job.process.poll() is not None:
            break
        time.sleep(0.05)
    return rng.uniform(0, 1)


def shown_images(job: Job) -> set[str]:
    """Return the images that the program opens again: for its report, or to test its rights."""
    first, place = set(job.setting.names[:SHEET_CARS]), job.out / "report" / "predict.json"
    if not place.exists():
        return first
    part = json.loads(place.read_text())
    return first | {one["name"] for one in part["review"]["figures"] + part["shown"]}


def run_once(setting: Setting, way: str, name: str, kills: int, rng: random.Random) -> Outcome:
    """Run a command, killed some times; return what became of it."""
    job, outcome = Job(setting, name), Outcome(way)
    try:
        for draw_kill in [rng] * kills + [None] * 3:
            if attempt(job, outcome, draw_kill):
                break
        else:
            return outcome
        text = (job.out / "submission.csv").read_text()
    finally:
        job.kill_all()
    rows = Counter(line.split(",")[0] for line in text.splitlines()[1:])
    outcome.lost = len(set(setting.names) - set(rows))
    outcome.doubled = sum(rows.values()) - len(rows)
    outcome.identical = text.encode() == setting.clean
    outcome.files = sum(len(files) for _, _, files in os.walk(job.out))
    return outcome


def run_way(setting: Setting, way: str, flags: argparse.Namespace) -> dict[str, Any]:
    """Run a way once undisturbed, then until it was killed often enough; return the figures."""
    rng, runs = random.Random(flags.seed), list[Outcome]()
    clean = run_once(setting, way, f"{way}-clean", 0, rng)
    print(json.dumps(asdict(clean)), flush=True)
    while (left := flags.kills - sum(run.kills for run in runs)) > 0:
        kills = min(flags.kills_a_run, left)
        runs.append(run_once(setting, way, f"{way}-{len(runs)}", kills, rng))
        print(json.dumps(asdict(runs[-1])), flush=True)
    return {
        "way": way,
        "runs": len(runs),
        "clean_s": round(clean.seconds, 1),
        "seconds": round(sum(run.seconds for run in runs), 1),
        "clean_equal": clean.identical,
        **{name: sum(getattr(run, name) for run in runs) for name in FIGURES},
        "reads_an_image": round(sum(r.reads for r in runs) / len(runs) / len(setting.names), 2),
        "files_clean": clean.files,
        "files_most": max(run.files for run in runs),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--block", type=int, default=25, help="images of a shard or block")
    parser.add_argument("--kills", type=int, default=20, help="of each way")
    parser.add_argument("--kills-a-run", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ways", nargs="+", default=WAYS[:2], choices=WAYS)
    parser.add_argument("--chain", nargs=4, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.chain:
        way, root, out, block = flags.chain
        run_chain(way, Path(root), Path(out), int(block))
    else:
        run_benchmark(flags)


def run_benchmark(flags: argparse.Namespace) -> None:
    """Run all ways and print the figures."""
    with tempfile.TemporaryDirectory(prefix="resume-") as folder:
        setting = draw(Path(folder), flags.images, flags.block)
        pq.write_table(pa.table({"img": list(setting.names)}), setting.root / "names.parquet")
        run_once(
            setting, "program", "clean", 0, random.Random(0)
        )  # the submission that all runs must equal
        rows = [run_way(setting, way, flags) for way in flags.ways]
    about = {"benchmark": "resume", "images": flags.images, "block": flags.block}
    versions = {"ray": ray.__version__, "python": platform.python_version()}
    print(json.dumps({**about, "seed": flags.seed, "ways": rows, **versions}))


if __name__ == "__main__":
    main()
