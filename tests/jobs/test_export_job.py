"""The export job writes a verified file, or keeps the existing one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import REPOSITORY, Run, result_of
from support.export_models import exported_bytes, write_export_model
from support.pairs import draw_pair

from carvana_ray.checkpoints.model import load_model
from carvana_ray.config import ExportFlags
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.export import onnx, verify
from carvana_ray.export.verify import ExportedModel
from carvana_ray.stages import export

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def run_without_packages(*flags: object) -> subprocess.CompletedProcess[str]:
    """Run the job as if onnxruntime and onnxscript were not installed."""
    hidden = "import sys; sys.modules.update(onnxscript=None, onnxruntime=None)\n"
    code = f"{hidden}from carvana_ray.stages.command_line import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, "export", *map(str, flags)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_job_writes_a_verified_file(tmp_path: Path, run_job: Run) -> None:
    model = write_export_model(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        (tmp_path / f"photos/{seed}.jpg").write_bytes(draw_pair(seed, (333, 501))[0])
    done = run_job("export", model, "--data", tmp_path / "photos", "--limit", 2)
    result = result_of(done)
    assert result["job"] == "export"
    assert result["images"] == 2
    assert result["pixels_differ"] <= 2 * 3 * verify.TOLERATED_FRACTION * 333 * 501
    assert "ray" not in done.stderr.lower().replace("carvana_ray", "")
    file = ExportedModel((model / "model.onnx").read_bytes())
    assert result["onnx"] == str(model / "model.onnx")
    manifest = json.loads((model / "manifest.json").read_text())
    assert file.metadata["carvana_ray.model_sha256"] == manifest["sha256"]
    load_model(str(model))  # the folder is still a valid model


def test_missing_packages_are_named_with_the_install_command(tmp_path: Path) -> None:
    done = run_without_packages(write_export_model(tmp_path / "model"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "export: error: to export, onnxscript must be installed: "
        "pip install onnx onnxscript onnxruntime"
    ]


@pytest.mark.parametrize("fault", ["no model", "weights", "format", "image"])
def test_a_failed_export_keeps_the_existing_file(fault: str, tmp_path: Path, run_job: Run) -> None:
    model = write_export_model(tmp_path / "model")
    out, flags = tmp_path / "old.onnx", []
    out.write_bytes(b"existing")
    if fault == "no model":
        model = tmp_path / "nowhere"
    elif fault == "weights":
        weights = bytearray((model / "model.pt").read_bytes())
        weights[len(weights) // 2] ^= 1
        (model / "model.pt").write_bytes(weights)
    elif fault == "format":
        text = (model / "manifest.json").read_text()
        (model / "manifest.json").write_text(text.replace('"format": 1', '"format": 99'))
    else:
        (tmp_path / "bad.jpg").write_bytes(b"not an image")
        flags = ["--data", tmp_path]
    done = run_job("export", model, "--out", out, *flags)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert out.read_bytes() == b"existing"
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "old.onnx", "bad.jpg"}


@pytest.mark.slow
def test_a_file_with_wrong_masks_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_export_model(tmp_path / "model")
    (tmp_path / "a.jpg").write_bytes(draw_pair(1, (333, 501))[0])
    out = tmp_path / "old.onnx"
    out.write_bytes(b"existing")
    wrong = exported_bytes("none", 4, "picture")
    monkeypatch.setattr(onnx, "to_onnx", lambda *_: wrong)
    with pytest.raises(IncompleteError, match="differ from torch's"):
        export.run(ExportFlags(model=str(model), out=str(out), data=str(tmp_path)))
    assert out.read_bytes() == b"existing"


@pytest.mark.slow
def test_without_onnxruntime_an_unverified_file_is_written_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = exported_bytes("batch", 8, "picture")
    monkeypatch.setattr(onnx, "to_onnx", lambda *_: data)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "new/car.onnx"
    result = export.run(
        ExportFlags(model=str(write_export_model(tmp_path / "model")), out=str(out))
    )
    assert (result["images"], result["pixels_differ"], result["dice"]) == (0, None, None)
    assert "NOT verified" in caplog.text
    assert "pip install" in caplog.text
    assert out.read_bytes() == data


def test_invalid_flags_are_named() -> None:
    with pytest.raises(InputError, match="--model is missing"):
        ExportFlags()
    with pytest.raises(InputError, match="--out car"):
        ExportFlags(model="model", out="car.pt")
    with pytest.raises(InputError, match="--limit 0"):
        ExportFlags(model="model", limit=0)
    with pytest.raises(InputError, match="--input jpeg"):
        ExportFlags(model="model", input="jpeg")  # type: ignore[arg-type]
    assert ExportFlags(model="runs/model/").out_uri == "runs/model/model.onnx"
