"""Cut the cars out of pictures: ``python jobs/cutout.py car.jpg --model FOLDER``."""

import sys
from typing import Any

from carvana_ray import config
from carvana_ray.stages import runner as job

EXAMPLES = """examples:
  python jobs/cutout.py car.jpg more/*.jpg --model runs/first/model --out runs/car
  python jobs/cutout.py --data photos --model runs/first/model --out runs/photos
  python jobs/cutout.py --data photos --model runs/first/model --out runs/w --background white
  python jobs/cutout.py --data photos --model runs/first/model --out runs/b --background studio.jpg
  python jobs/cutout.py --data carvana --submission runs/first/submission.csv --out runs/masks \\
      --mask-only
"""


def stage() -> Any:
    """Import the stage; it takes a while."""
    from carvana_ray.stages.cutout import stage as cutout

    return cutout


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("cutout", config.CutoutFlags, stage, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
