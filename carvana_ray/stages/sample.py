"""The sample data set: draw cars in a studio, in parallel, in Kaggle's layout.

(car, views) -> map_batches(draw_views) -> train/ train_masks/ test/ -> CSVs -> sample.json
"""

import csv
import functools
import hashlib
import io
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from carvana_ray import config, images, rle, sample, storage
from carvana_ray.data.layout import (
    CSV_HEADER,
    MASKS,
    SAMPLE_SUBMISSION,
    TEST,
    TRAIN,
    VIEWS,
    car_of,
    mask_stem,
)
from carvana_ray.errors import InputError
from carvana_ray.runtime.preflight import announce
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.ingest.blocks import Columns, from_blocks, single_row
from carvana_ray.stages.ray_metrics import meter

VIEWS_PER_BLOCK = 4  # 2 s of drawing: long enough for a task, short enough for the progress display
MARKER = "sample.json"


@dataclass(frozen=True)
class SampleCar:
    """A car of the sample.

    Attributes:
        folder: `TRAIN` for a car with masks, `TEST` for one without.
        number: within its folder, from 0.
        name: as Kaggle's, 12 hexadecimal digits.
    """

    folder: str
    number: int
    name: str

    def image_name(self, view: int) -> str:
        """Return the file name of a view, 1 to 16."""
        return f"{self.name}_{view:02d}.jpg"

    def rng(self, seed: int, view: int = 0) -> np.random.Generator:
        """Return the generator of the car itself (view 0), or of what is random in one view."""
        return np.random.default_rng((seed, int(self.folder == TEST), self.number, view))


def check(flags: config.SampleFlags) -> None:
    """Raise `InputError` if the folder holds other images or cannot be written."""
    out = storage.resolve(flags.out)
    names = {(car.folder, car.name) for car in sample_cars(flags)}
    for folder in (TRAIN, TEST):
        for file in _list_files(storage.join(out, folder)):
            if (folder, car_of(file)) not in names:
                raise InputError(
                    f"--out: {storage.join(out, folder)} holds {file}, which is not of this "
                    "sample; use an empty folder"
                )
    storage.require_writable(out)


def run(
    flags: config.SampleFlags, cluster: ClusterResources, _checked: None = None
) -> dict[str, Any]:
    """Draw the images that do not exist yet; return the job's result."""
    began = time.monotonic()
    check(flags)
    out, cars = storage.resolve(flags.out), sample_cars(flags)
    result = {
        "data": out,
        "images": len(cars) * VIEWS,
        "train_cars": flags.sample_cars,
        "test_cars": flags.sample_test_cars,
    }
    marker, text = storage.join(out, MARKER), json.dumps({"seed": flags.seed, **result}).encode()
    if not (storage.exists(marker) and storage.read(marker) == text):
        done = sum(len(_list_files(storage.join(out, folder))) for folder in (TRAIN, TEST))
        work = f"draw {count_of(len(cars) * VIEWS, 'images', done)}"
        announce("sample", work, out, count_of(cluster.cpus, "CPUs"))
        masks = draw_all(cars, out, flags.seed)
        _write_tables(cars, masks, out, flags.seed)
        storage.write_atomic(marker, text, replace=True)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def sample_cars(flags: config.SampleFlags) -> list[SampleCar]:
    """Return the cars of a sample: those with masks, then those without."""
    return [
        SampleCar(folder, number, _car_name(flags.seed, folder, number))
        for folder, count in ((TRAIN, flags.sample_cars), (TEST, flags.sample_test_cars))
        for number in range(count)
    ]


def _car_name(seed: int, folder: str, number: int) -> str:
    return hashlib.sha256(f"{seed} {folder} {number}".encode()).hexdigest()[:12]


def _list_files(folder: str) -> list[str]:
    files = storage.list_files(folder) if storage.exists(folder) else []
    return [file.name for file in files]


def draw_all(cars: Sequence[SampleCar], out: str, seed: int) -> dict[str, str]:
    """Draw all views of all cars; return the run-length text of each training image's mask."""
    blocks = [
        {
            "folder": car.folder,
            "car": car.number,
            "name": car.name,
            "views": list(range(first, first + VIEWS_PER_BLOCK)),
        }
        for car in cars
        for first in range(1, VIEWS + 1, VIEWS_PER_BLOCK)
    ]
    drawn = from_blocks(blocks).map_batches(
        functools.partial(draw_views, out=out, seed=seed), batch_size=None, num_cpus=1
    )
    masks: dict[str, str] = {}
    with meter("draw", len(cars) * VIEWS) as progress:
        for row in drawn.iter_rows():
            progress.set(progress.done + 1)
            if row["folder"] == TRAIN:
                masks[row["img"]] = row["rle_mask"]
    return masks


def draw_views(batch: Columns, *, out: str, seed: int) -> Columns:
    """Draw the images of a row of `draw_all`, unless they exist.

    Returns:
        columns [n]: folder, img, rle_mask (empty for a test image).
    """
    row = single_row(batch)
    car = SampleCar(row["folder"], int(row["car"]), row["name"])
    drawing = sample.draw_car(car.rng(seed))
    views = [int(view) for view in row["views"]]
    masks = [_draw_view(car, drawing, view, out, seed) for view in views]
    return {
        "folder": np.full(len(views), car.folder),
        "img": np.array([car.image_name(view) for view in views]),
        "rle_mask": np.array(masks, dtype=object),
    }


def _draw_view(car: SampleCar, drawing: sample.Car, view: int, out: str, seed: int) -> str:
    """Draw one image unless it exists; return its mask as text, "" for a test image."""
    name = car.image_name(view)
    image_uri = storage.join(out, car.folder, name)
    mask_uri = storage.join(out, MASKS, f"{mask_stem(name)}.gif")
    if storage.size(image_uri) is None:
        image, mask = sample.photograph(drawing, view, car.rng(seed, view))
        if car.folder == TRAIN:  # before the image, so that an image that exists has its mask
            storage.write_atomic(mask_uri, sample.encode_mask(mask))
        storage.write_atomic(image_uri, sample.encode_jpeg(image))
    if car.folder != TRAIN:
        return ""
    return rle.encode(images.load_mask(storage.read(mask_uri)))


def _write_tables(cars: Sequence[SampleCar], masks: Mapping[str, str], out: str, seed: int) -> None:
    """Write the CSVs that Kaggle provides with the images."""
    metadata = [
        {"id": car.name, **sample.make_and_model(sample.draw_car(car.rng(seed)))} for car in cars
    ]
    test_images = sorted(
        car.image_name(view) for car in cars if car.folder == TEST for view in range(1, VIEWS + 1)
    )
    files = {
        "train_masks.csv": _csv(CSV_HEADER, sorted(masks.items())),
        "metadata.csv": _csv(list(metadata[0]), [list(row.values()) for row in metadata]),
        SAMPLE_SUBMISSION: _csv(CSV_HEADER, [(image, "1 1") for image in test_images]),
    }
    for name, data in files.items():
        storage.write_atomic(storage.join(out, name), data, replace=True)


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    return text.getvalue().encode()
