"""Prediction: a catalogue in, run-length shards and a checked submission out.

plan -> load_pictures -> Masks (a replica a GPU) -> write_shards -> merge -> check
"""

import csv
import functools
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carvana_ray import carvana, checkpoint, config, shards, sheets, storage, submission
from carvana_ray import catalogue as catalogues
from carvana_ray.catalogue import Catalogue
from carvana_ray.checkpoint import Manifest
from carvana_ray.errors import InputError, Quarantined
from carvana_ray.progress import Meter
from carvana_ray.shards import Part
from carvana_ray.stages.masks import masks_of
from carvana_ray.stages.session import Cluster, Workers, share_out

SUCCESS = "_SUCCESS.json"


def check(flags: config.Predict) -> None:
    """Raise `InputError` if model or pictures cannot be."""
    checkpoint.read_model(storage.absolute(flags.model_uri))
    catalogues.read(flags)


def run(flags: config.Predict, cluster: Cluster) -> dict[str, Any]:
    """Predict what is not there yet, merge, check; return the job's result.

    Raises:
        Quarantined: pictures could not be read, and are not to be taken as empty.
    """
    began = time.monotonic()
    model, out = storage.absolute(flags.model_uri), storage.absolute(flags.out)
    _, manifest = checkpoint.read_model(model)  # a damaged one is said before anything starts
    catalogue = catalogues.read(flags)
    workers = share_out(flags, cluster)
    settings = {"model": manifest.sha256, "downscale": manifest.downscale}
    folder = storage.join(
        out,
        "predict",
        shards.run_id({**settings, "data": catalogue.folder, "size": catalogue.size}),
    )
    parts = _plan(flags, folder, catalogue)
    needed = _needed(parts, catalogue)
    there = shards.done(folder)
    todo = [(part, shard) for part, shard in needed if part.shard_name(shard) not in there]
    if todo and flags.merge_only:
        raise InputError(
            f"--merge-only: {len(todo)} of {len(needed)} shards are not there yet, the first is "
            f"{storage.join(folder, todo[0][0].shard_name(todo[0][1]))}"
        )
    storage.remove(storage.join(folder, SUCCESS))  # until this run has ended well
    rate = _predict(todo, catalogue, folder, model, manifest, workers) if todo else 0.0
    merged = _merge(flags, parts, folder, catalogue, storage.join(out, flags.submission))
    result = {
        "images": len(catalogue.order),
        "bad": len(merged.bad),
        "shards": len(needed),
        "resumed_shards": len(needed) - len(todo),
        "images_per_second": round(rate, 1),
        "seconds": round(time.monotonic() - began, 1),
        "submission": storage.join(out, flags.submission),
    }
    _finish(flags, merged, folder, result)
    for name, image in sheets.of_cars(catalogue.folder, merged.shown).items():
        storage.publish(storage.join(out, "sheets", name), image, replace=True)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _plan(flags: config.Predict, folder: str, catalogue: Catalogue) -> list[Part]:
    """Return the parts of the plan, with one more for what none of them has."""
    parts = shards.read_parts(folder)
    if new := shards.next_part(parts, catalogue.entries, flags.shard_size):
        if flags.merge_only:
            raise InputError(f"--merge-only: {len(new.pictures)} pictures are in no plan yet")
        storage.publish(storage.join(folder, new.name), new.to_bytes())
        parts = shards.read_parts(folder)  # what is there counts, should another driver be first
    return parts


def _needed(parts: Sequence[Part], catalogue: Catalogue) -> list[tuple[Part, int]]:
    """Return the (part, shard) that hold pictures of the catalogue as it is today."""
    wanted = set(catalogue.entries)
    return [
        (part, shard)
        for part in parts
        for shard in range(part.shards)
        if wanted.intersection(part.shard(shard))
    ]


def _predict(
    todo: Sequence[tuple[Part, int]],
    catalogue: Catalogue,
    folder: str,
    model: str,
    manifest: Manifest,
    workers: Workers,
) -> float:
    """Make the shards that are to do; return the steady rate, pictures a second."""
    blocks = [
        {
            "file": part.shard_name(shard),
            "names": [entry.name for entry in part.shard(shard)],
        }
        for part, shard in todo
    ]
    masks = masks_of(blocks, catalogue.folder, model, manifest, workers, catalogue.size)
    written = masks.map_batches(
        functools.partial(write_shards, folder=folder),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=0.25,  # it waits for the disk; a whole CPU would be taken from the readers
    )
    with Meter("predict", sum(len(block["names"]) for block in blocks)) as meter:
        for batch in written.iter_batches(batch_size=None, batch_format="pyarrow"):
            meter.set(meter.done + pc.sum(batch["rows"]).as_py())
    return meter.rate


def write_shards(rows: pa.Table, *, folder: str) -> pa.Table:
    """Write the shards that a block holds, one or several, each whole; return a row for each."""
    files = rows["file"].unique().to_pylist()
    counts = []
    for file in files:
        own = rows.filter(pc.equal(rows["file"], file))
        storage.publish(storage.join(folder, file), shards.to_bytes(own))
        counts.append(len(own))
    return pa.table({"file": files, "rows": counts})


@dataclass
class Merged:
    """What one walk through all rows has found: bad rows, rows to show, pixels by picture."""

    bad: list[dict[str, Any]] = field(default_factory=list)
    shown: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)


def _merge(
    flags: config.Predict, parts: Sequence[Part], folder: str, catalogue: Catalogue, target: str
) -> Merged:
    """Merge the shards into the submission and check it; without one if bad pictures forbid it."""
    merged = Merged()

    def walk() -> Iterator[tuple[str, str]]:
        def read(name: str) -> pa.Table:
            return shards.read_shard(storage.join(folder, name))

        for row in submission.rows_of(parts, read, set(catalogue.entries)):
            name, car = row["img"], carvana.car_of(row["img"])
            merged.pixels[name] = row["height"] * row["width"]
            if row["status"] != shards.OK:
                merged.bad.append(row)
            if car in merged.shown or len(merged.shown) < sheets.CARS:
                merged.shown.setdefault(car, []).append(row)
            yield name, row["rle_mask"]

    packed = target.endswith(".gz")
    try:
        with storage.publishing(target) as file:
            submission.write(file, walk(), catalogue.order, packed)
            if not _acceptable(flags, merged):
                raise _NotToBePublished
            faults = submission.check_written(
                file, packed, catalogue.order, merged.pixels.__getitem__
            )
            if faults:
                raise RuntimeError(f"{target}: not as it should be, please report: {faults[:3]}")
    except _NotToBePublished:
        storage.remove(target)  # one of an earlier run would pass for this one's
    return merged


class _NotToBePublished(Exception):
    pass


def _acceptable(flags: config.Predict, merged: Merged) -> bool:
    return not merged.bad or (flags.on_bad_picture == "empty" and len(merged.bad) <= flags.max_bad)


def _finish(flags: config.Predict, merged: Merged, folder: str, result: dict[str, Any]) -> None:
    """Write quarantine.csv and, where there is a submission, _SUCCESS.json last."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["img", "reason", "crc32"])
    table.writerows([row["img"], row["status"], f"{row['crc32']:08x}"] for row in merged.bad)
    quarantine = storage.join(folder, "quarantine.csv")
    storage.publish(quarantine, text.getvalue().encode(), replace=True)
    if not _acceptable(flags, merged):
        named = ", ".join(f"{row['img']} ({row['status']})" for row in merged.bad[:3])
        raise Quarantined(
            f"{len(merged.bad)} pictures cannot be used: {named}"
            f"{' ...' if len(merged.bad) > 3 else ''}; all are listed in {quarantine}. No "
            "submission was written: mend the pictures and run again, or use --on-bad-picture "
            f"empty --max-bad {len(merged.bad)}",
            {**result, "submission": None},
        )
    success = json.dumps(result, indent=1).encode()
    storage.publish(storage.join(folder, SUCCESS), success, replace=True)
