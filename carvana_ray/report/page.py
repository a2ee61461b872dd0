"""The HTML page and the data of its templates. It needs no network and reads without its script.

The page's policy (CSP) allows its own style and script, by their hashes, and images as data. The
browser refuses all else, so even a name that slipped through unescaped could do nothing.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from carvana_ray.report.headline import Headline
from carvana_ray.report.overlays import Figure

if TYPE_CHECKING:  # a page of cut-outs needs no matplotlib
    from carvana_ray.report.charts import Chart

BACKGROUNDS = [("white", "White"), ("black", "Black")]  # of layers with alpha of their own
LAYERS = "cut", "outline", "mask", "errors", "truth"  # in the order of their buttons
_TEMPLATES = Environment(
    loader=PackageLoader("carvana_ray.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_HASH = re.compile("[0-9a-f]{32,}(-dirty)?")
_TEMPLATES.tests["hash"] = lambda value: bool(_HASH.fullmatch(str(value)))


class Section(NamedTuple):
    """A section of the page: its id, its heading, the file in templates/ and the data for it."""

    anchor: str
    heading: str
    template: str
    data: object


class Card(NamedTuple):
    """A headline figure: name, value, note, and the file that it is about."""

    name: str
    value: str
    note: str
    file: str = ""


class Summary(NamedTuple):
    """Rows of figures, the most important one first, and links: (text, relative URI)."""

    rows: Sequence[Sequence[Card]]
    files: Sequence[tuple[str, str]]


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
    """Figures side by side.

    Attributes:
        figures: some figures.
        layout: ``strip`` (few, without words), ``wide`` (larger columns, and a legend of the
            colors of errors), or any other word.
        shown: number of figures that are not folded away; 0: all.
    """

    figures: Sequence[Figure]
    layout: str = ""
    shown: int = 0


class ChartsAndTables(NamedTuple):
    """Charts, and below them tables that are folded away: (summary, tables) each."""

    charts: "Sequence[Chart]"
    folded: Sequence[tuple[str, Sequence[Table]]]


def render_page(top: Headline, sections: Sequence[Section]) -> bytes:
    """Return the page of a headline and sections."""
    data = {"top": top, "sections": sections, "layers": _choices(sections)}
    return render_template("page.html", "page.css", "page.js", data)


def _choices(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """Return (key, label) of the layers that images of the page have; "" is the first of each.

    A background is a choice like a layer: the style puts it below the layers with alpha.
    """
    data = [section.data for section in sections]
    data += [value for one in data if isinstance(one, Mapping) for value in one.values()]
    grids = [one for one in data if isinstance(one, ImageGrid)]
    layers = [layer for grid in grids for figure in grid.figures for layer in figure["layers"]]
    known = {layer["key"]: layer["label"] for layer in layers}
    found = [(key, known[key]) for key in LAYERS if key in known]
    if any(layer.get("real") for layer in layers):
        found[1:1] = BACKGROUNDS
    return [("", "Default"), *found, ("photo", "Photo")] if found else []


def render_template(
    name: str, style: str, script: str, data: Mapping[str, object], images: str = "data:"
) -> bytes:
    """Return a page that its own policy protects.

    Args:
        name: of a file in templates/ that extends base.html.
        style: name of its style, which follows base.css.
        script: name of its script, or "".
        data: of the template.
        images: where its images may come from, as in the policy.
    """
    styles, code = _read("base.css") + _read(style), _read(script) if script else ""
    html = _TEMPLATES.get_template(name).render(
        **data,
        images=images,
        style=Markup(styles),
        script=Markup(code),
        style_hash=_hash(styles),
        script_hash=_hash(code),
    )
    return html.encode()


def _read(name: str) -> str:
    return files("carvana_ray.report").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
