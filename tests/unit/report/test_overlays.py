"""Photos with layers over them: right pixels, few bytes."""

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from carvana_ray.report import overlays

SIZE = 320, 480


def opened(uri: str) -> NDArray[np.uint8]:
    """Return a data URI's image as red, green, blue, opacity."""
    head, body = uri.split(",", 1)
    assert head in ("data:image/png;base64", "data:image/webp;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))).convert("RGBA"))


def half(height: int, width: int) -> NDArray[np.bool_]:
    return np.arange(width)[None].repeat(height, 0) < width // 2


def test_a_photo_stays_below_its_bytes_whatever_it_shows() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 720, 3), dtype=np.uint8)
    for image in (noise, np.full_like(noise, 90)):
        uri = overlays.encode_photo(image)
        height, width = opened(uri).shape[:2]
        assert width / height == 1.5
        assert len(uri) < overlays.PHOTO_BYTES * 480 * 720 * 4 / 3 + 100
    gray = opened(overlays.encode_photo(np.full_like(noise, 90)))[..., :3]
    assert np.abs(gray.astype(int) - 90).max() < 4


def test_a_layer_stays_below_its_bytes_by_becoming_coarser() -> None:
    noise = np.random.default_rng(0).integers(0, 4, (480, 720), dtype=np.uint8)
    uri = overlays.encode_palette(noise, [(0, 0, 0)] * 4)
    assert len(uri) < overlays.LAYER_BYTES * 480 * 720 * 4 / 3 + 100
    found = opened(uri)
    assert found.shape[0] / found.shape[1] == pytest.approx(480 / 720, rel=0.01)


def test_errors_are_red_and_blue_and_the_rest_is_clear() -> None:
    truth = half(*SIZE)
    mask = truth.copy()
    mask[:80, 300:340] = True
    mask[240:, :100] = False
    found = opened(overlays.error_layer(mask, truth, 160, 240))
    assert found.shape == (160, 240, 4)
    assert found[10, 160].tolist() == [230, 40, 40, 255]
    assert found[150, 10].tolist() == [40, 110, 255, 255]
    assert (found[..., 3] > 0).sum() == (40 * 20) + (40 * 50)


def test_one_wrong_pixel_is_seen() -> None:
    truth = np.zeros(SIZE, dtype=bool)
    mask = truth.copy()
    mask[100, 100] = True
    assert (opened(overlays.error_layer(mask, truth, 40, 60))[..., 3] > 0).sum() == 1


def test_close_up_what_is_missed_is_striped_and_what_is_too_much_is_not() -> None:
    truth = half(*SIZE)
    missed = opened(overlays.error_layer(np.zeros_like(truth), truth, *SIZE))
    colors = {tuple(c) for c in missed[truth].tolist()}
    assert colors == {(40, 110, 255, 255), (255, 255, 255, 255)}
    wrong = opened(overlays.error_layer(truth, np.zeros_like(truth), *SIZE))
    assert {tuple(c) for c in wrong[truth].tolist()} == {(230, 40, 40, 255)}


def test_a_mask_is_white_on_black_and_a_board_hides_what_is_no_car() -> None:
    mask = half(*SIZE)
    shown = opened(overlays.mask_layer(mask, 160, 240))
    assert (shown[:, :120, :3] == 255).all()
    assert (shown[:, 120:, :3] == 0).all()
    board = opened(overlays.cutout_layer(mask, 160, 240))
    assert (board[:, :120, 3] == 0).all()
    assert (board[:, 120:, 3] == 255).all()
    assert set(np.unique(board[:, 120:, 0]).tolist()) == {205, 235}


def test_an_outline_runs_along_the_edge_alone() -> None:
    found = opened(overlays.outline_layer(half(*SIZE), 160, 240))
    columns = np.flatnonzero((found[..., 3] > 0).any(0))
    assert columns.min() >= 117
    assert columns.max() <= 123
    assert (found[..., 3].any(1)).all()


@pytest.mark.parametrize(("y", "x"), [(0, 0), (700, 1200), (1279, 1917), (640, 959)])
def test_the_worst_place_is_where_the_errors_are(y: int, x: int) -> None:
    wrong = np.zeros((1280, 1918), dtype=bool)
    wrong[max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6] = True
    top, left = overlays.find_worst_window(wrong, *overlays.CLOSE_UP)
    assert 0 <= top <= max(y - 5, 0)
    assert 0 <= left <= max(x - 5, 0)
    inside = wrong[top : top + overlays.CLOSE_UP[0], left : left + overlays.CLOSE_UP[1]]
    assert inside.sum() >= wrong.sum() * 0.2
    assert overlays.find_worst_window(np.zeros((20, 30), dtype=bool), *overlays.CLOSE_UP) == (0, 0)


@pytest.mark.parametrize("size", [(1280, 1918), (90, 70), (31, 500)])
def test_a_figure_has_all_its_layers_whatever_the_image(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], (90, 120, 160)).save(buffer, "JPEG")
    mask = half(*size)
    found = overlays.scored_figure("a.jpg", buffer.getvalue(), mask, ~mask, {"lines": ["x"]})
    assert [one["key"] for one in found["layers"]] == ["errors", "cut", "mask", "truth"]
    assert found["width"] == 720
    assert found["close"]["height"] == min(overlays.CLOSE_UP[0], size[0])
    assert opened(found["photo"]).shape[:2] == (found["height"], 720)
    other = overlays.unscored_figure("a.jpg", buffer.getvalue(), mask, {})
    assert [one["key"] for one in other["layers"]] == ["cut", "outline"]
    assert other["width"] == 480
