"""Provenance of results for the report: configuration, model, data and versions."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carvana_ray import __version__, config
from carvana_ray.checkpoints.model import ModelManifest
from carvana_ray.config import cli

CODE = Path(__file__).parents[2]  # the folder of the package: a clone's, or site-packages
GIT_TIMEOUT_S = 10
PACKAGES = "ray", "torch", "numpy", "pillow", "pyarrow"


def provenance(
    flags: config.RayFlags, manifest: ModelManifest, folder: str, crcs: Mapping[str, int]
) -> dict[str, Any]:
    """Return the keys that every part of the report has: made, model, lineage.

    Args:
        flags, manifest: of the job and of its model.
        folder: folder of the images.
        crcs: CRC-32 of the bytes of each image, by name.
    """
    data = {
        "folder": folder,
        "pictures": len(crcs),
        "SHA-256 of names and CRC-32": data_digest(crcs),
    }
    return describe_job(flags, manifest, data)


def describe_job(
    flags: config.RayFlags, manifest: ModelManifest | None, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Return made, model and lineage of a job.

    Args:
        flags: of the job.
        manifest: of its model; None for a job without a model.
        data: facts on its images.
    """
    return {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "model": manifest.sha256 if manifest else "",
        "lineage": {
            **(_model_lineage(manifest) if manifest else {}),
            "configuration of this job": cli.to_json(flags),
            "data": data,
            "versions": {
                "carvana_ray": __version__,
                "commit": code_commit(),
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in PACKAGES},
                "system": platform.platform(),
            },
        },
    }


def _model_lineage(manifest: ModelManifest) -> dict[str, dict[str, Any]]:
    """Return the groups of facts on a model."""
    return {
        "model": {
            "SHA-256 of the weights": manifest.sha256,
            "training run": manifest.run,
            **manifest.unet.to_json(),
            "downscale": manifest.downscale,
            "asked of the mirrored picture too": manifest.tta_flip,
            "trained on": f"{manifest.height} x {manifest.width} pixels (height x width)",
            "cars held out": manifest.holdout_cars,
            "cars for validation": manifest.val_cars,
            "left out": manifest.skipped,
            "started from the weights (SHA-256)": manifest.started_from,
        },
        "configuration of its training": manifest.training,
    }


def data_digest(crcs: Mapping[str, int]) -> str:
    """Return the SHA-256 of a line "name crc32" for each image, in order of name."""
    lines = "".join(f"{name} {crcs[name]:08x}\n" for name in sorted(crcs))
    return hashlib.sha256(lines.encode()).hexdigest()


def code_commit(folder: Path = CODE) -> str | None:
    """Return the git commit of the code, ending in ``-dirty`` if its files were changed.

    None if it is unknown: the package was installed from files, or git does not answer. Only a
    clone of its own counts: the folder may be part of an environment in another repository.
    """
    if (folder / ".git").exists():
        command = ["git", "-C", str(folder), "--no-optional-locks", "describe", "--always"]
        command += ["--dirty", "--abbrev=40", "--exclude=*"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() or None
    try:  # pip notes the commit of a package that it installed from a repository
        note = importlib.metadata.distribution(__package__.split(".")[0]).read_text(
            "direct_url.json"
        )
        return json.loads(note or "{}").get("vcs_info", {}).get("commit_id")
    except (importlib.metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
