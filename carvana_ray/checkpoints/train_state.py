"""Training checkpoints: one folder for each epoch; training resumes from the newest good one.

    checkpoints/<run>/epoch-0003/state.pt        weights, optimizer, schedule, random state, history
    checkpoints/<run>/epoch-0003/manifest.json   written last: hash of state.pt

A folder without a manifest, or with a state that does not match it, is skipped: training then
resumes from the epoch before.
"""

import json
import logging
import re
from typing import Any

import torch

from carvana_ray import __version__, storage
from carvana_ray.checkpoints.manifest import FORMAT, MANIFEST, read_manifest
from carvana_ray.checkpoints.model import (
    LOAD_ERRORS,
    from_bytes,
    read_verified,
    require_matching_weights,
    sha256,
    to_bytes,
)
from carvana_ray.errors import InputError, StorageAccessError, first_line, plural
from carvana_ray.unet.network import UNetConfig

log = logging.getLogger(__name__)

STATE = "state.pt"
KEEP_LAST = 3  # newest epochs; the best epoch is kept in addition
KEYS = {"model", "optimizer", "schedule", "scaler", "random", "epoch", "history"}


def epoch_dir(run: str, epoch: int) -> str:
    """Return the checkpoint folder after `epoch` epochs, below the folder of a run."""
    return storage.join(run, f"epoch-{epoch:04d}")


def list_epochs(run: str) -> list[int]:
    """Return the epochs that have a checkpoint folder, good or damaged, in ascending order."""
    names = storage.list_dirs(run)
    return sorted(int(name[6:]) for name in names if re.fullmatch(r"epoch-[0-9]{4,}", name))


def save(run: str, state: dict[str, Any], config: UNetConfig) -> None:
    """Write a checkpoint. The manifest, which makes it count, follows once the state reads back.

    Args:
        run: folder of the training run.
        state: values of `KEYS`, see `TrainState.state_dict`.
        config: of the network.

    Raises:
        ValueError: the state contradicts itself, or has values that are not finite.
        OSError: the stored bytes differ from the written ones.
    """
    folder = epoch_dir(run, state["epoch"])
    manifest = storage.join(folder, MANIFEST)
    storage.remove(manifest)  # the folder may hold a damaged state of the same epoch
    data = to_bytes(state)
    _load_checked(data, state["epoch"], config)
    uri = storage.join(folder, STATE)
    storage.write_atomic(uri, data, replace=True)
    digest = sha256(data)
    if sha256(storage.read(uri)) != digest:
        raise OSError(f"{uri}: reads back differently from what was written")
    values = {
        "format": FORMAT,
        "sha256": digest,
        "bytes": len(data),
        "epoch": state["epoch"],
        "network": config.to_json(),
        "versions": {"carvana_ray": __version__, "torch": torch.__version__},
    }
    storage.write_atomic(manifest, json.dumps(values, indent=1).encode(), replace=True)


def load(run: str, epoch: int, config: UNetConfig) -> dict[str, Any]:
    """Return the state after `epoch` epochs, on the CPU.

    Raises:
        InputError: the checkpoint is missing, damaged, or of another network.
    """
    folder = epoch_dir(run, epoch)
    data = read_verified(storage.join(folder, STATE), read_manifest(folder).get("sha256"))
    try:
        return _load_checked(data, epoch, config)
    except LOAD_ERRORS as error:
        raise InputError(f"{folder}: not a usable checkpoint: {first_line(error)}") from error


def _load_checked(data: bytes, epoch: int, config: UNetConfig) -> dict[str, Any]:
    state = from_bytes(data)
    if set(state) != KEYS or state["epoch"] != epoch or len(state["history"]) != epoch:
        raise ValueError(f"it does not hold {plural(epoch, 'epoch')}")
    require_matching_weights(state["model"], config)
    for moments in state["optimizer"]["state"].values():
        for value in moments.values():
            if isinstance(value, torch.Tensor) and not torch.isfinite(value).all():
                raise ValueError("the optimizer has values that are not finite")
    return state


def load_latest(run: str, config: UNetConfig) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest good state of a run, and why newer ones were skipped.

    Returns:
        The state, None if the run has no good checkpoint; a reason for each damaged checkpoint.

    Raises:
        StorageAccessError: a checkpoint cannot be read for lack of rights; it may be good.
    """
    reasons: list[str] = []
    for epoch in reversed(list_epochs(run)):
        try:
            return load(run, epoch, config), reasons
        except StorageAccessError:
            raise
        except InputError as error:
            reasons.append(str(error).splitlines()[0])
    return None, reasons


def latest_epoch(run: str, config: UNetConfig) -> int | None:
    """Return the epoch of the state that `load_latest` returns, or None."""
    state, _ = load_latest(run, config)
    return None if state is None else state["epoch"]


def prune(run: str, best: int) -> None:
    """Remove all checkpoints but the newest `KEEP_LAST` and the one of the epoch `best`."""
    epochs = list_epochs(run)
    for epoch in set(epochs[:-KEEP_LAST]) - {best}:
        folder = epoch_dir(run, epoch)
        try:
            # The manifest first: without it the folder is skipped.
            storage.remove(storage.join(folder, MANIFEST))
            storage.remove_dir(folder)
        except OSError as error:  # it costs disk space, and training does not need it removed
            log.warning("an old checkpoint stays: %s", error)
