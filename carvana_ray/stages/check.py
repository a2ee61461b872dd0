"""Check a submission: say whether Kaggle would accept it, and name its faults. Without Ray."""

import logging
import sys
from collections import Counter
from typing import Any

from carvana_ray import config, storage
from carvana_ray.data import csv_reader
from carvana_ray.data.layout import SAMPLE_SUBMISSION
from carvana_ray.data.packed import advice_for_file
from carvana_ray.errors import InputError
from carvana_ray.runtime.progress import is_terminal
from carvana_ray.runtime.wording import count_of
from carvana_ray.submission.validate import validate_file

log = logging.getLogger(__name__)

SHOWN = 10  # faults in words and in the result; all are counted
GREEN = "\x1b[32m{}\x1b[0m"


def run(flags: config.CheckFlags) -> dict[str, Any]:
    """Check the file and log the verdict with some faults; return the job's result."""
    submission = storage.resolve(flags.submission)
    pixels = flags.height * flags.width
    rows, faults, counts = validate_file(submission, _expected_names(flags), lambda _: pixels)
    total, shown = sum(counts.values()), _pick_faults(faults)
    if faults:
        _log_faults(rows, shown, counts)
    else:
        _log_ok(rows, compared=bool(flags.data))
    return {"rows": rows, "ok": not faults, "faults": shown, "counts": counts, "total": total}


def _pick_faults(faults: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `SHOWN` of the faults in their order, the first of each kind among them."""
    seen: Counter[str] = Counter()
    ranks = []
    for number, fault in enumerate(faults):
        ranks.append((seen[fault["fault"]], number))
        seen[fault["fault"]] += 1
    return [faults[number] for number in sorted(number for _, number in sorted(ranks)[:SHOWN])]


def _log_faults(rows: int, shown: list[dict[str, Any]], counts: dict[str, int]) -> None:
    total = sum(counts.values())
    kinds = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    faults = count_of(total, "faults")
    log.warning("%s, %s: Kaggle would refuse it (%s)", count_of(rows, "rows"), faults, kinds)
    for fault in shown:
        where = f"line {fault['line']}, " if fault["line"] else ""
        # The name's repr, because control codes in a name would reach the terminal.
        log.warning("%s: %s%r: %s", fault["fault"], where, fault["img"], fault["detail"])
    if more := total - len(shown):
        log.warning("and %s", count_of(more, "more faults"))


def _log_ok(rows: int, compared: bool) -> None:
    line = f"{count_of(rows, 'rows')}: Kaggle would accept it"
    if not compared:
        line = f"{count_of(rows, 'rows')}, no fault; --data FOLDER also compares the names"
    log.info("%s", GREEN.format(line) if is_terminal(sys.stderr) else line)


def _expected_names(flags: config.CheckFlags) -> list[str] | None:
    """Return the image names that the submission must have, None for any names."""
    if not flags.data:
        return None
    uri = storage.resolve(flags.data)
    is_file = uri.endswith(".csv")
    listed = uri if is_file else storage.join(uri, SAMPLE_SUBMISSION)
    if not storage.exists(listed) and (advice := advice_for_file(listed)):
        raise InputError(f"--data: {advice}")
    return csv_reader.read_names(listed)
