"""The report in a real Chromium: it renders without messages, network and mouse.

Debian: `apt-get install --no-install-recommends chromium` (113 MB to fetch).
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import browser
from support.report_parts import both

from carvana_ray.report.builder import to_html

pytestmark = pytest.mark.skipif(browser.program() is None, reason="there is no chromium here")
TAB, SPACE, RIGHT = ("Tab", 9), (" ", 32, " "), ("ArrowRight", 39)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(to_html(both(figures=3)))
    return path


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Tab]:
    with browser.tab() as found:
        yield found


def pixels(tab: browser.Tab) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")).astype(int)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_renders_silently_without_network(
    tab: browser.Tab, page: Path, width: int, dark: bool
) -> None:
    tab.open(page, width, dark)
    assert tab.messages == []
    assert tab.requests == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, (
        "nothing to scroll sideways"
    )
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert tab.evaluate(broken) == 0
    assert tab.evaluate("document.images.length") > 10
    shown = pixels(tab)
    assert (shown[5, 5].max() < 60) if dark else (shown[5, 5].min() > 240)
    assert shown.std() > 10, "there is something to be seen"


def test_text_can_be_read_in_both_themes(tab: browser.Tab, page: Path) -> None:
    """Contrast of text to what is behind it, as WCAG 2.2 counts it, 4.5 or more."""
    script = """(() => {
      const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
        .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
      const behind = (e) => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor;
        if (!c.startsWith("rgba")) return c; } return "rgb(255, 255, 255)"; };
      return Math.min(...[...document.querySelectorAll(
        "h1,h2,h3,p,dt,dd,th,td,li,a,label,summary,caption,figcaption,svg text")].map(e => {
          const s = getComputedStyle(e), f = e.tagName === "text" ? s.fill : s.color;
          const a = light(f), b = light(behind(e));
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })); })()"""
    for dark in (False, True):
        tab.open(page, 1280, dark)
        assert 4.5 <= tab.evaluate(script) < 21, f"dark: {dark}"


def test_every_control_is_reached_and_worked_by_keyboard(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 1280)
    tab.press(*TAB)
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "seen in focus"
    first = "document.querySelector('#review').closest('section').querySelector('.shot')"
    for _ in range(60):
        tab.press(*TAB)
        if tab.evaluate(f"{first}.contains(document.activeElement)"):
            break
    assert tab.evaluate("document.activeElement.value") == "outline"
    assert (
        tab.evaluate("getComputedStyle(document.activeElement.parentElement).outlineStyle")
        == "solid"
    )
    visible = "getComputedStyle({first}.querySelector('.layer.{kind}')).display"
    assert tab.evaluate(visible.format(first=first, kind="outline")) == "block"
    tab.press(*RIGHT)
    assert tab.evaluate("document.activeElement.value") == "cut"
    assert tab.evaluate(visible.format(first=first, kind="outline")) == "none"
    assert tab.evaluate(visible.format(first=first, kind="cut")) == "block"


def test_one_switch_sets_all_images_of_its_section(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 1280)
    section = "document.querySelector('#worst').closest('section')"
    tab.evaluate(f"{section}.querySelector('.all [value=truth]').click()")
    chosen = f"[...{section}.querySelectorAll('.shot input:checked')].map(i => i.value)"
    assert tab.evaluate(chosen) == ["truth"] * 3
    shown = f"[...{section}.querySelectorAll('.main .layer')].filter(i => i.offsetWidth).length"
    assert tab.evaluate(shown) == 3
    other = "document.querySelector('#median').closest('section')"
    assert "truth" not in tab.evaluate(
        f"[...{other}.querySelectorAll('input:checked')].map(i => i.value)"
    )


def test_tables_can_be_sorted_and_say_so(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 1280)
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    table = "[...document.querySelectorAll('table.sortable')].at(-1)"
    button = f"{table}.tHead.querySelectorAll('button')[3]"
    values = f"[...{table}.tBodies[0].rows].map(r => parseFloat(r.cells[3].textContent))"
    tab.evaluate(f"{button}.focus()")
    tab.press(*SPACE)
    assert tab.evaluate(f"{button}.parentElement.getAttribute('aria-sort')") == "ascending"
    assert tab.evaluate(values) == sorted(tab.evaluate(values))
    tab.press(*SPACE)
    assert tab.evaluate(f"{button}.parentElement.getAttribute('aria-sort')") == "descending"
    assert tab.evaluate(values) == sorted(tab.evaluate(values), reverse=True)


def test_it_reads_without_its_script(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 390, script=False)
    assert tab.messages == []
    root = tab.call("DOM.getDocument", depth=0)["root"]["nodeId"]
    for choice in tab.call("DOM.querySelectorAll", nodeId=root, selector="fieldset.all")["nodeIds"]:
        with pytest.raises(AssertionError, match="Could not compute box model"):
            tab.call("DOM.getBoxModel", nodeId=choice)  # a switch that would do nothing is hidden
    shown = tab.call("DOM.querySelectorAll", nodeId=root, selector=".shot .main .layer.first")
    assert shown["nodeIds"]
    for layer in shown["nodeIds"]:
        assert tab.call("DOM.getBoxModel", nodeId=layer)["model"]["width"] > 200


def test_what_is_read_aloud_has_a_name(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 1280)
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"image", "button", "radio", "link", "region", "table", "navigation", "radiogroup"}
    found: dict[str, int] = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            found[role] = found.get(role, 0) + 1
            assert node.get("name", {}).get("value"), node
    assert {"image", "radio", "link", "region", "navigation"} <= set(found)


def test_a_script_in_a_name_does_not_run(tab: browser.Tab, tmp_path: Path) -> None:
    path = tmp_path / "evil.html"
    evil = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    path.write_bytes(to_html(both(name=evil)))
    tab.open(path, 1280)
    assert tab.evaluate("document.title") == "Cars cut out"
    assert tab.messages == []
    assert tab.requests == [path.as_uri()]
    assert evil in tab.evaluate("document.body.textContent")


def test_its_policy_refuses_what_slipped_through(tab: browser.Tab, tmp_path: Path) -> None:
    path = tmp_path / "slipped.html"
    evil = (
        b"<script>document.title='owned'</script><img src='http://127.0.0.1:9/x'"
        b" onerror=\"document.title='owned'\">"
    )
    path.write_bytes(to_html(both()).replace(b"</main>", evil + b"</main>"))
    tab.open(path, 1280)
    assert tab.evaluate("document.title") == "Cars cut out"
    assert "Content Security Policy" in "".join(tab.messages)
