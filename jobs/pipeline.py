"""The main job: data, model, score, checked submission: ``python jobs/pipeline.py``."""

import sys

from carvana_ray import config
from carvana_ray.stages import job, pipeline

EXAMPLES = """examples:
  python jobs/pipeline.py --out runs/demo --downscale 8 --base 8 --epochs 12     (a drawn sample)
  python jobs/pipeline.py --data carvana --out runs/first
  ray job submit --working-dir . -- python jobs/pipeline.py --data carvana --out runs/first
"""


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("pipeline", config.Pipeline, pipeline.run, pipeline.check, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
