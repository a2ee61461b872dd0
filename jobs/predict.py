"""Write the mask of every picture: ``python jobs/predict.py --data FOLDER --model FOLDER``."""

import sys
from typing import Any

from carvana_ray import config
from carvana_ray.stages import runner as job

EXAMPLES = """examples:
  python jobs/predict.py --data carvana --out runs/first                  # by runs/first/model
  python jobs/predict.py --data photos --model runs/first/model --out runs/photos
  python jobs/predict.py --data carvana --out runs/first --submission submission.csv.gz
  python jobs/predict.py --data carvana --out runs/first --on-bad-picture empty --max-bad 3
  python jobs/predict.py --data carvana --out runs/first --verify         # read all pictures again
"""


def stage() -> Any:
    """Import the stage; it takes a while."""
    from carvana_ray.stages.predict import stage as predict

    return predict


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("predict", config.PredictFlags, stage, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
