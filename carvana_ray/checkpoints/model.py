"""A saved model: one folder with weights, history and everything that prediction needs to know.

    model/model.pt        weights: only tensors, loaded with ``weights_only=True``
    model/history.json    one row for each epoch
    model/manifest.json   written last: hash of the weights, network, preprocessing, held-out cars

A folder without a manifest is not a model. If the weights do not match the hash in the manifest,
the folder is damaged and refused. `train_state` stores training checkpoints by the same rules.
"""

import hashlib
import io
import json
import pickle
import platform
import struct
from dataclasses import dataclass, field
from typing import Any

import torch

from carvana_ray import __version__, images, storage
from carvana_ray.errors import FileMissingError, InputError, first_line
from carvana_ray.unet.network import UNet, UNetConfig

FORMAT = 1
WEIGHTS, HISTORY, MANIFEST = "model.pt", "history.json", "manifest.json"
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
    """The description of a saved model.

    Attributes:
        sha256: hash of the weights file, hexadecimal.
        unet: the network's configuration.
        downscale: factor from full size to the network's grid, see `images.load_gray`.
        height, width: full size of the training images, in pixels.
        training: the flags of the training job.
        run: id of the training run.
        holdout_cars, val_cars: cars that training never used.
        metrics: the history row of the epoch that was saved.
        tta_flip: prediction averages each image with its mirror image.
        skipped: training images and masks that were left out, each with its reason.
        started_from: SHA-256 of the weights that training started from, followed by the hashes that
            those weights started from; empty if training started from random weights.
        train_cars: cars of this training and of all trainings that it started from.
    """

    sha256: str
    unet: UNetConfig
    downscale: int
    height: int
    width: int
    training: dict[str, Any]
    run: str
    holdout_cars: list[str]
    val_cars: list[str]
    metrics: dict[str, float]
    tta_flip: bool = False
    skipped: list[str] = field(default_factory=list)
    started_from: list[str] = field(default_factory=list)
    train_cars: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of ``manifest.json``."""
        return {
            "format": FORMAT,
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
        """Return the manifest of a JSON object; keys unknown to older versions are optional.

        Raises:
            KeyError, TypeError: a key is missing.
        """
        network, preprocessing = values["network"], values["preprocessing"]
        return cls(
            sha256=values["sha256"],
            unet=UNetConfig(
                base=network["base"], norm=network["norm"], fold=network.get("fold", 1)
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


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def save_model(
    folder: str, weights: bytes, manifest: ModelManifest, history: list[dict[str, float]]
) -> None:
    """Write a model folder, the manifest last.

    Args:
        folder: URI of the folder; existing files are replaced.
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


def read_verified(folder: str, name: str) -> bytes:
    """Return the bytes of a file in a folder after comparing them with the manifest's SHA-256.

    Raises:
        InputError: the manifest is missing or has another format number, or a file is damaged.
    """
    manifest = _read_manifest(folder)
    uri = storage.join(folder, name)
    data = storage.read(uri)
    if sha256(data) != manifest.get("sha256"):
        raise InputError(f"{uri}: damaged, its SHA-256 is not the one in {MANIFEST}")
    return data


def _read_manifest(folder: str) -> dict[str, Any]:
    uri = storage.join(folder, MANIFEST)
    try:
        data = storage.read(uri)
    except FileMissingError:
        raise InputError(f"{folder}: no {MANIFEST} in this folder") from None
    try:
        manifest = json.loads(data)
        number = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{uri}: damaged, not a manifest") from error
    if number != FORMAT:
        raise InputError(
            f"{uri}: format {number}, this version reads format {FORMAT}; train again, or use the "
            "version that wrote it"
        )
    return manifest


def load_manifest(folder: str, flag: str = "--model") -> ModelManifest:
    """Return the manifest of a model folder.

    Args:
        folder: URI of the folder.
        flag: the flag that named the folder, for error messages.

    Raises:
        InputError: the folder is not a model, has another format number, or is damaged.
    """
    uri = storage.join(folder, MANIFEST)
    if not storage.exists(uri):
        raise InputError(f"{flag} {folder}: no model there (no {MANIFEST}); train one first")
    values = _read_manifest(folder)
    try:
        manifest = ModelManifest.from_json(values)
    except (KeyError, TypeError) as error:
        raise InputError(f"{flag} {uri}: damaged, {error} is missing") from error
    if manifest.downscale not in images.DOWNSCALES:
        raise InputError(f"{flag} {uri}: damaged, downscale is {manifest.downscale}")
    return manifest


def load_history(folder: str) -> list[dict[str, float]]:
    """Return the history of a model folder, one row for each epoch."""
    return json.loads(storage.read(storage.join(folder, HISTORY)))


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


def load_model(folder: str, flag: str = "--model") -> tuple[UNet, ModelManifest]:
    """Return the network of a model folder, on the CPU in evaluation mode, and its manifest.

    Args:
        folder: URI of the folder.
        flag: the flag that named the folder, for error messages.

    Raises:
        InputError: see `load_manifest`; or the weights do not match their hash or the network, or
            are not all finite.
    """
    manifest = load_manifest(folder, flag)
    data = read_verified(folder, WEIGHTS)
    try:
        weights = from_bytes(data)
        require_matching_weights(weights, manifest.unet)
    except LOAD_ERRORS as error:
        uri = storage.join(folder, WEIGHTS)
        raise InputError(
            f"{flag} {uri}: not the weights of its manifest: {first_line(error)}"
        ) from error
    model = manifest.unet.build()
    model.load_state_dict(weights)
    return model.eval(), manifest


def describe_network(recipe: str, base: int, downscale: int) -> str:
    """Return a network in words: ``recipe best, 32 channels, full size``."""
    grid = "full size" if downscale == 1 else f"1/{downscale} of the size"
    return f"recipe {recipe}, {base} channels, {grid}"


def describe_model(manifest: ModelManifest) -> str:
    """Return the network of a saved model in words, see `describe_network`."""
    recipe = manifest.training.get("recipe", "unknown")
    return describe_network(recipe, manifest.unet.base, manifest.downscale)
