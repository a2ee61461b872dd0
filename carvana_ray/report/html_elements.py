"""Pieces of HTML. Text from outside (names, paths, errors) comes in as text and is escaped here.

What these functions return is HTML; what they take is text, but for arguments named `html`.
"""

from collections.abc import Mapping, Sequence
from html import escape


def element(tag: str, html: str, **attributes: str) -> str:
    """Return an element; ``class_`` and ``for_`` are the attributes without the underscore, and
    another underscore is a hyphen."""
    return f"<{tag}{_attributes(attributes)}>{html}</{tag}>"


def _attributes(values: Mapping[str, str]) -> str:
    return "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in values.items()
    )


def text(tag: str, content: object, **attributes: str) -> str:
    """Return an element that holds plain text."""
    return element(tag, escape(str(content)), **attributes)


def image(data_uri: str, alt: str, width: int, height: int, **attributes: str) -> str:
    """Return an image whose room is kept before it is decoded."""
    sizes = {"width": str(width), "height": str(height)}
    return f"<img{_attributes({'src': data_uri, 'alt': alt, **sizes, **attributes})}>"


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    sortable: bool = False,
) -> str:
    """Return a table; the first cell of a row is its header, numbers stand to the right.

    Args:
        caption: what it holds.
        header: of the columns.
        rows: a float is written with four decimals.
        sortable: by its columns, where the page's script runs.
    """

    def cell(value: object, column: int) -> str:
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        number = isinstance(value, int | float)
        return (
            text("td", shown, class_="number")
            if number and column
            else text("th", shown, scope="row")
            if not column
            else text("td", shown)
        )

    numbers = [bool(rows) and isinstance(value, int | float) for value in (rows or [header])[0]]
    heads = "".join(
        text("th", name, scope="col", **({"class_": "number"} if number and column else {}))
        for column, (name, number) in enumerate(zip(header, numbers, strict=True))
    )
    body = "".join(
        element("tr", "".join(cell(value, column) for column, value in enumerate(row)))
        for row in rows
    )
    made = element(
        "table",
        text("caption", caption) + element("thead", element("tr", heads)) + element("tbody", body),
        **({"class_": "sortable"} if sortable else {}),
    )
    # A region that scrolls must be reached by the keyboard, and have a name.
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def pairs(rows: Mapping[str, object]) -> str:
    """Return a list of names and their values."""
    return element(
        "dl",
        "".join(
            element("div", text("dt", name) + text("dd", value)) for name, value in rows.items()
        ),
        class_="pairs",
    )


def cards(rows: Sequence[tuple[str, str, str]]) -> str:
    """Return headline figures: (name, value, note) each."""
    return element(
        "dl",
        "".join(
            element("div", text("dt", name) + text("dd", value) + text("dd", note, class_="note"))
            for name, value, note in rows
        ),
        class_="cards",
    )


def details(summary: str, html: str) -> str:
    """Return what is folded away until somebody asks for it."""
    return element("details", text("summary", summary) + html)


def section(heading: str, html: str, anchor: str) -> str:
    """Return a section with a heading of the second rank."""
    return element("section", text("h2", heading, id=anchor) + html, aria_labelledby=anchor)
