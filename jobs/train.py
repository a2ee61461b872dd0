"""Train a U-Net on pictures with masks: ``python jobs/train.py --data FOLDER --out FOLDER``."""

import sys
from typing import Any

from carvana_ray import config
from carvana_ray.stages import runner as job

EXAMPLES = """examples:
  python jobs/train.py --data carvana --out runs/first
  python jobs/train.py --data carvana --out runs/tiny --downscale 8 --base 8 --limit 320
  python jobs/train.py --data carvana --out runs/best --recipe best --tensorboard   # wants a GPU
  python jobs/train.py --data own --init-from runs/first/model --out runs/own   # fine-tune
  ray job submit --working-dir . -- python jobs/train.py --data s3://bucket/carvana \\
      --out s3://bucket/runs/first
"""


def stage() -> Any:
    """Import the stage; it takes a while."""
    from carvana_ray.stages.train import stage as train

    return train


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("train", config.TrainFlags, stage, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
