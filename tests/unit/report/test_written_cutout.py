"""The files of cut-outs as figures: in frames, with shadows, before other backgrounds."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from support.report_parts import jpeg

from carvana_ray.cutouts.compositing import CutoutStyle
from carvana_ray.cutouts.framing import Frame
from carvana_ray.errors import BadImageError
from carvana_ray.report.written_cutout import open_cutout, written_figure, written_tiles

PLAIN = CutoutStyle(soft=False, background=None, format="png", mask_only=False)
FRAMED = dataclasses.replace(PLAIN, frame=Frame("catalogue", (160, 120), 0.05))
PHOTO = jpeg(1, 60, 90)


def decoded(source: str) -> np.ndarray:
    """Return the pixels of a data URI."""
    image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    return np.asarray(image).astype(int)


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    """Return a cut-out of a red car, half as large as the picture."""
    width, height = size
    file = Image.new("RGBA", size, (0, 0, 0, 0) if mode != "RGB" else (255, 255, 255, 255))
    file.paste((200, 0, 0, 255), (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    return file.getchannel("A") if mode == "L" else file.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "RGB", "L"])
def test_a_figure_has_the_size_of_its_photo(mode: str) -> None:
    figure = written_figure("a.jpg", PHOTO, picture(mode, (90, 60)), {}, PLAIN)
    assert figure["width"] / figure["height"] == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("mode", ["RGBA", "RGB"])
@pytest.mark.parametrize("size", [(160, 120), (60, 90), (90, 60)])
def test_a_framed_cut_out_is_shown_whole_and_its_photo_too(
    mode: str, size: tuple[int, int]
) -> None:
    file = picture(mode, size)
    figure = written_figure("a.jpg", PHOTO, file, {"lines": ["Corrected"]}, FRAMED)
    assert (figure["width"], figure["height"]) == size
    assert figure["lines"] == ["Corrected"]
    (layer,) = figure["layers"]
    assert (layer["key"], layer.get("real", False)) == ("cut", mode == "RGBA")
    pixels = decoded(layer["src"])
    assert pixels.shape[:2] == size[::-1]
    red = pixels[size[1] // 3 : size[1] // 2, size[0] // 3 : size[0] // 2]
    assert np.abs(red[..., :3] - (200, 0, 0)).mean() < 25
    photo = decoded(figure["photo"])
    assert photo.shape[:2] == size[::-1]
    shown = (photo.min(-1) < 245).sum() / (size[0] * size[1])
    ratio = min(size[0] / size[1] / 1.5, 1.5 * size[1] / size[0])
    assert shown == pytest.approx(ratio, abs=0.05), "the rest is white"


def test_a_large_frame_is_shrunk() -> None:
    figure = written_figure("a.jpg", PHOTO, picture("RGB", (1600, 1200)), {}, FRAMED)
    assert (figure["width"], figure["height"]) == (600, 450)


def test_without_a_frame_another_size_is_an_error() -> None:
    with pytest.raises(BadImageError, match=r"\(90, 60\) pixels, its cut-out has \(160, 120\)"):
        written_figure("a.jpg", PHOTO, picture("RGBA", (160, 120)), {}, PLAIN)


def test_a_shadow_is_in_the_figure_and_is_no_outline() -> None:
    file = picture("RGBA", (90, 60))
    file.paste((0, 0, 0, 60), (20, 45, 70, 55))
    plain = written_figure("a.jpg", PHOTO, file, {}, PLAIN)
    found = written_figure("a.jpg", PHOTO, file, {}, dataclasses.replace(PLAIN, shadow="contact"))
    assert [layer["key"] for layer in plain["layers"]] == ["cut", "outline"]
    assert [layer["key"] for layer in found["layers"]] == ["cut"]
    seen = [(decoded(figure["layers"][0]["src"])[..., 3] == 60).sum() for figure in (plain, found)]
    assert seen[1] > 0.9 * 500 > seen[0], "the crop has room for it"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_tiles_show_photo_and_cut_out_each_in_its_own_shape(kind: str) -> None:
    buffer = io.BytesIO()
    picture("RGB", (160, 120)).save(buffer, kind)
    photo, cut = written_tiles("a.jpg", PHOTO, open_cutout("a.jpg", buffer.getvalue()), 80)
    assert photo[0] == "a.jpg"
    assert photo[1].shape == (53, 80, 3)
    assert cut[1].shape == (60, 80, 3)
    assert np.abs(cut[1][30, 40].astype(int) - (200, 0, 0)).max() < 30
