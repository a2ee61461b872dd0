"""Score a model on cars never trained on: ``python jobs/evaluate.py --data FOLDER``."""

import sys
from typing import Any

from carvana_ray import config
from carvana_ray.stages import runner as job

EXAMPLES = """examples:
  python jobs/evaluate.py --data carvana --out runs/first                 # of runs/first/model
  python jobs/evaluate.py --data carvana --model runs/first/model --out runs/again
  python jobs/evaluate.py --data carvana --out runs/first --limit 32      # a quick look
  dice=$(python jobs/evaluate.py --data carvana --out runs/first --quiet | jq .dice)
"""


def stage() -> Any:
    """Import the stage; it takes a while."""
    from carvana_ray.stages import evaluate

    return evaluate


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("evaluate", config.EvaluateFlags, stage, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
