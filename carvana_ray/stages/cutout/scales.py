"""The measuring pass of a cut-out job: one scale for all views of a car.

--frame catalogue needs the size of a car in all its views before the first cut-out is written. So
the views of cars without a known extent are measured first, and `extents.add` keeps the result.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carvana_ray.cutouts import extents
from carvana_ray.cutouts.framing import Frame, Size
from carvana_ray.data.cars import describe_cars
from carvana_ray.data.quarantine import Bad, FailureLimits
from carvana_ray.runtime.wording import count_of
from carvana_ray.stages import ray_metrics
from carvana_ray.stages.cutout.car_sizes import CarSizes, mix_cars
from carvana_ray.stages.cutout.chains import CutoutJob, measuring
from carvana_ray.stages.cutout.sources import path_of
from carvana_ray.stages.cutout.tally import CutoutTally, rows_of
from carvana_ray.stages.engine import Engine
from carvana_ray.stages.ingest.blocks import Columns
from carvana_ray.storage import FileInfo

if TYPE_CHECKING:
    from carvana_ray.stages.cutout.plan_run import CutoutRun

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scales:
    """What the measuring pass found out.

    Attributes:
        extents: of the car of each image, by image name; without cars that no view shows.
        left_out: pending images that cannot be cut out, and why.
    """

    extents: Mapping[str, Size] = field(default_factory=dict)
    left_out: Sequence[Bad] = ()


NO_SCALES = Scales()


def measure_scales(run: "CutoutRun", engine: Engine) -> Scales:
    """Return one extent for all views of each car of the pending images.

    Nothing is measured, and the result is `NO_SCALES`, if views of a car need no scale in common.

    Raises:
        InputError: too many images are bad, or the list of cars is damaged.
        IncompleteError: the storage is down.
    """
    frame, rule = run.checked.style.frame, run.checked.cars
    if not frame or not rule or not run.pending:
        return NO_SCALES
    paths = {view.name: path_of(view.name, run.checked.images) for view in run.checked.views}
    log.info("%s; all views of a car have one scale", describe_cars(rule, list(paths.values())))
    cars = {name: rule.car_of(path) for name, path in paths.items()}
    known = extents.load(run.target)
    unknown = {cars[entry.name] for entry in run.pending} - known.keys()
    late = {entry.name for entry in run.pending if cars[entry.name] in known and run.is_new(entry)}
    views = [e for e in run.checked.views if cars[e.name] in unknown or e.name in late]
    sizes = CarSizes(run.target, {view.name: cars[view.name] for view in views}, known)
    bad = _measure(run, engine, mix_cars(views, cars), sizes) if views else []
    log_scales(frame, sizes, {cars[entry.name] for entry in run.pending}, cars)
    return _scales(run.pending, cars, sizes, bad)


def _measure(
    run: "CutoutRun", engine: Engine, views: Sequence[FileInfo], sizes: CarSizes
) -> list[Bad]:
    """Measure views; return the bad ones."""
    checked = run.checked
    tally = CutoutTally(FailureLimits(checked.folder, len(views), "cut-out"))
    with ray_metrics.meter("measure cars", len(views)) as meter:

        def on_results(batch: Columns) -> None:
            tally.add(rows_of(batch))
            sizes.add(batch)
            meter.set(meter.done + len(batch["img"]))

        run.feed(CutoutJob(views, checked.crcs, measuring(checked.folder), engine, on_results))
    sizes.save()
    return tally.bad


def _scales(
    pending: Sequence[FileInfo], cars: Mapping[str, str], sizes: CarSizes, bad: Sequence[Bad]
) -> Scales:
    """Return the result of the pass.

    An image whose car waits for a view that cannot be reached is left out with it.
    """
    extent_of = {entry.name: sizes.known.get(cars[entry.name]) for entry in pending}
    left_out = {name: (name, status, 0) for name, status in sizes.problems.items()}
    waiting = {cars[name]: status for name, status in sizes.problems.items()}
    for name, extent in extent_of.items():
        if not extent and cars[name] in waiting:
            left_out.setdefault(name, (name, waiting[cars[name]], 0))
    left_out |= {row[0]: row for row in bad}
    return Scales(
        {name: extent for name, extent in extent_of.items() if extent},
        [left_out[name] for name in extent_of if name in left_out],
    )


def log_scales(
    frame: Frame, sizes: CarSizes, needed: Iterable[str], cars: Mapping[str, str]
) -> None:
    """Log how many cars are enlarged, and how many views came later than the scale of their car.

    Args:
        frame: of the cut-outs.
        sizes: of the measured views.
        needed: cars of the cut-outs that are to be made.
        cars: car of each image, by image name.
    """
    scales = {car: extents.scale_of(frame, size) for car, size in sizes.known.items()}
    enlarged = [scales[car] for car in needed if scales.get(car, 0) > 1]
    if enlarged:
        log.info(
            "cars that are enlarged, and so blurry: %d, up to %.2g times; use a smaller --size to "
            "keep them sharp",
            len(enlarged),
            max(enlarged),
        )
    if late := sizes.late():
        too_large = sum(
            extents.scale_of(frame, sizes.sizes[name]) < scales[cars[name]]
            for name in late
            if name in sizes.sizes
        )
        log.info(
            "%s added to cars whose scale is fixed, or changed; too large for the margin: %d",
            count_of(len(late), "views"),
            too_large,
        )
