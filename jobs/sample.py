"""Draw the embedded sample data set: ``python jobs/sample.py --out FOLDER``."""

import sys
from typing import Any

from carvana_ray import config
from carvana_ray.stages import runner as job

EXAMPLES = """examples:
  python jobs/sample.py                                                   # into runs/sample
  python jobs/sample.py --out runs/small --sample-cars 4 --sample-test-cars 1 --seed 7
  python jobs/sample.py --out s3://bucket/sample --quiet
"""


def stage() -> Any:
    """Import the stage; it takes a while."""
    from carvana_ray.stages import sample

    return sample


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job.run("sample", config.SampleFlags, stage, argv, EXAMPLES)


if __name__ == "__main__":
    sys.exit(main())
