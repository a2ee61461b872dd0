"""The report of a folder: each job adds its part, and the page shows all parts of one model.

    OUT/report/evaluate.json  predict.json  cutout.json  pipeline.json     the result of each job
    OUT/report.html                                                        the page

A part holds plain values: format, made, model (SHA-256 of its weights), seconds of each step in
order, optionally speed (names and values), and lineage (headings, below each names and values).
`evaluation_section`, `prediction_section` and `cutout_section` list the other keys.
"""

import json
from collections.abc import Mapping
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import InputError
from carvana_ray.report import cutout_section, prediction_section
from carvana_ray.report.headline import headline
from carvana_ray.report.overlays import Figure
from carvana_ray.report.page import ImageGrid, Section, Summary, render_page
from carvana_ray.report.provenance_section import provenance_facts

FORMAT = 1
KINDS = "evaluate", "predict", "cutout", "pipeline"
PAGE = "report.html"
STRIP = 4  # cut-outs at the top

WAITED = "Training: share of time that waited for pictures"
# Keys that parts keep from earlier versions, and their names on the page.
LABELS = {
    "Evaluation: pictures a second": "Evaluation: images per second",
    "Prediction: pictures a second": "Prediction: images per second",
    "Training: pictures a second": "Training: images per second",
    WAITED: "Training: time without data",
    "start, list the pictures": "start, list the images",
    "plan, compare with what is there": "plan, find finished shards",
    "look at the masks once more": "review the masks",
}

Part = dict[str, Any]


def add_section(out: str, kind: str, part: Part) -> str:
    """Write a part, and the page of it and the other parts of the same model; return its URI.

    Args:
        out: folder of all results.
        kind: one of `KINDS`.
        part: see above; its format is added.
    """
    data = json.dumps({"format": FORMAT, **part}).encode()
    storage.write_atomic(storage.join(out, "report", f"{kind}.json"), data, replace=True)
    parts = {name: found for name in KINDS if (found := _read(out, name, part["model"]))}
    target = storage.join(out, PAGE)
    storage.write_atomic(target, to_html(parts), replace=True)
    return target


def model_of(out: str, kind: str) -> str:
    """Return the SHA-256 of the model of a part that exists, else an empty text."""
    try:
        part = json.loads(storage.read(storage.join(out, "report", f"{kind}.json")))
        return str(part["model"])
    except (InputError, ValueError, TypeError, KeyError):
        return ""


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
        ValueError: there is neither an evaluation nor a prediction nor cut-outs.
    """
    evaluation, prediction, cutouts = (parts.get(kind) for kind in KINDS[:3])
    results = [part for part in (cutouts, prediction, evaluation) if part]
    if not results:
        raise ValueError("a report needs an evaluation, a prediction or cut-outs")
    shown: list[Figure] = next((part["shown"] for part in results if part.get("shown")), [])
    quality, quantity, links, sections = [], [], [], []
    if cutouts:
        quantity += cutout_section.cards(cutouts)
        links += cutout_section.files(cutouts)
        sections += cutout_section.sections(cutouts)
    if prediction:
        quantity += prediction_section.cards(prediction)
        links += prediction_section.files(prediction)
        sections += prediction_section.sections(prediction)
    if evaluation:
        from carvana_ray.report import evaluation_section  # here, as it imports matplotlib

        quality += evaluation_section.cards(evaluation)
        quantity.insert(0, evaluation_section.count_card(evaluation))
        links += evaluation_section.files()
        sections += evaluation_section.sections(evaluation)
    rows = [row for row in (quality, quantity) if row]
    first = [Section("summary", "Summary", "summary.html", Summary(rows, links))]
    if shown:
        grid = ImageGrid(shown[:STRIP], "strip")
        first.insert(0, Section("cutouts", "Cut-outs", "images.html", grid))
    if timed := {kind: part for kind, part in parts.items() if part["seconds"]}:
        sections.append(Section("time", "Run time", "run_time.html", _run_time(timed)))
    facts = provenance_facts(parts)
    provenance = Section("provenance", "Provenance", "provenance.html", facts)
    return render_page(headline(parts), [*first, *sections, provenance])


def _run_time(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return charts of the seconds of each job, on one scale, and speeds."""
    from carvana_ray.report import charts  # here, as it imports matplotlib

    speed: Part = {}
    longest = max(max(part["seconds"].values()) for part in parts.values())
    most = max(len(part["seconds"]) for part in parts.values())
    plots = []
    for kind, part in parts.items():
        steps = part["seconds"].items()
        rows = [(LABELS.get(name, name), float(s), f"{s:,.1f} s") for name, s in steps]
        title = "Whole pipeline" if kind == "pipeline" else kind.capitalize()
        total = f"{sum(row[1] for row in rows):,.1f} s in all."
        plots.append(charts.to_chart(charts.bars(rows, longest, most), f"{title}: seconds", total))
        for name, rate in part.get("speed", {}).items():
            speed[LABELS.get(name, name)] = f"{rate:.1%}" if name == WAITED else rate
    return {"charts": plots, "speed": speed}
