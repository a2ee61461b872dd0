"""Figures of `layers` as HTML: a photograph, what is laid over it, and buttons to choose which."""

from collections.abc import Sequence
from html import escape
from typing import Any

from carvana_ray.report import html_elements as markup
from carvana_ray.report.overlays import Figure

PHOTO = ("photo", "Photograph")
REASONS = 3  # shown of each picture; review.csv has all


def shots(figures: Sequence[Figure], group: str, wide: bool = False) -> str:
    """Return figures side by side, and a switch for all of them where the page's script runs.

    Args:
        figures: of `layers.scored` or `layers.unscored`, all of the same layers.
        group: a word that no other group of the page has.
        wide: in larger columns.
    """
    if not figures:
        return ""
    choices = [(one["key"], one["label"]) for one in figures[0]["layers"]] + [PHOTO]
    everywhere = _buttons("On all pictures:", f"{group}-all", choices, seen=True, checked=False)
    each = "".join(_shot(one, f"{group}-{number}") for number, one in enumerate(figures))
    return everywhere + markup.element("div", each, class_="shots wide" if wide else "shots")


def _buttons(
    legend: str, name: str, choices: Sequence[tuple[str, str]], seen: bool, checked: bool
) -> str:
    buttons = "".join(
        f'<label><input type="radio" name="{escape(name)}" value="{escape(key)}"'
        f"{' checked' if checked and not number else ''}>{escape(label)}</label>"
        for number, (key, label) in enumerate(choices)
    )
    attributes = 'class="all" hidden' if seen else ""
    shown = ' class="seen"' if seen else ""
    return f"<fieldset {attributes}><legend{shown}>{escape(legend)}</legend>{buttons}</fieldset>"


def _shot(one: Figure, group: str) -> str:
    choices = [(layer["key"], layer["label"]) for layer in one["layers"]] + [PHOTO]
    said = "".join(markup.text("p", line) for line in one.get("lines", ()))
    if reasons := one.get("reasons"):
        shown = [*reasons[:REASONS]]
        if len(reasons) > REASONS:
            shown.append(f"and {len(reasons) - REASONS} more")
        said += markup.element("ul", "".join(markup.text("li", reason) for reason in shown))
    close = ""
    if "close" in one:
        close = markup.element(
            "div",
            markup.text("p", "A close look at its worst place, pixel by pixel")
            + _stack(one["close"]),
            class_="close",
        )
    html = (
        markup.text("h3", one["name"])
        + said
        + markup.element("div", _stack(one), class_="main")
        + _buttons(f"Show of {one['name']}", group, choices, seen=False, checked=True)
        + close
    )
    return markup.element("article", html, class_="shot")


def _stack(one: Figure) -> str:
    size: tuple[int, int] = one["width"], one["height"]
    images = [markup.image(one["photo"], f"Photograph {one['name']}", *size, class_="photo")]
    images += [
        markup.image(
            layer["src"],
            layer["alt"],
            *size,
            class_=f"layer {layer['key']}" + ("" if number else " first"),
        )
        for number, layer in enumerate(one["layers"])
    ]
    gray = " gray" if one["layers"][0]["key"] == "errors" else ""
    return markup.element("div", "".join(images), class_=f"stack{gray}")


def legend_of_errors() -> str:
    """Return what the colours of errors mean."""
    more = '<span class="swatch more"></span> mask where there is no car (red)'
    less = '<span class="swatch less"></span> car that the mask misses (blue; striped close up)'
    return markup.element("p", f"{more} &nbsp; {less}")


def as_rows(values: Any) -> dict[str, object]:
    """Return nested plain values as one level of names and values, for `markup.pairs`."""
    rows: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            rows |= {f"{name} {inner}": found for inner, found in as_rows(value).items()}
        elif isinstance(value, list):
            rows[name] = f"{len(value)}: {', '.join(map(str, value[:4]))}" if value else "none"
            if len(value) > 4:
                rows[name] = f"{rows[name]} \N{HORIZONTAL ELLIPSIS}"
        elif value not in (None, ""):
            rows[name] = value
    return rows
