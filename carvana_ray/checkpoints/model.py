"""A model on disk: one folder, whole and checked, with all that prediction needs to know.

    model/model.pt        weights: tensors alone, loaded with ``weights_only=True``
    model/history.json    a row an epoch
    model/manifest.json   written last: hash of the weights, network, preprocessing, cars held out

A folder without manifest is no model; one whose weights do not match their hash is a damaged one.
What training goes on from lies in `states`, by the same rules.
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
# What torch.load and a look at its result raise at files that are no weights.
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
    """What a model folder says of itself.

    Attributes:
        sha256: of the weights file.
        design: of the network.
        mirror: see `predictor.Predictor`.
        downscale: full size to the network's grid, see `images.load_gray`.
        height, width: full size of the pictures that it was trained on.
        training: the job's configuration.
        run: identifies the training run.
        holdout_cars, val_cars: cars that never were trained on.
        metrics: the row of the history that was chosen.
        skipped: pictures and masks that could not be used and were left out, and why.
        started_from: SHA-256 of the weights that training started from, then of those that these
            had started from, and so on; empty where it started anew.
        train_cars: cars that it was trained on, and those of all that it started from.
    """

    sha256: str
    design: UNetConfig
    downscale: int
    height: int
    width: int
    training: dict[str, Any]
    run: str
    holdout_cars: list[str]
    val_cars: list[str]
    metrics: dict[str, float]
    mirror: bool = False
    skipped: list[str] = field(default_factory=list)
    started_from: list[str] = field(default_factory=list)
    train_cars: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's JSON object."""
        return {
            "format": FORMAT,
            "sha256": self.sha256,
            "network": self.design.to_json(),
            "preprocessing": {
                "channels": "mean of red, green, blue",
                "downscale": self.downscale,
                "standardize": "each picture by its own mean and standard deviation",
                "mirror": self.mirror,
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
    def from_json(cls, found: dict[str, Any]) -> "ModelManifest":
        """Return the manifest of a JSON object.

        Raises:
            KeyError, TypeError: a key is missing.
        """
        return cls(
            sha256=found["sha256"],
            design=UNetConfig(
                base=found["network"]["base"],
                norm=found["network"]["norm"],
                fold=found["network"].get("fold", 1),
            ),
            mirror=found["preprocessing"].get("mirror", False),
            downscale=found["preprocessing"]["downscale"],
            height=found["trained_on"]["height"],
            width=found["trained_on"]["width"],
            training=found["training"],
            run=found["run"],
            holdout_cars=found["holdout_cars"],
            val_cars=found["val_cars"],
            metrics=found["metrics"],
            skipped=found.get("skipped", []),
            started_from=found.get("started_from", []),
            train_cars=found.get("train_cars", []),
        )


def to_bytes(values: dict[str, Any]) -> bytes:
    """Return tensors and plain Python as the bytes of a file; it is read back once, to be sure."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    data = buffer.getvalue()
    from_bytes(data)
    return data


def from_bytes(data: bytes) -> dict[str, Any]:
    """Return what `to_bytes` wrote, on the CPU. Runs no code of the file."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def sha256(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def save_model(
    folder: str, weights: bytes, manifest: ModelManifest, history: list[dict[str, float]]
) -> None:
    """Write a model folder, the manifest last."""
    storage.write_atomic(storage.join(folder, WEIGHTS), weights, replace=True)
    rows = json.dumps(history, indent=1).encode()
    storage.write_atomic(storage.join(folder, HISTORY), rows, replace=True)
    text = json.dumps(manifest.to_json(), indent=1).encode()
    storage.write_atomic(storage.join(folder, MANIFEST), text, replace=True)


def read_verified(folder: str, name: str) -> tuple[dict[str, Any], bytes]:
    """Return the manifest of a folder, and the bytes of its file `name`, which match their hash.

    Raises:
        InputError: no manifest, another format number, damage.
    """
    found = _read_json(folder)
    uri = storage.join(folder, name)
    data = storage.read(uri)
    if sha256(data) != found.get("sha256"):
        raise InputError(f"{uri}: damaged, its SHA-256 is not the manifest's")
    return found, data


def _read_json(folder: str) -> dict[str, Any]:
    uri = storage.join(folder, MANIFEST)
    try:
        data = storage.read(uri)
    except FileMissingError:
        raise InputError(f"{folder}: no {MANIFEST} there") from None
    try:
        found = json.loads(data)
        number = found["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{uri}: damaged, it is no manifest") from error
    if number != FORMAT:
        raise InputError(
            f"{uri}: format {number}, this version reads format {FORMAT}; train again, or use the "
            "version that wrote it"
        )
    return found


def load_manifest(folder: str, flag: str = "--model") -> ModelManifest:
    """Return the manifest of a model folder; `flag` is who named it, for messages.

    Raises:
        InputError: no model, another format number, a damaged manifest.
    """
    uri = storage.join(folder, MANIFEST)
    if not storage.exists(uri):
        raise InputError(f"{flag} {folder}: no model there (no {MANIFEST}); train one first")
    found = _read_json(folder)
    try:
        manifest = ModelManifest.from_json(found)
    except (KeyError, TypeError) as error:
        raise InputError(f"{flag} {uri}: damaged, {error} is missing") from error
    if manifest.downscale not in images.DOWNSCALES:
        raise InputError(f"{flag} {uri}: damaged, downscale is {manifest.downscale}")
    return manifest


def load_history(folder: str) -> list[dict[str, float]]:
    """Return the rows of a model folder's history."""
    return json.loads(storage.read(storage.join(folder, HISTORY)))


def require_matching_weights(weights: dict[str, torch.Tensor], design: UNetConfig) -> None:
    """Raise `ValueError` if weights are not those of a network, all of them, and all finite."""
    with torch.device("meta"):  # shapes alone
        expected = design.build().state_dict()
    if set(weights) != set(expected):
        odd = sorted(set(weights) ^ set(expected))
        raise ValueError(f"not the weights of its network: {odd[0]}")
    for name, value in weights.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            raise ValueError(
                f"{name} is {value.dtype} {tuple(value.shape)}, its network has "
                f"{expected[name].dtype} {tuple(expected[name].shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has weights that are not finite numbers")


def load_model(folder: str, flag: str = "--model") -> tuple[UNet, ModelManifest]:
    """Return the network, on the CPU and in evaluation mode, and the manifest of a model folder.

    `flag` is who named the folder, for messages.

    Raises:
        InputError: see `read_manifest`; or the weights do not match their hash or the network, or
            are not all finite.
    """
    manifest = load_manifest(folder, flag)
    uri = storage.join(folder, WEIGHTS)
    _, data = read_verified(folder, WEIGHTS)
    try:
        weights = from_bytes(data)
        require_matching_weights(weights, manifest.design)
    except LOAD_ERRORS as error:
        raise InputError(
            f"{flag} {uri}: not the weights of its manifest: {first_line(error)}"
        ) from error
    model = manifest.design.build()
    model.load_state_dict(weights)
    return model.eval(), manifest


def describe_network(recipe: str, base: int, downscale: int) -> str:
    """Return what a network is, in words."""
    grid = "full size" if downscale == 1 else f"1/{downscale} of the size"
    return f"recipe {recipe}, {base} channels, {grid}"


def of_model(manifest: ModelManifest) -> str:
    """Return what the network of a model is, in words."""
    return describe_network(
        manifest.training.get("recipe", "unknown"), manifest.design.base, manifest.downscale
    )
