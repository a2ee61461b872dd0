"""The command ``carvana-ray`` and its subcommands; ``jobs/*.py`` run the same.

Flags are parsed before Ray or torch is imported, so ``--help`` and usage errors come at once.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from carvana_ray import __version__, config
from carvana_ray.config import cli
from carvana_ray.errors import EXIT_OK, EXIT_USAGE
from carvana_ray.runtime import signals

PROGRAM = "carvana-ray"


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        flags: the dataclass of its flags, whose docstring starts with the summary.
        stage: the module of `carvana_ray.stages` that does the work.
        examples: command lines that ``--help`` shows.
    """

    flags: type[config.LogFlags]
    stage: str
    examples: str


COMMANDS = {
    "sample": Command(
        config.SampleFlags,
        "sample",
        """\
  carvana-ray sample                                                   # into runs/sample
  carvana-ray sample --out runs/small --sample-cars 4 --sample-test-cars 1 --seed 7
  carvana-ray sample --out s3://bucket/sample --quiet
""",
    ),
    "train": Command(
        config.TrainFlags,
        "train.stage",
        """\
  carvana-ray train --data carvana --out runs/first
  carvana-ray train --data carvana --out runs/tiny --downscale 8 --base 8 --limit 320
  carvana-ray train --data carvana --out runs/best --recipe best --tensorboard   # needs a GPU
  carvana-ray train --data own --init-from runs/first/model --out runs/own   # fine-tune
  ray job submit --working-dir . -- python jobs/train.py --data s3://bucket/carvana \\
      --out s3://bucket/runs/first
""",
    ),
    "evaluate": Command(
        config.EvaluateFlags,
        "evaluate",
        """\
  carvana-ray evaluate --data carvana --out runs/first                 # scores runs/first/model
  carvana-ray evaluate --data carvana --model runs/first/model --out runs/again
  carvana-ray evaluate --data carvana --out runs/first --limit 32      # a quick look
  dice=$(carvana-ray evaluate --data carvana --out runs/first --quiet | jq .dice)
""",
    ),
    "predict": Command(
        config.PredictFlags,
        "predict.stage",
        """\
  carvana-ray predict --data carvana --out runs/first                  # with runs/first/model
  carvana-ray predict --data photos --model runs/first/model --out runs/photos
  carvana-ray predict --data carvana --out runs/first --submission submission.csv.gz
  carvana-ray predict --data carvana --out runs/first --on-bad-picture empty --max-bad 3
  carvana-ray predict --data carvana --out runs/first --verify         # read all images again
""",
    ),
    "cutout": Command(
        config.CutoutFlags,
        "cutout.stage",
        """\
  carvana-ray cutout car.jpg more/*.jpg --model runs/first/model --out runs/car
  carvana-ray cutout --data photos --model runs/first/model --out runs/photos
  carvana-ray cutout --data photos --model runs/first/model --out runs/w --background white
  carvana-ray cutout --data photos --model runs/first/model --out runs/b --background studio.jpg
  carvana-ray cutout --data carvana --submission runs/first/submission.csv --out runs/masks \\
      --mask-only
""",
    ),
    "check": Command(
        config.CheckFlags,
        "check",
        """\
  carvana-ray check runs/first/submission.csv --data carvana     # the rows that Kaggle lists
  carvana-ray check submission.csv.gz                            # the form of the names only
  carvana-ray check s3://bucket/runs/first/submission.csv --data s3://bucket/carvana
  carvana-ray check photos.csv --height 800 --width 1200         # images of another size
""",
    ),
    "export": Command(
        config.ExportFlags,
        "export",
        """\
  carvana-ray export runs/first/model
  carvana-ray export runs/first/model --out car.onnx --data photos   # verified with these images
  carvana-ray export runs/first/model --out gray.onnx --input gray   # input: downscaled gray
""",
    ),
    "pipeline": Command(
        config.PipelineFlags,
        "pipeline",
        """\
  carvana-ray pipeline --out runs/demo --downscale 8 --base 8 --epochs 12   # on a drawn sample
  carvana-ray pipeline --data carvana --out runs/first
  carvana-ray pipeline --data carvana --out runs/dry --limit 320 --epochs 1
  ray job submit --working-dir . -- python jobs/pipeline.py --data s3://bucket/carvana \\
      --out s3://bucket/runs/first --workers 2
""",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``carvana-ray``; return the exit code.

    Args:
        argv: the subcommand and its flags; None for those of the process.
    """
    name, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return run_command(name, flags)
    if name in ("-h", "--help"):
        print(f"usage: {PROGRAM} COMMAND [flags]\n")
        for command, entry in COMMANDS.items():
            print(f"  {command:10}{(entry.flags.__doc__ or '').splitlines()[0]}")
        print(f"\n{PROGRAM} COMMAND --help lists the flags of a command.")
        return EXIT_OK
    if name == "--version":
        print(f"carvana_ray {__version__}")
        return EXIT_OK
    names = ", ".join(COMMANDS)
    print(f"{PROGRAM}: error: {name} is not a command; use one of {names}", file=sys.stderr)
    return EXIT_USAGE


def run_command(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code.

    Args:
        name: a key of `COMMANDS`.
        argv: its flags; None for those of the process.
    """
    command = COMMANDS[name]
    epilog = f"examples:\n{command.examples}"
    flags = cli.parse(command.flags, f"{PROGRAM} {name}", argv, epilog)
    load = functools.partial(importlib.import_module, f"carvana_ray.stages.{command.stage}")
    with signals.stoppable(name):  # before the imports, which take time
        from carvana_ray.stages.guard import run_guarded, run_with_closing

        work = functools.partial(_run, name, flags, load)
        return run_guarded(name, flags, functools.partial(run_with_closing, name, flags, work))


def _run(name: str, flags: config.LogFlags, load: Callable[[], Any]) -> dict[str, Any]:
    from carvana_ray.stages.precheck import precheck

    precheck(name, flags)
    if isinstance(flags, config.RayFlags):
        from carvana_ray.stages.runner import run_in_session

        return run_in_session(flags, load)
    return load().run(flags)
