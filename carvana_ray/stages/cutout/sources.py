"""The images of a cut-out job and their cars, by its flags.

Imports no torch: jobs list them before they start.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from carvana_ray import storage
from carvana_ray.config import CutoutFlags
from carvana_ray.cutouts import index
from carvana_ray.data.cars import CarNames, load_car_names
from carvana_ray.data.collect import CollectedImages, collect_images
from carvana_ray.data.corrections import Corrections, load_corrections
from carvana_ray.data.csv_reader import read_rows
from carvana_ray.storage import FileInfo


def image_uris(flags: CutoutFlags) -> list[str]:
    """Return the URIs of the images and folders that the flags name."""
    return [storage.resolve(uri) for uri in flags.pictures or (flags.data,)]


def list_sources(flags: CutoutFlags) -> CollectedImages:
    """Return the images of a job; raises as `collect_images`."""
    others = flags.out, flags.corrections  # no images to cut out
    return collect_images(
        image_uris(flags),
        recursive=flags.recursive and not flags.submission,
        avoid=[storage.resolve(folder) for folder in others if folder],
        marker=index.FILE,
    )


def cars_by(flags: CutoutFlags, training: Mapping[str, Any]) -> str:
    """Return the pattern of the names of a job's images, or "".

    Args:
        flags: --cars-by comes first.
        training: the flags of the model's training.
    """
    return flags.cars_by or str(training.get("cars_by", ""))


def car_names(flags: CutoutFlags, pattern: str, found: CollectedImages) -> CarNames:
    """Return what gives the car of an image.

    Raises:
        InputError: see `load_car_names`.
    """
    data = storage.resolve(flags.data) if flags.data else found.folder
    return load_car_names(data, pattern, [entry.name for entry in found.entries])


def path_of(name: str, images: CollectedImages) -> str:
    """Return the path by which `CarNames` sorts an image: its name in the folder of its cut-out."""
    folder = storage.parent(images.outputs[name])
    return storage.join(folder, storage.name(name)) if folder else storage.name(name)


def find_corrections(
    folder: str, found: CollectedImages, entries: Iterable[FileInfo]
) -> Corrections:
    """Return the corrections of a folder for some of the images; raises as `load_corrections`.

    A mask is in the sub-folder that the image's cut-out has.
    """
    places = {entry.name: storage.parent(found.outputs[entry.name]) for entry in entries}
    return load_corrections(folder, places, places)


def all_views(
    rule: CarNames | None, found: CollectedImages, entries: list[FileInfo], submission: str
) -> list[FileInfo]:
    """Return all images of the cars of some images; just these without a rule.

    Args:
        rule: gives the cars.
        found: all images.
        entries: some of them.
        submission: URI of the submission if masks come from one, else "". Further images without a
            row in it are left out.
    """
    if not rule or len(entries) == len(found.entries):
        return entries
    cars = {entry.name: rule.car_of(path_of(entry.name, found)) for entry in found.entries}
    wanted, names = {cars[entry.name] for entry in entries}, {entry.name for entry in entries}
    with_mask = {name for name, _ in read_rows(submission)} if submission else cars.keys()
    return [
        entry
        for entry in found.entries
        if cars[entry.name] in wanted and (entry.name in names or entry.name in with_mask)
    ]
