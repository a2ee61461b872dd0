"""Which jobs run without Ray, and what such a job imports."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import REPOSITORY
from support.models import write_model
from support.pairs import draw_pair

from carvana_ray import config
from carvana_ray.errors import InputError
from carvana_ray.stages import few_images
from carvana_ray.stages.few_images import count_here
from carvana_ray.unet.network import UNet


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four images, which are many here, as is a folder of three and one image."""
    monkeypatch.setattr(few_images, "FEW_IMAGES", 3)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)  # another test may have started it
    for folder, count in {"many": 4, "few": 3}.items():
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / f"{number}.jpg").write_bytes(b"")
    return tmp_path


def predict(photos: Path, folder: str, **flags: Any) -> int:
    return count_here("predict", config.PredictFlags(data=str(photos / folder), **flags))


def cutout(*pictures: Path, **flags: Any) -> int:
    return count_here("cutout", config.CutoutFlags(pictures=tuple(map(str, pictures)), **flags))


def test_few_images_need_no_ray(photos: Path) -> None:
    few, many = photos / "few", photos / "many"
    assert predict(photos, "few") == 3
    assert not predict(photos, "many")
    assert predict(photos, "many", limit=2) == 2
    assert predict(photos, "many", limit=3) == 3
    assert not predict(photos, "many", limit=4)
    assert count_here("cutout", config.CutoutFlags(data=str(few)))
    assert not count_here("cutout", config.CutoutFlags(data=str(many)))
    assert cutout(few) == 3
    assert cutout(few / "0.jpg", few / "1.jpg") == 2
    assert cutout(few, few / "0.jpg") == 3, "each image counts once"
    assert not cutout(few, many / "0.jpg")
    assert not cutout(photos), "with its sub-folders"
    assert not cutout(many)


def test_ray_runs_what_asks_for_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not predict(photos, "few", ray="always")
    assert not predict(photos, "few", workers=2)
    assert predict(photos, "few", workers=1)
    assert not predict(photos, "few", profile=True)
    values = {"data": str(photos / "few")}
    assert not count_here("evaluate", config.EvaluateFlags(**values))
    assert not count_here("pipeline", config.PipelineFlags(**values))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert not predict(photos, "few")


def test_an_open_session_is_used(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ray:
        is_initialized = staticmethod(lambda: True)

    monkeypatch.setitem(sys.modules, "ray", Ray)  # type: ignore[arg-type]
    assert not predict(photos, "few")


def test_a_folder_without_images_is_refused(photos: Path) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        predict(photos, "empty")


UNWANTED = "ray", "matplotlib", "pyarrow", "boto3"
SCRIPT = """
import sys
from carvana_ray.stages.command_line import run_command
code = run_command(sys.argv[1], sys.argv[2:])
print("imported:", *sys.modules, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("job", ["cutout", "predict"])
def test_a_job_of_few_images_imports_no_ray(job: str, tmp_path: Path) -> None:
    write_model(tmp_path / "model", UNet(base=2), downscale=8)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/car.jpg").write_bytes(draw_pair(0, (320, 480))[0])
    flags = ["--data", tmp_path / "photos", "--model", tmp_path / "model", "--out", tmp_path / "o"]
    ours = "RAY_ADDRESS", "OMP_WAIT_POLICY"
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, job, *map(str, flags)],
        env={**environment, "PYTHONPATH": str(REPOSITORY), "OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "128 images or fewer: runs without Ray; --ray always uses it" in done.stderr
    (imported,) = [line for line in done.stderr.splitlines() if line.startswith("imported: ")]
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr, "torch's OpenMP read it as it was loaded"
    unwanted = UNWANTED if job == "cutout" else ("ray",)
    assert not set(unwanted) & set(imported.split())
    assert (tmp_path / "o").exists()
