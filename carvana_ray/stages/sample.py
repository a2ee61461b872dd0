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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from carvana_ray import config, images, rle, sample, storage
from carvana_ray.data import layout
from carvana_ray.data.cars import KAGGLE
from carvana_ray.data.layout import CSV_HEADER, TEST, TRAIN, VIEWS
from carvana_ray.errors import InputError
from carvana_ray.runtime.preflight import announce
from carvana_ray.runtime.resources import ClusterResources
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.ingest.blocks import Columns, single_row
from carvana_ray.stages.ingest.datasets import from_blocks
from carvana_ray.stages.ray_metrics import meter

VIEWS_PER_BLOCK = 4  # 1 s of drawing: long enough for a task, short enough for the progress display
MARKER = "sample.json"
# A varied image has been a JPEG already, of a quality of its own.
_QUALITY: dict[str, int] = {"studio": sample.JPEG_QUALITY, "varied": 80}


@dataclass(frozen=True)
class SampleCar:
    """A car of the sample.

    Attributes:
        folder: `TRAIN` for a car with masks, `TEST` for one without.
        number: within its folder, from 0.
        scenes: "studio" or "varied".
    """

    folder: str
    number: int
    seed: int
    scenes: sample.Scenes = "studio"

    @property
    def name(self) -> str:
        """12 hexadecimal digits, as Kaggle's."""
        text = f"{self.seed} {self.folder} {self.number}"
        if self.scenes != "studio":  # so that one folder never mixes both
            text += f" {self.scenes}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def image_name(self, view: int) -> str:
        """Return the file name of a view, 1 to 16."""
        return f"{self.name}_{view:02d}.jpg"

    def rng(self, view: int = 0) -> np.random.Generator:
        """Return the generator of one view, or of the car itself (0)."""
        return np.random.default_rng((self.seed, int(self.folder == TEST), self.number, view))

    def draw(self) -> sample.Car:
        """Return the car's drawing."""
        return sample.draw_car(self.rng(), scenes=self.scenes)


def check(flags: config.SampleFlags) -> None:
    """Raise `InputError` if the folder holds other images or cannot be written."""
    out = storage.resolve(flags.out)
    names = {(car.folder, car.name) for car in sample_cars(flags)}
    for folder in (TRAIN, TEST):
        for file in _list_names(storage.join(out, folder)):
            if (folder, KAGGLE.car_of(file)) not in names:
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
    out, cars = storage.resolve(flags.out), sample_cars(flags)
    total, result = len(cars) * VIEWS, _describe(flags)
    if not is_drawn(flags):
        drawn = {name for part in (TRAIN, TEST) for name in _list_names(storage.join(out, part))}
        work = f"draw {count_of(total, 'images', len(drawn))}"
        announce("sample", work, out, count_of(cluster.cpus, "CPUs"))
        _write_tables(cars, _draw_all(cars, out, drawn), out)
        storage.write_atomic(storage.join(out, MARKER), _marker(flags), replace=True)
    return {**result, "seconds": round(time.monotonic() - began, 1)}


def is_drawn(flags: config.SampleFlags) -> bool:
    """Return whether the whole sample has been drawn."""
    marker = storage.join(storage.resolve(flags.out), MARKER)
    return storage.exists(marker) and storage.read(marker) == _marker(flags)


def _marker(flags: config.SampleFlags) -> bytes:
    made = {"seed": flags.seed, **_describe(flags)}
    if flags.scenes != "studio":
        made["scenes"] = flags.scenes
    return json.dumps(made).encode()


def _describe(flags: config.SampleFlags) -> dict[str, Any]:
    return {
        "data": storage.resolve(flags.out),
        "images": (flags.sample_cars + flags.sample_test_cars) * VIEWS,
        "train_cars": flags.sample_cars,
        "test_cars": flags.sample_test_cars,
    }


def sample_cars(flags: config.SampleFlags) -> list[SampleCar]:
    """Return the cars of a sample: those with masks, then those without."""
    counts = {TRAIN: flags.sample_cars, TEST: flags.sample_test_cars}
    return [
        SampleCar(folder, number, flags.seed, flags.scenes)
        for folder, count in counts.items()
        for number in range(count)
    ]


def _list_names(folder: str) -> list[str]:
    files = storage.list_files(folder) if storage.exists(folder) else []
    return [file.name for file in files]


def _draw_all(cars: Sequence[SampleCar], out: str, drawn: set[str]) -> dict[str, str]:
    """Draw all views of all cars but those `drawn` before.

    Returns:
        the run-length text of each training image's mask, by image name.
    """
    blocks = [
        {**asdict(car), "views": list(range(first, first + VIEWS_PER_BLOCK))}
        for car in cars
        for first in range(1, VIEWS + 1, VIEWS_PER_BLOCK)
    ]
    rows = from_blocks(blocks).map_batches(
        functools.partial(draw_views, out=out), batch_size=None, num_cpus=1
    )
    masks: dict[str, str] = {}
    with meter("draw", len(cars) * VIEWS, len(drawn)) as progress:
        for row in rows.iter_rows():
            progress.set(progress.done + int(row["img"] not in drawn))
            if row["rle_mask"]:
                masks[row["img"]] = row["rle_mask"]
    return masks


def draw_views(batch: Columns, *, out: str) -> Columns:
    """Draw the images of a row of `_draw_all`, unless they exist.

    Returns:
        columns [n]: img, rle_mask (empty for a test image).
    """
    row = single_row(batch)
    car = SampleCar(row["folder"], int(row["number"]), int(row["seed"]), row["scenes"])
    drawing = car.draw()
    views = [int(view) for view in row["views"]]
    masks = [_draw_view(car, drawing, view, out) for view in views]
    return {
        "img": np.array([car.image_name(view) for view in views]),
        "rle_mask": np.array(masks, dtype=object),
    }


def _draw_view(car: SampleCar, drawing: sample.Car, view: int, out: str) -> str:
    """Draw one image unless it exists; return its mask as text, "" for a test image."""
    name = car.image_name(view)
    image_uri = storage.join(out, car.folder, name)
    mask_uri = storage.join(out, layout.MASKS, f"{layout.mask_stem(name)}.gif")
    if not storage.exists(image_uri):
        image, mask = sample.photograph(drawing, view, car.rng(view))
        if car.folder == TRAIN:  # before the image, so that an image that exists has its mask
            # A mask without an image may be of another release, which drew another car.
            storage.write_atomic(mask_uri, sample.encode_mask(mask), replace=True)
        # All draw the same one.
        storage.write_atomic(image_uri, sample.encode_jpeg(image, _QUALITY[car.scenes]))
    if car.folder == TEST:
        return ""
    return rle.encode(images.load_mask(storage.read(mask_uri)))


def _write_tables(cars: Sequence[SampleCar], masks: Mapping[str, str], out: str) -> None:
    """Write the CSVs that Kaggle provides with the images."""
    metadata = [{"id": car.name, **sample.make_and_model(car.draw())} for car in cars]
    test_images = sorted(
        car.image_name(view) for car in cars if car.folder == TEST for view in range(1, VIEWS + 1)
    )
    files = {
        "train_masks.csv": _csv(CSV_HEADER, sorted(masks.items())),
        "metadata.csv": _csv(metadata[0], (row.values() for row in metadata)),
        layout.SAMPLE_SUBMISSION: _csv(CSV_HEADER, ((image, "1 1") for image in test_images)),
    }
    for name, data in files.items():
        storage.write_atomic(storage.join(out, name), data, replace=True)


def _csv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode()
