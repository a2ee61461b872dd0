"""What training goes on from: a folder an epoch, whole and checked, the newest good one first.

    checkpoints/<run>/epoch-0003/state.pt        weights, optimizer, schedule, random state, history
    checkpoints/<run>/epoch-0003/manifest.json   written last, hash of the state

A folder without manifest does not count, nor does one whose state does not match it: training then
goes on from the epoch before.
"""

import json
import re
from typing import Any

import torch

from carvana_ray import __version__, storage
from carvana_ray.checkpoints import model as checkpoint
from carvana_ray.errors import InputError, StorageAccessError, first_line
from carvana_ray.unet.network import UNetConfig

STATE = "state.pt"
KEEP_LAST = 3  # newest epochs; the best one besides
KEYS = {"model", "optimizer", "schedule", "scaler", "random", "epoch", "history"}


def epoch_dir(run: str, epoch: int) -> str:
    """Return the folder of the state after `epoch` epochs, in the folder of a run."""
    return storage.join(run, f"epoch-{epoch:04d}")


def list_epochs(run: str) -> list[int]:
    """Return the epochs that have a folder, good or not, ascending."""
    names = storage.list_dirs(run)
    return sorted(int(name[6:]) for name in names if re.fullmatch(r"epoch-[0-9]{4,}", name))


def save(run: str, state: dict[str, Any], design: UNetConfig) -> None:
    """Write the state of `learner.State.state_dict`, and read it back before it counts.

    Args:
        run: folder of the training run.
        state: tensors and plain Python.
        design: of the network.
    """
    folder = epoch_dir(run, state["epoch"])
    manifest = storage.join(folder, checkpoint.MANIFEST)
    storage.remove(manifest)  # a bad state of the same epoch may lie there
    data = checkpoint.to_bytes(state)
    _load(data, state["epoch"], design)
    storage.write_atomic(storage.join(folder, STATE), data, replace=True)
    text = {
        "format": checkpoint.FORMAT,
        "sha256": checkpoint.sha256(storage.read(storage.join(folder, STATE))),
        "bytes": len(data),
        "epoch": state["epoch"],
        "network": design.to_json(),
        "versions": {"carvana_ray": __version__, "torch": torch.__version__},
    }
    if text["sha256"] != checkpoint.sha256(data):
        raise OSError(f"{folder}: what was written there is read back as something else")
    storage.write_atomic(manifest, json.dumps(text, indent=1).encode(), replace=True)


def load(run: str, epoch: int, design: UNetConfig) -> dict[str, Any]:
    """Return the state after `epoch` epochs.

    Raises:
        InputError: it is not there, or damaged, or of another network.
    """
    folder = epoch_dir(run, epoch)
    _, data = checkpoint.read_verified(folder, STATE)
    try:
        return _load(data, epoch, design)
    except checkpoint.LOAD_ERRORS as error:
        reason = first_line(error)
        raise InputError(f"{folder}: not a state to go on from: {reason}") from error


def _load(data: bytes, epoch: int, design: UNetConfig) -> dict[str, Any]:
    state = checkpoint.from_bytes(data)
    if set(state) != KEYS or state["epoch"] != epoch or len(state["history"]) != epoch:
        raise ValueError(f"it does not hold {epoch} epochs")
    checkpoint.require_matching_weights(state["model"], design)
    moments = [
        value
        for slot in state["optimizer"]["state"].values()
        for value in slot.values()
        if isinstance(value, torch.Tensor)
    ]
    if not all(bool(torch.isfinite(value).all()) for value in moments):
        raise ValueError("the optimizer's numbers are not all finite")
    return state


def load_latest(run: str, design: UNetConfig) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest good state of a run, or None, and what is wrong with newer ones."""
    skipped: list[str] = []
    for epoch in reversed(list_epochs(run)):
        try:
            return load(run, epoch, design), skipped
        except StorageAccessError:
            raise  # it may well be a good one
        except InputError as error:
            skipped.append(str(error).splitlines()[0])
    return None, skipped


def latest_epoch(run: str, design: UNetConfig) -> int | None:
    """Return the epoch of the newest good checkpoint of a run, or None.

    The checks are those of `load_latest`, so it names the same epoch; the tensors are released.
    """
    state, _ = load_latest(run, design)
    return None if state is None else state["epoch"]


def prune(run: str, best: int) -> None:
    """Remove all epochs but the newest `KEPT` and the best one."""
    there = list_epochs(run)
    for epoch in set(there[:-KEEP_LAST]) - {best}:
        folder = epoch_dir(run, epoch)
        storage.remove(storage.join(folder, checkpoint.MANIFEST))  # from now on it does not count
        storage.remove_dir(folder)
