"""The embedded sample: draw cars in a studio, in parallel, in Kaggle's layout.

(car, views) -> map_batches(draw) -> train/ train_masks/ test/ -> the CSVs, sample.json last
"""

import csv
import functools
import hashlib
import io
import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from carvana_ray import config, images, rle, storage
from carvana_ray import sample as studio
from carvana_ray.data import layout as carvana
from carvana_ray.errors import InputError
from carvana_ray.runtime import preflight as outlook
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.stages import ray_metrics as gauges
from carvana_ray.stages.ingest import blocks as dataset
from carvana_ray.stages.ingest.blocks import Columns

VIEWS_A_BLOCK = 4  # 2 s of drawing: long enough for a task, often enough for the progress display
MARKER = "sample.json"


def check(flags: config.SampleFlags) -> None:
    """Raise `InputError` if the folder holds other images or cannot be written."""
    out = storage.resolve(flags.out)
    folders = _cars(flags)
    for folder, cars in folders.items():
        _refuse_others(storage.join(out, folder), {name for _, name in cars})
    storage.require_writable(out)


def _asked(flags: config.SampleFlags) -> int:
    return (flags.sample_cars + flags.sample_test_cars) * carvana.VIEWS


def _there(flags: config.SampleFlags) -> int:
    """Return the number of pictures that are drawn already."""
    out = storage.resolve(flags.out)
    found = 0
    for folder, cars in _cars(flags).items():
        place, asked = storage.join(out, folder), {name for _, name in cars}
        there = storage.list_files(place) if storage.exists(place) else []
        found += sum(carvana.car_of(entry.name) in asked for entry in there)
    return min(found, _asked(flags))


def run(
    flags: config.SampleFlags, cluster: ClusterResources, _checked: object = None
) -> dict[str, Any]:
    """Draw what is not there yet; return the job's result."""
    began = time.monotonic()
    check(flags)
    out = storage.resolve(flags.out)
    train, test = _cars(flags).values()
    result = {
        "data": out,
        "images": _asked(flags),
        "train_cars": len(train),
        "test_cars": len(test),
    }
    marker, text = storage.join(out, MARKER), json.dumps({"seed": flags.seed, **result}).encode()
    if not (storage.exists(marker) and storage.read(marker) == text):
        what = outlook.count_of(_asked(flags), "pictures", _there(flags))
        outlook.announce("sample", f"draw {what}", out, f"{cluster.cpus} CPUs")
        runs = _draw_all(out, flags.seed, train, test)
        _write_tables(out, flags.seed, train, test, runs)
        storage.write_atomic(marker, text, replace=True)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def _cars(flags: config.SampleFlags) -> dict[str, list[tuple[int, str]]]:
    """Return the (number, name) of each car, by folder: those with masks, those without."""
    counts = {carvana.TRAIN: flags.sample_cars, carvana.TEST: flags.sample_test_cars}
    return {
        folder: [(car, car_name(flags.seed, folder, car)) for car in range(count)]
        for folder, count in counts.items()
    }


def car_name(seed: int, folder: str, car: int) -> str:
    """Return a name such as Kaggle's, 12 hexadecimal digits."""
    return hashlib.sha256(f"{seed} {folder} {car}".encode()).hexdigest()[:12]


def car_rng(seed: int, folder: str, car: int, view: int = 0) -> np.random.Generator:
    """Return the generator of a car (view 0), or of what chance adds to one picture of it."""
    return np.random.default_rng((seed, int(folder == carvana.TEST), car, view))


def _refuse_others(folder: str, cars: set[str]) -> None:
    there = storage.list_files(folder) if storage.exists(folder) else []
    foreign = [entry.name for entry in there if carvana.car_of(entry.name) not in cars]
    if foreign:
        raise InputError(
            f"--out: {folder} holds {foreign[0]}, which is not of this sample; use an empty folder"
        )


def _draw_all(
    out: str, seed: int, train: list[tuple[int, str]], test: list[tuple[int, str]]
) -> dict[str, str]:
    """Draw all cars; return the run-length text of each training picture."""
    blocks = [
        {"folder": folder, "car": car, "name": name, "views": list(range(at, at + VIEWS_A_BLOCK))}
        for folder, cars in ((carvana.TRAIN, train), (carvana.TEST, test))
        for car, name in cars
        for at in range(1, carvana.VIEWS + 1, VIEWS_A_BLOCK)
    ]
    drawn = dataset.from_blocks(blocks).map_batches(
        functools.partial(draw, out=out, seed=seed), batch_size=None, num_cpus=1
    )
    runs: dict[str, str] = {}
    with gauges.meter("draw", len(blocks) * VIEWS_A_BLOCK) as meter:
        for row in drawn.iter_rows():
            meter.set(meter.done + 1)
            if row["folder"] == carvana.TRAIN:
                runs[row["img"]] = row["rle_mask"]
    return runs


def draw(batch: Columns, *, out: str, seed: int) -> Columns:
    """Map a row of a car and its views to pictures under `out`; one that is there is left alone.

    Returns:
        columns [n]: folder, img, rle_mask (empty for a test picture).
    """
    row = dataset.single_row(batch)
    folder, number = row["folder"], int(row["car"])
    car = studio.draw_car(car_rng(seed, folder, number))
    names = [f"{row['name']}_{view:02d}.jpg" for view in row["views"]]
    texts = []
    for view, name in zip(row["views"], names, strict=True):
        picture = storage.join(out, folder, name)
        masks = storage.join(out, carvana.MASKS, f"{carvana.mask_stem(name)}.gif")
        if storage.size(picture) is None:
            image, mask = studio.photograph(
                car, int(view), car_rng(seed, folder, number, int(view))
            )
            if folder == carvana.TRAIN:
                storage.write_atomic(masks, studio.encode_mask(mask))
            storage.write_atomic(picture, studio.encode_jpeg(image))
        drawn = folder == carvana.TRAIN
        texts.append(rle.encode(images.load_mask(storage.read(masks))) if drawn else "")
    return {
        "folder": np.full(len(names), folder),
        "img": np.array(names),
        "rle_mask": np.array(texts, dtype=object),
    }


def _write_tables(
    out: str,
    seed: int,
    train: list[tuple[int, str]],
    test: list[tuple[int, str]],
    runs: dict[str, str],
) -> None:
    """Write the CSVs that Kaggle gives beside the pictures."""
    made = [
        {"id": name, **studio.make_and_model(studio.draw_car(car_rng(seed, folder, car)))}
        for folder, cars in ((carvana.TRAIN, train), (carvana.TEST, test))
        for car, name in cars
    ]
    asked = sorted(
        f"{name}_{view + 1:02d}.jpg" for _, name in test for view in range(carvana.VIEWS)
    )
    files = {
        "train_masks.csv": _csv(carvana.CSV_HEADER, sorted(runs.items())),
        "metadata.csv": _csv(list(made[0]), [list(row.values()) for row in made]),
        carvana.SAMPLE_SUBMISSION: _csv(
            carvana.CSV_HEADER, [(picture, "1 1") for picture in asked]
        ),
    }
    for name, data in files.items():
        storage.write_atomic(storage.join(out, name), data, replace=True)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue().encode()
