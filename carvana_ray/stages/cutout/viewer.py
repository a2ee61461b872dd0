"""The pages that turn cars, next to a folder of cut-outs.

    OUT/viewer.html                     the index of all cars
    OUT/viewer/monday/red.html          the page of a car
    OUT/viewer/monday/red-DIGEST.webp   its thumbnail, written after the page

The digest is of the cut-outs that the page shows. A car with exactly the one thumbnail of its
present cut-outs is done. Of two commands that write a page at the same time, both leave their
thumbnail, and the next command writes the page once more.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from carvana_ray import storage
from carvana_ray.cutouts import index
from carvana_ray.cutouts.index import SourceImage
from carvana_ray.data.cars import CarNames
from carvana_ray.report.viewer import MAX_VIEWS, CarLink, render_viewer_index
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages.cutout.sources import car_names, cars_by
from carvana_ray.stages.cutout.write_viewers import write_viewer
from carvana_ray.stages.engine import Engine
from carvana_ray.stages.ray_metrics import meter

if TYPE_CHECKING:
    from carvana_ray.stages.cutout.plan_run import CutoutRun

log = logging.getLogger(__name__)

FOLDER, INDEX = "viewer", "viewer.html"
VERSION = 1  # of the pages; a higher one writes all of them again
LONGEST = 150  # bytes of a car's part of a file name
_THUMBNAIL = re.compile(r"(.+)-[0-9a-f]{12}\.webp")
_UNUSUAL = re.compile(r"[^\w .()+,@-]|^[^\w(]|[ .]$")


@dataclass(frozen=True)
class TurningCar:
    """A car with several views.

    Attributes:
        name: of the car, with its folder.
        cutouts: paths of its cut-outs, in the order of the views.
        digest: of these cut-outs.
    """

    name: str
    cutouts: list[str]
    digest: str

    @property
    def path(self) -> str:
        """Path of its page without suffix, in the folder of pages."""
        folder, slash, car = self.name.rpartition("/")
        return f"{folder}{slash}{safe_name(car)}"

    @property
    def page(self) -> str:
        return f"{self.path}.html"

    @property
    def thumbnail(self) -> str:
        return f"{self.path}-{self.digest}.webp"


def write_viewers(run: "CutoutRun", engine: Engine) -> dict[str, str]:
    """Write the pages of cars whose cut-outs are new, and the index of all cars of the folder.

    Returns:
        the URI of the index by ``viewer``; nothing if no car has a page.
    """
    out, suffix = storage.parent(run.target), run.checked.style.suffix
    folder = storage.join(out, FOLDER)
    existing = _existing(folder)  # before the cut-outs are listed: see the top of this file
    training = run.checked.manifest.training if run.checked.manifest else {}
    rule = car_names(run.flags, cars_by(run.flags, training), run.checked.images)
    cars = find_cars(index.finished(run.target, suffix), rule)
    if not cars:
        log.warning("viewer: no car has two views; --cars-by groups images by their names")
        return {}
    rows = [row for car in cars if (row := _row(car, existing))]
    failed = _write_pages(rows, run, engine, folder) if rows else {}
    links = [
        CarLink(car.name, len(car.cutouts), f"{FOLDER}/{car.page}", f"{FOLDER}/{car.thumbnail}")
        for car in cars
        if car.name not in failed
    ]
    if not links:
        return {}
    uri, page = storage.join(out, INDEX), render_viewer_index(storage.name(out), links)
    storage.write_atomic(uri, page, replace=True)
    return {"viewer": uri}


def find_cars(finished: Mapping[str, SourceImage], rule: CarNames) -> list[TurningCar]:
    """Return the cars with at least two views, by name; views by number, then by name.

    Args:
        finished: images by path of their cut-out.
        rule: gives their cars.
    """
    views: dict[str, list[tuple[int, str]]] = {}
    for name, source in finished.items():
        folder = storage.parent(name)
        path = f"{folder}/{source.entry.name}" if folder else source.entry.name
        car, view = rule.parse(path)
        views.setdefault(car, []).append((view, name))
    cars = []
    for car, found in sorted(views.items()):
        names = [name for _, name in sorted(found)]
        if len(names) > 1:
            cars.append(TurningCar(car, names, _digest(names, finished)))
    return cars


def safe_name(car: str) -> str:
    """Return the name of a car as a part of file names: unusual characters become ``_``.

    A changed name ends in a hash of the car, so that no two cars have one name.
    """
    safe = _UNUSUAL.sub("_", car)
    if safe == car and len(car.encode()) <= LONGEST:
        return car
    return f"{safe[: LONGEST // 4]}-{hashlib.sha256(car.encode()).hexdigest()[:8]}"


def _digest(names: Iterable[str], finished: Mapping[str, SourceImage]) -> str:
    shown = [VERSION, [[name, finished[name].tag] for name in names]]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:12]


def _existing(folder: str, place: str = "") -> dict[str, set[str]]:
    """Return the pages and thumbnails that exist, by path of their page without suffix."""
    existing: dict[str, set[str]] = {}
    uri = storage.join(folder, place) if place else folder
    if not storage.exists(uri):
        return existing
    content, start = storage.list_all(uri), f"{place}/" if place else ""
    for file in content.files:
        path = f"{start}{file.name}"
        match = _THUMBNAIL.fullmatch(path)
        existing.setdefault(match[1] if match else path.removesuffix(".html"), set()).add(path)
    for name in content.folders:
        existing |= _existing(folder, f"{start}{name}")
    return existing


def _row(car: TurningCar, existing: Mapping[str, set[str]]) -> dict[str, Any] | None:
    """Return the input of `write_viewer`; None if the page shows the present cut-outs."""
    found = existing.get(car.path, set())
    if found == {car.page, car.thumbnail}:
        return None
    step = max(1, len(car.cutouts) / MAX_VIEWS)
    count = min(len(car.cutouts), MAX_VIEWS)
    return {
        "car": car.name,
        "cutouts": [car.cutouts[int(number * step)] for number in range(count)],
        "views": len(car.cutouts),
        "page": car.page,
        "thumbnail": car.thumbnail,
        "outdated": sorted(found - {car.page, car.thumbnail}),
        "index": "../" * (car.page.count("/") + 1) + INDEX,
    }


def _write_pages(
    rows: list[dict[str, Any]], run: "CutoutRun", engine: Engine, folder: str
) -> dict[str, str]:
    """Write the pages of `rows`; return the cars that failed, and why."""
    work = partial(write_viewer, target=run.target, folder=folder)
    at_once, failed = min(len(rows), max(1, run.cpus - 1)), dict[str, str]()
    with meter("turn cars", sum(len(row["cutouts"]) for row in rows)) as progress:
        for batch in engine.map_images(rows, work, at_once):
            columns = (batch[name].tolist() for name in ("car", "problem", "count"))
            for car, problem, count in zip(*columns, strict=True):
                if problem:
                    failed[car] = problem
                progress.set(progress.done + count)
    written = count_of(len(rows) - len(failed), "pages")
    log.info("viewer: %s of cars written to %s", written, folder)
    if failed:
        car, without = min(failed), count_of(len(failed), "cars")
        log.warning("viewer: no page of %s; of %s: %s", without, car, failed[car])
    return failed
