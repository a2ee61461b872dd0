"""The images that ``review.csv`` lists to be checked, and their masks in the submission."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from carvana_ray import rle
from carvana_ray.data.csv_reader import Row, iter_rows, read_rows
from carvana_ray.data.layout import mask_stem, require_safe_names
from carvana_ray.errors import FileMissingError, InputError, StorageUnavailableError, plural
from carvana_ray.review.ranking import COLUMNS

MAX_NAME = 255  # bytes of a file name on common file systems


@dataclass(frozen=True)
class ListedImage:
    """An image whose mask a person should check.

    Attributes:
        number: its rank, 1 for the most unusual mask.
        name: of its file.
        reasons: why it is listed, in words.
        pieces: number of pieces of its mask.
        area: pixels of its mask.
        outline: `MaskShape.perimeter_ratio`, rounded to three digits.
    """

    number: int
    name: str
    reasons: str
    pieces: int
    area: int
    outline: float

    @property
    def mask_name(self) -> str:
        """File name of the mask, a PNG."""
        return f"{mask_stem(self.name)}.png"


def read_listed(uri: str) -> list[ListedImage]:
    """Return the images that a ``review.csv`` lists, the most unusual first.

    Raises:
        InputError: the file is missing or damaged, or two masks would have one file name.
    """
    listed: list[ListedImage] = []
    try:
        for line, row in iter_rows(uri, COLUMNS):
            cells = dict(zip(COLUMNS, row, strict=True))
            if cells["look"] == "0":
                continue
            try:
                numbers = int(cells["pieces"]), int(cells["area"]), float(cells["outline"])
            except ValueError as error:
                raise InputError(f"{uri}: line {line}: {error}") from error
            listed.append(ListedImage(len(listed) + 1, cells["img"], cells["reasons"], *numbers))
    except FileMissingError as error:
        raise InputError(f"{error}; predict writes it") from error
    require_safe_names((image.name for image in listed), uri)
    _require_mask_names(uri, listed)
    return listed


def _require_mask_names(uri: str, listed: Sequence[ListedImage]) -> None:
    taken: dict[str, str] = {}
    for image in listed:
        other = taken.setdefault(image.mask_name, image.name)
        if other != image.name:
            raise InputError(
                f"{uri}: {other} and {image.name} have the same name but for the suffix, so they "
                "have one mask; rename one of the images and predict again"
            )
        if len(image.mask_name.encode()) > MAX_NAME:
            raise InputError(
                f"{uri}: {image.name}: the name is too long for its mask, {image.mask_name}; "
                "rename the image and predict again"
            )


def require_rows(submission: str, listed: Sequence[ListedImage]) -> None:
    """Raise `InputError` unless each listed image has one row, with a mask of the listed area."""
    areas = {image.name: image.area for image in listed}
    seen = set()
    for name, runs in _rows_of(submission, areas):
        if name in seen:
            raise InputError(f"{submission}: {name} has more than one row")
        seen.add(name)
        try:
            starts, ends = rle.parse_runs(runs, 2**62)
        except ValueError as error:
            raise InputError(f"{submission}: {name}: {error}") from error
        if (area := int((ends - starts).sum())) != areas[name]:
            raise InputError(
                f"{submission}: the mask of {name} has {plural(area, 'pixel')}, review.csv says "
                f"{areas[name]}, so they are of two predictions; run predict again"
            )
    if missing := [image.name for image in listed if image.name not in seen]:
        raise InputError(
            f"{submission}: no row for {len(missing)} of {plural(len(listed), 'listed image')}, "
            f"the first is {missing[0]}; name the --submission of review.csv, or run predict again"
        )


def iter_masks(submission: str, listed: Sequence[ListedImage]) -> Iterator[tuple[ListedImage, str]]:
    """Yield each listed image and the run-length text of its mask, in order of the submission."""
    by_name = {image.name: image for image in listed}
    for name, runs in _rows_of(submission, by_name):
        yield by_name[name], runs


def _rows_of(submission: str, names: Mapping[str, object]) -> Iterator[Row]:
    try:
        yield from (row for row in read_rows(submission) if row[0] in names)
    except StorageUnavailableError:
        raise
    except FileMissingError as error:
        raise InputError(f"{error}; predict writes it") from error
