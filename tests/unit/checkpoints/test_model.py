"""A model folder is whole or refused: round trip, and every way to damage it."""

import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import write_model

from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.checkpoints import train_state as states
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.errors import InputError
from carvana_ray.unet.network import UNet


def write(folder: Path, model: UNet) -> ModelManifest:
    return write_model(folder, model, [{"epoch": 1, "loss": 0.25}])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write(tmp_path / "model", UNet(base=2))
    return tmp_path / "model"


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet(base=2)
    manifest = write(tmp_path / "model", model)
    again, found = checkpoint.load_model(str(tmp_path / "model"))
    assert found == manifest
    assert not again.training
    picture = torch.randn(1, 1, 32, 32)
    assert torch.equal(again(picture), model.eval()(picture))
    assert checkpoint.load_history(str(tmp_path / "model")) == [{"epoch": 1, "loss": 0.25}]


def test_the_manifest_tells_a_reader_all_that_prediction_needs(folder: Path) -> None:
    text = json.loads((folder / "manifest.json").read_text())
    assert text["format"] == 1
    assert text["network"] == {"kind": "unet", "base": 2, "norm": "batch", "fold": 1}
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
    change_manifest(folder, sha256=checkpoint.sha256(data))


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
        checkpoint.load_model(str(folder))
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


class Evil:
    """Makes a folder where it is unpickled without care."""

    def __init__(self, folder: Path) -> None:
        self.mark = str(folder / "evil-was-here")

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.mark,))


def evil_was_here(folder: Path) -> bool:
    return (folder / "evil-was-here").exists()


@dataclass(frozen=True)
class Saved:
    """A kind of folder with a manifest and one file of tensors: a model's, or a state's."""

    file: str
    weights: Callable[[dict[str, Any]], dict[str, Any]]

    def put(self, folder: Path, data: bytes) -> None:
        """Write the file, and its hash into the manifest."""
        (folder / self.file).write_bytes(data)
        change_manifest(folder, sha256=checkpoint.sha256(data))

    def change(self, folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the weights within the file, whose hash is right afterwards."""
        values = checkpoint.from_bytes((folder / self.file).read_bytes())
        change(self.weights(values))
        self.put(folder, checkpoint.to_bytes(values))

    def make(self, folder: Path) -> None:
        """Write a good model folder."""
        torch.manual_seed(0)
        write(folder, UNet(base=2))


SAVES = {
    "model": Saved(checkpoint.WEIGHTS, lambda values: values),
    "state": Saved(states.STATE, lambda values: values["model"]),
}


def evil_pickle(folder: Path, saved: Saved) -> None:
    values = checkpoint.from_bytes((folder / saved.file).read_bytes())
    saved.weights(values)["evil"] = Evil(folder)
    torch.save(values, folder / saved.file)
    saved.put(folder, (folder / saved.file).read_bytes())


def bare_evil_pickle(folder: Path, saved: Saved) -> None:
    saved.put(folder, pickle.dumps(Evil(folder), protocol=2))


def half(folder: Path, saved: Saved) -> bytes:
    data = (folder / saved.file).read_bytes()
    return data[: len(data) // 2]


def flipped_bit(folder: Path, saved: Saved) -> None:
    data = bytearray((folder / saved.file).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / saved.file).write_bytes(data)


NO_WEIGHTS = "not (the weights of its manifest|a state to go on from): "
DAMAGES: dict[str, tuple[Callable[[Path, Saved], object], str]] = {
    "evil pickle": (evil_pickle, NO_WEIGHTS + "Weights only"),
    "bare evil pickle": (bare_evil_pickle, NO_WEIGHTS + "Weights only"),
    "torn": (lambda f, s: (f / s.file).write_bytes(half(f, s)), "damaged, its SHA-256"),
    "torn, its hash right": (lambda f, s: s.put(f, half(f, s)), NO_WEIGHTS),
    "flipped bit": (flipped_bit, "damaged, its SHA-256"),
    "weight not a number": (
        lambda f, s: s.change(f, lambda w: w["head.bias"].fill_(float("nan"))),
        NO_WEIGHTS + r"head\.bias has weights that are not finite",
    ),
    "wrong shape": (
        lambda f, s: s.change(f, lambda w: w.update({"head.weight": torch.zeros(1, 3, 1, 1)})),
        NO_WEIGHTS + r"head\.weight is torch\.float32 \(1, 3, 1, 1\)",
    ),
    "missing manifest": (lambda f, _: (f / "manifest.json").unlink(), r"no manifest\.json"),
    "other format": (lambda f, _: change_manifest(f, format=2), "format 2, this version reads"),
    "empty file": (lambda f, s: s.put(f, b""), NO_WEIGHTS),
}


def plant(folder: Path, saved: Saved, name: str) -> str:
    """Damage a good folder; return what the refusal must say, a regular expression."""
    damage, reason = DAMAGES[name]
    damage(folder, saved)
    return reason


@pytest.mark.parametrize("name", DAMAGES)
def test_a_planted_model_is_refused_in_one_line_that_names_it(folder: Path, name: str) -> None:
    reason = plant(folder, SAVES["model"], name)
    with pytest.raises(InputError, match=reason) as error:
        checkpoint.load_model(str(folder))
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert not evil_was_here(folder)


def refused_or_taken(folder: Path) -> str:
    try:
        checkpoint.load_model(str(folder))
    except InputError as error:
        one_line = str(folder) in str(error) and "\n" not in str(error)
        return "refused" if one_line else str(error)
    return "taken"


@pytest.mark.filterwarnings("ignore")
def test_any_damage_whose_hash_is_right_is_refused_or_loads_as_numbers(folder: Path) -> None:
    """Nothing but an `InputError`, whatever byte of the file's pickle is another one."""
    file, rng = folder / "model.pt", random.Random(0)
    good = file.read_bytes()
    with zipfile.ZipFile(file) as parts:
        begin = next(i.header_offset for i in parts.infolist() if i.filename.endswith("data.pkl"))
    found = []
    for _ in range(100):
        data = bytearray(good)
        for _ in range(rng.choice((1, 1, 4))):
            data[begin + rng.randrange(6000)] = rng.randrange(256)
        SAVES["model"].put(folder, bytes(data))
        found.append(refused_or_taken(folder))
    assert set(found) <= {"refused", "taken"}
    assert found.count("refused") > 25
    assert not list(folder.glob("evil*"))


@pytest.mark.parametrize("data", [b"\x80", b"\x80\x02.", b"PK\x03\x04", b"{}", b"\x80\x02K\x01."])
def test_a_few_bytes_whose_hash_is_right_are_no_weights(folder: Path, data: bytes) -> None:
    SAVES["model"].put(folder, data)
    assert refused_or_taken(folder) == "refused"


@pytest.mark.parametrize(
    "text", ["", "[" * 100_000, "1", "null", '"format"', "\xff", '{"format": ']
)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"manifest\.json: damaged, it is no manifest"):
        checkpoint.load_model(str(folder))


def test_what_does_not_load_again_is_not_written() -> None:
    with pytest.raises(Exception, match=r"(?i)weights.?only"):
        checkpoint.to_bytes({"epoch": Path("a path is no plain value")})
