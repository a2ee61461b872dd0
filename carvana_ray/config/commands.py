"""The commands of ``carvana-ray``, as data: flags, stage and examples. Standard library alone."""

from dataclasses import dataclass

from carvana_ray import config


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        section: its heading in ``carvana-ray --help``.
        flags: the dataclass of its flags, whose docstring starts with the summary.
        stage: the module of `carvana_ray.stages` that does the work.
        examples: command lines that ``--help`` shows.
    """

    section: str
    flags: type[config.LogFlags]
    stage: str
    examples: str

    @property
    def summary(self) -> str:
        """What the command does, in a line."""
        return (self.flags.__doc__ or "").splitlines()[0]


COMMANDS = {
    "cutout": Command(
        "cut out",
        config.CutoutFlags,
        "cutout.stage",
        """\
  carvana-ray cutout photos --out runs/photos                          # a folder of images
  carvana-ray cutout car.jpg more/*.jpg --out runs/car --model runs/first/model
  carvana-ray cutout photos --out runs/white --background white --format webp
  carvana-ray cutout photos --out runs/studio --background studio.jpg
  carvana-ray cutout --data carvana --submission runs/first/submission.csv --out runs/masks \\
      --mask-only
""",
    ),
    "predict": Command(
        "cut out",
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
    "review": Command(
        "cut out",
        config.ReviewFlags,
        "review",
        """\
  carvana-ray review runs/first                                  # into runs/first/review
  carvana-ray review runs/first --to corrections --limit 50      # the 50 most unusual ones
  carvana-ray review s3://bucket/runs/first --data s3://bucket/photos
""",
    ),
    "train": Command(
        "train",
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
        "train",
        config.EvaluateFlags,
        "evaluate",
        """\
  carvana-ray evaluate --data carvana --out runs/first                 # scores runs/first/model
  carvana-ray evaluate --data carvana --model runs/first/model --out runs/again
  carvana-ray evaluate --data carvana --out runs/first --limit 32      # a quick look
  dice=$(carvana-ray evaluate --data carvana --out runs/first --quiet | jq .dice)
""",
    ),
    "pipeline": Command(
        "train",
        config.PipelineFlags,
        "pipeline",
        """\
  carvana-ray pipeline --out runs/demo --downscale 8 --base 8   # on a drawn sample
  carvana-ray pipeline --data carvana --out runs/first
  carvana-ray pipeline --data carvana --out runs/dry --limit 320 --epochs 1 \\
      --downscale 8 --base 8                                           # a try, minutes on CPUs
  ray job submit --working-dir . -- python jobs/pipeline.py --data s3://bucket/carvana \\
      --out s3://bucket/runs/first --workers 2
""",
    ),
    "sample": Command(
        "train",
        config.SampleFlags,
        "sample",
        """\
  carvana-ray sample                                                   # into runs/sample
  carvana-ray sample --out runs/small --sample-cars 4 --sample-test-cars 1 --seed 7
  carvana-ray sample --out s3://bucket/sample --quiet
""",
    ),
    "check": Command(
        "files",
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
        "files",
        config.ExportFlags,
        "export",
        """\
  carvana-ray export runs/first/model
  carvana-ray export runs/first/model --out car.onnx --data photos   # verified with these images
  carvana-ray export runs/first/model --out gray.onnx --input gray   # input: downscaled gray
""",
    ),
}
