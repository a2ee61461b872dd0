"""Cut the cars out of pictures: ``python jobs/cutout.py car.jpg --model FOLDER``."""

import sys

from carvana_ray import config
from carvana_ray.stages import cutout, job

EXAMPLES = """examples:
  python jobs/cutout.py car.jpg --model runs/first/model --out runs/car
  python jobs/cutout.py --data photos --model runs/first/model --out runs/photos
  python jobs/cutout.py --data photos --model runs/first/model --out runs/white --background white
  python jobs/cutout.py --data carvana --submission runs/first/submission.csv --out runs/first
"""


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("cutout", config.Cutout, cutout.run, cutout.check, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
