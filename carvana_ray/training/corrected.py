"""Corrected masks among the training pairs: which are used, what they replace, what is left out.

A correction of a training image replaces its mask. A correction of another image makes a new pair,
whose car belongs to the training cars. Neither changes the split of the cars of --data.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from carvana_ray import storage
from carvana_ray.config import TrainFlags
from carvana_ray.data.catalog import image_dir, list_images_in, list_masks
from carvana_ray.data.corrections import Corrections, load_corrections
from carvana_ray.data.layout import TRAIN, require_safe_names
from carvana_ray.data.listing import image_suffixes
from carvana_ray.errors import plural
from carvana_ray.storage import FileInfo

log = logging.getLogger(__name__)

MAX_NAMED = 3  # masks of no image in the log

Pairs = list[tuple[FileInfo, FileInfo]]
Cars = tuple[list[str], list[str], list[str]]  # train, val, holdout

# Why corrections are left out: keys of the job's result, and words of the log.
HELD_OUT, VALIDATION, BASE_HELD_OUT = "held_out", "validation", "base_held_out"
UNCHANGED, UNUSED = "unchanged", "unused"
_WORDS = {
    HELD_OUT: "of held-out cars",
    VALIDATION: "of validation cars",
    BASE_HELD_OUT: "of cars that the model of --init-from held out",
    UNCHANGED: "unchanged",
    UNUSED: "of no image",
}


@dataclass(frozen=True, kw_only=True)
class CorrectedPairs:
    """The pairs of a training whose masks a person has corrected.

    Attributes:
        pairs: (image, mask) by image name; the name of a file outside the folders of --data is its
            URI.
        replaced: number of them that replace a pair of --data; the others are new.
        hash_fields: names, sizes and versions of the files, for the id of the run.
        left_out: number of corrections that are not used, by reason.
        unused: names of the masks of no image.
    """

    pairs: Mapping[str, tuple[FileInfo, FileInfo]] = field(default_factory=dict)
    replaced: int = 0
    hash_fields: Sequence[Sequence[str | int]] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    unused: Sequence[str] = ()

    def merge(self, pairs: Pairs) -> Pairs:
        """Return the pairs with corrected masks and the new ones, sorted by image name."""
        merged = {**{image.name: (image, mask) for image, mask in pairs}, **self.pairs}
        return [merged[name] for name in sorted(merged)]

    def log(self) -> None:
        """Log in one line what is used and what is left out, if there are corrections."""
        if not (self.pairs or self.left_out):
            return
        added = len(self.pairs) - self.replaced
        words = [f"{count:,} {_WORDS[reason]}" for reason, count in self.left_out.items()]
        left_out = f"; left out: {', '.join(words)}" if words else ""
        if self.unused:
            more = " ..." if len(self.unused) > MAX_NAMED else ""
            left_out += f" ({', '.join(self.unused[:MAX_NAMED])}{more})"
        log.info(
            "corrected masks: %s added, %s replaced%s",
            plural(added, "pair"),
            plural(self.replaced, "pair"),
            left_out,
        )


def find_corrected(
    flags: TrainFlags,
    pairs: Pairs,
    cars: Cars,
    base_held_out: Sequence[str],
    car_of: Callable[[str], str],
) -> CorrectedPairs:
    """Return the pairs of ``--corrections``.

    Args:
        flags: of the training.
        pairs: all of --data.
        cars: of --data, as they are split.
        base_held_out: cars that the model of ``--init-from`` held out.
        car_of: the car of an image name.

    Raises:
        InputError: the folder does not exist, or a mask is not clear.
    """
    if not flags.corrections:
        return CorrectedPairs()
    folder = storage.resolve(flags.corrections)
    paired = {image.name: image for image, _ in pairs}
    stems = {_stem(name) for name in paired}
    others = _other_images(flags.data, folder)
    # `review` writes an image that EXIF turns under another suffix.
    images = {name: others[name] for name in others if _stem(name) not in stems} | paired
    found = load_corrections(folder, images)
    names, left_out = choose(found, cars, base_held_out, car_of)
    require_safe_names(names, folder)
    masks = _list_masks(found, names)
    return CorrectedPairs(
        pairs={name: (images[name], masks[name]) for name in names},
        replaced=len(paired.keys() & names),
        hash_fields=[
            [
                *(name, images[name].size, images[name].version),
                *(storage.name(masks[name].name), masks[name].size, found.digests[name]),
            ]
            for name in names
        ],
        left_out=left_out,
        unused=list(found.unused),
    )


def choose(
    found: Corrections,
    cars: Cars,
    base_held_out: Sequence[str],
    car_of: Callable[[str], str],
) -> tuple[list[str], Mapping[str, int]]:
    """Return the names of the images whose corrections are used, sorted, and `left_out`."""
    reasons = dict.fromkeys(base_held_out, BASE_HELD_OUT)
    reasons |= dict.fromkeys(cars[1], VALIDATION) | dict.fromkeys(cars[2], HELD_OUT)
    used, left_out = [], Counter[str]()
    for name in sorted(found.uris):
        if reason := reasons.get(car_of(name)):
            left_out[reason] += 1
        else:
            used.append(name)
    left_out |= {UNCHANGED: found.unchanged, UNUSED: len(found.unused)}
    return used, {reason: left_out[reason] for reason in _WORDS if left_out[reason]}


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _other_images(data: str, folder: str) -> dict[str, FileInfo]:
    """Return the images in FOLDER/train, or else in DATA/test, by name.

    The name of each file is its URI.
    """
    own = storage.join(folder, TRAIN)
    if storage.exists(own):
        source, (files, _) = own, list_images_in(own)
    else:
        source = image_dir(data)
        files = storage.list_files(source, image_suffixes())
    return {file.name: replace(file, name=storage.join(source, file.name)) for file in files}


def _list_masks(found: Corrections, names: Sequence[str]) -> dict[str, FileInfo]:
    """Return the mask of each image as it is listed, with its URI as name."""
    folders = {storage.parent(found.uris[name]) for name in names}
    listed = {
        storage.join(folder, file.name): file for folder in folders for file in list_masks(folder)
    }
    uris = {name: found.uris[name] for name in names}
    return {name: replace(listed[uri], name=uri) for name, uri in uris.items()}
