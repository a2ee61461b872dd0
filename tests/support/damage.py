"""Kinds of damage to a model folder or a checkpoint, each with the words of its refusal."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from carvana_ray.checkpoints.model import WEIGHTS, from_bytes, sha256, to_bytes
from carvana_ray.checkpoints.train_state import STATE


def change_manifest(folder: Path, **changes: object) -> None:
    text = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(text | changes))


class Evil:
    """Creates a folder when it is unpickled without the guard of `weights_only`."""

    def __init__(self, folder: Path) -> None:
        self.mark = str(folder / "evil-was-here")

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.mark,))


def evil_was_here(folder: Path) -> bool:
    return (folder / "evil-was-here").exists()


@dataclass(frozen=True)
class Saved:
    """A kind of folder with a manifest and a file of tensors: a model or a checkpoint."""

    file: str
    weights: Callable[[dict[str, Any]], dict[str, Any]]

    def put(self, folder: Path, data: bytes) -> None:
        """Write the file, and its hash to the manifest."""
        (folder / self.file).write_bytes(data)
        change_manifest(folder, sha256=sha256(data))

    def change(self, folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the weights in the file, and its hash in the manifest."""
        values = from_bytes((folder / self.file).read_bytes())
        change(self.weights(values))
        self.put(folder, to_bytes(values))


SAVES = {
    "model": Saved(WEIGHTS, lambda values: values),
    "state": Saved(STATE, lambda values: values["model"]),
}


def evil_pickle(folder: Path, saved: Saved) -> None:
    values = from_bytes((folder / saved.file).read_bytes())
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


NO_WEIGHTS = "not (the weights of its manifest|a usable checkpoint): "


DAMAGES: dict[str, tuple[Callable[[Path, Saved], object], str]] = {
    "evil pickle": (evil_pickle, NO_WEIGHTS + "Weights only"),
    "bare evil pickle": (bare_evil_pickle, NO_WEIGHTS + "Weights only"),
    "torn": (lambda f, s: (f / s.file).write_bytes(half(f, s)), "damaged, its SHA-256"),
    "torn, its hash right": (lambda f, s: s.put(f, half(f, s)), NO_WEIGHTS),
    "flipped bit": (flipped_bit, "damaged, its SHA-256"),
    "weight not a number": (
        lambda f, s: s.change(f, lambda w: w["head.bias"].fill_(float("nan"))),
        NO_WEIGHTS + r"head\.bias has values that are not finite",
    ),
    "wrong shape": (
        lambda f, s: s.change(f, lambda w: w.update({"head.weight": torch.zeros(1, 3, 1, 1)})),
        NO_WEIGHTS + r"head\.weight is torch\.float32 \(1, 3, 1, 1\)",
    ),
    "missing manifest": (
        lambda f, _: (f / "manifest.json").unlink(),
        r"manifest\.json: no such|no model",
    ),
    "other format": (lambda f, _: change_manifest(f, format=3), "format 3, this version reads"),
    "empty file": (lambda f, s: s.put(f, b""), NO_WEIGHTS),
}


def plant(folder: Path, saved: Saved, name: str) -> str:
    """Damage a good folder; return a regular expression that the refusal must match."""
    damage, reason = DAMAGES[name]
    damage(folder, saved)
    return reason
