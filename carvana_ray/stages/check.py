"""Check a submission: print its faults and count them. Without Ray."""

import sys
from typing import Any

from carvana_ray import config, storage
from carvana_ray.data import csv_reader
from carvana_ray.data.layout import SAMPLE_SUBMISSION
from carvana_ray.submission.validate import validate_file


def run(flags: config.CheckFlags) -> dict[str, Any]:
    """Check the file and print each fault to stderr; return the job's result."""
    submission = storage.resolve(flags.submission)
    pixels = flags.height * flags.width
    rows, faults, counts = validate_file(submission, _expected_names(flags), lambda _: pixels)
    for fault in faults:
        where = f"line {fault['line']}, " if fault["line"] else ""
        # The name's repr, because control codes in a name would reach the terminal.
        print(f"{fault['fault']}: {where}{fault['img']!r}: {fault['detail']}", file=sys.stderr)
    for name, count in counts.items():
        print(f"{name}: {count} in total", file=sys.stderr)
    return {"rows": rows, "ok": not faults, "faults": faults, "counts": counts}


def _expected_names(flags: config.CheckFlags) -> list[str] | None:
    """Return the image names that the submission must have, None for any names."""
    if not flags.data:
        return None
    uri = storage.resolve(flags.data)
    is_file = uri.endswith(".csv")
    return csv_reader.read_names(uri if is_file else storage.join(uri, SAMPLE_SUBMISSION))
