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


VISIBLE = "getComputedStyle({}.querySelector('.layer.{}')).display"


def test_every_control_is_reached_and_worked_by_keyboard(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 1280)
    tab.press(*TAB)
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "seen in focus"
    first = "document.querySelector('#review').closest('section').querySelector('.main')"
    reached = []
    for _ in range(60):
        tab.press(*TAB)
        reached.append(tab.evaluate("document.activeElement.name"))
        if tab.evaluate(f"{first}.contains(document.activeElement)"):
            break
    assert reached.count("layer") == 1, "the bar is one stop"
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')").endswith(": Outline")
    assert tab.evaluate("getComputedStyle(document.activeElement).opacity") == "1"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert tab.evaluate(VISIBLE.format(first, "outline")) == "block"
    tab.press(*SPACE)
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')").endswith(": Cut-out")
    assert tab.evaluate(VISIBLE.format(first, "outline")) == "none"
    assert tab.evaluate(VISIBLE.format(first, "cut")) == "block"


def test_the_bar_is_worked_by_keyboard_and_sets_all_images(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 1280)
    tab.evaluate("document.querySelector('.layers :checked').focus()")
    tab.press(*RIGHT)
    assert tab.evaluate("document.activeElement.value") == "cut"
    shown = (
        "[...document.querySelectorAll('.main .stack')]"
        ".map(s => [...s.querySelectorAll('.layer')].filter(i => i.offsetWidth)"
        ".map(i => i.dataset.key).join())"
    )
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert set(tab.evaluate(shown)) == {"cut"}
    tab.evaluate("document.querySelector('.layers [value=truth]').click()")
    assert set(tab.evaluate(shown)) == {"truth", "outline"}, "else the first"
    tab.evaluate("document.querySelector('.layers [value=photo]').click()")
    assert set(tab.evaluate(shown)) == {""}
    filters = "[...document.querySelectorAll('.main .photo')].map(i => getComputedStyle(i).filter)"
    assert set(tab.evaluate(filters)) == {"none"}, "a photo is in color"


def test_a_click_steps_through_the_layers_of_one_image(tab: browser.Tab, page: Path) -> None:
    tab.open(page, 1280)
    images = "document.querySelector('#worst').closest('section').querySelectorAll('.main')"
    seen = []
    for _ in range(7):
        seen.append(tab.evaluate(f"{images}[0].querySelector('button').textContent"))
        visible = f"[...{images}[0].querySelectorAll('.layer')].filter(i => i.offsetWidth)"
        labels = "{cut: 'Cut-out', errors: 'Errors', mask: 'Mask', truth: 'True mask'}"
        names = tab.evaluate(f"{visible}.map(i => ({labels})[i.dataset.key]).join()")
        assert names == (seen[-1] if seen[-1] != "Photo" else "")
        tab.evaluate(f"{images}[0].click()")
    assert seen == ["Errors", "Cut-out", "Mask", "True mask", "Photo", "Errors", "Cut-out"]
    assert tab.evaluate(f"{images}[1].querySelector('button').textContent") == "Errors"
    tab.evaluate("document.querySelector('.layers [value=cut]').click()")
    labels = f"[...{images}].map(i => i.querySelector('button').textContent)"
    assert set(tab.evaluate(labels)) == {"Cut-out"}, "the bar takes an image's own choice back"


def test_the_bar_stays_in_sight_and_leads_back_to_the_top(tab: browser.Tab, page: Path) -> None:
    for width in (1280, 390):
        tab.open(page, width)
        tab.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
        tab.evaluate("document.querySelector('nav a[href=\"#provenance\"]').click()")
        assert tab.evaluate("scrollY") > 300
        bar = "document.querySelector('.bar').getBoundingClientRect()"
        assert tab.evaluate(f"{bar}.top") == 0
        headings = "document.querySelector('#time').getBoundingClientRect().bottom"
        assert tab.evaluate(headings) < tab.evaluate("innerHeight")
        tab.evaluate("document.querySelector('nav a').click()")
        assert tab.evaluate("scrollY") == 0


def test_no_name_breaks_and_all_images_of_a_row_are_equally_high(
    tab: browser.Tab, page: Path
) -> None:
    tab.open(page, 390)
    heights = "[...document.querySelectorAll('.name')].map(n => n.getClientRects().length"
    heights += " && n.getBoundingClientRect().height)"
    assert max(tab.evaluate(heights)) < 30, "one line"
    tab.open(page, 1280)
    row = "[...document.querySelectorAll('#dice ~ .grid .chart svg')].map(c => c.clientHeight)"
    assert len(set(tab.evaluate(row))) == 1


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
    buttons = tab.call("DOM.querySelectorAll", nodeId=root, selector=".main button")
    assert buttons["nodeIds"] == [], "no button that would do nothing"
    selector = ".wide .main .layer.first, .strip .main .layer.first"
    shown = tab.call("DOM.querySelectorAll", nodeId=root, selector=selector)
    assert shown["nodeIds"]
    for layer in shown["nodeIds"]:
        assert tab.call("DOM.getBoxModel", nodeId=layer)["model"]["width"] > 100


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
    assert tab.evaluate("document.title") != "owned"
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
    assert tab.evaluate("document.title") != "owned"
    assert "Content Security Policy" in "".join(tab.messages)
