"""One HTML page that needs nothing else: no network, no fonts, and it reads without its script.

Its own style and script are allowed by their hashes, its pictures as data; the browser refuses all
else, so that even a name that slipped through unescaped could do nothing.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from carvana_ray.report import html_elements as markup


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: its name within the page, of letters.
        short: for the list of contents.
        heading: in full.
        html: what it holds.
    """

    anchor: str
    short: str
    heading: str
    html: str


def render_page(title: str, lead: str, sections: Sequence[Section]) -> bytes:
    """Return a page.

    Args:
        title: plain text.
        lead: plain text, a sentence below the title.
        sections: in order; one that holds nothing is left out.
    """
    style, script = _own("page.css"), _own("page.js")
    there = [section for section in sections if section.html]
    contents = "".join(
        f'<li><a href="#{section.anchor}">{escape(section.short)}</a></li>' for section in there
    )
    body = "".join(markup.section(one.heading, one.html, one.anchor) for one in there)
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the results</a>
<header><h1>{escape(title)}</h1><p>{escape(lead)}</p>
<nav aria-label="Contents"><ul>{contents}</ul></nav></header>
<main id="main" tabindex="-1">{body}</main>
<footer><p>Written by carvana_ray. This page holds all that it shows.</p></footer>
<script>{script}</script>
</body>
</html>
""".encode()


def _own(name: str) -> str:
    return files("carvana_ray.report").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
