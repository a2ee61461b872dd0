"""Is this a submission that Kaggle takes? ``python jobs/check.py FILE --data FOLDER``."""

import sys
from typing import Any

from carvana_ray import config, storage
from carvana_ray.config import cli
from carvana_ray.data import csv_reader
from carvana_ray.data import layout as carvana
from carvana_ray.stages import runner as job
from carvana_ray.submission import validate as faults

EXAMPLES = """examples:
  python jobs/check.py runs/first/submission.csv --data carvana     # the rows that Kaggle lists
  python jobs/check.py submission.csv.gz                            # names by their grammar alone
  python jobs/check.py s3://bucket/runs/first/submission.csv --data s3://bucket/carvana
  python jobs/check.py photos.csv --height 800 --width 1200         # pictures of another size
"""


def check(flags: config.CheckFlags) -> dict[str, Any]:
    """Return the job's result; every fault is on stderr too."""
    expected = None
    if flags.data:
        rows = storage.resolve(flags.data)
        if not rows.endswith(".csv"):
            rows = storage.join(rows, carvana.SAMPLE_SUBMISSION)
        expected = csv_reader.read_names(rows)
    count, found, counts = faults.validate_file(
        storage.resolve(flags.submission), expected, lambda _: flags.height * flags.width
    )
    for fault in found:
        where = f"line {fault['line']}, " if fault["line"] else ""
        # By `repr`: control codes in a name of the file would reach the terminal.
        print(f"{fault['fault']}: {where}{fault['img']!r}: {fault['detail']}", file=sys.stderr)
    for name, number in counts.items():
        print(f"{name}: {number} in all", file=sys.stderr)
    return {"rows": count, "ok": not found, "faults": found, "counts": counts}


def main(argv: list[str] | None = None) -> int:
    """Run the job; return its exit code: 1 with faults."""
    flags = cli.parse(config.CheckFlags, "check", argv, EXAMPLES)
    return job.run_guarded("check", lambda: check(flags), lambda result: not result["ok"], flags)


if __name__ == "__main__":
    sys.exit(main())
