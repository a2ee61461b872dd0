"""Score a model on cars never trained on: ``python jobs/evaluate.py --data FOLDER``."""

import sys

from carvana_ray import config
from carvana_ray.stages import evaluate, job

EXAMPLES = """examples:
  python jobs/evaluate.py --data carvana --out runs/first
  python jobs/evaluate.py --data carvana --model runs/first/model --out runs/again
"""


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("evaluate", config.Evaluate, evaluate.run, evaluate.check, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
