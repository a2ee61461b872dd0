"""The report of a folder: each job adds its part, and the page is made of all that fit together.

    OUT/report/evaluate.json  predict.json  pipeline.json     what each job has found, plain values
    OUT/report.html                                            the page

Parts of different models are not shown on one page: that of the newest job counts.
"""

import json
from collections.abc import Mapping
from typing import Any

from carvana_ray import storage
from carvana_ray.errors import InputError
from carvana_ray.report import charts
from carvana_ray.report import evaluation_section as evaluated
from carvana_ray.report import html_elements as markup
from carvana_ray.report import image_cards as shots
from carvana_ray.report import prediction_section as predicted
from carvana_ray.report.page import Section, render_page

FORMAT = 1
KINDS = "evaluate", "predict", "pipeline"
PAGE = "report.html"

Part = dict[str, Any]


def add_section(out: str, kind: str, part: Part) -> str:
    """Write a part and, with those that are there of the same model, the page; return its URI.

    Args:
        out: the folder of all results.
        kind: one of `KINDS`.
        part: plain values, see `evaluated` and `predicted`; ``model`` is its SHA-256.
    """
    whole = {"format": FORMAT, **part}
    data = json.dumps(whole).encode()
    storage.write_atomic(storage.join(out, "report", f"{kind}.json"), data, replace=True)
    found = {name: old for name in KINDS if (old := _read(out, name, part["model"]))}
    target = storage.join(out, PAGE)
    storage.write_atomic(target, to_html({**found, kind: whole}), replace=True)
    return target


def _read(out: str, kind: str, model: str) -> Part | None:
    """Return a part that is there, if it is of this model and this version can show it."""
    try:
        found = json.loads(storage.read(storage.join(out, "report", f"{kind}.json")))
    except (InputError, ValueError):  # none there, or not whole: a job can make it again
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return found if found.get("model") == model else None


def to_html(parts: Mapping[str, Part]) -> bytes:
    """Return the page of some parts, by kind."""
    cards: list[tuple[str, str, str]] = []
    first: list[Section] = []
    later: list[Section] = []
    made = predicted_part = None
    if evaluation := parts.get("evaluate"):
        cards += evaluated.cards(evaluation)
        later += evaluated.sections(evaluation)
        made = evaluation
    if predicted_part := parts.get("predict"):
        cards += predicted.cards(predicted_part)
        first, shown = predicted.sections(predicted_part)
        later += shown
        made = made or predicted_part
    if made is None:
        raise ValueError("a report needs an evaluation or a prediction")
    sections = [Section("figures", "Figures", "In short", markup.cards(cards)), *first, *later]
    sections.append(Section("time", "Time", "Where the time went", _time(parts)))
    sections.append(Section("lineage", "Lineage", "Configuration and lineage", _lineage(parts)))
    what = " and ".join(
        word
        for word, there in (("evaluation", evaluation), ("prediction", predicted_part))
        if there
    )
    newest = max(str(part.get("made", "")) for part in parts.values())
    lead = f"{what.capitalize()} with model {made['model'][:12]}, {newest}"
    return render_page("Cars cut out", lead, sections)


def _time(parts: Mapping[str, Part]) -> str:
    plots: list[str] = []
    facts: dict[str, object] = {}
    for kind, part in parts.items():
        rows = [(name, float(value), f"{value:,.1f} s") for name, value in part["seconds"].items()]
        total = sum(value for _, value, _ in rows)
        title = {"pipeline": "The whole pipeline"}.get(kind, f"{kind.capitalize()}")
        plots.append(charts.bars(f"Seconds of {kind}", rows, f"{title}: {total:,.1f} s."))
        facts |= part.get("speed", {})
    return markup.element("div", "".join(plots), class_="grid") + markup.pairs(facts)


def _lineage(parts: Mapping[str, Part]) -> str:
    """Return what each job was made of; what several have in common is said once."""
    said: dict[tuple[str, str], tuple[list[str], Part]] = {}
    for kind, part in parts.items():
        for name, values in part.get("lineage", {}).items():
            key = name, json.dumps(values, sort_keys=True)
            said.setdefault(key, ([], values))[0].append(kind)
    html = ""
    for (name, _), (kinds, values) in said.items():
        title = f"{name.capitalize()} ({' and '.join(kinds)})"
        html += markup.details(title, markup.pairs(shots.as_rows(values)))
    return html
