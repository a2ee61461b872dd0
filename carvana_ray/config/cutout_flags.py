"""The flags of ``carvana-ray cutout``."""

import re
from dataclasses import dataclass
from typing import Literal

from carvana_ray.config.cars_flag import CarsFlags
from carvana_ray.config.cli import option
from carvana_ray.config.corrections_flag import CorrectionsFlags
from carvana_ray.config.predict_flags import UseModelFlags, ray_option
from carvana_ray.errors import InputError

MIN_SIDE, MAX_SIDE = 16, 8192  # pixels of a framed cut-out
MAX_MARGIN = 0.4


@dataclass(frozen=True, kw_only=True)
class CutoutFlags(UseModelFlags, CarsFlags, CorrectionsFlags):
    """Cut cars out of images: files with a transparent or another background.

    The cut-outs go to OUT/cutouts. The same command skips finished images.
    """

    model: str = option(
        "",
        "model folder, or starter (default: OUT/model if it exists, else starter)",
        group="model",
        metavar="FOLDER",
    )
    pictures: tuple[str, ...] = option(
        (), "image files and folders of images", positional=True, group="input", metavar="IMAGE"
    )
    data: str = option(
        "", "folder with test/, or any folder of images", group="input", metavar="FOLDER"
    )
    recursive: bool = option(
        True, "walk the sub-folders; cut-outs keep their sub-folder", group="input"
    )
    submission: str = option(
        "",
        "submission file, .csv or .csv.gz, that gives the masks instead of a model",
        group="model",
        metavar="FILE",
    )
    edge: Literal["auto", "soft", "hard"] = option(
        "auto",
        "soft: anti-aliased alpha; hard: binary mask; auto: hard with --mask-only or --submission, "
        "else soft",
        group="output",
    )
    background: str = option(
        "transparent",
        "transparent, a color (white, '#f0f0f0') or an image file",
        group="output",
        metavar="COLOR|FILE",
    )
    format: Literal["png", "webp", "jpeg"] = option(
        "png",
        "file format; webp is smaller, but its colors are lossy; jpeg needs a --background",
        group="output",
    )
    frame: Literal["none", "car", "catalogue"] = option(
        "none",
        "none: as photographed; car: each image is cropped to its car; catalogue: the car stands "
        "on a floor line, and all views of a car have one scale",
        group="output",
    )
    size: str = option(
        "",
        "width and height of a framed cut-out in pixels (default: with --frame catalogue "
        "1600x1200, else that of the car with its margin)",
        group="output",
        metavar="WxH",
    )
    margin: float = option(
        0.05,
        "free part of a frame's width on each side of the car, and at least as much above it",
        group="output",
        metavar="FRACTION",
    )
    shadow: Literal["none", "contact", "soft"] = option(
        "none",
        "contact: a shadow under the car, darkest at its tires; soft: a wide one around that too",
        group="output",
    )
    viewer: bool = option(
        False,
        "also write OUT/viewer: a page for each car with several views, which turns it",
        group="output",
    )
    mask_only: bool = option(
        False,
        "write the mask alone: a PNG with 1 bit per pixel, 8 bits with --edge soft",
        group="output",
    )
    on_bad_picture: Literal["fail", "skip"] = option(
        "fail",
        "fail: exit with code 3 if an image cannot be used; skip: exit with 0; both cut out all "
        "other images",
        group="input",
    )
    ray: Literal["auto", "always"] = ray_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pictures", tuple(self.pictures))  # JSON and argparse give lists
        if not self.pictures and not self.data:
            raise InputError("--data is missing: name a folder of images, or the images themselves")
        if self.pictures and self.data:
            raise InputError(f"--pictures {self.pictures[0]}, --data {self.data}: use only one")
        if self.submission and self.model:
            raise InputError("--submission, --model: use only one of them, each gives masks")
        if self.submission and self.edge == "soft":
            raise InputError("--edge soft: the masks of --submission are hard; omit --edge")
        if self.submission and not self.submission.endswith((".csv", ".csv.gz")):
            raise InputError(f"--submission {self.submission}: must be .csv or .csv.gz")
        if self.submission and self.corrections:
            raise InputError(
                "--submission, --corrections: use only one of them; predict --corrections puts "
                "corrections into the submission"
            )
        self._require_look()

    def _require_look(self) -> None:
        """Raise `InputError` if flags of the look contradict each other."""
        if self.mask_only and (self.format != "png" or self.background != "transparent"):
            raise InputError("--mask-only: writes a PNG; omit --format and --background")
        if self.mask_only and (self.frame != "none" or self.shadow != "none" or self.viewer):
            raise InputError("--mask-only: omit --frame, --shadow and --viewer, they need colors")
        if self.format == "jpeg" and self.background == "transparent":
            raise InputError(
                "--format jpeg: has no transparency; name a --background such as white"
            )
        if self.size and self.frame == "none":
            raise InputError(f"--size {self.size}: needs --frame car or --frame catalogue")
        if self.size and self.frame_size is None:
            raise InputError(
                f"--size {self.size}: must be width x height in pixels such as 1600x1200, each "
                f"from {MIN_SIDE} to {MAX_SIDE}"
            )
        if not 0 <= self.margin <= MAX_MARGIN:
            raise InputError(f"--margin {self.margin}: must be from 0 to {MAX_MARGIN}")

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Width and height of ``--size``; None if it is empty or wrong."""
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", self.size.lower())
        if not match:
            return None
        width, height = int(match[1]), int(match[2])
        good = all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height))
        return (width, height) if good else None

    @property
    def soft(self) -> bool:
        """Whether edges are soft: `edge`, with ``auto`` resolved."""
        return self.edge == "soft" or (
            self.edge == "auto" and not self.mask_only and not self.submission
        )
