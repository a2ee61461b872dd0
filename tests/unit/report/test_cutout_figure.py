"""A cut-out of the page: cropped to the car, never beyond the image."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from carvana_ray.report.cutout_figure import WIDTH, crop_box, cutout_figure


@pytest.mark.parametrize("size", [(1918, 1280), (600, 900), (100, 40), (7, 5)])
@pytest.mark.parametrize("car", [(0.4, 0.4, 0.6, 0.6), (0, 0.5, 0.2, 1), (0.1, 0.4, 0.9, 0.6)])
def test_a_crop_shows_the_whole_car_and_nothing_beyond_the_image(
    size: tuple[int, int], car: tuple[float, float, float, float]
) -> None:
    width, height = size
    edges = round(car[0] * width), round(car[1] * height), round(car[2] * width)
    left, top, right, bottom = (
        edges[0],
        edges[1],
        max(edges[2], edges[0] + 1),
        round(car[3] * height),
    )
    box = crop_box((left, top, right, bottom), width, height)
    assert 0 <= box[0] <= left < right <= box[2] <= width
    assert 0 <= box[1] <= top < bottom <= box[3] <= height
    if size == (1918, 1280):
        assert (box[2] - box[0]) / (box[3] - box[1]) == pytest.approx(1.5, rel=0.01)


def test_a_crop_of_an_empty_cut_out_is_the_whole_image() -> None:
    assert crop_box(None, 1200, 800) == (0, 0, 1200, 800)


def test_the_photo_lies_below_the_cut_out_and_small_images_are_not_enlarged() -> None:
    photo = Image.new("RGB", (300, 200), (90, 120, 160))
    cutout = photo.convert("RGBA")
    alpha = np.zeros((200, 300), dtype=np.uint8)
    alpha[80:120, 100:200] = 255
    cutout.putalpha(Image.fromarray(alpha))
    found = cutout_figure("a.jpg", photo, cutout)
    assert (found["width"], found["height"]) == (110, 73)
    cut, outline = found["layers"]
    assert (cut["key"], cut["real"], outline["key"]) == ("cut", True, "outline")
    data = base64.b64decode(cut["src"].split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert (pixels[..., 3] >= 128).mean() == pytest.approx(40 * 100 / (110 * 73), abs=0.02)
    large = photo.resize((3000, 2000))
    assert cutout_figure("a.jpg", large, large.convert("RGBA"))["width"] == WIDTH


def test_stray_pieces_do_not_widen_the_crop() -> None:
    alpha = np.zeros((200, 300), dtype=np.uint8)
    alpha[80:120, 100:200] = 255
    alpha[3, 5] = alpha[198, 290] = 255
    cutout = Image.new("RGBA", (300, 200))
    cutout.putalpha(Image.fromarray(alpha))
    assert cutout_figure("a.jpg", Image.new("RGB", (300, 200)), cutout)["width"] == 110
