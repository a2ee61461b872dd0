"""The page's section on provenance: what differs from the defaults first, the rest folded away."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from carvana_ray import config

MAX_SHOWN = 4  # values of a list
# Keys that parts keep from earlier versions, and their names on the page.
LABELS = {
    "asked of the mirrored picture too": "averaged with the flipped image",
    "left out": "bad images left out",
    "pictures": "images",
}
_FLAGS = {
    "evaluate": config.EvaluateFlags,
    "predict": config.PredictFlags,
    "pipeline": config.PipelineFlags,
    "cutout": config.CutoutFlags,
}

Part = dict[str, Any]


class Facts(NamedTuple):
    """A group of facts: names and values, those that are at their default apart."""

    title: str
    known: dict[str, object]
    defaults: dict[str, object]


def provenance_facts(parts: Mapping[str, Part]) -> list[Facts]:
    """Return the facts of some parts; jobs share a group if theirs are equal."""
    groups: dict[tuple[str, str], tuple[list[str], Part]] = {}
    for kind, part in parts.items():
        for name, values in part.get("lineage", {}).items():
            key = name, json.dumps(values, sort_keys=True)
            groups.setdefault(key, ([], values))[0].append(kind)
    return [
        _facts(f"{name.capitalize()} ({' and '.join(kinds)})", values, _defaults(name, kinds[0]))
        for (name, _), (kinds, values) in groups.items()
    ]


def _defaults(group: str, kind: str) -> Part:
    """Return the defaults of a group's values, where they are flags."""
    flags = {
        "configuration of its training": config.TrainFlags,
        "configuration of this job": _FLAGS.get(kind),
    }.get(group)
    return {field.name: field.default for field in dataclasses.fields(flags)} if flags else {}


def _facts(title: str, values: Part, defaults: Part) -> Facts:
    known: dict[str, object] = {}
    same: dict[str, object] = {}
    for name, value in values.items():
        if value not in (None, ""):
            usual = defaults.get(name, value if value is False or value == [] else None)
            (same if value == usual else known)[LABELS.get(name, name)] = _text_of(value)
    return Facts(title, known, same)


def _text_of(value: object) -> object:
    """Return a value as the page shows it: of a list its length and its first values."""
    if not isinstance(value, list):
        return value
    more = " \N{HORIZONTAL ELLIPSIS}" if len(value) > MAX_SHOWN else ""
    return f"{len(value)}: {', '.join(map(str, value[:MAX_SHOWN]))}{more}" if value else "none"
