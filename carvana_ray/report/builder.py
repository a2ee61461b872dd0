"""The report of a folder: each job adds its part, and the page shows all parts of one model.

    OUT/report/evaluate.json  predict.json  pipeline.json     the result of each job
    OUT/report.html                                            the page

A part holds plain values: format, made, model (SHA-256 of its weights), seconds of each step in
order, optionally speed (names and values), and lineage (headings, below each names and values).
`evaluation_section` and `prediction_section` list the other keys.
"""

import json
from collections.abc import Mapping
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import InputError
from carvana_ray.report import charts, evaluation_section, prediction_section
from carvana_ray.report.page import Section, render_page

FORMAT = 1
PAGE = "report.html"
MAX_SHOWN = 4  # values of a list

# Keys that parts keep from earlier versions, and their names on the page.
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


def add_section(out: str, kind: str, part: Part) -> str:
    """Write a part, and the page of it and the other parts of the same model; return its URI.

    Args:
        out: folder of all results.
        kind: evaluate, predict or pipeline.
        part: see above; its format is added.
    """
    data = json.dumps({"format": FORMAT, **part}).encode()
    storage.write_atomic(storage.join(out, "report", f"{kind}.json"), data, replace=True)
    kinds = "evaluate", "predict", "pipeline"
    parts = {name: found for name in kinds if (found := _read(out, name, part["model"]))}
    target = storage.join(out, PAGE)
    storage.write_atomic(target, to_html(parts), replace=True)
    return target


def _read(out: str, kind: str, model: str) -> Part | None:
    """Return a part if it exists, is of this model, and this version can show it."""
    try:
        part = json.loads(storage.read(storage.join(out, "report", f"{kind}.json")))
    except (InputError, ValueError):  # missing or damaged: its job can make it again
        return None
    good = isinstance(part, dict) and part.get("format") == FORMAT and part.get("model") == model
    return part if good else None


def to_html(parts: Mapping[str, Part]) -> bytes:
    """Return the page of some parts, by kind.

    Raises:
        ValueError: there is neither an evaluation nor a prediction.
    """
    evaluation, prediction = parts.get("evaluate"), parts.get("predict")
    cards, sections, jobs = [], [], []
    if evaluation:
        cards += evaluation_section.cards(evaluation)
        sections += evaluation_section.sections(evaluation)
        jobs.append("evaluation")
    if prediction:
        cards += prediction_section.cards(prediction)
        first, last = prediction_section.sections(prediction)
        sections = first + sections + last
        jobs.append("prediction")
    if not jobs:
        raise ValueError("a report needs an evaluation or a prediction")
    summary = Section("figures", "Summary", "summary.html", cards)
    time = Section("time", "Run time", "run_time.html", _run_time(parts))
    provenance = Section("provenance", "Provenance", "provenance.html", _provenance(parts))
    newest = max(str(part.get("made", "")) for part in parts.values())
    model = (evaluation or prediction or {})["model"][:12]
    lead = f"{' and '.join(jobs).capitalize()} with model {model}, {newest}"
    return render_page("Cars cut out", lead, [summary, *sections, time, provenance])


def _run_time(parts: Mapping[str, Part]) -> dict[str, Any]:
    plots = []
    speed: Part = {}
    for kind, part in parts.items():
        steps = part["seconds"].items()
        rows = [(LABELS.get(name, name), float(s), f"{s:,.1f} s") for name, s in steps]
        title = "The whole pipeline" if kind == "pipeline" else kind.capitalize()
        caption = f"{title}: {sum(row[1] for row in rows):,.1f} s."
        plots.append(charts.to_chart(charts.bars(rows), f"Seconds of {kind}", caption))
        speed |= {LABELS.get(name, name): rate for name, rate in part.get("speed", {}).items()}
    return {"charts": plots, "speed": speed}


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
