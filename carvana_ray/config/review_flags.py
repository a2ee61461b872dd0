"""The flags of the command review."""

from dataclasses import dataclass

from carvana_ray.config.cli import option
from carvana_ray.config.flags import LogFlags
from carvana_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReviewFlags(LogFlags):
    """Write unusual images and their masks into a folder, to be corrected.

    Masks that a person has changed there are kept. --corrections of other commands uses them.
    """

    out: str = option(
        "",
        "folder of a prediction: with review.csv and the submission",
        positional=True,
        group="input",
        metavar="FOLDER",
    )
    data: str = option(
        "",
        "folder of the images that were predicted (default: the one that predict has noted)",
        group="input",
        metavar="FOLDER",
    )
    submission: str = option(
        "",
        "name of the submission file in OUT (default: the one that predict has noted)",
        group="input",
        metavar="FILE",
    )
    limit: int = option(
        0, "take the N most unusual of the listed images only; 0: all", least=0, group="input"
    )
    to: str = option(
        "",
        "folder or s3:// prefix for images and masks (default: OUT/review)",
        group="output",
        metavar="FOLDER",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out:
            raise InputError("--out is missing: name the folder of a prediction")
        if "/" in self.submission:
            raise InputError(f"--submission {self.submission}: must be the name of a file in --out")
        if self.to and self.to.rstrip("/") == self.out.rstrip("/"):
            raise InputError(f"--to {self.to}: must be another folder than --out")

    @property
    def to_uri(self) -> str:
        """The folder of the flag, or the one under --out."""
        return self.to or f"{self.out.rstrip('/')}/review"
