"""A frozen dataclass per job; from dataclass to flags; to JSON. Standard library alone.

The fields of a dataclass are the job's flags: ``batch_size`` is ``--batch-size``. Bad values raise
`InputError` in ``__post_init__``, whoever builds the object.
"""

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar

from carvana_ray import __version__
from carvana_ray.errors import InputError

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is made and trained.

    Attributes:
        norm: normalization layers, ``batch`` or ``none``.
        init: first weights, ``torch`` (its layers' own) or ``glorot``.
        schedule: learning rate over the run, ``one-cycle`` or ``flat``.
        learning_rate: of Adam; the highest of the cycle.
        flip: mirror every other training picture.
        clip: the longest gradient of all weights together; longer ones are cut. None: any.
        fold: pixels a side of the network's picture that share a place, see `unet.UNet`.
        jitter: move and size training pictures at random, see `augment.draw`.
        mirror: to predict, ask the network of the mirrored picture, too, and take the mean.
        downscale, epochs, batch_size: what the flags of these names are where they are not given.
    """

    norm: str = "batch"
    init: str = "torch"
    schedule: str = "one-cycle"
    learning_rate: float = 2e-3
    flip: bool = True
    clip: float | None = 1.0
    fold: int = 1
    jitter: bool = False
    mirror: bool = False
    downscale: int = 4
    epochs: int = 5
    batch_size: int = 8


# What each of them brings is in docs/recipes.md.
RECIPES = {
    "default": Recipe(),
    "2017": Recipe(
        norm="none",
        init="glorot",
        schedule="flat",
        learning_rate=1e-3,
        flip=False,
        clip=None,
        batch_size=16,
    ),
    "best": Recipe(fold=4, jitter=True, mirror=True, downscale=1, epochs=60),
}
OF_THE_RECIPE = ("downscale", "epochs", "batch_size")

# What a network is made of where neither a flag nor a model to start from says it.
NEW_NETWORK = {"recipe": "default", "base": 32}


def knob(default: Any, text: str, positional: bool = False) -> Any:
    """Return a dataclass field with a default and the help text of its flag.

    Args:
        default: its value where the flag is not given.
        text: what it means, in which unit.
        positional: it may be given without the flag, too.
    """
    return field(default=default, metadata={"help": text, "positional": positional})


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """What every job takes: how much it says."""

    quiet: bool = knob(False, "no progress: only warnings, errors and the result")
    verbose: bool = knob(False, "with tracebacks of errors, and what Ray says")

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise InputError("--quiet, --verbose: one of them")


@dataclass(frozen=True, kw_only=True)
class Session(Terminal):
    """What every job on a Ray session takes."""

    out: str = knob(
        "runs/latest", "folder or s3:// prefix for all results; the same again goes on there"
    )
    shared_filesystem: bool = knob(
        False, "on a cluster of several nodes: all of them have the local folders that are named"
    )
    num_cpus: int | None = knob(
        None, "logical CPUs of a local Ray session (default: cores + 1, for the reader)"
    )
    profile: bool = knob(
        False,
        "write to OUT/profile where the time went: a time line, traces, Ray Data's statistics",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(1, self, "num_cpus")
        _choices(self)
        if not self.out:
            raise InputError("--out: an empty name")


@dataclass(frozen=True, kw_only=True)
class Network(Session):
    """What every job that runs the network on pictures takes."""

    data: str = knob(
        "", "folder or s3:// prefix in Kaggle's layout: train/ train_masks/ test/, CSVs beside them"
    )
    workers: int | None = knob(
        None, "training workers, model replicas (default: one a GPU of the cluster; 1 without)"
    )
    device: Literal["auto", "cpu", "cuda"] = knob(
        "auto", "where the network runs; auto takes GPUs where the cluster has some"
    )
    limit: int = knob(0, "take the first N pictures alone, for a dry run (0: all)")

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(0, self, "limit")
        _at_least(1, self, "workers")

    @property
    def fewest_workers(self) -> int | None:
        """Workers that are enough to begin with, or None: all of them are needed."""
        return None


@dataclass(frozen=True, kw_only=True)
class Seeded(Session):
    """What every job with chance in it takes."""

    seed: int = knob(0, "of all chance: drawing, split by car, order of training, first weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(0, self, "seed")


@dataclass(frozen=True, kw_only=True)
class Sample(Seeded):
    """Draw the sample data set."""

    out: str = knob("runs/sample", "folder to draw into, in Kaggle's layout")
    sample_cars: int = knob(24, "cars with masks, 16 pictures each")
    sample_test_cars: int = knob(4, "cars without masks, 16 pictures each")

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(1, self, "sample_cars")
        _at_least(0, self, "sample_test_cars")


@dataclass(frozen=True, kw_only=True)
class Train(Network, Seeded):
    """Train on pictures with masks."""

    init_from: str = knob(
        "", "model folder to start from: its network and weights, to learn your own pictures"
    )
    # These three are None only with --init-from, until `finetune.resolved` has read the model.
    recipe: Literal["default", "2017", "best"] = knob(
        None,
        "default: fast; best: all pixels, 60 epochs, half the errors; 2017: the old project's "
        "(default: default, or --init-from's)",
    )
    downscale: int = knob(
        None,
        "pixels a side that become one for the network: 1, 2, 4 or 8 (default: the recipe's, 4; "
        "best: 1; or --init-from's)",
    )
    base: int = knob(
        None,
        "channels of the network's finest level; each of 4 coarser ones doubles (default: 32, or "
        "--init-from's)",
    )
    epochs: int = knob(
        None, "times each training picture is seen (default: the recipe's, 5; best: 60)"
    )
    batch_size: int = knob(
        None,
        "pictures a step, over all workers together (default: the recipe's, 8; 2017: 16)",
    )
    learning_rate: float | None = knob(None, "of Adam (default: the recipe's, 2e-3 or 1e-3)")
    holdout_cars: str = knob(
        "0.15", "cars never trained on, scored by evaluate: a count, a fraction, or a file of names"
    )
    val_cars: str = knob(
        "0.1", "of the other cars, those that choose the checkpoint; count or fraction"
    )
    min_workers: int | None = knob(
        None, "go on with this many workers where machines are lost (default: wait for --workers)"
    )
    compile: Literal["auto", "on", "off"] = knob(
        "auto", "compile the network; auto: on a GPU, from 100,000 pictures a worker on"
    )
    on_bad_picture: Literal["fail", "skip"] = knob(
        "fail", "fail: name the pictures and masks that cannot be used; skip: leave them out"
    )
    tensorboard: bool = knob(
        False, "write each epoch's figures to OUT/tensorboard too (pip install tensorboard)"
    )

    def __post_init__(self) -> None:
        for name, value in NEW_NETWORK.items():
            if getattr(self, name) is None and not self.init_from:
                object.__setattr__(self, name, value)
        if self.recipe in RECIPES:  # else it is None, or wrong, as will be said
            for name in OF_THE_RECIPE:
                if getattr(self, name) is None:
                    object.__setattr__(self, name, getattr(RECIPES[self.recipe], name))
        super().__post_init__()
        _at_least(1, self, "base", "epochs", "batch_size", "min_workers")
        if self.min_workers and self.workers and self.min_workers > self.workers:
            raise InputError(f"--min-workers {self.min_workers}: more than --workers")
        if self.downscale not in (None, 1, 2, 4, 8):
            raise InputError(f"--downscale {self.downscale}: must be 1, 2, 4 or 8")
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise InputError(f"--learning-rate {self.learning_rate}: must lie between 0 and 1")

    @property
    def fewest_workers(self) -> int | None:
        """Workers that are enough to begin with, or None: all of them are needed."""
        return self.min_workers

    @property
    def rate(self) -> float:
        """The learning rate: as asked, or the recipe's."""
        return self.learning_rate or RECIPES[self.recipe].learning_rate


@dataclass(frozen=True, kw_only=True)
class Evaluate(Network):
    """Score a model on cars that it was not trained on."""

    model: str = knob("", "model folder (default: OUT/model)")
    decode: Literal["cpu", "gpu"] = knob(
        "cpu", "who decodes JPEGs; gpu: its engines, where few cores are beside it (torchvision)"
    )

    @property
    def model_uri(self) -> str:
        """The model folder: as asked, or the one under --out."""
        return self.model or f"{self.out.rstrip('/')}/model"


@dataclass(frozen=True, kw_only=True)
class Predict(Evaluate):
    """Write the mask of every picture of a catalogue."""

    data: str = knob("", "folder with test/ (and sample_submission.csv), or any folder of pictures")
    submission: str = knob("submission.csv", "name of the file under --out; .csv.gz is compressed")
    shard_size: int = knob(
        0, "pictures a shard at most (0: 256, fewer for fewer than 16,384 pictures)"
    )
    partial: bool = knob(
        False, "take the pictures that are there where sample_submission.csv lists more"
    )
    on_bad_picture: Literal["fail", "empty"] = knob(
        "fail", "fail: no submission while a picture is bad; empty: an empty mask for it"
    )
    max_bad: int = knob(10, "with --on-bad-picture empty: bad pictures at most")
    verify: bool = knob(False, "read all pictures again and predict those that have changed")
    merge_only: bool = knob(False, "merge the shards that are there, predict nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(0, self, "shard_size", "max_bad")
        if not self.submission.endswith((".csv", ".csv.gz")) or "/" in self.submission:
            raise InputError(f"--submission {self.submission}: a file name, .csv or .csv.gz")


@dataclass(frozen=True, kw_only=True)
class Cutout(Evaluate):
    """Cut the cars out of pictures: files with transparent or another background."""

    pictures: tuple[str, ...] = knob((), "pictures and folders of pictures", positional=True)
    data: str = knob("", "folder with test/, or any folder of pictures; or name them as they are")
    submission: str = knob("", "take the masks of this file's rows, .csv or .csv.gz, and no model")
    edge: Literal["auto", "soft", "hard"] = knob(
        "auto",
        "soft: as the network is sure; hard: the mask itself; auto: soft, hard for masks alone",
    )
    background: str = knob(
        "transparent", "transparent; or a colour: white, '#f0f0f0'; or a picture file"
    )
    format: Literal["png", "webp"] = knob("png", "of the files; webp is smaller, and not exact")
    mask_only: bool = knob(False, "the mask alone as PNG: 1 bit a pixel; 8 bits with --edge soft")
    on_bad_picture: Literal["fail", "skip"] = knob(
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
class Pipeline(Predict, Train, Sample):
    """Sample or given data, model, score, submission: everything in order."""

    data: str = knob("", "folder in Kaggle's layout (default: draw a sample under OUT/sample)")
    out: str = knob("runs/latest", "folder for all results; the same folder again goes on there")
    on_bad_picture: Literal["fail", "empty"] = knob(  # type: ignore[assignment]
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
class Check(Terminal):
    """Is this submission one that Kaggle takes?"""

    submission: str = knob("", "the file to check, .csv or .csv.gz", positional=True)
    data: str = knob("", "folder with sample_submission.csv, whose rows are expected; or that file")
    height: int = knob(1280, "of the pictures, in pixels")
    width: int = knob(1918, "of the pictures, in pixels")

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least(1, self, "height", "width")
        if not self.submission:
            raise InputError("--submission is missing: the file to check")


@dataclass(frozen=True, kw_only=True)
class Export(Terminal):
    """Write a model as one ONNX file, its preprocessing in it, checked to give the same masks."""

    model: str = knob("", "model folder, as train writes it", positional=True)
    out: str = knob("", "the file to write, .onnx (default: model.onnx in the model folder)")
    input: Literal["picture", "gray"] = knob(
        "picture",
        "picture: decoded pixels in full size; gray: means of blocks, as prediction has of a JPEG",
    )
    data: str = knob("", "folder of pictures to check with (default: draw some)")
    limit: int = knob(4, "pictures to check with")

    def __post_init__(self) -> None:
        super().__post_init__()
        _choices(self)
        _at_least(1, self, "limit")
        if not self.model:
            raise InputError("--model is missing: the model folder to export")
        if self.out and not self.out.endswith(".onnx"):
            raise InputError(f"--out {self.out}: must end in .onnx")

    @property
    def out_uri(self) -> str:
        """The file to write: as asked, or the one beside the weights."""
        return self.out or f"{self.model.rstrip('/')}/model.onnx"


def _at_least(least: int, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"{flag(name)} {value}: must be {least} or more")


def _choices(config: Any) -> None:
    for name, kind in typing.get_type_hints(type(config)).items():
        choices = typing.get_args(kind)
        value = getattr(config, name)
        if typing.get_origin(kind) is Literal and value is not None and value not in choices:
            raise InputError(f"{flag(name)} {value}: must be one of {choices}")


def flag(name: str) -> str:
    """Return the flag of a field: ``batch_size`` is ``--batch-size``."""
    return "--" + name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line (argparse prints its usage before it)."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def parser(config: type[Any], prog: str, epilog: str = "") -> argparse.ArgumentParser:
    """Return the parser whose flags are the fields of a dataclass, with their help and defaults."""
    result = _Parser(
        prog=prog,
        description=config.__doc__,
        epilog=epilog,
        allow_abbrev=False,  # a misspelt flag must not pass for another one
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=f"carvana_ray {__version__}")
    kinds = typing.get_type_hints(config)
    for knob_ in dataclasses.fields(config):
        text = knob_.metadata["help"]
        if kinds[knob_.name] is bool:
            result.add_argument(flag(knob_.name), action="store_true", help=text)
            continue
        shown = "" if knob_.default in (None, "", ()) else f" (default: {knob_.default})"
        options: dict[str, Any] = {"default": knob_.default, "help": text + shown}
        args = [kind for kind in typing.get_args(kinds[knob_.name]) if kind is not NoneType]
        several = typing.get_origin(kinds[knob_.name]) is tuple
        if typing.get_origin(kinds[knob_.name]) is Literal:
            options["choices"] = args
        elif several:
            options |= {"nargs": "*", "metavar": "NAME"}
        else:
            kind = args[0] if args else kinds[knob_.name]
            options |= {"type": kind, "metavar": {int: "N", float: "X"}.get(kind, "NAME")}
        result.add_argument(flag(knob_.name), **options)
        if knob_.metadata["positional"]:
            result.add_argument(
                knob_.name,
                nargs="*" if several else "?",
                default=argparse.SUPPRESS,
                help="the same, without the flag",
            )
    return result


def parse(config: type[C], prog: str, argv: Sequence[str] | None, epilog: str = "") -> C:
    """Return the dataclass of a command line. Ends the process with exit code 2 on wrong usage."""
    reader = parser(config, prog, epilog)
    values = vars(reader.parse_args(argv))
    try:
        return config(**values)
    except InputError as error:
        reader.error(str(error))


def to_json(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain values, as they come back from JSON."""
    values = dataclasses.asdict(config)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def pick(config: type[C], source: Any, **changes: Any) -> C:
    """Return a dataclass with the values that `source`, another one, has under the same names."""
    names = {knob_.name for knob_ in dataclasses.fields(config)}  # type: ignore[arg-type]
    values = {name: value for name, value in to_json(source).items() if name in names}
    return config(**(values | changes))
