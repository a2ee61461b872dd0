"""The manifest of a model or checkpoint as a JSON object, read without torch.

It also finds a model: in a folder, or the starter model, which is part of the package.
"""

import json
import os
from typing import Any

from carvana_ray import storage
from carvana_ray.config.flags import STARTER
from carvana_ray.errors import FileMissingError, InputError

# Format 2 is format 1 with weights in float16, which are widened when they are loaded.
FORMAT, HALF_FORMAT = 1, 2
MANIFEST = "manifest.json"
_STARTER_DIR = os.path.join(os.path.dirname(os.path.dirname(__file__)), STARTER)
# What to do about a folder without a model, by the flag that names it.
_REMEDIES = {
    "--model": "train one first, or use --model starter",
    "--init-from": "a run cannot start or resume without its base model: restore that folder or "
    "name another model",
}


def resolve_model(name: str) -> str:
    """Return the URI of a model folder that a flag names, or `STARTER`.

    Each process looks up `STARTER` in its own installation, see `model_file`. A folder of that name
    is ``./starter``.
    """
    return name if name == STARTER else storage.resolve(name)


def cutout_model(model: str, out: str) -> str:
    """Return the model of a cut-out job (see `resolve_model`): --model, OUT/model or the starter.

    Args:
        model: the flag, "" if it is not given.
        out: the flag.
    """
    trained = storage.join(storage.resolve(out), "model")
    if model:
        return resolve_model(model)
    return trained if storage.exists(storage.join(trained, MANIFEST)) else STARTER


def model_file(folder: str, name: str) -> str:
    """Return the URI of a file of a model folder from `resolve_model`."""
    return storage.join(_STARTER_DIR if folder == STARTER else folder, name)


def read_manifest(folder: str) -> dict[str, Any]:
    """Return the JSON object of the manifest of a model or checkpoint.

    Raises:
        FileMissingError: the folder has no manifest.
        InputError: the manifest is damaged or has another format number.
    """
    uri = model_file(folder, MANIFEST)
    data = storage.read(uri)
    try:
        manifest = json.loads(data)
        number = manifest["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{uri}: damaged, not a manifest") from error
    if number not in (FORMAT, HALF_FORMAT):
        raise InputError(
            f"{uri}: format {number}, this version reads formats {FORMAT} and {HALF_FORMAT}; train "
            "again, or use the version that wrote it"
        )
    return manifest


def read_model_manifest(folder: str, flag: str) -> dict[str, Any]:
    """Return the JSON object of the manifest of a model.

    Args:
        folder: URI of the folder.
        flag: the flag that named the folder, ``--model`` or ``--init-from``.

    Raises:
        InputError: see `read_manifest`; or the folder is not a model.
    """
    try:
        return read_manifest(folder)
    except FileMissingError:
        problem = f"no model there (no {MANIFEST}); {_REMEDIES[flag]}"
        raise InputError(f"{flag} {folder}: {problem}") from None
