"""Candidates of a comparison as a command line names them: a recipe and changes of it.

best                                 the recipe as it is
best:batch_size=4,learning_rate=1e-3 other values of fields of `Recipe`
best:epochs=20                       its epochs, also if --epochs gives others
best:path=eager,base=48              another path of a step (see `in_memory`), other channels
best:encoder=lite0                   with an encoder
"""

import ast
import dataclasses
from dataclasses import dataclass
from typing import Any, get_type_hints

from in_memory import PATHS, Way

from carvana_ray.config.recipes import RECIPES, Recipe


@dataclass(frozen=True)
class Candidate:
    """What is trained.

    Attributes:
        name: as on the command line, without the epochs.
        recipe: with the epochs.
        way: how it is trained.
    """

    name: str
    recipe: Recipe
    way: Way


_TYPES = get_type_hints(Recipe) | get_type_hints(Way)


def read_candidate(text: str, epochs: int | None = None) -> Candidate:
    """Return the candidate that a text names.

    Args:
        text: such as ``best`` or ``best:batch_size=4,epochs=60``.
        epochs: for a text without epochs; None for those of the recipe.

    Raises:
        SystemExit: the text names no recipe, no field or no value of its type.
    """
    recipe, _, listed = text.partition(":")
    if recipe not in RECIPES:
        raise SystemExit(f"{text}: the recipe {recipe} is unknown; known: {', '.join(RECIPES)}")
    pairs = [change.partition("=")[::2] for change in listed.split(",") if change]
    if unknown := [key for key, _ in pairs if key not in _TYPES]:
        raise SystemExit(f"{text}: the field {unknown[0]} is unknown; known: {', '.join(_TYPES)}")
    changed = {key: _read_value(text, key, value) for key, value in pairs}
    own = {key: changed.pop(key) for key in get_type_hints(Way) if key in changed}
    kept = ",".join("=".join(pair) for pair in pairs if pair[0] != "epochs")
    defaults = {"epochs": epochs} if epochs else {}
    return Candidate(
        name=f"{recipe}:{kept}" if kept else recipe,
        recipe=dataclasses.replace(RECIPES[recipe], **{**defaults, **changed}),
        way=Way(**own),
    )


def _read_value(text: str, key: str, value: str) -> Any:
    """Return the value of a field: a Python literal, or the text itself for a field of text."""
    wanted = _TYPES[key]
    try:
        found = value if wanted is str else ast.literal_eval(value)
    except (ValueError, SyntaxError):
        found = value
    if type(found) is int and wanted in (float, float | None):
        found = float(found)
    if (type(found) is bool and wanted is not bool) or not isinstance(found, wanted):
        kind = getattr(wanted, "__name__", wanted)
        raise SystemExit(f"{text}: {key}={value} must be of the type {kind}, such as True, 4, 1e-3")
    if key == "path" and found not in PATHS:
        raise SystemExit(f"{text}: the path {found} is unknown; known: {', '.join(PATHS)}")
    return found
