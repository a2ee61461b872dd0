"""Pages of cars: what their images show, how large they are, and that no name becomes markup."""

import base64
import io
import re
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.report_parts import EVIL, Tags

from carvana_ray.report import viewer
from carvana_ray.report.viewer import CarLink, View


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(seed: int, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def images_of(page: bytes) -> list[Image.Image]:
    sources = re.findall(rb'src="data:image/webp;base64,([^"]*)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]


def flat(level: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def test_a_page_holds_its_views_in_order_and_names_them() -> None:
    levels = [0, 80, 160, 240]
    page = viewer.render_viewer("red", [flat(level) for level in levels], 4, "../viewer.html")
    shown = images_of(page)
    assert [int(np.asarray(image).mean()) for image in shown] == pytest.approx(levels, abs=2)
    assert {image.size for image in shown} == {(90, 60)}
    tags = Tags(page.decode())
    found = [values for name, values in tags.elements if name == "img"]
    assert [one["alt"] for one in found] == [f"red, view {number} of 4" for number in (1, 2, 3, 4)]
    assert [one.get("class") for one in found] == ["shown", None, None, None]
    assert {(one["width"], one["height"]) for one in found} == {("90", "60")}
    assert ("href", "../viewer.html") in tags.attributes
    assert "views are shown" not in tags.text


@pytest.mark.parametrize(("count", "side"), [(2, 900), (16, 400), (72, 150)])
def test_a_page_of_noise_is_below_its_limit_and_uses_it(count: int, side: int) -> None:
    """Noise is the largest image that there is."""
    images = [noise(seed, side, side * 2 // 3) for seed in range(count)]
    needed = count * len(encoded(images[0], "WEBP", quality=viewer.QUALITY)) * 4 / 3
    assert needed > viewer.MAX_BYTES, "its images do not fit as they are"
    page = viewer.render_viewer("x" * 200, images, count, "../viewer.html")
    assert 0.6 * viewer.MAX_BYTES < len(page) < viewer.MAX_BYTES
    assert len(images_of(page)) == count
    assert len({image.size for image in images_of(page)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("count", [16, viewer.MAX_VIEWS])
def test_pages_of_the_largest_images_are_below_the_limit(count: int) -> None:
    file = encoded(noise(0, 1918, 1280))
    views = viewer.on_one_canvas([viewer.load_view(file, count) for _ in range(count)])
    assert len(viewer.render_viewer("x", views, count, "../viewer.html")) < viewer.MAX_BYTES


def test_transparent_parts_are_white_and_the_colors_srgb() -> None:
    file = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    file.paste((200, 30, 40, 255), (20, 10, 40, 30))
    shown = viewer.load_view(encoded(file), 2).image
    assert shown.getpixel((2, 2)) == (255, 255, 255)
    assert shown.getpixel((30, 20)) == (200, 30, 40)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # it does not fit
    assert viewer.load_view(encoded(file, icc_profile=profile), 2).image.getpixel((30, 20))[0] > 190


@pytest.mark.parametrize("sizes", [[(300, 200)] * 3, [(300, 200), (150, 120), (90, 190)]])
@pytest.mark.parametrize("count", [2, 400])
def test_a_car_keeps_its_size_and_its_floor_as_it_turns(
    sizes: list[tuple[int, int]], count: int
) -> None:
    """Cars of one size in files of several sizes, each on the lower edge of its file."""
    views = []
    for width, height in sizes:
        file = Image.new("RGB", (width, height), (250, 250, 250))
        file.paste((0, 0, 0), (width // 2 - 30, height - 40, width // 2 + 30, height))
        views.append(viewer.load_view(encoded(file), count))
    images = [np.asarray(image)[..., 0] < 128 for image in viewer.on_one_canvas(views)]
    assert len({image.shape for image in images}) == 1
    height, width = images[0].shape
    scale = width / 300
    assert scale == (1 if count == 2 else pytest.approx(256 / 300, abs=0.01))
    assert height == pytest.approx(200 * scale, abs=1)
    for image in images:
        rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
        assert (rows[0], rows[-1]) == (pytest.approx(height - 40 * scale, abs=1), height - 1)
        assert np.ptp(columns) + 1 == pytest.approx(60 * scale, abs=2)
        assert columns.mean() == pytest.approx((width - 1) / 2, abs=1)
    small = viewer.on_one_canvas(views)[-1]
    assert small.getpixel((0, 0)) == (250, 250, 250), "the color of the file goes on"


def test_a_large_view_is_shrunk_and_a_small_one_is_not_enlarged() -> None:
    assert viewer.load_view(encoded(flat(9, (2560, 1280))), 16) == View(
        flat(9, (1280, 640)), (2560, 1280)
    )
    assert viewer.load_view(encoded(flat(9, (64, 128))), 16).image.size == (64, 128)
    assert max(Image.open(io.BytesIO(viewer.thumbnail(flat(9, (640, 960))))).size) == 240


def test_a_name_never_becomes_a_part_of_a_page() -> None:
    def pages(name: str) -> list[Tags]:
        page = viewer.render_viewer(name, [flat(0), flat(9)], 2, "../viewer.html")
        link = CarLink(name, 2, f"viewer/{name}.html", f"viewer/{name}.webp")
        return [Tags(one.decode()) for one in (page, viewer.render_viewer_index(name, [link]))]

    for harmless, found in zip(pages("red"), pages(EVIL), strict=True):
        assert found.tags == harmless.tags
        assert EVIL in found.text
        names = [name for name, _ in found.attributes]
        assert names == [name for name, _ in harmless.attributes]
    hrefs = [value for name, value in pages(EVIL)[1].attributes if name == "href"]
    assert f"viewer/{quote(EVIL)}.html" in hrefs


def test_a_policy_allows_the_pages_own_style_and_script_alone() -> None:
    page = viewer.render_viewer("red", [flat(0), flat(9)], 2, "../viewer.html").decode()
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "script-src" not in viewer.render_viewer_index("x", []).decode()


def test_the_index_of_kaggles_cars_stays_small() -> None:
    cars = [
        CarLink(
            f"{number:012x}",
            16,
            f"viewer/{number:012x}.html",
            f"viewer/{number:012x}-{0:012x}.webp",
        )
        for number in range(6254)
    ]
    page = viewer.render_viewer_index("test", cars)
    assert page.count(b'loading="lazy"') == 6254
    assert len(page) < 2_000_000
