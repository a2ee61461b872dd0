"""What a folder of results says about its prediction: its images, its submission, its command.

All of it comes from OUT/report/predict.json, which may be missing: flags replace it.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from carvana_ray import config, storage
from carvana_ray.config import cli
from carvana_ray.data.catalog import image_dir
from carvana_ray.errors import InputError, StorageAccessError

RECORD = "report/predict.json"
SUBMISSIONS = "submission.csv", "submission.csv.gz"
# Flags of predict that decide which masks it makes, and how its submission is named.
_FLAGS = {"model", "decode", "submission", "shard_size", "partial", "on_bad_picture", "max_bad"}
_FLAGS |= {"limit", "cars_by"}


@dataclass(frozen=True)
class Prediction:
    """A finished prediction.

    Attributes:
        images: URI of the folder of its images.
        submission: URI of its submission.
        command: the flags that made it.
        corrections: folder of the corrected masks that it used, or "".
    """

    images: str
    submission: str
    command: config.PredictFlags
    corrections: str = ""

    def next_words(self, corrections: str) -> list[str]:
        """Return the command, without the program, that predicts again with corrected masks."""
        flags = cli.subset(config.PredictFlags, self.command, corrections=corrections)
        return ["predict", *cli.to_words(flags)]


def find_prediction(flags: config.ReviewFlags) -> Prediction:
    """Return the prediction of --out.

    Raises:
        InputError: the images or the submission are not known, or do not exist.
    """
    out = storage.resolve(flags.out)
    record = _read_record(storage.join(out, RECORD))
    given = _values(record, "lineage", "configuration of this job")
    folder = _values(record, "lineage", "data").get("folder", "")
    submission = _find_submission(out, flags, _values(record, "result").get("submission"))
    images = image_dir(flags.data) if flags.data else _require_folder(out, folder)
    data = flags.data or _short_data(str(given.get("data", "")), images)
    corrections = str(given.get("corrections", ""))
    return Prediction(images, submission, _command(given, flags, data), corrections)


def _read_record(uri: str) -> dict[str, Any]:
    """Return the part of the report that predict wrote, {} if it is missing or damaged."""
    try:
        record = json.loads(storage.read(uri))
    except StorageAccessError:
        raise
    except (InputError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _values(record: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        record = record.get(key) or {}
        if not isinstance(record, dict):
            return {}
    return record


def _require_folder(out: str, folder: object) -> str:
    """Return the folder of images that the record names."""
    if not folder:
        raise InputError(f"--data is missing: {out}/{RECORD} does not name the folder of images")
    if not storage.exists(str(folder)):
        raise InputError(
            f"--data is missing: {folder}, which predict used, does not exist any more"
        )
    return str(folder)


def _find_submission(out: str, flags: config.ReviewFlags, noted: object) -> str:
    names = [flags.submission] if flags.submission else [*SUBMISSIONS]
    if isinstance(noted, str) and not flags.submission:
        names.insert(0, storage.name(noted))
    for name in names:
        if storage.exists(uri := storage.join(out, name)):
            return uri
    raise InputError(f"{out}: no {' or '.join(dict.fromkeys(names))}; predict writes it")


def _short_data(given: str, images: str) -> str:
    """Return --data of the earlier command if it still means these images, else their folder.

    With the folder above, predict also finds the order of the rows.
    """
    with contextlib.suppress(InputError):
        if given and image_dir(given) == images:
            return given
    return images


def _command(given: Mapping[str, Any], flags: config.ReviewFlags, data: str) -> config.PredictFlags:
    """Return the flags of the earlier command, with the folders of today."""
    today: dict[str, Any] = {"data": data, "out": flags.out}
    if flags.submission:
        today["submission"] = flags.submission
    known = {field.name for field in fields(config.PredictFlags)} & _FLAGS
    earlier = {name: value for name, value in given.items() if name in known}
    with contextlib.suppress(InputError, TypeError):  # of another release, or edited
        return config.PredictFlags(**{**earlier, **today})
    return config.PredictFlags(**today)
