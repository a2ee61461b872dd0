"""What TensorBoard shows of a training: a file an epoch, made of the epoch's row of the history.

    tensorboard/<run>/events.out.tfevents.0000000003.epoch

The history is the truth, and goes on with a training; a file that is missing is written again, and
one of an epoch that is trained anew is replaced. So no epoch is there twice, and none is lost.
Files are published whole, in S3 too, and are never added to, which S3 cannot.
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


def folder_of(out: str, run: str) -> str:
    """Return the folder of a training run's files."""
    return storage.join(out, FOLDER, run)


def require_writer() -> Any:
    """Return PyTorch's `SummaryWriter`.

    Raises:
        InputError: the package that it needs is not there.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # only where it is asked for
    except ImportError as error:
        raise InputError(
            f"--tensorboard: needs the package tensorboard ({error}); python -m pip install "
            "tensorboard, on every node"
        ) from error
    return SummaryWriter


def write_missing(folder: str, history: Sequence[Mapping[str, float]], fresh: bool = False) -> None:
    """Publish the files of those epochs of a history that are not there.

    Args:
        folder: of one training run; made if needed.
        history: rows of `training.train_epoch`.
        fresh: the last epoch has just been trained: a file of it, of an epoch that was lost and is
            trained anew, is replaced.
    """
    there = (
        {entry.name for entry in storage.list_files(folder)} if storage.exists(folder) else set()
    )
    for row in history:
        name = file_name(row)
        if name not in there or (fresh and row is history[-1]):
            storage.write_atomic(storage.join(folder, name), to_bytes(row), replace=True)


def file_name(row: Mapping[str, float]) -> str:
    """Return the name of an epoch's file: TensorBoard reads them in the order of names."""
    return f"events.out.tfevents.{int(row['epoch']):010d}.epoch"


def to_bytes(row: Mapping[str, float]) -> bytes:
    """Return the event file of an epoch: a scalar for each of `TAGS` that its row has."""
    with tempfile.TemporaryDirectory(prefix="carvana_ray-") as scratch:
        with require_writer()(scratch) as writer:
            for key, tag in TAGS.items():
                if key in row:
                    writer.add_scalar(tag, row[key], int(row["epoch"]))
        (file,) = Path(scratch).iterdir()
        return file.read_bytes()
