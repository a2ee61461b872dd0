"""A model folder loads completely or is refused: round trip, and every kind of damage."""

import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.damage import DAMAGES, SAVES, change_manifest, evil_was_here, plant
from support.models import write_model

from carvana_ray.checkpoints.model import (
    ModelManifest,
    ModelRef,
    load_history,
    load_manifest,
    load_model,
    save_half,
    sha256,
    to_bytes,
)
from carvana_ray.errors import IncompleteError, InputError
from carvana_ray.unet.network import UNet, UNetConfig


def write(folder: Path, model: UNet) -> ModelManifest:
    return write_model(folder, model, metrics={"epoch": 1, "loss": 0.25})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write(tmp_path / "model", UNet(base=2))
    return tmp_path / "model"


def test_a_model_loads_as_it_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet(base=2)
    manifest = write(tmp_path / "model", model)
    loaded, manifest_read = load_model(str(tmp_path / "model"))
    assert manifest_read == manifest
    assert not loaded.training
    image = torch.randn(1, 1, 32, 32)
    assert torch.equal(loaded(image), model.eval()(image))
    assert load_history(str(tmp_path / "model")) == [{"epoch": 1, "loss": 0.25}]


def test_the_manifest_names_the_encoder_if_there_is_one(tmp_path: Path) -> None:
    """Manifests of networks without one are as before, and load."""
    design = UNetConfig(base=2, norm="batch", fold=2, encoder="lite0")
    manifest = write_model(tmp_path / "model", design.build(), unet=design)
    assert manifest.to_json()["network"]["encoder"] == "lite0"
    loaded, manifest_read = load_model(str(tmp_path / "model"))
    assert manifest_read == manifest
    assert loaded.encoder is not None
    assert "encoder" not in UNetConfig(base=2, norm="batch", fold=2).to_json()


def test_half_weights_are_those_of_the_model_rounded_to_float16(
    folder: Path, tmp_path: Path
) -> None:
    network, manifest = load_model(str(folder))
    half = save_half(str(tmp_path / "half"), str(folder))
    assert json.loads((tmp_path / "half" / "manifest.json").read_text())["format"] == 2
    loaded, read = load_model(str(tmp_path / "half"))
    assert read == half
    assert replace(half, half=False, sha256=manifest.sha256) == manifest
    for name, value in network.state_dict().items():
        exact = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], exact), name
        assert loaded.state_dict()[name].dtype == value.dtype
    sizes = [(f / "model.pt").stat().st_size for f in (tmp_path / "half", folder)]
    assert sizes[0] < 0.9 * sizes[1]  # tiny tensors: most of both files is names


def test_half_weights_are_refused_where_float32_is_said_and_where_they_overflow(
    folder: Path, tmp_path: Path
) -> None:
    save_half(str(tmp_path / "half"), str(folder))
    change_manifest(tmp_path / "half", format=1)
    with pytest.raises(InputError, match=r"is torch\.float16"):
        load_model(str(tmp_path / "half"))
    model = UNet(base=2)
    torch.nn.init.constant_(model.head.bias, 1e5)
    write(folder, model)
    with pytest.raises(InputError, match="larger than float16 can hold"):
        save_half(str(tmp_path / "half"), str(folder))


def test_the_manifest_has_everything_that_prediction_needs(folder: Path) -> None:
    text = json.loads((folder / "manifest.json").read_text())
    assert text["format"] == 1
    assert text["network"] == {"kind": "unet", "base": 2, "norm": "batch", "fold": 1}
    assert text["preprocessing"]["downscale"] == 8
    assert text["holdout_cars"] == ["a"]


def test_another_model_than_the_expected_one_is_refused(folder: Path, tmp_path: Path) -> None:
    checked = ModelRef(str(folder), load_manifest(str(folder)).sha256)
    assert checked.load()[1].sha256 == checked.sha256
    folder.rename(tmp_path / "original")
    write(folder, UNet(base=2))
    with pytest.raises(InputError, match=f"--model {folder}: another model .*; run .* again"):
        checked.load()
    with pytest.raises(InputError, match=r"--init-from .* another model was written there"):
        load_model(str(folder), "--init-from", checked.sha256)


def test_a_failure_is_blamed_on_a_model_that_was_exchanged(folder: Path, tmp_path: Path) -> None:
    checked = ModelRef(str(folder), load_manifest(str(folder)).sha256)
    with pytest.raises(IncompleteError, match="disk"), checked.blamed():
        raise IncompleteError("the disk")
    folder.rename(tmp_path / "original")
    with pytest.raises(InputError, match="no model there"), checked.blamed():
        raise IncompleteError("the disk")
    write(folder, UNet(base=2))
    with pytest.raises(InputError, match="another model was written there"), checked.blamed():
        raise IncompleteError("the disk")
    with checked.blamed():
        pass  # what is done is right


def test_the_history_of_another_model_is_refused(folder: Path) -> None:
    manifest = load_manifest(str(folder))
    assert load_history(str(folder), manifest) == [manifest.metrics]
    (folder / "history.json").write_text('[{"epoch": 1, "loss": 0.26}]')
    with pytest.raises(InputError, match=r"history\.json: the history of another model"):
        load_history(str(folder), manifest)


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "model.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.pt").write_bytes(data)


def truncate(folder: Path) -> None:
    (folder / "model.pt").write_bytes((folder / "model.pt").read_bytes()[:-100])


def weights_of(folder: Path, model: torch.nn.Module) -> None:
    """Replace the weights by those of another network, with a correct hash."""
    data = to_bytes(dict(model.state_dict()))
    (folder / "model.pt").write_bytes(data)
    change_manifest(folder, sha256=sha256(data))


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
        (lambda f: (f / "manifest.json").write_text("{"), "damaged, not a manifest"),
        (lambda f: (f / "manifest.json").write_text("[]"), "damaged, not a manifest"),
        (lambda f: change_manifest(f, format=3), "format 3, this version reads formats 1 and 2"),
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
        load_model(str(folder))
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_model_is_refused_in_one_line_that_names_it(folder: Path, name: str) -> None:
    reason = plant(folder, SAVES["model"], name)
    with pytest.raises(InputError, match=reason) as error:
        load_model(str(folder))
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert not evil_was_here(folder)


def load_outcome(folder: Path) -> str:
    try:
        load_model(str(folder))
    except InputError as error:
        one_line = str(folder) in str(error) and "\n" not in str(error)
        return "refused" if one_line else str(error)
    return "loaded"


@pytest.mark.filterwarnings("ignore")
def test_damage_with_a_correct_hash_is_refused_or_loads_as_numbers(folder: Path) -> None:
    """Changed bytes in the file's pickle raise nothing but `InputError`."""
    file, rng = folder / "model.pt", random.Random(0)
    good = file.read_bytes()
    with zipfile.ZipFile(file) as parts:
        begin = next(i.header_offset for i in parts.infolist() if i.filename.endswith("data.pkl"))
    outcomes = []
    for _ in range(100):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 4))):
            data[begin + rng.randrange(6000)] = rng.randrange(256)
        SAVES["model"].put(folder, bytes(data))
        outcomes.append(load_outcome(folder))
    assert set(outcomes) <= {"refused", "loaded"}
    assert outcomes.count("refused") > 25
    assert not list(folder.glob("evil*"))


@pytest.mark.parametrize("data", [b"\x80", b"\x80\x02.", b"PK\x03\x04", b"{}", b"\x80\x02K\x01."])
def test_a_few_bytes_with_a_correct_hash_are_refused(folder: Path, data: bytes) -> None:
    SAVES["model"].put(folder, data)
    assert load_outcome(folder) == "refused"


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "1", "null", '"format"', "\xff", '{"format": ']
)
def test_an_invalid_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.json: damaged, not a manifest"):
        load_model(str(folder))


def test_values_that_cannot_be_loaded_again_are_refused() -> None:
    with pytest.raises(Exception, match=r"(?i)weights.?only"):
        to_bytes({"epoch": Path("a path is no plain value")})
