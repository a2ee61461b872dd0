"""Fixtures: a tiny data set in Kaggle's layout, a real Ray, and the jobs as commands."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Before Ray is imported: a local Ray would leave a token in the home folder, and a token there
# turns authentication on for later clusters of this machine.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import pytest
from PIL import Image, ImageDraw

REPOSITORY = Path(__file__).parent.parent
HEIGHT, WIDTH = 1280, 1918
Run = Callable[..., subprocess.CompletedProcess[str]]


def draw_pair(seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[bytes, bytes]:
    """Return a JPEG of a dark ellipse on a pale ground, and its mask as GIF."""
    height, width = size
    rng = np.random.default_rng(seed)
    x, y = width * rng.uniform(0.4, 0.6), height * rng.uniform(0.5, 0.6)
    rx, ry = width * rng.uniform(0.2, 0.35), height * rng.uniform(0.15, 0.3)
    box = (x - rx, y - ry, x + rx, y + ry)
    picture = Image.new("RGB", (width, height), (200, 205, 210))
    ImageDraw.Draw(picture).ellipse(box, fill=tuple(int(v) for v in rng.integers(20, 120, 3)))
    mask = Image.new("P", (width, height), 0)
    mask.putpalette([0, 0, 0, 255, 255, 255])
    ImageDraw.Draw(mask).ellipse(box, fill=1)
    jpeg, gif = io.BytesIO(), io.BytesIO()
    picture.save(jpeg, "JPEG", quality=55)
    mask.save(gif, "GIF")
    return jpeg.getvalue(), gif.getvalue()


def make_data(root: Path, cars: int, test_cars: int, views: int = 16) -> Path:
    """Draw a data set in Kaggle's layout; cars are ``000000000000``, ``000000000001``, ..."""
    for folder in ("train", "train_masks", "test"):
        (root / folder).mkdir(parents=True)
    names = []
    for car in range(cars + test_cars):
        for view in range(1, views + 1):
            stem = f"{car:012x}_{view:02d}"
            jpeg, gif = draw_pair(100 * car + view)
            if car < cars:
                (root / "train" / f"{stem}.jpg").write_bytes(jpeg)
                (root / "train_masks" / f"{stem}_mask.gif").write_bytes(gif)
            else:
                (root / "test" / f"{stem}.jpg").write_bytes(jpeg)
                names.append(f"{stem}.jpg")
    lines = ["img,rle_mask", *(f"{name},1 1" for name in names)]
    (root / "sample_submission.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 cars with masks, 2 without, 8 views each; read only."""
    return make_data(tmp_path_factory.mktemp("data") / "carvana", cars=8, test_cars=2, views=8)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pictures that CARVANA_DATA names; without it the test is skipped."""
    place = os.environ.get("CARVANA_DATA")
    if not place:
        pytest.skip("CARVANA_DATA is not set to a folder of Kaggle's pictures")
    return Path(place)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One real Ray on this machine for all tests that need one in the test's own process."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=500_000_000,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def run_job() -> Run:
    """Run a job as a user does, from another folder; returns the completed process."""

    def run(
        job: str, *flags: object, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPOSITORY / "jobs" / f"{job}.py"), *map(str, flags)]
        return subprocess.run(
            command,
            cwd=cwd or "/",
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def result_of(done: subprocess.CompletedProcess[str]) -> dict:
    """Return the JSON object of a job's last line, which must have ended well."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
