"""An exported file gives the masks of torch, or is not written."""

import dataclasses
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.commands import Run, result_of
from support.models import manifest_of, write_model
from support.pairs import draw_pair

from carvana_ray import config, errors, images
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.cutouts import compositing as cutout
from carvana_ray.export import onnx as export
from carvana_ray.export import verify as exported
from carvana_ray.inference.predictor import Predictor
from carvana_ray.unet.network import UNet, UNetConfig

pytest.importorskip("onnxscript", reason="onnxscript is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SIZES = [(128, 256), (301, 411), (97, 64), (33, 18), (5, 3), (1, 1)]


def network(norm: str, fold: int = 1) -> UNet:
    """Return a small network as if trained: no statistic is 0 or 1, both answers occur."""
    torch.manual_seed(0)
    model = UNet(base=2, norm=norm, fold=fold)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.2, 3)
    return balanced(model.eval(), 4 // fold**2)


def balanced(model: UNet, downscale: int) -> UNet:
    """Set the last layer so that half of a photograph is car."""
    torch.nn.init.normal_(model.head.weight)
    gray = images.to_gray(Image.fromarray(photographs(1, 301, 411)[0]), downscale)
    with torch.no_grad():
        logits = model(torch.from_numpy(images.standardize(gray))[None, None])
        model.head.bias -= logits.median()
        for parameter in model.head.parameters():
            parameter *= 4 / logits.std()
    return model


@functools.cache
def written(norm: str, downscale: int, source: str) -> bytes:
    """Return the exported file of a network; it takes seconds."""
    return export.to_onnx(network(norm), manifest(downscale, norm), source)


def manifest(downscale: int, norm: str) -> checkpoint.ModelManifest:
    return manifest_of(design=UNetConfig(base=2, norm=norm), downscale=downscale)


def model_folder(folder: Path, norm: str = "batch", downscale: int = 8) -> Path:
    write_model(
        folder,
        network(norm),
        design=UNetConfig(base=2, norm=norm),
        downscale=downscale,
        training={},
    )
    return folder


def photographs(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return pictures with large shapes and noise, uint8 [B, H, W, 3]."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), np.int16)
        noise = rng.integers(-20, 21, (height, width, 3))
        found.append((smooth + noise).clip(0, 255).astype(np.uint8))
    return np.stack(found)


@pytest.fixture(scope="module", params=[("batch", 8), ("none", 4)], ids=str)
def of_pictures(request: pytest.FixtureRequest) -> tuple[exported.Exported, Predictor, int]:
    norm, downscale = request.param
    file = exported.Exported(written(norm, downscale, "picture"))
    return file, Predictor(network(norm), torch.device("cpu")), downscale


@pytest.mark.parametrize("downscale", images.DOWNSCALES)
@pytest.mark.parametrize("size", [*SIZES, (40, 61), (7, 8), (63, 62), (24, 35), (19, 44)])
def test_block_means_are_those_of_pillow_to_the_level(
    size: tuple[int, int], downscale: int
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, *size, 3), dtype=np.uint8)
    pixels[10:] &= 1  # few levels: many blocks whose mean lies halfway between two
    expected = [images.to_gray(Image.fromarray(one), downscale) for one in pixels]
    found = export.Masks(torch.nn.Identity(), downscale, "picture").block_means(
        torch.from_numpy(pixels)
    )
    np.testing.assert_array_equal(found.numpy(), np.stack(expected))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_masks_are_those_of_torch_for_any_size_and_number(
    of_pictures: tuple[exported.Exported, Predictor, int], size: tuple[int, int], count: int
) -> None:
    file, ask, downscale = of_pictures
    pixels = photographs(count, *size)
    found, alphas = file.masks(pixels), file.alphas(pixels)
    assert found.shape == alphas.shape == (count, *size)
    assert alphas.dtype == np.uint8
    grays = [images.to_gray(Image.fromarray(one), downscale) for one in pixels]
    shares = ask.soft_masks(np.stack(grays)).numpy()
    expected = images.enlarge(shares, *size)
    assert np.count_nonzero(found != expected) <= exported.TOLERATED * found.size
    soft = np.stack([cutout.soft_alpha(share, *size) for share in shares])
    far = np.abs(alphas.astype(int) - soft) > 2  # a level of share is two of alpha
    assert not far.any()
    np.testing.assert_array_equal(found, alphas >= 128)


def test_the_networks_of_these_tests_find_some_car_and_some_ground(
    of_pictures: tuple[exported.Exported, Predictor, int],
) -> None:
    share = of_pictures[0].masks(photographs(3, 301, 411)).mean()
    assert 0.05 < share < 0.95


def test_the_order_of_colours_does_not_matter(
    of_pictures: tuple[exported.Exported, Predictor, int],
) -> None:
    pixels = photographs(1, 301, 411)
    turned = np.ascontiguousarray(pixels[..., ::-1])
    np.testing.assert_array_equal(of_pictures[0].masks(pixels), of_pictures[0].masks(turned))


@pytest.mark.parametrize("size", [(1280, 1918), (333, 501)])
def test_gray_levels_of_a_jpeg_give_the_masks_of_predict(size: tuple[int, int]) -> None:
    file = exported.Exported(written("batch", 4, "gray"))
    ask = Predictor(network("batch"), torch.device("cpu"))
    jpeg, _ = draw_pair(1, size)
    gray = np.array(images.load_gray(jpeg, 4)[None])
    expected = images.enlarge(ask.soft_masks(gray).numpy(), *size)
    found = file.masks(gray)[:, : size[0], : size[1]]
    assert np.count_nonzero(found != expected) <= exported.TOLERATED * found.size


def test_a_file_says_what_it_is_and_nothing_of_where_it_was_made() -> None:
    data = written("batch", 8, "picture")
    found = exported.Exported(data).metadata
    assert found == export.metadata(manifest(8, "batch"), "picture")
    assert found["carvana_ray.model_sha256"] == checkpoint.sha256(b"")
    assert found["carvana_ray.downscale"] == "8"
    assert json.loads(found["carvana_ray.network"])["norm"] == "batch"
    assert all(isinstance(text, str) and text for text in found.values())
    assert b".py" not in data
    assert str(Path(__file__).parents[3]).encode() not in data


def test_a_folded_network_that_is_asked_of_mirror_images_too() -> None:
    model = network("batch", fold=2)
    design = UNetConfig(base=2, norm="batch", fold=2)
    told = dataclasses.replace(manifest(1, "batch"), design=design, mirror=True)
    file = exported.Exported(export.to_onnx(model, told, "picture"))
    assert file.metadata["carvana_ray.mirror"] == "true"
    ask = Predictor(model, torch.device("cpu"), mirror=True)
    for size in ((64, 96), (65, 97), (64, 97)):
        pixels = photographs(2, *size)
        grays = np.stack([images.to_gray(Image.fromarray(one), 1) for one in pixels])
        expected = images.enlarge(ask.soft_masks(grays).numpy(), *size)
        assert 0.02 < expected.mean() < 0.98
        found = file.masks(pixels)
        assert np.count_nonzero(found != expected) <= exported.TOLERATED * found.size


def test_the_size_that_is_traced_needs_padding_on_every_grid() -> None:
    sides = [
        side for times in images.DOWNSCALES for side in images.grid_size(*export.TRACED, times)
    ]
    assert all(side % 2 for side in sides)


def test_a_file_is_one_by_the_rules_of_onnx() -> None:
    import onnx

    onnx.checker.check_model(written("batch", 8, "picture"), full_check=True)
    onnx.checker.check_model(written("batch", 4, "gray"), full_check=True)


def test_what_the_page_shows_cuts_out_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[3] / "docs/export.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(written("batch", 8, "picture"))
    Path("car.jpg").write_bytes(draw_pair(1, (333, 501))[0])
    made: dict[str, NDArray[np.uint8]] = {}
    exec(code, made)
    alpha = np.asarray(Image.open("car.png"))[..., 3]
    np.testing.assert_array_equal(alpha, made["alpha"][0])
    np.testing.assert_array_equal(alpha >= 128, made["mask"][0] == 255)


def test_the_file_of_another_network_is_refused() -> None:
    data, told = written("batch", 8, "picture"), manifest(8, "batch")
    with pytest.raises(errors.IncompleteError, match="no file was written"):
        exported.check(data, network("none"), told, [draw_pair(1, (301, 411))[0]])


def run(*flags: object) -> subprocess.CompletedProcess[str]:
    """Run the job where onnxruntime and onnxscript are not installed."""
    hidden = "import sys; sys.modules.update(onnxscript=None, onnxruntime=None)\n"
    code = f"{hidden}from jobs import export; sys.exit(export.main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, flags)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_job_writes_a_file_that_is_checked(tmp_path: Path, run_job: Run) -> None:
    model = model_folder(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        (tmp_path / f"photos/{seed}.jpg").write_bytes(draw_pair(seed, (333, 501))[0])
    done = run_job("export", model, "--data", tmp_path / "photos", "--limit", 2)
    result = result_of(done)
    assert result["job"] == "export"
    assert result["images"] == 2
    assert result["pixels_differ"] <= 2 * 3 * exported.TOLERATED * 333 * 501
    assert "ray" not in done.stderr.lower().replace("carvana_ray", "")
    file = exported.Exported((model / "model.onnx").read_bytes())
    assert result["onnx"] == str(model / "model.onnx")
    manifest = json.loads((model / "manifest.json").read_text())
    assert file.metadata["carvana_ray.model_sha256"] == manifest["sha256"]
    checkpoint.load_model(str(model))  # is still one


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path: Path) -> None:
    done = run(model_folder(tmp_path / "model"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "export: error: to export, onnxscript must be installed: "
        "pip install onnx onnxscript onnxruntime"
    ]


@pytest.mark.parametrize("fault", ["no model", "weights", "format", "picture"])
def test_what_cannot_be_exported_costs_nothing(fault: str, tmp_path: Path, run_job: Run) -> None:
    model = model_folder(tmp_path / "model")
    out, flags = tmp_path / "old.onnx", []
    out.write_bytes(b"of before")
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
        (tmp_path / "bad.jpg").write_bytes(b"no picture")
        flags = ["--data", tmp_path]
    done = run_job("export", model, "--out", out, *flags)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert out.read_bytes() == b"of before"
    assert {path.name for path in tmp_path.iterdir()} <= {"model", "old.onnx", "bad.jpg"}


def test_a_file_whose_masks_differ_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3])
    from jobs import export as job

    model = model_folder(tmp_path / "model")
    (tmp_path / "a.jpg").write_bytes(draw_pair(1, (333, 501))[0])
    out = tmp_path / "old.onnx"
    out.write_bytes(b"of before")
    wrong = written("none", 4, "picture")
    monkeypatch.setattr(export, "to_onnx", lambda *_: wrong)
    with pytest.raises(errors.IncompleteError, match="differ from torch's"):
        job.export(config.ExportFlags(model=str(model), out=str(out), data=str(tmp_path)))
    assert out.read_bytes() == b"of before"


def test_without_onnxruntime_a_file_is_written_and_said_to_be_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3])
    from jobs import export as job

    data = written("batch", 8, "picture")
    monkeypatch.setattr(export, "to_onnx", lambda *_: data)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "new/car.onnx"
    result = job.export(
        config.ExportFlags(model=str(model_folder(tmp_path / "model")), out=str(out))
    )
    assert (result["images"], result["pixels_differ"], result["dice"]) == (0, None, None)
    assert "NOT checked" in caplog.text
    assert "pip install" in caplog.text
    assert out.read_bytes() == data


def test_flags_that_cannot_be_are_named() -> None:
    with pytest.raises(errors.InputError, match="--model is missing"):
        config.ExportFlags()
    with pytest.raises(errors.InputError, match="--out car"):
        config.ExportFlags(model="model", out="car.pt")
    with pytest.raises(errors.InputError, match="--limit 0"):
        config.ExportFlags(model="model", limit=0)
    with pytest.raises(errors.InputError, match="--input jpeg"):
        config.ExportFlags(model="model", input="jpeg")  # type: ignore[arg-type]
    assert config.ExportFlags(model="runs/model/").out_uri == "runs/model/model.onnx"
