"""A saved model: one folder with weights, history and all settings that prediction needs.

    model/model.pt        weights: only tensors, loaded with ``weights_only=True``
    model/history.json    one row for each epoch
    model/manifest.json   written last: hash of the weights, network, preprocessing, held-out cars

A folder without a manifest is not a model. If the weights do not match the hash in the manifest,
the folder is damaged and refused. `train_state` stores training checkpoints by the same rules.
"""

import contextlib
import hashlib
import io
import json
import pickle
import platform
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from carvana_ray import __version__, images, storage
from carvana_ray.checkpoints.manifest import (
    FORMAT,
    HALF_FORMAT,
    MANIFEST,
    model_file,
    read_model_manifest,
)
from carvana_ray.errors import InputError, first_line
from carvana_ray.unet.network import UNet, UNetConfig

WEIGHTS, HISTORY = "model.pt", "history.json"
# What torch.load, and checks of its result, raise for a file that does not hold weights.
LOAD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True)
class ModelManifest:
    """The description of a saved model."""

    sha256: str  # of the weights file, hexadecimal
    unet: UNetConfig
    downscale: int  # from full size to the network's grid, see `images.load_gray`
    height: int  # full size of the training images, in pixels
    width: int
    training: dict[str, Any]  # flags of the training job
    run: str  # id of the training run
    holdout_cars: list[str]  # training never used these cars
    val_cars: list[str]  # nor these
    metrics: dict[str, float]  # history row of the saved epoch
    tta_flip: bool = False  # prediction averages each image with its mirror image
    skipped: list[str] = field(default_factory=list)  # bad training files, each with its reason
    # SHA-256 of the weights that training started from, then of those that these started from;
    # empty if training started from random weights.
    started_from: list[str] = field(default_factory=list)
    # Cars of this training and of all trainings that it started from.
    train_cars: list[str] = field(default_factory=list)
    half: bool = False  # the weights file holds float16, half the size

    def to_json(self) -> dict[str, Any]:
        return {
            "format": HALF_FORMAT if self.half else FORMAT,
            "sha256": self.sha256,
            "network": self.unet.to_json(),
            "preprocessing": {
                "channels": "mean of red, green, blue",
                "downscale": self.downscale,
                "standardize": "each picture by its own mean and standard deviation",
                "mirror": self.tta_flip,
            },
            "trained_on": {"height": self.height, "width": self.width},
            "run": self.run,
            "metrics": self.metrics,
            "holdout_cars": self.holdout_cars,
            "val_cars": self.val_cars,
            "skipped": self.skipped,
            "started_from": self.started_from,
            "train_cars": self.train_cars,
            "training": self.training,
            "versions": {
                "carvana_ray": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelManifest":
        """Return the manifest of a JSON object. Keys unknown to older versions are optional."""
        network, preprocessing = values["network"], values["preprocessing"]
        return cls(
            sha256=values["sha256"],
            unet=UNetConfig(
                network["base"],
                network["norm"],
                network.get("fold", 1),
                network.get("encoder", "none"),
            ),
            downscale=preprocessing["downscale"],
            height=values["trained_on"]["height"],
            width=values["trained_on"]["width"],
            training=values["training"],
            run=values["run"],
            holdout_cars=values["holdout_cars"],
            val_cars=values["val_cars"],
            metrics=values["metrics"],
            tta_flip=preprocessing.get("mirror", False),
            skipped=values.get("skipped", []),
            started_from=values.get("started_from", []),
            train_cars=values.get("train_cars", []),
            half=values["format"] == HALF_FORMAT,
        )


def to_bytes(values: dict[str, Any]) -> bytes:
    """Serialize tensors and plain Python values, and check that the bytes can be loaded again."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    data = buffer.getvalue()
    from_bytes(data)
    return data


def from_bytes(data: bytes) -> dict[str, Any]:
    """Load the output of `to_bytes` on the CPU. Never executes code from the file."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def cast_weights(
    weights: dict[str, torch.Tensor], before: torch.dtype, after: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return weights with all tensors of dtype `before` as `after`; others stay as they are."""
    return {k: v.to(after) if v.dtype == before else v for k, v in weights.items()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save_model(
    folder: str, weights: bytes, manifest: ModelManifest, history: list[dict[str, float]]
) -> None:
    """Write a model folder, the manifest last. Existing files are replaced.

    Args:
        folder: URI of the folder.
        weights: the state dict as `to_bytes` returns it.
        manifest: its `sha256` must be that of `weights`.
        history: one row for each epoch.
    """
    files = {
        WEIGHTS: weights,
        HISTORY: json.dumps(history, indent=1).encode(),
        MANIFEST: json.dumps(manifest.to_json(), indent=1).encode(),
    }
    for name, data in files.items():
        storage.write_atomic(storage.join(folder, name), data, replace=True)


def save_half(folder: str, source: str) -> ModelManifest:
    """Write a copy of the model in `source` with weights in float16; return its manifest.

    Raises:
        InputError: see `load_model`; or a weight is too large for float16.
    """
    network, manifest = load_model(source)
    weights = cast_weights(network.state_dict(), torch.float32, torch.float16)
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise InputError(f"{source}: a weight is larger than float16 can hold")
    data = to_bytes(weights)
    half = replace(manifest, sha256=sha256(data), half=True)
    save_model(folder, data, half, load_history(source, manifest))
    return half


def read_verified(uri: str, digest: str | None) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: the file is missing, or its SHA-256 is not that of the manifest, `digest`.
    """
    data = storage.read(uri)
    if sha256(data) != digest:
        raise InputError(f"{uri}: damaged, its SHA-256 is not the one in {MANIFEST}")
    return data


def load_manifest(folder: str, flag: str = "--model", sha256: str | None = None) -> ModelManifest:
    """Return the manifest of a model folder.

    Args:
        folder: URI of the folder, or `STARTER`, see `resolve_model`.
        flag: the flag that named the folder, for error messages.
        sha256: of the weights that the caller expects, if it knows them.

    Raises:
        InputError: the folder is not a model, has another format number, is damaged, or holds
            another model than the caller expects.
    """
    uri = model_file(folder, MANIFEST)
    try:
        manifest = ModelManifest.from_json(read_model_manifest(folder, flag))
    except (KeyError, TypeError) as error:
        raise InputError(f"{flag} {uri}: damaged, {error} is missing") from error
    if manifest.downscale not in images.DOWNSCALES:
        raise InputError(f"{flag} {uri}: damaged, downscale is {manifest.downscale}")
    if sha256 not in (None, manifest.sha256):
        raise InputError(
            f"{flag} {folder}: another model was written there while this job ran; run the command "
            "again"
        )
    return manifest


def load_history(folder: str, manifest: ModelManifest | None = None) -> list[dict[str, float]]:
    """Return the history of a model folder, one row for each epoch.

    Raises:
        InputError: the file is missing, or is not the history of the model of `manifest`.
    """
    uri = model_file(folder, HISTORY)
    history = json.loads(storage.read(uri))
    if manifest and manifest.metrics not in history:
        raise InputError(
            f"{uri}: the history of another model than that of {MANIFEST}; run the command again"
        )
    return history


def require_matching_weights(weights: dict[str, torch.Tensor], config: UNetConfig) -> None:
    """Check the names, shapes and dtypes of weights against a network, and that all are finite.

    Raises:
        ValueError: the first difference.
    """
    with torch.device("meta"):  # shapes without memory
        expected = config.build().state_dict()
    if set(weights) != set(expected):
        names = sorted(set(weights) ^ set(expected))
        raise ValueError(f"the network and the weights differ in {names[0]}")
    for name, value in weights.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            raise ValueError(
                f"{name} is {value.dtype} {tuple(value.shape)}, the network expects "
                f"{expected[name].dtype} {tuple(expected[name].shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has values that are not finite")


def load_model(
    folder: str, flag: str = "--model", sha256: str | None = None
) -> tuple[UNet, ModelManifest]:
    """Return the network of a model folder, on the CPU in evaluation mode, and its manifest.

    Args:
        folder, flag, sha256: as of `load_manifest`.

    Raises:
        InputError: see `load_manifest`; or the weights do not match their hash or the network, or
            are not all finite.
    """
    manifest = load_manifest(folder, flag, sha256)
    uri = model_file(folder, WEIGHTS)
    data = read_verified(uri, manifest.sha256)
    try:
        weights = from_bytes(data)
        if manifest.half:
            weights = cast_weights(weights, torch.float16, torch.float32)
        require_matching_weights(weights, manifest.unet)
    except LOAD_ERRORS as error:
        problem = f"not the weights of its manifest: {first_line(error)}"
        raise InputError(f"{flag} {uri}: {problem}") from error
    model = manifest.unet.build()
    model.load_state_dict(weights)
    return model.eval(), manifest


@dataclass(frozen=True)
class ModelRef:
    """A model that a job has checked: the URI of its folder, and the SHA-256 of its weights.

    Every process of the job loads the model with it, and so no process uses another model that was
    written into the folder meanwhile.
    """

    uri: str
    sha256: str

    def load(self) -> tuple[UNet, ModelManifest]:
        """Return the result of `load_model`; raises as it does."""
        return load_model(self.uri, sha256=self.sha256)

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Run a block. If it fails after the model was exchanged, raise `InputError` about that."""
        try:
            yield
        except Exception:
            with contextlib.suppress(OSError):  # the error of the block says more
                load_manifest(self.uri, sha256=self.sha256)
            raise


def describe_network(recipe: str, base: int, downscale: int, encoder: str = "none") -> str:
    """Return a network in words: ``recipe best, 32 channels, full size, encoder lite0``."""
    grid = "full size" if downscale == 1 else f"1/{downscale} of the size"
    named = "" if encoder == "none" else f", encoder {encoder}"
    return f"recipe {recipe}, {base} channels, {grid}{named}"


def describe_model(manifest: ModelManifest) -> str:
    """Return the network of a saved model in words, see `describe_network`."""
    recipe = manifest.training.get("recipe", "unknown")
    unet = manifest.unet
    return describe_network(recipe, unet.base, manifest.downscale, unet.encoder)
