"""The HTML page and the data of its templates. It needs no network and reads without its script.

The page's policy (CSP) allows its own style and script, by their hashes, and images as data. The
browser refuses all else, so even a name that slipped through unescaped could do nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from carvana_ray.report.charts import Chart
from carvana_ray.report.overlays import Figure

_TEMPLATES = Environment(
    loader=PackageLoader("carvana_ray.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)


class Section(NamedTuple):
    """A section of the page: its id, its heading, the file in templates/ and the data for it."""

    anchor: str
    heading: str
    template: str
    data: object


class Card(NamedTuple):
    """A headline figure: name, value, note."""

    name: str
    value: str
    note: str


class Column(NamedTuple):
    """A column of a table: its name and its printf format; all formats but %s are of numbers."""

    name: str
    format: str = "%s"


class Table(NamedTuple):
    """A table; the first cell of a row is its header. The page's script sorts sortable ones."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]
    sortable: bool = False


class ImageGrid(NamedTuple):
    """Figures of the same layers side by side, and a switch for all of them.

    group is a word that no other grid of the page has. A wide grid has larger columns and a legend
    of the colors of errors.
    """

    figures: Sequence[Figure]
    group: str
    wide: bool = False


class ChartsAndTables(NamedTuple):
    """Charts, and below them tables that are folded away: (summary, tables) each."""

    charts: Sequence[Chart]
    folded: Sequence[tuple[str, Sequence[Table]]]


def render_page(title: str, lead: str, sections: Sequence[Section]) -> bytes:
    """Return the page. Title and lead, the sentence below it, are plain text."""
    folder = files("carvana_ray.report")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    html = _TEMPLATES.get_template("page.html").render(
        title=title,
        lead=lead,
        sections=sections,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return html.encode()


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
