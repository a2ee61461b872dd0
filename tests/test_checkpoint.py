"""A model folder is whole or refused: round trip, and every way to damage it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from carvana_ray import checkpoint
from carvana_ray.checkpoint import Manifest
from carvana_ray.errors import InputError
from carvana_ray.unet import UNet


def write(folder: Path, model: UNet) -> Manifest:
    weights = checkpoint.to_bytes(dict(model.state_dict()))
    manifest = Manifest(
        sha256=checkpoint.digest(weights),
        base=2,
        norm="batch",
        downscale=8,
        height=1280,
        width=1918,
        training={"seed": 3},
        run="abc",
        holdout_cars=["a"],
        val_cars=["b"],
        metrics={"val_dice": 0.5},
    )
    checkpoint.write_model(str(folder), weights, manifest, [{"epoch": 1, "loss": 0.25}])
    return manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write(tmp_path / "model", UNet(base=2))
    return tmp_path / "model"


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet(base=2)
    manifest = write(tmp_path / "model", model)
    again, found = checkpoint.read_model(str(tmp_path / "model"))
    assert found == manifest
    assert not again.training
    picture = torch.randn(1, 1, 32, 32)
    assert torch.equal(again(picture), model.eval()(picture))
    assert checkpoint.read_history(str(tmp_path / "model")) == [{"epoch": 1, "loss": 0.25}]


def test_the_manifest_tells_a_reader_all_that_prediction_needs(folder: Path) -> None:
    text = json.loads((folder / "manifest.json").read_text())
    assert text["format"] == 1
    assert text["network"] == {"kind": "unet", "base": 2, "norm": "batch"}
    assert text["preprocessing"]["downscale"] == 8
    assert text["holdout_cars"] == ["a"]


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.pt").write_bytes(data)


def truncate(folder: Path) -> None:
    (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:-100])


def change_manifest(folder: Path, **changes: object) -> None:
    text = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(text | changes))


def weights_of(folder: Path, model: torch.nn.Module) -> None:
    """Weights whose hash is right, and that still are not this network's."""
    data = checkpoint.to_bytes(dict(model.state_dict()))
    (folder / "model.pt").write_bytes(data)
    change_manifest(folder, sha256=checkpoint.digest(data))


def not_finite(folder: Path) -> None:
    model = UNet(base=2)
    torch.nn.init.constant_(model.head.bias, float("nan"))
    weights_of(folder, model)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flip_a_bit, "damaged, its SHA-256"),
        (truncate, "damaged, its SHA-256"),
        (lambda f: (f / "model.pt").unlink(), "no such file"),
        (lambda f: (f / "manifest.json").unlink(), "no model there"),
        (lambda f: (f / "manifest.json").write_text("{"), "damaged, it is no manifest"),
        (lambda f: (f / "manifest.json").write_text("[]"), "damaged, it is no manifest"),
        (lambda f: change_manifest(f, format=2), "format 2, this version reads format 1"),
        (lambda f: change_manifest(f, network={"base": 2}), "'norm' is missing"),
        (lambda f: change_manifest(f, preprocessing={"downscale": 3}), "downscale is 3"),
        (lambda f: weights_of(f, UNet(base=4)), "not the weights of its manifest"),
        (lambda f: weights_of(f, UNet(base=2, norm="none")), "not the weights of its manifest"),
        (not_finite, "not finite"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(
    folder: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(folder)
    with pytest.raises(InputError, match=reason) as error:
        checkpoint.read_model(str(folder))
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("evil-was-here"),))  # type: ignore[return-value]


def test_a_weights_file_cannot_run_code(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save(Evil(), folder / "model.pt")
    data = (folder / "model.pt").read_bytes()
    change_manifest(folder, sha256=checkpoint.digest(data))
    with pytest.raises(Exception, match=r"not the weights|weights_only|Weights only"):
        checkpoint.read_model(str(folder))
    assert not (tmp_path / "evil-was-here").exists()


def test_what_does_not_load_again_is_not_written() -> None:
    with pytest.raises(Exception, match=r"(?i)weights.?only"):
        checkpoint.to_bytes({"epoch": Path("a path is no plain value")})
