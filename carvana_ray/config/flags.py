"""A frozen dataclass per job: what can be asked of it, and what cannot be.

Its fields are the job's flags, see `cli`. Bad values raise `InputError` in ``__post_init__``,
whoever builds the object.
"""

from dataclasses import dataclass
from typing import Literal

from carvana_ray.config.cli import option, require_choices, require_min
from carvana_ray.config.recipes import NEW_MODEL_DEFAULTS, RECIPE_DEFAULTED, RECIPES
from carvana_ray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LogFlags:
    """What every job takes: how much it says."""

    quiet: bool = option(False, "no progress: only warnings, errors and the result")
    verbose: bool = option(False, "with tracebacks of errors, and what Ray says")

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise InputError("--quiet, --verbose: one of them")


@dataclass(frozen=True, kw_only=True)
class RayFlags(LogFlags):
    """What every job on a Ray session takes."""

    out: str = option(
        "runs/latest", "folder or s3:// prefix for all results; the same again goes on there"
    )
    shared_filesystem: bool = option(
        False, "on a cluster of several nodes: all of them have the local folders that are named"
    )
    num_cpus: int | None = option(
        None, "logical CPUs of a local Ray session (default: cores + 1, for the reader)"
    )
    profile: bool = option(
        False, "train, predict: write a torch trace and Ray Data's statistics to OUT/profile"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_min(1, self, "num_cpus")
        require_choices(self)
        if not self.out:
            raise InputError("--out: an empty name")


@dataclass(frozen=True, kw_only=True)
class ModelFlags(RayFlags):
    """What every job that runs the network on pictures takes."""

    data: str = option(
        "", "folder or s3:// prefix in Kaggle's layout: train/ train_masks/ test/, CSVs beside them"
    )
    workers: int | None = option(
        None, "training workers, model replicas (default: one a GPU of the cluster; 1 without)"
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "where the network runs; auto takes GPUs where the cluster has some"
    )
    limit: int = option(0, "take the first N pictures alone, for a dry run (0: all)")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_min(0, self, "limit")
        require_min(1, self, "workers")

    @property
    def min_workers_required(self) -> int | None:
        """Workers that are enough to begin with, or None: all of them are needed."""
        return None


@dataclass(frozen=True, kw_only=True)
class SeedFlags(RayFlags):
    """What every job with chance in it takes."""

    seed: int = option(0, "of all chance: drawing, split by car, order of training, first weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_min(0, self, "seed")


@dataclass(frozen=True, kw_only=True)
class SampleFlags(SeedFlags):
    """Draw the sample data set."""

    out: str = option("runs/sample", "folder to draw into, in Kaggle's layout")
    sample_cars: int = option(24, "cars with masks, 16 pictures each")
    sample_test_cars: int = option(4, "cars without masks, 16 pictures each")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_min(1, self, "sample_cars")
        require_min(0, self, "sample_test_cars")


@dataclass(frozen=True, kw_only=True)
class TrainFlags(ModelFlags, SeedFlags):
    """Train on pictures with masks."""

    init_from: str = option(
        "", "model folder to start from: its network and weights, to learn your own pictures"
    )
    # These three are None only with --init-from, until `finetune.resolved` has read the model.
    recipe: Literal["default", "2017", "best"] = option(
        None,
        "default: fast; best: all pixels, 60 epochs, half the errors; 2017: the old project's "
        "(default: default, or --init-from's)",
    )
    downscale: int = option(
        None,
        "pixels a side that become one for the network: 1, 2, 4 or 8 (default: the recipe's, 4; "
        "best: 1; or --init-from's)",
    )
    base: int = option(
        None,
        "channels of the network's finest level; each of 4 coarser ones doubles (default: 32, or "
        "--init-from's)",
    )
    epochs: int = option(
        None, "times each training picture is seen (default: the recipe's, 5; best: 60)"
    )
    batch_size: int = option(
        None,
        "pictures a step, over all workers together (default: the recipe's, 8; 2017: 16)",
    )
    learning_rate: float | None = option(None, "of Adam (default: the recipe's, 2e-3 or 1e-3)")
    holdout_cars: str = option(
        "0.15", "cars never trained on, scored by evaluate: a count, a fraction, or a file of names"
    )
    val_cars: str = option(
        "0.1", "of the other cars, those that choose the checkpoint; count or fraction"
    )
    min_workers: int | None = option(
        None, "go on with this many workers where machines are lost (default: wait for --workers)"
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto", "compile the network; auto: on a GPU, from 100,000 pictures a worker on"
    )
    on_bad_picture: Literal["fail", "skip"] = option(
        "fail", "fail: name the pictures and masks that cannot be used; skip: leave them out"
    )
    tensorboard: bool = option(
        False, "write each epoch's figures to OUT/tensorboard too (pip install tensorboard)"
    )

    def __post_init__(self) -> None:
        for name, value in NEW_MODEL_DEFAULTS.items():
            if getattr(self, name) is None and not self.init_from:
                object.__setattr__(self, name, value)
        if self.recipe in RECIPES:  # else it is None, or wrong, as will be said
            for name in RECIPE_DEFAULTED:
                if getattr(self, name) is None:
                    object.__setattr__(self, name, getattr(RECIPES[self.recipe], name))
        super().__post_init__()
        require_min(1, self, "base", "epochs", "batch_size", "min_workers")
        if self.min_workers and self.workers and self.min_workers > self.workers:
            raise InputError(f"--min-workers {self.min_workers}: more than --workers")
        if self.downscale not in (None, 1, 2, 4, 8):
            raise InputError(f"--downscale {self.downscale}: must be 1, 2, 4 or 8")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise InputError(f"--learning-rate {self.learning_rate}: must lie between 0 and 1")

    @property
    def min_workers_required(self) -> int | None:
        """Workers that are enough to begin with, or None: all of them are needed."""
        return self.min_workers

    @property
    def resolved_learning_rate(self) -> float:
        """The learning rate: as asked, or the recipe's."""
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
        """The model folder: as asked, or the one under --out."""
        return self.model or f"{self.out.rstrip('/')}/model"


@dataclass(frozen=True, kw_only=True)
class PredictFlags(EvaluateFlags):
    """Write the mask of every picture of a catalogue."""

    data: str = option(
        "", "folder with test/ (and sample_submission.csv), or any folder of pictures"
    )
    submission: str = option(
        "submission.csv", "name of the file under --out; .csv.gz is compressed"
    )
    shard_size: int = option(
        0, "pictures a shard at most (0: 256, fewer for fewer than 16,384 pictures)"
    )
    partial: bool = option(
        False, "take the pictures that are there where sample_submission.csv lists more"
    )
    on_bad_picture: Literal["fail", "empty"] = option(
        "fail", "fail: no submission while a picture is bad; empty: an empty mask for it"
    )
    max_bad: int = option(10, "with --on-bad-picture empty: bad pictures at most")
    verify: bool = option(False, "read all pictures again and predict those that have changed")
    merge_only: bool = option(False, "merge the shards that are there, predict nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_min(0, self, "shard_size", "max_bad")
        if not self.submission.endswith((".csv", ".csv.gz")) or "/" in self.submission:
            raise InputError(f"--submission {self.submission}: a file name, .csv or .csv.gz")


@dataclass(frozen=True, kw_only=True)
class CutoutFlags(EvaluateFlags):
    """Cut the cars out of pictures: files with transparent or another background."""

    pictures: tuple[str, ...] = option((), "pictures and folders of pictures", positional=True)
    data: str = option("", "folder with test/, or any folder of pictures; or name them as they are")
    submission: str = option(
        "", "take the masks of this file's rows, .csv or .csv.gz, and no model"
    )
    edge: Literal["auto", "soft", "hard"] = option(
        "auto",
        "soft: as the network is sure; hard: the mask itself; auto: soft, hard for masks alone",
    )
    background: str = option(
        "transparent", "transparent; or a colour: white, '#f0f0f0'; or a picture file"
    )
    format: Literal["png", "webp"] = option("png", "of the files; webp is smaller, and not exact")
    mask_only: bool = option(False, "the mask alone as PNG: 1 bit a pixel; 8 bits with --edge soft")
    on_bad_picture: Literal["fail", "skip"] = option(
        "fail", "in the end, exit code 3 where a picture is bad, or 0; all others are cut out"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pictures", tuple(self.pictures))  # JSON and flags have lists
        if not self.pictures and not self.data:
            raise InputError("--data is missing: a folder of pictures; or name pictures alone")
        if self.pictures and self.data:
            raise InputError(f"--pictures {self.pictures[0]}, --data {self.data}: one of them")
        if self.submission and self.model:
            raise InputError("--submission, --model: one of them; each of them gives masks")
        if self.submission and self.edge == "soft":
            raise InputError("--edge soft: the masks of --submission have hard edges")
        if self.submission and not self.submission.endswith((".csv", ".csv.gz")):
            raise InputError(f"--submission {self.submission}: must be .csv or .csv.gz")
        if self.mask_only and (self.format != "png" or self.background != "transparent"):
            raise InputError("--mask-only: is a PNG without background")

    @property
    def soft(self) -> bool:
        """Whether edges are soft."""
        return self.edge == "soft" or (
            self.edge == "auto" and not self.mask_only and not self.submission
        )


@dataclass(frozen=True, kw_only=True)
class PipelineFlags(PredictFlags, TrainFlags, SampleFlags):
    """Sample or given data, model, score, submission: everything in order."""

    data: str = option("", "folder in Kaggle's layout (default: draw a sample under OUT/sample)")
    out: str = option("runs/latest", "folder for all results; the same folder again goes on there")
    on_bad_picture: Literal["fail", "empty"] = option(  # type: ignore[assignment]
        "fail", "to predict: fail, or take an empty mask; bad pictures to train on always fail"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model:
            raise InputError("--model: the pipeline trains its own; use jobs/predict.py")
        if self.merge_only or self.verify:
            raise InputError("--merge-only, --verify: are for jobs/predict.py")
        if not self.holdout_cars.strip("0."):
            raise InputError("--holdout-cars 0: the pipeline scores the cars that it holds out")
        if not self.data and not self.sample_test_cars:
            raise InputError("--sample-test-cars 0: the pipeline predicts them")


@dataclass(frozen=True, kw_only=True)
class CheckFlags(LogFlags):
    """Is this submission one that Kaggle takes?"""

    submission: str = option("", "the file to check, .csv or .csv.gz", positional=True)
    data: str = option(
        "", "folder with sample_submission.csv, whose rows are expected; or that file"
    )
    height: int = option(1280, "of the pictures, in pixels")
    width: int = option(1918, "of the pictures, in pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_min(1, self, "height", "width")
        if not self.submission:
            raise InputError("--submission is missing: the file to check")


@dataclass(frozen=True, kw_only=True)
class ExportFlags(LogFlags):
    """Write a model as one ONNX file, its preprocessing in it, checked to give the same masks."""

    model: str = option("", "model folder, as train writes it", positional=True)
    out: str = option("", "the file to write, .onnx (default: model.onnx in the model folder)")
    input: Literal["picture", "gray"] = option(
        "picture",
        "picture: decoded pixels in full size; gray: means of blocks, as prediction has of a JPEG",
    )
    data: str = option("", "folder of pictures to check with (default: draw some)")
    limit: int = option(4, "pictures to check with")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choices(self)
        require_min(1, self, "limit")
        if not self.model:
            raise InputError("--model is missing: the model folder to export")
        if self.out and not self.out.endswith(".onnx"):
            raise InputError(f"--out {self.out}: must end in .onnx")

    @property
    def out_uri(self) -> str:
        """The file to write: as asked, or the one beside the weights."""
        return self.out or f"{self.model.rstrip('/')}/model.onnx"
