"""The flags of the commands that use a model: evaluate and predict."""

from dataclasses import dataclass
from typing import Any, Literal

from carvana_ray.config.cars_flag import CarsFlags
from carvana_ray.config.cli import option
from carvana_ray.config.corrections_flag import CorrectionsFlags
from carvana_ray.config.flags import ModelFlags
from carvana_ray.errors import InputError

# NAME.csv and NAME.json of the program and of Kaggle, in a folder that may be --out.
TAKEN_NAMES = {"config", "crc32", "evaluation", "metadata", "review", "sample", "sample_submission"}
TAKEN_NAMES |= {"train_masks"}


FEW_IMAGES = 128  # or fewer: predict and cutout of one machine run without Ray


def ray_option() -> Any:
    """Return the flag of the commands that need no Ray for a few images."""
    return option("auto", f"auto: {FEW_IMAGES} images or fewer run without Ray", group="machine")


@dataclass(frozen=True, kw_only=True)
class UseModelFlags(ModelFlags):
    """Flags of every job that uses a model."""

    model: str = option(
        "", "model folder, or starter (default: OUT/model)", group="model", metavar="FOLDER"
    )
    decode: Literal["cpu", "gpu"] = option(
        "cpu", "device that decodes JPEGs; gpu uses nvJPEG and needs torchvision", group="machine"
    )

    @property
    def model_uri(self) -> str:
        """The model folder of the flag, or the one under --out."""
        return self.model or f"{self.out.rstrip('/')}/model"


def _stem(submission: str) -> str:
    return submission.removesuffix(".gz").removesuffix(".csv")


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(UseModelFlags, CarsFlags):
    """Score a model on cars that it was not trained on.

    The command prints the mean Dice at full size and writes OUT/report.html.
    """


@dataclass(frozen=True, kw_only=True)
class PredictFlags(EvaluateFlags, CorrectionsFlags):
    """Predict the mask of each image and write a submission file.

    The same command resumes: it skips finished images.
    """

    data: str = option(
        "",
        "folder with test/ (and sample_submission.csv), or any folder of images",
        group="input",
        metavar="FOLDER",
    )
    submission: str = option(
        "submission.csv",
        "name of the submission file under --out; .csv.gz is compressed",
        group="output",
        metavar="FILE",
    )
    shard_size: int = option(
        0,
        "largest number of images per shard; 0: 256 (64 at full size), or fewer for fewer than "
        "16,384 images",
        least=0,
        group="output",
    )
    partial: bool = option(
        False, "predict only the existing images if sample_submission.csv lists more", group="input"
    )
    on_bad_picture: Literal["fail", "empty"] = option(
        "fail",
        "fail: write no submission if an image cannot be used; empty: give it an empty mask",
        group="input",
    )
    max_bad: int = option(
        10, "largest number of bad images with --on-bad-picture empty", least=0, group="input"
    )
    verify: bool = option(
        False, "read all images again and predict the changed ones", group="input"
    )
    merge_only: bool = option(False, "merge the existing shards, predict nothing", group="output")
    ray: Literal["auto", "always"] = ray_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.submission
        if not name.endswith((".csv", ".csv.gz")) or "/" in name or name.startswith("."):
            raise InputError(
                f"--submission {name}: must be a file name that ends in .csv or .csv.gz, without a "
                "leading dot"
            )
        if _stem(name).lower() in TAKEN_NAMES:  # in any case: some disks do not tell case
            raise InputError(
                f"--submission {name}: this program or Kaggle uses {_stem(name)}.csv or "
                f"{_stem(name)}.json; choose another name"
            )

    @property
    def submission_uri(self) -> str:
        """The submission file under --out."""
        return f"{self.out.rstrip('/')}/{self.submission}"

    @property
    def marker_uri(self) -> str:
        """The marker, submission.json: it names the complete submission and its SHA-256."""
        return f"{_stem(self.submission_uri)}.json"
