"""One frozen dataclass per job. Its fields are the flags of the job, see `cli`.

``__post_init__`` raises `InputError` for invalid values. ``--help`` shows the class docstring.
"""

from dataclasses import dataclass
from typing import Literal

from carvana_ray.config.cli import option, require_valid
from carvana_ray.config.recipes import RECIPE_DEFAULTED, RECIPES
from carvana_ray.errors import InputError

# NAME.csv and NAME.json of the program and of Kaggle, in a folder that may be --out.
TAKEN_NAMES = {"config", "crc32", "evaluation", "metadata", "review", "sample", "sample_submission"}
TAKEN_NAMES |= {"train_masks"}


@dataclass(frozen=True, kw_only=True)
class LogFlags:
    """Flags of every job: the amount of output."""

    quiet: bool = option(False, "print only warnings, errors and the JSON result")
    verbose: bool = option(False, "print tracebacks of known errors, and the log of Ray")

    def __post_init__(self) -> None:
        require_valid(self)
        if self.quiet and self.verbose:
            raise InputError("--quiet, --verbose: use only one of them")


@dataclass(frozen=True, kw_only=True)
class RayFlags(LogFlags):
    """Flags of every job that runs on Ray."""

    out: str = option(
        "runs/latest", "folder or s3:// prefix for all results; the same folder again resumes"
    )
    shared_filesystem: bool = option(
        False, "on a cluster of several nodes: all nodes see the local folders that you pass"
    )
    num_cpus: int | None = option(
        None, "logical CPUs of a local Ray session (default: cores + 1)", least=1
    )
    profile: bool = option(
        False, "train, predict: write a torch trace and Ray Data's statistics to OUT/profile"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out:
            raise InputError("--out: must not be empty; name a folder")


@dataclass(frozen=True, kw_only=True)
class ModelFlags(RayFlags):
    """Flags of every job that runs the network on images."""

    data: str = option(
        "", "folder or s3:// prefix in Kaggle's layout: train/, train_masks/, test/ and CSV files"
    )
    workers: int | None = option(
        None, "training workers and model replicas (default: one per GPU, 1 without GPUs)", least=1
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "device of the network; auto: GPUs if the cluster has any"
    )
    limit: int = option(0, "use the first N images only; 0: all", least=0)


@dataclass(frozen=True, kw_only=True)
class SeedFlags(RayFlags):
    """Flags of every job that uses random numbers."""

    seed: int = option(0, "random seed for sample, split, shuffling and initial weights", least=0)


@dataclass(frozen=True, kw_only=True)
class SampleFlags(SeedFlags):
    """Draw the sample data set."""

    out: str = option("runs/sample", "folder or s3:// prefix for the data set, in Kaggle's layout")
    sample_cars: int = option(24, "number of cars with masks, 16 images each", least=1)
    sample_test_cars: int = option(4, "number of cars without masks, 16 images each", least=0)


@dataclass(frozen=True, kw_only=True)
class TrainFlags(ModelFlags, SeedFlags):
    """Train a model on images with masks."""

    init_from: str = option(
        "", "model folder to fine-tune: recipe, base, downscale and weights are taken from it"
    )
    # The next five are None only with --init-from, until `finetune.resolve_flags` reads the model.
    recipe: Literal["default", "2017", "best"] = option(
        None,
        "default: fast; best: full resolution, 60 epochs, half the errors; 2017: the original "
        "project's (default: default, or --init-from's)",
    )
    downscale: int = option(
        None, "downscale factor: 1, 2, 4 or 8 (default: 4, with --recipe best 1, or --init-from's)"
    )
    base: int = option(
        None,
        "channels of the finest level, doubled per coarser level (default: 32, or --init-from's)",
        least=1,
    )
    epochs: int = option(
        None, "passes over the images (default: 5, with --recipe best 60)", least=1
    )
    batch_size: int = option(
        None, "images per step of all workers together (default: 8, with --recipe 2017 16)", least=1
    )
    learning_rate: float | None = option(
        None, "learning rate of Adam (default: 2e-3, with --recipe 2017 1e-3)"
    )
    holdout_cars: str = option(
        "0.15", "cars never trained on, scored by evaluate: count, fraction, or a file of names"
    )
    val_cars: str = option(
        "0.1", "part of the other cars that selects the best epoch: count or fraction"
    )
    min_workers: int | None = option(
        None,
        "smallest number of workers to train with if machines are lost (default: --workers)",
        least=1,
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto", "compile the network; auto: on GPUs, from 100,000 images per worker"
    )
    on_bad_picture: Literal["fail", "skip"] = option(
        "fail", "fail: exit if an image or mask cannot be used, and name it; skip: leave it out"
    )
    tensorboard: bool = option(
        False, "also write the metrics of each epoch to OUT/tensorboard (pip install tensorboard)"
    )

    def __post_init__(self) -> None:
        defaults = {} if self.init_from else {"recipe": "default", "base": 32}
        recipe = RECIPES.get(self.recipe or defaults.get("recipe"))
        if recipe:  # else the recipe of --init-from, or an invalid one
            defaults |= {name: getattr(recipe, name) for name in RECIPE_DEFAULTED}
        for name, value in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        super().__post_init__()
        if self.min_workers and self.workers and self.min_workers > self.workers:
            raise InputError(f"--min-workers {self.min_workers}: must not exceed --workers")
        if self.downscale not in (None, 1, 2, 4, 8):
            raise InputError(f"--downscale {self.downscale}: must be 1, 2, 4 or 8")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise InputError(f"--learning-rate {self.learning_rate}: must be between 0 and 1")

    @property
    def resolved_learning_rate(self) -> float:
        """The learning rate of the flag, or of the recipe."""
        return self.learning_rate or RECIPES[self.recipe].learning_rate


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags(ModelFlags):
    """Score a model on cars that it was not trained on."""

    model: str = option("", "model folder (default: OUT/model)")
    decode: Literal["cpu", "gpu"] = option(
        "cpu", "device that decodes JPEGs; gpu uses nvJPEG and needs torchvision"
    )

    @property
    def model_uri(self) -> str:
        """The model folder of the flag, or the one under --out."""
        return self.model or f"{self.out.rstrip('/')}/model"


def _stem(submission: str) -> str:
    return submission.removesuffix(".gz").removesuffix(".csv")


@dataclass(frozen=True, kw_only=True)
class PredictFlags(EvaluateFlags):
    """Predict the masks of all images, as a submission file."""

    data: str = option("", "folder with test/ (and sample_submission.csv), or any folder of images")
    submission: str = option(
        "submission.csv", "name of the submission file under --out; .csv.gz is compressed"
    )
    shard_size: int = option(
        0,
        "largest number of images per shard; 0: 256 (64 at full size), or fewer for fewer than "
        "16,384 images",
        least=0,
    )
    partial: bool = option(
        False, "predict only the existing images if sample_submission.csv lists more"
    )
    on_bad_picture: Literal["fail", "empty"] = option(
        "fail", "fail: write no submission if an image cannot be used; empty: give it an empty mask"
    )
    max_bad: int = option(10, "largest number of bad images with --on-bad-picture empty", least=0)
    verify: bool = option(False, "read all images again and predict the changed ones")
    merge_only: bool = option(False, "merge the existing shards, predict nothing")

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


@dataclass(frozen=True, kw_only=True)
class CutoutFlags(EvaluateFlags):
    """Cut cars out of images: files with a transparent or another background."""

    pictures: tuple[str, ...] = option((), "image files and folders of images", positional=True)
    data: str = option("", "folder with test/, or any folder of images")
    submission: str = option(
        "", "submission file, .csv or .csv.gz, that gives the masks instead of a model"
    )
    edge: Literal["auto", "soft", "hard"] = option(
        "auto",
        "soft: anti-aliased alpha; hard: binary mask; auto: hard with --mask-only or --submission, "
        "else soft",
    )
    background: str = option(
        "transparent", "transparent, a color (white, '#f0f0f0') or an image file"
    )
    format: Literal["png", "webp"] = option(
        "png", "file format; webp is smaller, but its colors are lossy"
    )
    mask_only: bool = option(
        False, "write the mask alone: a PNG with 1 bit per pixel, 8 bits with --edge soft"
    )
    on_bad_picture: Literal["fail", "skip"] = option(
        "fail",
        "fail: exit with code 3 if an image cannot be used; skip: exit with 0; both cut out all "
        "other images",
    )

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
        if self.mask_only and (self.format != "png" or self.background != "transparent"):
            raise InputError("--mask-only: writes a PNG; omit --format and --background")

    @property
    def soft(self) -> bool:
        """Whether edges are soft: `edge`, with ``auto`` resolved."""
        return self.edge == "soft" or (
            self.edge == "auto" and not self.mask_only and not self.submission
        )


@dataclass(frozen=True, kw_only=True)
class PipelineFlags(PredictFlags, TrainFlags, SampleFlags):
    """Run all jobs in order: sample (without --data), train, evaluate, predict."""

    data: str = option("", "folder in Kaggle's layout (default: draw a sample under OUT/sample)")
    out: str = option(
        "runs/latest", "folder or s3:// prefix for all results; the same folder again resumes"
    )
    on_bad_picture: Literal["fail", "empty"] = option(  # type: ignore[assignment]
        "fail",
        "in prediction: fail, or an empty mask for the image; bad training images always fail",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model:
            raise InputError("--model: a pipeline trains its own model; use the command predict")
        if self.merge_only or self.verify:
            raise InputError("--merge-only, --verify: use the command predict")
        if not self.holdout_cars.strip("0."):
            raise InputError("--holdout-cars 0: the pipeline scores held-out cars; use 1 or more")
        if not self.data and not self.sample_test_cars:
            raise InputError("--sample-test-cars 0: the pipeline predicts test cars; use 1 or more")


@dataclass(frozen=True, kw_only=True)
class CheckFlags(LogFlags):
    """Check that Kaggle accepts a submission file."""

    submission: str = option("", "submission file to check, .csv or .csv.gz", positional=True)
    data: str = option(
        "", "folder with sample_submission.csv, or that file, which lists the expected images"
    )
    height: int = option(1280, "height of the images in pixels", least=1)
    width: int = option(1918, "width of the images in pixels", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.submission:
            raise InputError("--submission is missing: name the file to check")


@dataclass(frozen=True, kw_only=True)
class ExportFlags(LogFlags):
    """Export a model with its preprocessing as one ONNX file, and check that its masks agree."""

    model: str = option("", "model folder that train wrote", positional=True)
    out: str = option("", "output file, .onnx (default: model.onnx in the model folder)")
    input: Literal["picture", "gray"] = option(
        "picture",
        "picture: decoded pixels at full size; gray: the downscaled gray that predict decodes",
    )
    data: str = option("", "folder of images to check with (default: drawn images)")
    limit: int = option(4, "number of images to check with", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise InputError("--model is missing: name the model folder to export")
        if self.out and not self.out.endswith(".onnx"):
            raise InputError(f"--out {self.out}: must end in .onnx")

    @property
    def out_uri(self) -> str:
        """The output file of the flag, or model.onnx in the model folder."""
        return self.out or f"{self.model.rstrip('/')}/model.onnx"
