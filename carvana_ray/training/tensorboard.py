"""TensorBoard event files, one per epoch, made from the rows of the training history.

The history is saved with the checkpoints, so a missing file is written again and the file of a
retrained epoch is replaced: each epoch appears exactly once. S3 cannot append to a file.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import InputError

FOLDER = "tensorboard"  # under --out
TAGS = {
    "loss": "loss/train",
    "val_loss": "loss/validation",
    "accuracy": "accuracy/train",
    "val_accuracy": "accuracy/validation",
    "dice": "dice/train",
    "val_dice": "dice/validation",
    "images_per_second": "speed/images_per_second",
    "data_wait_fraction": "speed/data_wait_fraction",
    "seconds": "speed/seconds",
    "learning_rate": "learning_rate",
}


def require_writer() -> Any:
    """Return PyTorch's `SummaryWriter`; raise `InputError` if tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # optional dependency
    except ImportError as error:
        raise InputError(
            f"--tensorboard: the package tensorboard is missing ({error}); python -m pip install "
            "tensorboard, on every node"
        ) from error
    return SummaryWriter


def write_missing(folder: str, history: Sequence[Mapping[str, float]], fresh: bool = False) -> None:
    """Write the event files of all epochs of a history that have no file yet.

    With `fresh`, the last epoch was trained just now: its file is replaced, which may be left from
    an epoch whose checkpoint was lost.
    """
    files = storage.list_files(folder) if storage.exists(folder) else []
    written = {file.name for file in files}
    for row in history:
        name = file_name(row)
        if name not in written or (fresh and row is history[-1]):
            storage.write_atomic(storage.join(folder, name), _to_bytes(row), replace=True)


def file_name(row: Mapping[str, float]) -> str:
    """Return the file name of an epoch. TensorBoard reads files in the order of their names."""
    return f"events.out.tfevents.{int(row['epoch']):010d}.epoch"


def _to_bytes(row: Mapping[str, float]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="carvana_ray-") as scratch:
        with require_writer()(scratch) as writer:
            for key, tag in TAGS.items():
                if key in row:
                    writer.add_scalar(tag, row[key], int(row["epoch"]))
        (file,) = Path(scratch).iterdir()
        return file.read_bytes()
