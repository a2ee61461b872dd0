"""The report of a folder: each job adds its part, and the page shows all parts that fit together.

    OUT/report/evaluate.json  predict.json  pipeline.json     the result of each job, plain values
    OUT/report.html                                            the page

The page shows parts of one model only: that of the newest job.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from carvana_ray import storage
from carvana_ray.errors import InputError
from carvana_ray.report import charts, evaluation_section, prediction_section
from carvana_ray.report.charts import Chart
from carvana_ray.report.page import Section, render_page

FORMAT = 1
KINDS = "evaluate", "predict", "pipeline"
PAGE = "report.html"
MAX_SHOWN = 4  # values of a list

# Keys that a part has for a long time, in the words of the page.
LABELS = {
    "asked of the mirrored picture too": "averaged with the flipped image",
    "left out": "bad images left out",
    "pictures": "images",
    "Evaluation: pictures a second": "Evaluation: images per second",
    "Prediction: pictures a second": "Prediction: images per second",
    "Training: pictures a second": "Training: images per second",
    "Training: share of time that waited for pictures": "Training: fraction of time without data",
    "start, list the pictures": "start, list the images",
    "plan, compare with what is there": "plan, find finished shards",
    "look at the masks once more": "review the masks",
}

Part = dict[str, Any]


class RunTime(NamedTuple):
    """How long each job took: a chart of its steps, and other names and values."""

    charts: list[Chart]
    speed: Mapping[str, object]


def add_section(out: str, kind: str, part: Part) -> str:
    """Write a part, and the page of it and the other parts of the same model; return its URI.

    Args:
        out: folder of all results.
        kind: one of `KINDS`.
        part: plain values, see `evaluation_section` and `prediction_section`; ``model`` is the
            SHA-256 of the model.
    """
    whole = {"format": FORMAT, **part}
    data = json.dumps(whole).encode()
    storage.write_atomic(storage.join(out, "report", f"{kind}.json"), data, replace=True)
    found = {name: old for name in KINDS if (old := _read(out, name, part["model"]))}
    target = storage.join(out, PAGE)
    storage.write_atomic(target, to_html({**found, kind: whole}), replace=True)
    return target


def _read(out: str, kind: str, model: str) -> Part | None:
    """Return a part that exists, if it is of this model and this version can show it."""
    try:
        found = json.loads(storage.read(storage.join(out, "report", f"{kind}.json")))
    except (InputError, ValueError):  # missing or damaged: its job can make it again
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return found if found.get("model") == model else None


def to_html(parts: Mapping[str, Part]) -> bytes:
    """Return the page of some parts, by kind.

    Raises:
        ValueError: there is neither an evaluation nor a prediction.
    """
    evaluation, prediction = parts.get("evaluate"), parts.get("predict")
    cards, jobs = [], []
    first: list[Section] = []
    later: list[Section] = []
    if evaluation:
        cards += evaluation_section.cards(evaluation)
        later += evaluation_section.sections(evaluation)
        jobs.append("evaluation")
    if prediction:
        cards += prediction_section.cards(prediction)
        first, shown = prediction_section.sections(prediction)
        later += shown
        jobs.append("prediction")
    if not jobs:
        raise ValueError("a report needs an evaluation or a prediction")
    sections = [Section("figures", "Summary", "summary.html", cards), *first, *later]
    sections.append(Section("time", "Run time", "run_time.html", _run_time(parts)))
    sections.append(Section("provenance", "Provenance", "provenance.html", _provenance(parts)))
    newest = max(str(part.get("made", "")) for part in parts.values())
    model = (evaluation or prediction or {})["model"][:12]
    lead = f"{' and '.join(jobs).capitalize()} with model {model}, {newest}"
    return render_page("Cars cut out", lead, sections)


def _run_time(parts: Mapping[str, Part]) -> RunTime:
    plots = []
    speed: dict[str, object] = {}
    for kind, part in parts.items():
        steps = part["seconds"].items()
        rows = [(LABELS.get(name, name), float(s), f"{s:,.1f} s") for name, s in steps]
        title = {"pipeline": "The whole pipeline"}.get(kind, kind.capitalize())
        caption = f"{title}: {sum(row[1] for row in rows):,.1f} s."
        plots.append(charts.to_chart(charts.bars(rows), f"Seconds of {kind}", caption))
        speed |= {LABELS.get(name, name): rate for name, rate in part.get("speed", {}).items()}
    return RunTime(plots, speed)


def _provenance(parts: Mapping[str, Part]) -> list[tuple[str, dict[str, object]]]:
    """Return (title, names and values) of each group; jobs share a group if theirs are equal."""
    groups: dict[tuple[str, str], tuple[list[str], Part]] = {}
    for kind, part in parts.items():
        for name, values in part.get("lineage", {}).items():
            key = name, json.dumps(values, sort_keys=True)
            groups.setdefault(key, ([], values))[0].append(kind)
    return [
        (
            f"{name.capitalize()} ({' and '.join(kinds)})",
            {LABELS.get(k, k): _text_of(v) for k, v in values.items() if v not in (None, "")},
        )
        for (name, _), (kinds, values) in groups.items()
    ]


def _text_of(value: object) -> object:
    """Return a value as the page shows it: of a list its length and its first values."""
    if not isinstance(value, list):
        return value
    more = " \N{HORIZONTAL ELLIPSIS}" if len(value) > MAX_SHOWN else ""
    return f"{len(value)}: {', '.join(map(str, value[:MAX_SHOWN]))}{more}" if value else "none"
