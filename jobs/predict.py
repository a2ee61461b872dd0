"""Write the mask of every picture: ``python jobs/predict.py --data FOLDER --model FOLDER``."""

import sys

from carvana_ray import config
from carvana_ray.stages import job, predict

EXAMPLES = """examples:
  python jobs/predict.py --data carvana --out runs/first
  python jobs/predict.py --data photos --model runs/first/model --out runs/photos
  python jobs/predict.py --data carvana --out runs/first --submission submission.csv.gz
"""


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("predict", config.Predict, predict.run, predict.check, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
