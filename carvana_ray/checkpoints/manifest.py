"""The manifest of a model or checkpoint as a JSON object, read without torch."""

import json
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import FileMissingError, InputError

FORMAT = 1
MANIFEST = "manifest.json"
# What to do about a folder without a model, by the flag that names it.
_REMEDIES = {
    "--model": "train one first",
    "--init-from": "a run cannot start or resume without its base model: restore that folder or "
    "name another model",
}


def read_manifest(folder: str) -> dict[str, Any]:
    """Return the JSON object of the manifest of a model or checkpoint.

    Raises:
        FileMissingError: the folder has no manifest.
        InputError: the manifest is damaged or has another format number.
    """
    uri = storage.join(folder, MANIFEST)
    data = storage.read(uri)
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
