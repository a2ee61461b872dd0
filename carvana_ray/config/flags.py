"""One frozen dataclass per job. Its fields are the flags of the job, see `cli`.

``__post_init__`` raises `InputError` for invalid values. ``--help`` shows the class docstring.
Here are the flags that jobs share, and the jobs that neither train nor predict.
"""

from dataclasses import dataclass
from typing import Literal

from carvana_ray.config.cli import option, require_valid
from carvana_ray.errors import InputError

STARTER = "starter"  # name of the model that comes with the program


@dataclass(frozen=True, kw_only=True)
class LogFlags:
    """Flags of every job: the amount of output."""

    quiet: bool = option(False, "print only warnings, errors and the JSON result", group="log")
    verbose: bool = option(
        False, "print tracebacks of known errors, and the log of Ray", group="log"
    )

    def __post_init__(self) -> None:
        require_valid(self)
        if self.quiet and self.verbose:
            raise InputError("--quiet, --verbose: use only one of them")


@dataclass(frozen=True, kw_only=True)
class RayFlags(LogFlags):
    """Flags of every job that runs on Ray."""

    out: str = option(
        "runs/latest",
        "folder or s3:// prefix for all results; the same folder again resumes",
        group="output",
        metavar="FOLDER",
    )
    shared_filesystem: bool = option(
        False,
        "on a cluster of several nodes: all nodes see the local folders that you pass",
        group="machine",
    )
    num_cpus: int | None = option(
        None, "logical CPUs of a local Ray session (default: cores + 1)", least=1, group="machine"
    )
    profile: bool = option(
        False,
        "train, predict: write a torch trace and Ray Data's statistics to OUT/profile",
        group="output",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.out:
            raise InputError("--out: must not be empty; name a folder")


@dataclass(frozen=True, kw_only=True)
class ModelFlags(RayFlags):
    """Flags of every job that runs the network on images."""

    data: str = option(
        "",
        "folder or s3:// prefix in Kaggle's layout: train/, train_masks/, test/ and CSV files",
        group="input",
        metavar="FOLDER",
    )
    workers: int | None = option(
        None,
        "training workers and model replicas (default: one per GPU, 1 without GPUs)",
        least=1,
        group="machine",
    )
    device: Literal["auto", "cpu", "cuda"] = option(
        "auto", "device of the network; auto: GPUs if the cluster has any", group="machine"
    )
    limit: int = option(0, "use the first N images only; 0: all", least=0, group="input")


@dataclass(frozen=True, kw_only=True)
class SeedFlags(RayFlags):
    """Flags of every job that uses random numbers."""

    seed: int = option(
        0, "random seed for sample, split, shuffling and initial weights", least=0, group="training"
    )


@dataclass(frozen=True, kw_only=True)
class SampleFlags(SeedFlags):
    """Draw a sample data set.

    The program draws cars in a studio, 16 views each, in Kaggle's layout. It downloads nothing.
    """

    out: str = option(
        "runs/sample",
        "folder or s3:// prefix for the data set, in Kaggle's layout",
        group="output",
        metavar="FOLDER",
    )
    sample_cars: int = option(
        24, "number of cars with masks, 16 images each", least=1, group="sample"
    )
    sample_test_cars: int = option(
        4, "number of cars without masks, 16 images each", least=0, group="sample"
    )
    scenes: Literal["studio", "varied"] = option(
        "studio",
        "studio: one room; varied: another room, camera and light in each image",
        group="sample",
    )


@dataclass(frozen=True, kw_only=True)
class CheckFlags(LogFlags):
    """Check whether Kaggle accepts a submission file.

    Exit code 1 means that the file has faults.
    """

    submission: str = option(
        "",
        "submission file to check, .csv or .csv.gz",
        positional=True,
        group="input",
        metavar="FILE",
    )
    data: str = option(
        "",
        "folder with sample_submission.csv, or that file, which lists the expected images",
        group="input",
        metavar="FOLDER|FILE",
    )
    height: int = option(
        1280, "height of the images in pixels", least=1, group="input", metavar="PIXELS"
    )
    width: int = option(
        1918, "width of the images in pixels", least=1, group="input", metavar="PIXELS"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.submission:
            raise InputError("--submission is missing: name the file to check")


@dataclass(frozen=True, kw_only=True)
class ExportFlags(LogFlags):
    """Export a model as an ONNX file that includes the preprocessing.

    The command compares the masks of the file with those of the model.
    """

    model: str = option(
        "",
        "model folder that train wrote, or starter",
        positional=True,
        group="model",
        metavar="FOLDER",
    )
    out: str = option(
        "",
        "output file, .onnx (default: model.onnx in the model folder)",
        group="output",
        metavar="FILE",
    )
    input: Literal["picture", "gray"] = option(
        "picture",
        "picture: decoded pixels at full size; gray: the downscaled gray that predict decodes",
        group="output",
    )
    data: str = option(
        "",
        "folder of images to check with (default: drawn images)",
        group="input",
        metavar="FOLDER",
    )
    limit: int = option(4, "number of images to check with", least=1, group="input")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise InputError("--model is missing: name the model folder to export")
        if self.out and not self.out.endswith(".onnx"):
            raise InputError(f"--out {self.out}: must end in .onnx")

    @property
    def out_uri(self) -> str:
        """The output file of the flag, or model.onnx in the model folder."""
        if self.model == STARTER:  # its folder is part of the installation
            return self.out or f"{STARTER}.onnx"
        return self.out or f"{self.model.rstrip('/')}/model.onnx"


@dataclass(frozen=True, kw_only=True)
class CompletionFlags:
    """Print a script that completes commands, flags and their values in a shell."""

    shell: Literal["bash", "zsh", "fish"] = option(
        None, "bash, zsh or fish", positional=True, group="input", metavar="SHELL"
    )

    def __post_init__(self) -> None:
        require_valid(self)
        if not self.shell:
            raise InputError("SHELL is missing: bash, zsh or fish")
