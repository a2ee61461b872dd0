"""The turning car in a real Chromium: mouse, touch, keys and slider; no messages, no network."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from support import browser

from carvana_ray.report import viewer

pytestmark = pytest.mark.skipif(browser.program() is None, reason="there is no chromium here")
VIEWS = 16
TAB, LEFT, RIGHT, UP = ("Tab", 9), ("ArrowLeft", 37), ("ArrowRight", 39), ("ArrowUp", 38)
HOME, END = ("Home", 36), ("End", 35)
# The number of the view that is seen in the middle of the car: hidden images are not hit.
SEEN = """(() => { const box = document.querySelector(".car").getBoundingClientRect();
  const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return parseInt(hit.alt.match(/view (\\d+) of 16/)[1]); })()"""
BOX = "(({x, y, width, height}) => [x, y, width, height])"
BOX += "(document.querySelector('.car').getBoundingClientRect())"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page of a car, and the index."""
    folder = tmp_path_factory.mktemp("viewer")
    images = []
    for number in range(VIEWS):
        images.append(Image.new("RGB", (640, 427), "white"))
        left = 100 + 10 * number
        ImageDraw.Draw(images[-1]).rectangle((left, 150, left + 250, 325), (15 * number, 90, 120))
    page = viewer.render_viewer("red", images, VIEWS, "viewer.html")
    (folder / "red.html").write_bytes(page)
    (folder / "red.webp").write_bytes(viewer.thumbnail(images[0]))
    link = viewer.CarLink("red", VIEWS, "red.html", "red.webp")
    (folder / "viewer.html").write_bytes(viewer.render_viewer_index("run", [link]))
    return folder


@pytest.fixture(scope="module")
def tab() -> Iterator[browser.Tab]:
    with browser.tab() as found:
        yield found


def open_car(tab: browser.Tab, home: Path, width: int, **settings: bool | int) -> None:
    tab.open(home / "red.html", width, **settings)  # type: ignore[arg-type]
    assert tab.evaluate(SEEN) == 1


def seen_in(tab: browser.Tab, steps: Iterator[None]) -> list[int]:
    """Return the views that are seen in turn."""
    seen = [tab.evaluate(SEEN)]
    for _ in steps:
        if (now := tab.evaluate(SEEN)) != seen[-1]:
            seen.append(now)
    return seen


def across(tab: browser.Tab, start: float, end: float) -> list[tuple[float, float]]:
    """Return points on the car between two fractions of its width."""
    x, y, width, height = tab.evaluate(BOX)
    return [(x + width * (start + (end - start) * step / 64), y + height / 2) for step in range(65)]


@pytest.mark.parametrize("width", [1280, 390])
def test_a_drag_over_the_image_shows_all_views_in_order(
    tab: browser.Tab, home: Path, width: int
) -> None:
    open_car(tab, home, width, calm=True)
    move = tab.drag if width == 1280 else tab.swipe
    seen = seen_in(tab, move(across(tab, 0.97, 0.03)))
    assert seen == list(range(1, VIEWS + 1))
    assert tab.evaluate("document.querySelector('.number').textContent") == "16 / 16"
    seen = seen_in(tab, move(across(tab, 0.03, 0.97)))
    assert seen == list(range(VIEWS, 0, -1)), "and back"
    seen = seen_in(tab, move(across(tab, 0.2, 0.5)))
    assert seen == [1, 16, 15, 14, 13, 12], "around the first view"
    assert tab.messages == []
    assert tab.requests == [(home / "red.html").as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 390])
def test_a_flick_coasts_and_ends_unless_motion_is_reduced(
    tab: browser.Tab, home: Path, width: int
) -> None:
    for calm in (False, True):
        open_car(tab, home, width, calm=calm)
        move = tab.drag if width == 1280 else tab.swipe
        for _ in move(across(tab, 0.8, 0.5)[::16], pause_s=0.01):
            pass
        released = [tab.evaluate(SEEN)]
        end = time.monotonic() + 10
        while time.monotonic() < end and (len(released) < 9 or len(set(released[-9:])) > 1):
            time.sleep(0.03)
            released.append(tab.evaluate(SEEN))
        assert len(set(released[-9:])) == 1, "it has stopped"
        assert (len(set(released)) > 1) != calm
        steps = [(after - before) % VIEWS for before, after in pairwise(released)]
        assert max(steps) < VIEWS // 2, "it goes on in its direction"
    assert tab.messages == []


def test_a_vertical_swipe_scrolls_the_page_and_turns_nothing(tab: browser.Tab, home: Path) -> None:
    open_car(tab, home, 390, height=300)
    x, y, width, height = tab.evaluate(BOX)
    for _ in tab.swipe(
        [(x + width / 2, y + height * step / 20) for step in range(18, 0, -1)], 0.02
    ):
        pass
    assert tab.evaluate("scrollY") > 40
    assert tab.evaluate("document.querySelector('.number').textContent") == "1 / 16"
    assert not tab.evaluate("document.querySelector('.car').classList.contains('held')")


def test_keys_turn_the_car_around(tab: browser.Tab, home: Path) -> None:
    open_car(tab, home, 1280)
    seen = []
    for key in [RIGHT] * 16 + [LEFT, LEFT, END, HOME, END, RIGHT]:
        tab.press(*key)
        seen.append(tab.evaluate(SEEN))
    assert seen == [*range(2, 17), 1, 16, 15, 16, 1, 16, 1]


def test_the_slider_is_named_and_worked_by_keyboard_and_says_the_view(
    tab: browser.Tab, home: Path
) -> None:
    open_car(tab, home, 1280)
    for _ in range(2):
        tab.press(*TAB)
    assert tab.evaluate("document.activeElement.type") == "range"
    for key, view in ((RIGHT, 2), (UP, 3), (END, 16), (HOME, 1), (LEFT, 16)):
        tab.press(*key)
        assert tab.evaluate(SEEN) == view
        assert tab.evaluate("document.activeElement.value") == str(view)
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    (slider,) = [node for node in nodes if node.get("role", {}).get("value") == "slider"]
    assert slider["name"]["value"] == "View"
    spoken = "document.activeElement.getAttribute('aria-valuetext')"
    assert tab.evaluate(spoken) == "View 16 of 16"
    images = [node["name"]["value"] for node in nodes if node["role"]["value"] == "image"]
    assert images == ["red, view 16 of 16"], "the others are hidden"


def test_without_its_script_the_page_shows_the_first_view(tab: browser.Tab, home: Path) -> None:
    tab.open(home / "red.html", 1280, script=False)
    text = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {node["role"]["value"] for node in text if "role" in node}
    assert "slider" not in roles
    assert "image" in roles
    assert any("first of 16 views" in node.get("name", {}).get("value", "") for node in text)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_the_index_shows_thumbnails_and_leads_to_the_pages(
    tab: browser.Tab, home: Path, width: int, dark: bool
) -> None:
    tab.open(home / "viewer.html", width, dark)
    loaded = "document.images[0].decode().then(() => document.images[0].naturalWidth)"
    answer = tab.call("Runtime.evaluate", expression=loaded, awaitPromise=True, returnByValue=True)
    assert answer["result"]["value"] == viewer.THUMBNAIL
    assert tab.messages == []
    assert set(tab.requests) == {(home / name).as_uri() for name in ("viewer.html", "red.webp")}
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 22, 27)") == dark
    assert tab.evaluate("document.links[0].href") == (home / "red.html").as_uri()
